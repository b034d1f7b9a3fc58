"""What the worker process does to itself, and how it looks at itself, on Linux."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Between the default of 0 and the 1000 that means "always first": the worker goes before the daemon and the
# owner's programs.
_OOM_SCORE_ADJ = "800"
_KIB = 1024

THREAD_STACK_BYTES = 2 * 1024 * 1024
"""Set aside for the stack of each thread of onnxruntime: all of it counts against a limit, hardly any is touched."""
MAX_FILES = 64
"""Descriptors of a worker: it has a handful, and one or two more while it loads a model."""
SPARE_TASKS = 4096
"""Threads that may still come to be on this machine before a worker's are refused."""
MAX_STACKS_BYTES = 256 * 1024 * 1024
"""All stacks together count no more than this beyond the limit of what models may take."""
_ATTRIBUTES_BYTES = 64
_MADV_DONTNEED = 4
_threads = 0  # whose stacks are counted
_mapped = 0  # bytes of files
_base: int | None = None  # the limit without stacks
_peak: int | None = None  # /proc/self/clear_refs, once it can't be opened any more
_own: int | None = None

_libc = ctypes.CDLL(None, use_errno=True)


def die_with(parent_pid: int) -> None:
    """Have the kernel kill this process when its parent ends, and end at once if that has happened already.

    The signal comes when the parent's thread that started this process ends, so that thread has to live on.
    """
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:
        os._exit(0)


def begin(parent: int) -> None:
    """Do what a process that computes begins with, before it imports what it computes with.

    Args:
        parent: the process id of the daemon, with which it ends.
    """
    ignore_terminal()
    die_with(parent)
    volunteer_for_oom()
    no_core_dumps()
    small_stacks()


def ignore_terminal() -> None:
    """Leave Ctrl-C and the service manager's SIGTERM to the daemon: it decides what to finish."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def volunteer_for_oom() -> None:
    """Ask the kernel to kill this process before others when memory runs out."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE_ADJ)


def small_stacks() -> None:
    """Give new threads stacks of `THREAD_STACK_BYTES` instead of 8 MiB, where the C library can (glibc)."""
    if not hasattr(_libc, "pthread_setattr_default_np"):
        return
    attributes = ctypes.create_string_buffer(_ATTRIBUTES_BYTES)
    if _libc.pthread_attr_init(attributes) == 0:
        _libc.pthread_attr_setstacksize(attributes, ctypes.c_size_t(THREAD_STACK_BYTES))
        _libc.pthread_setattr_default_np(attributes)


def limit_memory(limit_bytes: int) -> None:
    """Let this process take at most `limit_bytes` more private writable memory than it has now.

    RLIMIT_DATA counts what malloc and mmap hand out, not the files and libraries that are mapped, so that an
    allocation above it fails cleanly where it is made. The stacks of threads come on top, as `count_stacks` says.
    """
    global _base  # noqa: PLW0603 - a property of the process, as is the limit
    _base = status_bytes("VmData") + limit_bytes
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    most = _base + MAX_STACKS_BYTES
    hard = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (min(_base, hard), hard))
    count_stacks(0)


def count_stacks(threads: int) -> None:
    """Raise the limit by the stacks of so many threads that are to come, or lower it when they are gone (negative)."""
    global _threads  # noqa: PLW0603 - as above
    _threads = max(0, _threads + threads)
    _apply()


def count_mapped(file_bytes: int) -> None:
    """Raise the limit by a file that is to be mapped, or lower it when it is gone (negative), as far as stacks may.

    onnxruntime maps files so that it could write to its copy of them, and that is counted, though it only reads: these
    pages are the file's, and the kernel can take them back.
    """
    global _mapped  # noqa: PLW0603 - as above
    _mapped = max(0, _mapped + file_bytes)
    _apply()


def _apply() -> None:
    if _base is None:
        return
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    resource.setrlimit(resource.RLIMIT_DATA, (min(_base + _threads * THREAD_STACK_BYTES + _mapped, hard), hard))


def no_core_dumps() -> None:
    """Write no core file at a crash: it would leave a requester's inputs on the owner's disk."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def trim() -> None:
    """Give freed memory back to the kernel, where the C library can (glibc)."""
    if hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def status_bytes(field: str) -> int:
    """Return a size from /proc/self/status in bytes (VmRSS, VmHWM, VmData, RssAnon); 0 if there is none."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as status:  # noqa: PTH123 - twice as fast
        for line in status:
            name, _, value = line.partition(":")
            if name == field:
                return int(value.split()[0]) * _KIB
    return 0


def reset_peak() -> None:
    """Start VmHWM again from the memory in use now; where that is refused, it stays as it is."""
    with contextlib.suppress(OSError):
        if _peak is not None:
            os.write(_peak, b"5")
            return
        Path("/proc/self/clear_refs").write_text("5")


def keep_files() -> None:
    """Open what this process needs of itself and may not open later."""
    global _peak, _own  # noqa: PLW0603 - properties of the process
    with contextlib.suppress(OSError):
        _peak = os.open("/proc/self/clear_refs", os.O_WRONLY | os.O_CLOEXEC)
    # A rule for this folder holds for the one that the kernel has now; held open, it stays the same one.
    _own = os.open(own_folder(), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def own_folder() -> str:
    """Return the folder of this process in /proc."""
    return f"/proc/{os.getpid()}"


def drop_pages(fd: int) -> None:
    """Let go of the pages of a file that is mapped into this process; what is needed again is read again.

    Whoever laid weights out anew has read them all once, and needs most of them no more. Had anything been written to
    these pages it would be lost, so the outputs are compared before a copy serves.
    """
    name = str(Path(f"/proc/self/fd/{fd}").readlink())
    with open("/proc/self/maps", encoding="utf-8", errors="surrogateescape") as maps:  # noqa: PTH123 - twice as fast
        for line in maps:
            where, *_, path = line.rstrip("\n").split(maxsplit=5)
            if path == name:
                begin, end = (int(address, 16) for address in where.split("-"))
                _libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), _MADV_DONTNEED)


def bound(file_bytes: int = 0) -> None:
    """Bound what a process that has gone wrong can use up: descriptors, files, threads.

    Args:
        file_bytes: that any file may have which it writes.
    """
    resource.setrlimit(resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = MAX_FILES if hard == resource.RLIM_INFINITY else min(MAX_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # This limit is compared with all threads of the user, on whatever program; so it only stops a process that makes
    # thousands. The number of all threads of the machine stands behind the slash.
    with contextlib.suppress(OSError, ValueError, IndexError):
        tasks = int(Path("/proc/loadavg").read_bytes().split()[3].partition(b"/")[2]) + SPARE_TASKS
        _, hard = resource.getrlimit(resource.RLIMIT_NPROC)
        most = tasks if hard == resource.RLIM_INFINITY else min(tasks, hard)
        resource.setrlimit(resource.RLIMIT_NPROC, (most, most))
