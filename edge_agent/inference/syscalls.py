"""Which system calls a worker may make once it is contained, and their numbers. Data for `seccomp`.

Each is what Python, onnxruntime or the C library makes while models are loaded and run, or harmless and what another
version of them may make instead. Numbers: `arch/x86/entry/syscalls/syscall_64.tbl` and `asm-generic/unistd.h`; None
where an architecture has no such call.
"""

from __future__ import annotations

from typing import NamedTuple


class Architecture(NamedTuple):
    """How the kernel names an architecture, and how calls are numbered there.

    Attributes:
        audit: `AUDIT_ARCH_…` of `linux/audit.h`.
        column: of the tables here.
        newest: the highest number that these tables were made with; what is above did not exist then.
    """

    audit: int
    column: int
    newest: int


ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, 0, 462),
    "aarch64": Architecture(0xC00000B7, 1, 462),
}

ALLOWED: dict[str, tuple[int | None, int | None]] = {
    # files that are open, and opening some to read (see CHECKED)
    "read": (0, 63),
    "write": (1, 64),
    "close": (3, 57),
    "close_range": (436, 436),
    "lseek": (8, 62),
    "pread64": (17, 67),
    "readv": (19, 65),
    "writev": (20, 66),
    "preadv": (295, 69),
    "dup": (32, 23),
    "fadvise64": (221, 223),
    "readahead": (187, 213),
    "getdents64": (217, 61),
    "poll": (7, None),
    "ppoll": (271, 73),
    "select": (23, None),
    "pselect6": (270, 72),
    # what files are
    "stat": (4, None),
    "fstat": (5, 80),
    "lstat": (6, None),
    "newfstatat": (262, 79),
    "statx": (332, 291),
    "statfs": (137, 43),
    "fstatfs": (138, 44),
    "access": (21, None),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, None),
    "readlinkat": (267, 78),
    "getcwd": (79, 17),
    # memory
    "brk": (12, 214),
    "munmap": (11, 215),
    "mremap": (25, 216),
    "mprotect": (10, 226),
    "madvise": (28, 233),
    "mincore": (27, 232),
    "msync": (26, 227),
    "membarrier": (324, 283),
    # threads, and waiting for them
    "futex": (202, 98),
    "futex_waitv": (449, 449),
    "set_robust_list": (273, 99),
    "get_robust_list": (274, 100),
    "set_tid_address": (218, 96),
    "rseq": (334, 293),
    "sched_yield": (24, 124),
    "sched_getaffinity": (204, 123),
    "sched_getparam": (143, 121),
    "sched_getscheduler": (145, 120),
    "sched_get_priority_max": (146, 125),
    "sched_get_priority_min": (147, 126),
    "getcpu": (309, 168),
    "exit": (60, 93),
    "exit_group": (231, 94),
    # signals to itself
    "rt_sigaction": (13, 134),
    "rt_sigprocmask": (14, 135),
    "rt_sigreturn": (15, 139),
    "rt_sigpending": (127, 136),
    "sigaltstack": (131, 132),
    "restart_syscall": (219, 128),
    # time, and who and where it is
    "clock_gettime": (228, 113),
    "clock_getres": (229, 114),
    "clock_nanosleep": (230, 115),
    "nanosleep": (35, 101),
    "gettimeofday": (96, 169),
    "time": (201, None),
    "times": (100, 153),
    "getrusage": (98, 165),
    "getrlimit": (97, 163),
    "setrlimit": (160, 164),
    "uname": (63, 160),
    "sysinfo": (99, 179),
    "getpid": (39, 172),
    "gettid": (186, 178),
    "getppid": (110, 173),
    "getuid": (102, 174),
    "geteuid": (107, 175),
    "getgid": (104, 176),
    "getegid": (108, 177),
    "getrandom": (318, 278),
    # x86: asks for the tile registers that 8-bit kernels of some processors use
    "arch_prctl": (158, None),
    # the socket to the daemon, which it has already
    "sendmsg": (46, 211),
    "recvmsg": (47, 212),
    "sendto": (44, 206),
    "recvfrom": (45, 207),
    "getsockname": (51, 204),
    "getsockopt": (55, 209),
    "shutdown": (48, 210),
}
"""Allowed with any arguments."""

CHECKED: dict[str, tuple[int | None, int | None]] = {
    "open": (2, None),
    "openat": (257, 56),
    "mmap": (9, 222),
    "clone": (56, 220),
    "prctl": (157, 167),
    "ioctl": (16, 29),
    "fcntl": (72, 25),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
}
"""Allowed with some arguments only, which `seccomp` says."""

ABSENT: dict[str, tuple[int | None, int | None]] = {"clone3": (435, 435), "openat2": (437, 437)}
"""Their arguments lie in memory, where no filter can look: they are said not to exist, and older ones are used."""
