"""A seccomp filter: from its installation on, a process makes no other system calls than those it is known to need.

The filter is a small program in classic BPF that the kernel runs at each call, over the call's number and arguments
(`linux/seccomp.h`, `linux/filter.h`). It sees numbers, never what a pointer points to. It can't be taken off again, and
holds for all threads and whatever the process would start.

A refused call fails with EPERM, as if a right was missing: honest code in a library that we have not seen goes on
without, and an attacker has no more of it than of being killed. A call newer than our tables fails with ENOSYS, as on
an older kernel, and the libraries use what came before it. What no honest program does, calls by another
architecture's numbers, ends the process.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterable

from edge_agent.inference.syscalls import ABSENT, ALLOWED, ARCHITECTURES, CHECKED, Architecture

_NUMBER, _ARCHITECTURE = 0, 4  # offsets in struct seccomp_data
_ARGUMENTS = 16
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # BPF_LD|BPF_W|BPF_ABS, BPF_ALU|BPF_AND|BPF_K, BPF_RET|BPF_K
_IF_EQUAL, _IF_AT_LEAST = 0x15, 0x35  # BPF_JMP|BPF_JEQ|BPF_K, BPF_JMP|BPF_JGE|BPF_K

ALLOW = 0x7FFF0000
KILL = 0x80000000  # the whole process
REFUSE = 0x00050000 | errno.EPERM
NO_SUCH_CALL = 0x00050000 | errno.ENOSYS
_X32 = 0x40000000
"""Numbers from here on are those of x86's third set of calls, which no program of ours uses."""

# Opening for anything but reading: O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE. The same on both architectures.
_OPEN_TO_WRITE = 0o3 | 0o100 | 0o1000 | 0o20000000
# As a C++ stream opens a file that it writes: O_WRONLY, O_CREAT, O_TRUNC.
_STREAM_TO_WRITE = 0o1 | 0o100 | 0o1000
_MAP_KIND, _MAP_ANONYMOUS, _MAP_PRIVATE = 0x0F, 0x20, 0x02
_CLONE_THREAD = 0x10000 | 0x800 | 0x100  # CLONE_THREAD, and what it demands: CLONE_SIGHAND, CLONE_VM
_CLONE_NAMESPACES = 0x7E020000
_PRCTLS = (15, 16, 0x53564D41)  # PR_SET_NAME, PR_GET_NAME, PR_SET_VMA
_IOCTLS = (0x5401, 0x802C542A, 0x541B, 0x5421, 0x5450, 0x5451)  # TCGETS, TCGETS2, FIONREAD, FIONBIO, FIO(N)CLEX
# F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC; not F_SETOWN and F_SETSIG, which send signals.
_FCNTLS = (0, 1, 2, 3, 4, 1030)

_SECCOMP = (317, 277)  # the call itself, by column
_SET_FILTER, _IS_AVAILABLE = 1, 2
_ALL_THREADS = 1

Instruction = tuple[int, int, int, int]
"""Code, jump if true, jump if false (in instructions to skip), number."""

_libc = ctypes.CDLL(None, use_errno=True)


def architecture() -> Architecture | None:
    """Return what is known of the architecture of this process; None if filters for it cannot be made here."""
    return ARCHITECTURES.get(platform.machine()) if ctypes.sizeof(ctypes.c_void_p) == 8 else None


def offered() -> str:
    """Return why no filter can be installed here; empty if one can."""
    here = architecture()
    if here is None:
        return f"the system calls of {platform.machine()} are not known here"
    action = ctypes.c_uint32(REFUSE & 0xFFFF0000)
    if _libc.syscall(_SECCOMP[here.column], _IS_AVAILABLE, 0, ctypes.byref(action)) < 0:
        return f"this kernel, or who started us, does not let us: {os.strerror(ctypes.get_errno())}"
    return ""


