"""How a worker process is started: its command line and its small environment."""

from __future__ import annotations

import os
import site
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from edge_agent.inference.control_group import Delegated

# Variables of the daemon that its worker may need to find the same Python packages and libraries. Nothing
# else is passed on: no proxies, no credentials, no home.
_PASSED_ON = ("PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH")
_ENVIRONMENT = {
    "ORT_DISABLE_TELEMETRY": "1",
    "HOME": "/nonexistent",
    "LC_ALL": "C.UTF-8",
    # Two arenas, and freed memory back to the kernel early: a session takes 1.02 times its file instead of
    # 2.5 times.
    "MALLOC_ARENA_MAX": "2",
    "MALLOC_TRIM_THRESHOLD_": "131072",
    # numpy only views bytes here; its BLAS needs no threads and no buffers.
    "OPENBLAS_NUM_THREADS": "1",
}


@dataclass(frozen=True, slots=True)
class Options:
    """How a worker is started.

    Attributes:
        memory_limit_bytes: counts from what the idle worker has.
        readable: folders and files of models, absolute; it can read no others, nor one that comes to be there later.
        delegated: where a control group is made for it; None if it is bounded without one.
        cpus: that it may keep busy, where it has a control group; None for as many as it has threads.
    """

    threads: int
    memory_limit_bytes: int | None = None
    readable: tuple[str, ...] = ()
    delegated: Delegated | None = None
    cpus: float | None = None


def spawn(options: Options, theirs: socket.socket, inputs: int | None = None) -> subprocess.Popen[bytes]:
    """Start a worker that serves `theirs`; what it prints can be read from `stderr`.

    Args:
        options: how.
        theirs: the socket.
        inputs: the descriptor of memory that it shares with the daemon, if it does.

    Raises:
        OSError: the process could not be made.
    """
    fd = theirs.fileno()
    # -P: the folder that the daemon was started in is no place to import from.
    command = [sys.executable, "-P", "-m", "edge_agent.inference.worker"]
    command += ["--fd", str(fd), "--parent", str(os.getpid()), "--threads", str(options.threads)]
    if options.memory_limit_bytes is not None:
        command += ["--memory-limit-bytes", str(options.memory_limit_bytes)]
    command += [f"--read={path}" for path in options.readable]
    passed = (fd,) if inputs is None else (fd, inputs)
    if inputs is not None:
        command += ["--inputs", str(inputs)]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=passed,
        env=environment(os.environ),
        cwd="/",
        process_group=0,  # a Ctrl-C at the terminal is for the daemon
    )


def spawn_optimiser(options: Options, model: int, into: int, most_bytes: int, asked: int) -> subprocess.Popen[bytes]:
    """Start a process that makes an optimised copy of a model, and says on its standard output what came of it.

    Args:
        options: as for a worker.
        model: the verified file.
        into: the file that it fills.
        most_bytes: that this may have.
        asked: what it is asked, as a file.

    Raises:
        OSError: the process could not be made.
    """
    command = [sys.executable, "-P", "-m", "edge_agent.inference.optimiser", "--parent", str(os.getpid())]
    command += ["--model", str(model), "--into", str(into), "--most-bytes", str(most_bytes)]
    if options.memory_limit_bytes is not None:
        command += ["--memory-limit-bytes", str(options.memory_limit_bytes)]
    command += [f"--read={path}" for path in options.readable]
    return subprocess.Popen(
        command,
        stdin=asked,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        pass_fds=(model, into),
        env=environment(os.environ),
        cwd="/",
        process_group=0,
    )


def environment(daemon: Mapping[str, str]) -> dict[str, str]:
    """Return the worker's environment: what it needs, and of the daemon's what finds the same packages."""
    passed_on = {name: daemon[name] for name in _PASSED_ON if name in daemon}
    if site.ENABLE_USER_SITE:
        passed_on["PYTHONUSERBASE"] = site.getuserbase()
    return _ENVIRONMENT | passed_on
