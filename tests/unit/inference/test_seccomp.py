from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import needs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.inference import seccomp
from edge_agent.inference.syscalls import ABSENT, ALLOWED, ARCHITECTURES, CHECKED, Architecture

PID = 4242
BOTH = pytest.mark.parametrize("here", ARCHITECTURES.values(), ids=ARCHITECTURES)
EVERY = ALLOWED | CHECKED | ABSENT
AT_FDCWD = 2**64 - 100


def run(code: list[seccomp.Instruction], number: int, *arguments: int, audit: int) -> int:
    """Return what the filter says to a call, as the kernel would compute it."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    data = struct.pack("<IIQ6Q", number, audit, 0, *(value % 2**64 for value in padded))
    at = accumulator = 0
    while True:
        operation, if_true, if_false, k = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, k)
            case 0x54:
                accumulator &= k
            case 0x15:
                at += if_true if accumulator == k else if_false
            case 0x35:
                at += if_true if accumulator >= k else if_false
            case 0x06:
                return k
            case _:
                raise AssertionError(f"no such instruction: {operation:#x}")


class Filter:
    """The filter of one architecture, asked by the names of calls."""

    def __init__(self, here: Architecture) -> None:
        self._here = here
        self._code = seccomp.program(here, PID)

    def has(self, name: str) -> bool:
        """Whether there is such a call on this architecture."""
        return EVERY[name][self._here.column] is not None

    def says(self, name: str, *arguments: int) -> int:
        """Return the verdict on a call by its name."""
        number = EVERY[name][self._here.column]
        assert number is not None
        return self.says_to(number, *arguments)

    def says_to(self, number: int, *arguments: int) -> int:
        """Return the verdict on a call by its number."""
        return run(self._code, number, *arguments, audit=self._here.audit)


@BOTH
def test_what_is_allowed_is_allowed_with_any_arguments(here: Architecture) -> None:
    """Each call of the first table."""
    asked = Filter(here)
    for name in ALLOWED:
        if asked.has(name):
            assert asked.says(name, 2**64 - 1, 2**64 - 1, 2**64 - 1) == seccomp.ALLOW, name


@BOTH
@given(number=st.integers(0, 2**30 - 1))
def test_everything_else_is_refused(here: Architecture, number: int) -> None:
    """A call in none of the tables fails as forbidden, or as unknown if it is newer than the tables."""
    known = {numbers[here.column] for numbers in EVERY.values()}
    if number not in known:
        newer = number > here.newest
        assert Filter(here).says_to(number) == (seccomp.NO_SUCH_CALL if newer else seccomp.REFUSE)


# x86_64, aarch64
FORBIDDEN = {
    "socket": (41, 198),
    "socketpair": (53, 199),
    "connect": (42, 203),
    "bind": (49, 200),
    "accept4": (288, 242),
    "fork": (57, None),
    "vfork": (58, None),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "io_uring_setup": (425, 425),
    "io_setup": (206, 0),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "mount": (165, 40),
    "umount2": (166, 39),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "unshare": (272, 97),
    "setns": (308, 268),
    "setuid": (105, 146),
    "capset": (126, 91),
    "seccomp": (317, 277),
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "mlockall": (151, 230),
    "creat": (85, None),
    "unlinkat": (263, 35),
    "renameat2": (316, 276),
    "mkdirat": (258, 34),
    "linkat": (265, 37),
    "symlinkat": (266, 36),
    "truncate": (76, 45),
    "ftruncate": (77, 46),
    "fallocate": (285, 47),
    "fchmodat": (268, 53),
    "fchownat": (260, 54),
    "setxattr": (188, 5),
    "utimensat": (280, 88),
    "open_by_handle_at": (304, 265),
    "init_module": (175, 105),
    "kexec_load": (246, 104),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "personality": (135, 92),
    "sched_setaffinity": (203, 122),
    "setpriority": (141, 140),
}


@BOTH
def test_what_an_attacker_would_ask_for_is_refused(here: Architecture) -> None:
    """Sockets, processes, tracing, signals, namespaces, keys, kernel interfaces, changes to the file system."""
    asked = Filter(here)
    for name, numbers in FORBIDDEN.items():
        if (number := numbers[here.column]) is not None:
            assert asked.says_to(number) == seccomp.REFUSE, name


@BOTH
@given(flags=st.integers(0, 2**32 - 1))
def test_files_are_opened_to_read_only(here: Architecture, flags: int) -> None:
    """Whatever the flags: with one that writes, makes or cuts a file, it is refused."""
    writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | (os.O_TMPFILE & ~os.O_DIRECTORY))
    expected = seccomp.REFUSE if writes else seccomp.ALLOW
    asked = Filter(here)
    assert asked.says("openat", AT_FDCWD, 1, flags) == expected
    if asked.has("open"):
        assert asked.says("open", 1, flags) == expected


@BOTH
@given(flags=st.integers(0, 2**32 - 1))
def test_only_threads_are_made(here: Architecture, flags: int) -> None:
    """A clone that is no thread of this process is refused, and so is one with a namespace of its own."""
    thread = flags & 0x10900 == 0x10900 and not flags & 0x7E020000
    assert Filter(here).says("clone", flags) == (seccomp.ALLOW if thread else seccomp.REFUSE)


@BOTH
def test_threads_as_the_c_library_makes_them_are_made(here: Architecture) -> None:
    """Its newer call is said not to exist, so that it takes the older one, whose flags can be seen."""
    asked = Filter(here)
    assert asked.says("clone3") == seccomp.NO_SUCH_CALL
    assert asked.says("clone", 0x3D0F00) == seccomp.ALLOW
    assert asked.says("clone", 0x1200011) == seccomp.REFUSE  # fork
    assert asked.says("clone", 0x4111) == seccomp.REFUSE  # posix_spawn


@BOTH
@given(flags=st.integers(0, 2**32 - 1))
def test_memory_that_no_limit_counts_is_refused(here: Architecture, flags: int) -> None:
    """Anonymous memory is private; files are mapped as they like, they are open to read only."""
    refused = flags & 0x20 and flags & 0x0F != 0x02
    assert Filter(here).says("mmap", 0, 1, 3, flags) == (seccomp.REFUSE if refused else seccomp.ALLOW)


@BOTH
def test_signals_go_to_itself_only(here: Architecture) -> None:
    """An abort works; F_SETOWN and F_SETSIG, which have the kernel send signals, do not."""
    asked = Filter(here)
    assert asked.says("tgkill", PID, PID, 6) == seccomp.ALLOW
    assert asked.says("tgkill", 1, 1, 9) == seccomp.REFUSE
    assert asked.says("fcntl", 3, 1) == seccomp.ALLOW
    for command in (8, 10, 15, 1024):
        assert asked.says("fcntl", 3, command) == seccomp.REFUSE
    assert asked.says("prlimit64", 0, 2) == asked.says("prlimit64", PID, 2) == seccomp.ALLOW
    assert asked.says("prlimit64", 1, 2) == seccomp.REFUSE
    assert asked.says("prctl", 15) == seccomp.ALLOW
    assert asked.says("prctl", 1, 0) == seccomp.REFUSE  # the signal at the parent's death stays
    assert asked.says("ioctl", 1, 0x5401) == seccomp.ALLOW
    assert asked.says("ioctl", 1, 0x5412) == seccomp.REFUSE  # TIOCSTI: typing at the terminal


@BOTH
@given(number=st.integers(0, 2**32 - 1))
def test_calls_by_another_architectures_numbers_end_the_process(here: Architecture, number: int) -> None:
    """32-bit calls, and x86's third set of numbers, mean other things than the tables say."""
    code = seccomp.program(here, PID)
    assert run(code, number, audit=0x40000003) == seccomp.KILL
    assert run(code, number | 0x40000000, audit=here.audit) == seccomp.KILL


