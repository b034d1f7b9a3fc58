"""Landlock: a process gives up, for good and for all that it starts, what it will not need of files and the network.

Without privileges, in the kernel since 5.13; newer ones have more of it. Numbers and layouts are those of
`include/uapi/linux/landlock.h`, the same on all architectures. Linux only, like the whole worker.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Iterable

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_CREATE_VERSION = 1
_RULE_PATH_BENEATH = 1

_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
# What each ABI can refuse of files, all of it, cumulated: execute, write, read, list, remove and make of all kinds (1),
# link and rename between folders (2), truncate (3), ioctl on devices (5).
_FILE_RIGHTS = ((1, 0x1FFF), (2, 0x3FFF), (3, 0x7FFF), (5, 0xFFFF))
_TRUNCATE_ABI = 3
_TCP_ABI = 4
_TCP_RIGHTS = 0b11  # bind, connect
_SCOPE_ABI = 6
_SCOPES = 0b11  # abstract Unix sockets, signals

_libc = ctypes.CDLL(None, use_errno=True)


def abi() -> int:
    """Return the version of Landlock that this kernel offers now; 0 if it has none, or has it switched off."""
    found: int = _libc.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _CREATE_VERSION)
    return max(0, found)


def refuses_truncation(version: int) -> bool:
    """Whether this version can refuse to empty a file that may be read, and only be read."""
    return version >= _TRUNCATE_ABI


def refuses_tcp(version: int) -> bool:
    """Whether this version can refuse to bind and connect TCP sockets."""
    return version >= _TCP_ABI


def scopes(version: int) -> bool:
    """Whether this version can refuse signals and abstract Unix sockets to the outside."""
    return version >= _SCOPE_ABI


def restrict(readable: Iterable[str], version: int, writable: str | None = None) -> None:
    """Let this thread, and all that it starts, read `readable` and what is below it; no other file, and write none.

    Files that are open already stay open. TCP, signals and abstract sockets are refused as far as `version` goes.
    `no_new_privs` has to be set before. What is not there, or may not be looked at anyway, is passed over.

    Args:
        readable: files and folders.
        version: as `abi` gives it, at least 1.
        writable: the one file that may be opened to be written, if any.

    Raises:
        OSError: the kernel refuses a step; nothing is to be trusted then.
    """
    rights = max(mask for since, mask in _FILE_RIGHTS if since <= version)
    attributes = struct.pack("<Q", rights)
    if refuses_tcp(version):
        attributes += struct.pack("<Q", _TCP_RIGHTS)
    if scopes(version):
        attributes += struct.pack("<Q", _SCOPES)
    ruleset = _called(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    try:
        for path in readable:
            _allow(ruleset, path)
        if writable is not None:
            _allow(ruleset, writable, (_WRITE_FILE | _TRUNCATE) & rights)
        _called(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)


def _allow(ruleset: int, path: str, more: int = 0) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.EACCES, errno.ENOTDIR}:
            return
        raise
    try:
        folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        rule = struct.pack("<Qi", more | _READ_FILE | (_READ_DIR if folder else 0), descriptor)
        _called(_ADD_RULE, ruleset, _RULE_PATH_BENEATH, rule, 0)
    finally:
        os.close(descriptor)


def _called(number: int, *arguments: object) -> int:
    found: int = _libc.syscall(number, *arguments)
    if found < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"Landlock: {os.strerror(code)}")
    return found
