"""The product's worker with one command more: to try to break out of what it is contained by.

`tests/attacks/test_worker_escapes.py` starts it in the place of `edge_agent.inference.worker`, with the same arguments.
Everything but the command is the product's, so that what fails here fails in a worker that was taken over by a model.
`EDGE_AGENT_WITHOUT` is the name of a measure that this one does without, to see what the others are worth alone.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import resource
import signal
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edge_agent.inference import containment, service, worker
from edge_agent.inference.frames import Frame
from edge_agent.inference.messages import text_of

_libc = ctypes.CDLL(None, use_errno=True)
_PTRACE_ATTACH, _PTRACE_SEIZE = 16, 0x4206


def _called(found: int) -> int:
    if found < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return found


def _connect(family: int, kind: int, address: Any) -> None:  # noqa: ANN401 - whatever the family has
    with socket.socket(family, kind) as connection:
        connection.connect(address)


def _tcp(port: str) -> None:
    _connect(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", int(port)))


def _udp(port: str) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as connection:
        connection.sendto(b"x", ("127.0.0.1", int(port)))


def _listen(_: str) -> None:
    socket.create_server(("127.0.0.1", 0)).close()


def _unix(path: str) -> None:
    _connect(socket.AF_UNIX, socket.SOCK_STREAM, path)


def _abstract(name: str) -> None:
    _connect(socket.AF_UNIX, socket.SOCK_STREAM, "\0" + name)


def _read(path: str) -> None:
    Path(path).read_bytes()


def _write(path: str) -> None:
    Path(path).write_bytes(b"broken")


def _append(path: str) -> None:
    with Path(path).open("ab") as stream:
        stream.write(b"broken")


def _symlink(path: str) -> None:
    Path(path).symlink_to("/")


def _no_file(path: str) -> None:
    os.open(path, os.O_TMPFILE | os.O_RDWR)


def _fork(_: str) -> None:
    if not os.fork():
        os._exit(0)


def _vfork(_: str) -> None:
    os.posix_spawn("/bin/true", ["true"], {})


def _clone(_: str) -> None:
    number = {"x86_64": 56, "aarch64": 220}[os.uname().machine]
    if not _called(_libc.syscall(number, signal.SIGCHLD, 0, 0, 0, 0)):
        os._exit(0)


def _exec(_: str) -> None:
    os.execv("/bin/true", ["true"])  # noqa: S606 - it must not work


def _memory(_: str) -> None:
    held = []
    while True:
        held.append(bytearray(16 << 20))


def _mapped(flags: int) -> None:
    held = []
    while True:
        held.append(mmap.mmap(-1, 16 << 20, flags))
        held[-1].write(b"x" * (16 << 20))


def _memory_file(_: str) -> None:
    fd = os.memfd_create("x")
    while True:
        os.write(fd, bytes(16 << 20))


def _inputs(way: str) -> None:
    """Change what the daemon wrote: inputs that it has checked."""
    memory = next(link for link in Path("/proc/self/fd").iterdir() if "memfd:inputs" in str(link.readlink()))
    match way:
        case "write":
            os.pwrite(int(memory.name), b"broken", 0)
        case "open":
            fd = os.open(memory, os.O_RDWR)
            try:
                mmap.mmap(fd, 4096)[:6] = b"broken"  # what no limit on files holds up
            finally:
                os.close(fd)
        case "protect":
            line = next(line for line in Path("/proc/self/maps").read_text().splitlines() if "memfd:inputs" in line)
            begin, end = (int(address, 16) for address in line.split()[0].split("-"))
            wanted = mmap.PROT_READ | mmap.PROT_WRITE
            _called(_libc.mprotect(ctypes.c_void_p(begin), ctypes.c_size_t(end - begin), wanted))


def _limits(_: str) -> None:
    """Raise one's own limits."""
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def _ptrace(pid: str) -> None:
    _called(_libc.ptrace(_PTRACE_SEIZE, int(pid), 0, 0))


def _foreign_memory(pid: str) -> None:
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as stream:
        stream.read(1)


def _foreign_memory_by_call(pid: str) -> None:
    number = {"x86_64": 310, "aarch64": 270}[os.uname().machine]
    buffer = ctypes.create_string_buffer(8)
    piece = (ctypes.c_size_t * 2)(ctypes.addressof(buffer), 8)
    _called(_libc.syscall(number, int(pid), piece, 1, piece, 1, 0))


def _signal(pid: str) -> None:
    os.kill(int(pid), signal.SIGKILL)


def _signal_of_kernel(pid: str) -> None:
    """Have the kernel send a signal when there is something to read at the socket."""
    fd = int(sys.argv[sys.argv.index("--fd") + 1])
    fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, int(pid))


def _namespace(_: str) -> None:
    _called(_libc.unshare(0x10000000))


def _ring(_: str) -> None:
    _called(_libc.syscall(425, 1, ctypes.create_string_buffer(120)))


def _bpf(_: str) -> None:
    number = {"x86_64": 321, "aarch64": 280}[os.uname().machine]
    _called(_libc.syscall(number, 0, ctypes.create_string_buffer(128), 128))


def _thread(_: str) -> None:
    """What is refused in the main thread is refused in others, and in those they start."""
    found: list[BaseException] = []

    def attempt() -> None:
        try:
            socket.socket()
        except OSError as error:
            found.append(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    if found:
        raise found[0]


ESCAPES: dict[str, Callable[[str], object]] = {
    "abstract": _abstract,
    "append": _append,
    "bpf": _bpf,
    "chmod": lambda path: Path(path).chmod(0o644),
    "clone": _clone,
    "exec": _exec,
    "fork": _fork,
    "inputs": _inputs,
    "limits": _limits,
    "list": os.listdir,
    "listen": _listen,
    "mem": _foreign_memory,
    "mem-call": _foreign_memory_by_call,
    "memory": _memory,
    "memory-file": _memory_file,
    "memory-private": lambda _: _mapped(mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS),
    "memory-shared": lambda _: _mapped(mmap.MAP_SHARED | mmap.MAP_ANONYMOUS),
    "mkdir": os.mkdir,
    "namespace": _namespace,
    "no-file": _no_file,
    "ptrace": _ptrace,
    "read": _read,
    "remove": os.unlink,
    "rename": lambda path: Path(path).rename(path + ".gone"),
    "ring": _ring,
    "signal": _signal,
    "signal-of-kernel": _signal_of_kernel,
    "spawn": _vfork,
    "symlink": _symlink,
    "tcp": _tcp,
    "thread": _thread,
    "truncate": lambda path: os.truncate(path, 0),
    "udp": _udp,
    "unix": _unix,
    "write": _write,
}


class Escapee(service.Service):
    """Tries what it is told to, and says what came of it."""

    def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 - those of the service
        super().__init__(*arguments)
        self._commands["escape"] = self._escape

    def _escape(self, frame: Frame) -> None:
        name, argument = text_of(frame.header, "name"), text_of(frame.header, "argument")
        try:
            ESCAPES[name](argument)
            outcome = "escaped"
        except OSError as error:
            outcome = errno.errorcode.get(error.errno or 0, str(error))
        except (MemoryError, ValueError) as error:
            outcome = type(error).__name__
        self._say({"say": "escape", "outcome": outcome})


if __name__ == "__main__":
    match os.environ.get("EDGE_AGENT_WITHOUT"):
        case "system-calls":
            containment.seccomp.install = lambda _here, **_: None
        case "files":
            containment.landlock.restrict = lambda *_: None
    service.Service = Escapee  # type: ignore[misc] # the worker imports it when it is time
    sys.exit(worker.main())
