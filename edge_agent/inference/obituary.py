"""How a worker ended, in words that help whoever reads them."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.inference.messages import plain

_QUOTED_LINES = 3
_QUOTED_CHARACTERS = 600
_CRASHES = (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT)


@dataclass(frozen=True, slots=True)
class End:
    """What is known of an end beside its status.

    Attributes:
        hung: it was killed for not answering.
        garbled: what was wrong with its last answer; empty if nothing was.
        oom_killed: the kernel killed it, or something, for memory during its life.
        too_much: why it was ended for the memory that it held; empty if it was not.
    """

    hung: bool = False
    garbled: str = ""
    oom_killed: bool = False
    too_much: str = ""


def write(status: int, printed: Iterable[str], end: End) -> str:
    """Return why the worker is no more.

    Args:
        status: as `subprocess` gives it, the negative signal number for a death by signal.
        printed: its lines on the standard error stream.
        end: what is known beside that.
    """
    if end.hung:
        text = "The worker did not answer in time and was killed."
    elif end.too_much:
        text = f"The worker was ended because {end.too_much}; a smaller variant may fit."
    elif end.garbled:
        text = f"The worker was killed because it sent something that is not an answer: {end.garbled}"
    else:
        text = f"The worker {how_it_ended(status, oom_killed=end.oom_killed)}."
    last = " | ".join(list(printed)[-_QUOTED_LINES:])
    return plain(f"{text} Its last lines: {last[-_QUOTED_CHARACTERS:]}" if last else text)


def how_it_ended(status: int, *, oom_killed: bool) -> str:
    """Return in words what a `returncode` means; `oom_killed` if memory ran out on this machine meanwhile."""
    if status >= 0:
        return f"ended by itself with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    if -status == signal.SIGKILL:
        if oom_killed:
            return "was killed by the kernel because memory ran out (SIGKILL); a smaller variant may fit"
        return "was killed from outside (SIGKILL)"
    if -status in _CRASHES:
        return f"crashed ({name}); the model, or onnxruntime on this machine, is the likely cause"
    return f"was ended by {name}"


def oom_kills() -> int:
    """Return how many processes were killed for memory since the machine started; 0 if that is unknown."""
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/vmstat").read_text().splitlines():
            if line.startswith("oom_kill "):
                return int(line.split()[1])
    return 0
