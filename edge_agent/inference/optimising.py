"""Has an optimised copy of a model made by a process of its own, and judges it. Imports neither numpy nor onnxruntime.

The process is gone, whatever became of it, before its file is looked at: then nobody is left who could change it. What
it says about the copy is worth what any worker's word is: one that a hostile model has taken over could lie, about
that model and no other.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from edge_agent.inference import launch
from edge_agent.inference.bounds import Bounds
from edge_agent.inference.messages import plain
from edge_agent.models.optimised import Scratch
from edge_agent.wire import strict_cbor

LIMIT_SECONDS = 60.0
"""From the start of the process; what takes longer is given up."""
MAX_ANSWER_BYTES = 4096
"""A process that says more waits for somebody to read it, and is ended."""
WORTH_SHARE, WORTH_US = 0.2, 1_000
"""A copy that saves less of the time to load, or less in all, is not worth its place on the disk …"""
WORTH_MEMORY_SHARE = 0.1
"""… unless it saves so much of the memory."""
MORE_SHARE, MORE_BYTES = 1.05, 1024 * 1024
"""A copy may hold so many times the memory of the model, and so much more."""


log = logging.getLogger("edge_agent.optimised")


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be made.

    Attributes:
        model: the verified file, handed over.
        scratch: the file to be filled; stays the caller's.
        golden: the content of the file with known answers; empty for made-up inputs.
        extents: of the symbols in the shapes of made-up inputs.
    """

    model: int
    scratch: Scratch
    golden: bytes
    extents: Mapping[str, int]


class Found(NamedTuple):
    """What was found of a model or its copy.

    Attributes:
        load_us: the processor time to load it, in microseconds.
        held_bytes: the memory that it holds after a run.
        same: whether every bit of its outputs is as the model's were before.
    """

    load_us: int
    held_bytes: int
    same: bool


class Report(NamedTuple):
    """The model, and its copy with its weights used where they lie, and copied."""

    model: Found
    in_place: Found
    copied: Found


class Failed(NamedTuple):
    """Why there is no copy, in words, and whether that may be otherwise within the hour."""

    why: str
    passing: bool = False


CALLED_OFF = Failed("it was called off", passing=True)
_ENDED_BY_OTHERS = frozenset({-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP})
"""Exit statuses of who was ended by people, with the machine, or by the kernel for want of memory."""


class Worth(NamedTuple):
    """How a copy is to be used, and what is won by it, in words."""

    in_place: bool
    text: str


def judge(report: Report) -> Worth | Failed:
    """Return how a copy is to be used, or why it is not."""
    if not report.model.same:
        return Failed("the model itself gives other bits each time")
    if why := _why_not(report.model, report.in_place):
        if _why_not(report.model, report.copied):
            return Failed(why)
        return Worth(in_place=False, text=_won(report.model, report.copied))
    return Worth(in_place=True, text=_won(report.model, report.in_place))


def _why_not(model: Found, copy: Found) -> str:
    if not copy.same:
        return "its outputs have other bits than the model's"
    if copy.held_bytes > MORE_SHARE * model.held_bytes + MORE_BYTES:
        return f"it holds {copy.held_bytes / 1e6:.1f} MB instead of {model.held_bytes / 1e6:.1f}"
    lighter = model.held_bytes - copy.held_bytes > max(WORTH_MEMORY_SHARE * model.held_bytes, MORE_BYTES)
    if model.load_us - copy.load_us < max(WORTH_US, WORTH_SHARE * model.load_us) and not lighter:
        return f"it loads in {copy.load_us / 1e3:.1f} ms instead of {model.load_us / 1e3:.1f}"
    return ""


def _won(model: Found, copy: Found) -> str:
    times = f"it loads in {copy.load_us / 1e3:.1f} ms instead of {model.load_us / 1e3:.1f}"
    return f"{times}, and holds {copy.held_bytes / 1e6:.1f} MB instead of {model.held_bytes / 1e6:.1f}"


class Optimising:
    """One copy, in one process.

    Args:
        request: what is to be made.
        options: how workers are started.
        limit_seconds: the process is killed when it takes longer.
    """

    def __init__(self, request: Request, options: launch.Options, *, limit_seconds: float = LIMIT_SECONDS) -> None:
        self._request = request
        self._options = options
        self._limit_seconds = limit_seconds
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._failed: Failed | None = None

    def run(self) -> Report | Failed:
        """Have it made, and wait for it: in bounded time there is a report, or why there is none; and no process."""
        asked = os.memfd_create("asked", os.MFD_CLOEXEC)
        try:
            extents = {str(symbol): int(extent) for symbol, extent in self._request.extents.items()}
            with open(asked, "r+b", closefd=False) as file:
                file.write(strict_cbor.encode({"golden": self._request.golden, "extents": extents}))
                file.flush()
                file.seek(0)
            return self._run(asked)
        except OSError as error:
            return Failed(f"the process could not be started: {error}", passing=True)
        finally:
            os.close(asked)
            os.close(self._request.model)

    def cancel(self) -> None:
        """Call it off, from any thread."""
        self._end(CALLED_OFF)

    def _run(self, asked: int) -> Report | Failed:
        options, request = self._options, self._request
        bounds = Bounds(options.delegated, options.memory_limit_bytes, 1, self._end_for_memory, options.cpus)
        try:
            with self._lock:
                if self._failed:
                    return self._failed
                scratch = request.scratch
                process = self._process = launch.spawn_optimiser(
                    options, request.model, scratch.fd, scratch.max_bytes, asked
                )
            bounds.hold(process.pid)
            try:
                status = process.wait(self._limit_seconds)
            except subprocess.TimeoutExpired:
                self._end(Failed(f"it took longer than {self._limit_seconds:g} s"))
                status = process.wait()
            assert process.stdout is not None  # noqa: S101 - a pipe was asked for
            with process.stdout:
                said = os.read(process.stdout.fileno(), MAX_ANSWER_BYTES)
        finally:
            bounds.let_go()
        if status:
            why = f"the process that made it ended with {status}"
            return self._failed or Failed(why, passing=status in _ENDED_BY_OTHERS)
        return self._failed or _report(said)

    def _end_for_memory(self, why: str) -> None:
        self._end(Failed(why, passing=True))

    def _end(self, failed: Failed) -> None:
        with self._lock:
            self._failed = self._failed or failed
            if self._process is not None:
                self._process.kill()


def _report(said: bytes) -> Report | Failed:
    """Return what the process said; it has read a foreign model."""
    try:
        answer = json.loads(said)
    except (ValueError, RecursionError):
        answer = None
    match answer:
        case {"why": str(why), "passing": bool(passing)}:
            return Failed(plain(why, 300), passing)
        case {"model": model, "in-place": in_place, "copied": copied}:
            found = [_found(entry) for entry in (model, in_place, copied)]
            if None not in found:
                return Report(*(entry for entry in found if entry is not None))
    return Failed("the process that made it said nothing that can be understood")


def _found(entry: object) -> Found | None:
    match entry:
        case {"load_us": int(load_us), "held_bytes": int(held), "same": bool(same)} if min(load_us, held) >= 0:
            return Found(load_us, held, same)
    return None