@BOTH
def test_the_kernel_takes_a_program_of_this_size(here: Architecture) -> None:
    """At most 4096 instructions, jumps of at most 255."""
    code = seccomp.program(here, PID)
    assert len(code) <= 4096
    assert all(0 <= jump <= 255 for _, *jumps, _ in code for jump in jumps)


def _header(path: str) -> dict[str, int]:
    file = Path(path)
    if not file.exists():
        needs.absent(f"{path} is not installed")
    found = re.findall(r"^#define __NR(?:3264)?_(\w+)\s+(\d+)", file.read_text(), re.MULTILINE)
    return {name: int(number) for name, number in found}


@pytest.mark.parametrize(
    ("path", "column", "names"),
    [
        ("/usr/include/x86_64-linux-gnu/asm/unistd_64.h", 0, {}),
        # These have other names there for the sake of 32-bit architectures.
        ("/usr/include/asm-generic/unistd.h", 1, {"newfstatat": "fstatat"}),
    ],
    ids=["x86_64", "aarch64"],
)
def test_the_numbers_are_the_kernels(path: str, column: int, names: dict[str, str]) -> None:
    """Both tables, and those of this test, against the kernel's own headers, as far as these are new enough."""
    header = _header(path)
    for name, numbers in (EVERY | FORBIDDEN).items():
        expected = header.get(names.get(name, name))
        if expected is not None or max(header.values()) > (numbers[column] or 0):
            assert numbers[column] == expected, name


def test_where_the_architecture_is_unknown_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """No filter is better than one by wrong numbers."""
    monkeypatch.setattr(seccomp.platform, "machine", lambda: "riscv64")
    assert seccomp.architecture() is None
    assert "riscv64" in seccomp.offered()


def test_where_it_is_forbidden_it_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's own filter may refuse further ones."""

    def refuse(*_arguments: object) -> int:
        seccomp.ctypes.set_errno(errno.EPERM)
        return -1

    monkeypatch.setattr(seccomp, "_libc", type("Libc", (), {"syscall": staticmethod(refuse)}))
    assert os.strerror(errno.EPERM) in seccomp.offered()
    with pytest.raises(PermissionError):
        seccomp.install(ARCHITECTURES["x86_64"])


def test_a_process_under_the_filter_is_held_to_it() -> None:
    """By the kernel here: the same program, after it, can neither fork nor make a socket, and goes on."""
    if seccomp.offered():
        needs.absent(seccomp.offered())
    program = """
import ctypes, os, socket
from edge_agent.inference import seccomp
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
seccomp.install(seccomp.architecture())
for attempt in (os.fork, socket.socket, lambda: open("/tmp/x", "w"), lambda: os.kill(os.getppid(), 0)):
    try:
        attempt()
    except PermissionError:
        print("refused")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["refused"] * 4