def install(here: Architecture, *, writes: bool = False) -> None:
    """Allow all threads of this process nothing but what `syscalls` says; `no_new_privs` has to be set before.

    Args:
        here: the architecture.
        writes: whether files may be opened as onnxruntime does to write a model, where something else says which.

    Raises:
        OSError: the kernel refuses.
    """
    code = b"".join(struct.pack("<HBBI", *instruction) for instruction in program(here, os.getpid(), writes=writes))
    memory = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(code) // 8, ctypes.addressof(memory))
    found = _libc.syscall(_SECCOMP[here.column], _SET_FILTER, _ALL_THREADS, header)
    if found:  # a thread's id, if that one cannot be held to it
        raise OSError(ctypes.get_errno(), "seccomp: the filter was refused")


def program(here: Architecture, pid: int, *, writes: bool = False) -> list[Instruction]:
    """Return the filter for a process with this number, which may open files to write them, or not."""
    # Nothing in between, above all not O_TRUNC where only reading is asked for: see `landlock.refuses_truncation`.
    opens = (0, _STREAM_TO_WRITE) if writes else (0,)
    code: list[Instruction] = [
        *(_load(_ARCHITECTURE), (_IF_EQUAL, 1, 0, here.audit), _return(KILL)),
        *(_load(_NUMBER), (_IF_AT_LEAST, 0, 1, _X32), _return(KILL)),
    ]
    for number in _numbers(ALLOWED, here):
        code += _when(number, [_return(ALLOW)])
    checks = {
        "open": _one_of(1, opens, _OPEN_TO_WRITE),
        "openat": _one_of(2, opens, _OPEN_TO_WRITE),
        "mmap": _map(),
        "clone": _exactly(0, _CLONE_THREAD | _CLONE_NAMESPACES, _CLONE_THREAD),
        "prctl": _one_of(0, _PRCTLS),
        "ioctl": _one_of(1, _IOCTLS),
        "fcntl": _one_of(1, _FCNTLS),
        "tgkill": _one_of(0, (pid,)),
        "prlimit64": _one_of(0, (0, pid)),
    }
    for name, check in checks.items():
        for number in _numbers({name: CHECKED[name]}, here):
            code += _when(number, check)
    for number in _numbers(ABSENT, here):
        code += _when(number, [_return(NO_SUCH_CALL)])
    return [*code, (_IF_AT_LEAST, 0, 1, here.newest + 1), _return(NO_SUCH_CALL), _return(REFUSE)]


def _numbers(table: dict[str, tuple[int | None, int | None]], here: Architecture) -> list[int]:
    return [number for numbers in table.values() if (number := numbers[here.column]) is not None]


def _load(offset: int) -> Instruction:
    return (_LOAD, 0, 0, offset)


def _return(action: int) -> Instruction:
    return (_RETURN, 0, 0, action)


def _when(number: int, then: list[Instruction]) -> list[Instruction]:
    """Go through `then`, which returns, if the accumulator has this number."""
    return [(_IF_EQUAL, 0, len(then), number), *then]


def _argument(index: int) -> Instruction:
    """Load the low half of an argument. All those that are looked at here are 32 bits wide for the kernel, too."""
    return _load(_ARGUMENTS + 8 * index)


def _exactly(index: int, mask: int, value: int) -> list[Instruction]:
    return [_argument(index), (_AND, 0, 0, mask), (_IF_EQUAL, 0, 1, value), _return(ALLOW), _return(REFUSE)]


def _one_of(index: int, values: Iterable[int], mask: int = 0) -> list[Instruction]:
    code = [_argument(index), *([(_AND, 0, 0, mask)] if mask else [])]
    for value in values:
        code += _when(value, [_return(ALLOW)])
    return [*code, _return(REFUSE)]


def _map() -> list[Instruction]:
    """Memory of its own, and files, but no memory to share: no limit of the process counts that."""
    own = _exactly(3, _MAP_ANONYMOUS | _MAP_KIND, _MAP_ANONYMOUS | _MAP_PRIVATE)[:-1]
    return [*own, *_exactly(3, _MAP_ANONYMOUS, 0)]
