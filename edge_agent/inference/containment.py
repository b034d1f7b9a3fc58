"""What a worker gives up before it sees the first byte of a model or an input, and what this kernel offers for that.

`enter` is called in the process that runs models, behind its imports; `offered` says the same of this kernel without
doing anything, for the daemon, `edge-agent doctor` and whoever chooses models. docs/security.md says what it is worth.
Where a kernel offers a measure, it is taken or the worker ends: there is no half-contained worker that looks whole.
"""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.inference import landlock, limits, seccomp
from edge_agent.models import custom_ops

FILES = "files"
CALLS = "system-calls"
TCP = "tcp"
SIGNALS = "signals"
PRIVILEGES = "privileges"
LIMITS = "limits"
MEASURES = {
    FILES: "reads only its code, its libraries and the models, and writes no file (Landlock)",
    CALLS: "makes only the system calls it needs: no sockets, no processes, no tracing (seccomp)",
    TCP: "no TCP, by Landlock too",
    SIGNALS: "no signals and no abstract sockets to the outside, by Landlock too",
    PRIVILEGES: "can't gain privileges and has no capabilities",
    LIMITS: "few descriptors, no core file, threads and memory bounded",
}
"""Every measure by its name, and what it means for a worker."""
NEEDED = (FILES, CALLS)
"""Without one of these, models of strangers are run only where the owner says so."""

_SET_NO_NEW_PRIVS = 38
_CAPGET, _CAPSET = {"x86_64": 125, "aarch64": 90}, {"x86_64": 126, "aarch64": 91}
_CAPABILITIES = struct.pack("<Ii", 0x20080522, 0)  # version 3, this thread
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")
# What the C library and onnxruntime may ask the system: how many CPUs, and for randomness.
_SYSTEM = ("/sys/devices/system/cpu", "/dev/urandom")

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Containment:
    """What holds for a worker.

    Attributes:
        in_force: names of measures, in the order of `MEASURES`.
        missing: (name, why) of the others.
    """

    in_force: tuple[str, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()

    @property
    def lack(self) -> str:
        """Why models of strangers are not to be run here, in words; empty if nothing speaks against it."""
        reasons = [f"{name} ({why})" for name, why in self.missing if name in NEEDED]
        return f"a worker cannot be contained here: {', '.join(reasons)}" if reasons else ""

    def document(self) -> dict[str, object]:
        """Return it for a status file."""
        return {"in_force": list(self.in_force), "missing": dict(self.missing)}


NOTHING = Containment()
"""What holds for a process that nobody has contained."""


def offered() -> Containment:
    """Return what a worker will be contained by on this machine; changes nothing."""
    missing: dict[str, str] = {}
    version = landlock.abi()
    if not version:
        missing[FILES] = missing[TCP] = missing[SIGNALS] = "this kernel has no Landlock, or it is switched off"
    else:
        if not landlock.refuses_tcp(version):
            missing[TCP] = f"this kernel's Landlock is of ABI {version}, 4 is needed"
        if not landlock.scopes(version):
            missing[SIGNALS] = f"this kernel's Landlock is of ABI {version}, 6 is needed"
    if why := seccomp.offered():
        missing[CALLS] = why
    return Containment(
        tuple(name for name in MEASURES if name not in missing),
        tuple((name, missing[name]) for name in MEASURES if name in missing),
    )


def no_copies() -> str:
    """Return why no process can be kept to writing one file, so that no optimised copies are made; empty if one can."""
    version = landlock.abi()
    if version and not landlock.refuses_truncation(version):
        return f"this kernel's Landlock is of ABI {version}, 3 is needed (Linux 6.2)"
    return dict(offered().missing).get(FILES, "")


def enter(readable: Iterable[str], scratch: tuple[int, int] | None = None) -> Containment:
    """Contain this process for good; to be called when all is imported, and before anything foreign is read.

    Args:
        readable: what it may read beside its code and its libraries: folders of models.
        scratch: the one file that it may write, as a descriptor, and the bytes that it may have; None for no file.
            Where Landlock can't say that it is the only one (`no_copies`), none may be written.

    Returns:
        What is in force: what `offered` says, but for capabilities that whoever started us keeps us from giving up.

    Raises:
        OSError: something that the kernel offers could not be done.
    """
    found = offered()
    limits.keep_files()
    if scratch is not None and no_copies():
        scratch = None
    limits.bound(0 if scratch is None else scratch[1])
    if why := _give_up_privileges():
        in_force = tuple(name for name in found.in_force if name != PRIVILEGES)
        found = Containment(in_force, (*found.missing, (PRIVILEGES, why)))
    if FILES in found.in_force:
        _be_one_thread()
        allowed = [*code(), *_LIBRARIES, *_SYSTEM, limits.own_folder(), *readable]
        landlock.restrict(allowed, landlock.abi(), None if scratch is None else f"/proc/self/fd/{scratch[0]}")
    here = seccomp.architecture()
    if CALLS in found.in_force and here is not None:
        seccomp.install(here, writes=scratch is not None)
    return found


def code() -> list[str]:
    """Return the folders and files of Python and of the packages that are imported now, and of custom operators."""
    extension = Path(sys.base_exec_prefix, sys.platlibdir, f"python{sys.version_info[0]}.{sys.version_info[1]}")
    standard = (f"{os.path.dirname(os.__file__)}/", f"{extension}/")  # noqa: PTH120 - a part of a text
    found = set(standard)
    for name, module in list(sys.modules.items()):
        if "." not in name:
            paths = getattr(module, "__path__", None) or [getattr(module, "__file__", None)]
            found |= {path for path in paths if path and not path.startswith(standard)}
    if (library := custom_ops.library()) is not None:
        found.add(str(Path(library).parent))
    return sorted(found)


def _give_up_privileges() -> str:
    """Gain none from here on, and drop what there is; return why some may be left, or nothing.

    A daemon that has none, as under the unit, may not even be let try.
    """
    if _libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "no_new_privs is refused")
    machine = os.uname().machine
    if machine not in _CAPSET:
        return f"the system calls of {machine} are not known here"
    has = ctypes.create_string_buffer(24)
    if not _libc.syscall(_CAPGET[machine], _CAPABILITIES, has) and not any(has.raw):
        return ""
    if _libc.syscall(_CAPSET[machine], _CAPABILITIES, bytes(24)):
        return f"capabilities cannot be given up: {os.strerror(ctypes.get_errno())}"
    return ""


def _be_one_thread() -> None:
    """Landlock holds for the calling thread and those that it starts; there must be no other one."""
    threads = sum(1 for _ in Path("/proc/self/task").iterdir())
    if threads > 1:
        raise OSError(0, f"{threads} threads run before the worker is contained; one is expected")
