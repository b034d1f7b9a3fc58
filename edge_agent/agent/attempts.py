"""The attempts that an agent holds: waiting, running, or answered and not yet settled. Pure."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from edge_agent.agent.unsettled import Answer, Epochs, Key, Unsettled, no_jitter
from edge_agent.clock import Now
from edge_agent.wire.messages import Job
from edge_agent.wire.tensors import Tensor

MIN_RENEW_SECONDS = 0.1
MIN_RUN_SECONDS = 1.0
"""A coordinator with absurdly short leases costs itself attempts, and us neither the CPU nor the worker."""


class Stage(StrEnum):
    """Where an attempt stands on this machine before it is answered."""

    WAITING = "waiting"
    RUNNING = "running"


@dataclass(slots=True)
class Held:
    """One attempt without an answer.

    Attributes:
        renew_at: monotonic seconds at which the lease is renewed.
        token: names the run in the worker.
        first: whether it goes before those that are not.
    """

    job: Job
    inputs: tuple[Tensor, ...]
    received_ms: int
    renew_at: float
    token: int
    stage: Stage = Stage.WAITING
    first: bool = False

    @property
    def key(self) -> Key:
        """Job and epoch."""
        return (self.job.job, self.job.epoch)

    @property
    def input_bytes(self) -> int:
        """Bytes of the inputs."""
        return sum(len(tensor.data) for tensor in self.inputs)


@dataclass(slots=True)
class _Run:
    """What the worker was given; it stays here when its attempt is dropped, until the worker is through with it."""

    key: Key
    variant: bytes
    seconds: float
    until: float
    lanes: int


class Attempts:
    """The table of held attempts, in the order in which they came.

    Args:
        max_age_seconds: an answer that nobody settled for so long is given up.
        draw: gives random numbers from 0 to 1.

    Attributes:
        unsettled: the answers among them.
    """

    def __init__(self, max_age_seconds: float = float("inf"), draw: Callable[[], float] = no_jitter) -> None:
        self.unsettled = Unsettled(max_age_seconds, draw)
        self._held: dict[Key, Held] = {}
        self._epochs = Epochs()  # of those without an answer
        self._input_bytes = 0
        self._waiting: deque[Key] = deque()
        self._running: dict[int, _Run] = {}
        self._token = 0

    def __len__(self) -> int:
        return len(self._held) + len(self.unsettled)

    def __contains__(self, key: Key) -> bool:
        return key in self._held or self.unsettled.get(key) is not None

    def keys(self) -> list[Key]:
        """Return every (job, epoch) that is held: answered ones first, for they would be the greater loss."""
        return [*self.unsettled.keys(), *self._held]

    def get(self, key: Key) -> Held | None:
        """Return one attempt that has no answer yet."""
        return self._held.get(key)

    def active(self) -> int:
        """How many are waiting or running; runs that were dropped count until the worker is through with them."""
        return len(self._waiting) + len(self._running)

    def counts(self) -> dict[str, int]:
        """Return how many wait, run, and are answered but not settled, for people."""
        running = len(self._held) - len(self._waiting)
        return {"waiting": len(self._waiting), "running": running, "unsettled": len(self.unsettled)}

    def unfinished(self) -> int:
        """How many are waiting or running for the coordinator: what it counts, too."""
        return len(self._held)

    @property
    def held_bytes(self) -> int:
        """Bytes of all inputs and answers."""
        return self._input_bytes + self.unsettled.held_bytes

    def newest_epoch(self, job: bytes) -> int:
        """Return the newest epoch of a job that is held, 0 for none."""
        return max((*self._epochs.of(job), *self.unsettled.epochs.of(job)), default=0)

    def drop_older(self, job: bytes, epoch: int) -> None:
        """Forget the attempts of a job before this epoch: their answers would be refused."""
        for older in [e for e in (*self._epochs.of(job), *self.unsettled.epochs.of(job)) if e < epoch]:
            self.drop((job, older))

    def add(self, job: Job, inputs: tuple[Tensor, ...], now: Now, *, first: bool = False) -> Held:
        """Take an attempt in; one that goes first waits before all that do not."""
        self._token += 1
        held = Held(job, inputs, now.wall_ms, now.monotonic + renew_seconds(job), self._token, first=first)
        self._held[held.key] = held
        self._epochs.add(held.key)
        self._input_bytes += held.input_bytes
        if first:
            self._waiting.insert(sum(self._held[key].first for key in self._waiting), held.key)
        else:
            self._waiting.append(held.key)
        return held

    def drop(self, key: Key) -> bool:
        """Forget an attempt; a run of it goes on in the worker and its outcome is ignored."""
        held = self._take_out(key)
        if held is None:
            return self.unsettled.drop(key)
        if held.stage is Stage.WAITING:
            self._waiting.remove(key)
        return True

    def _take_out(self, key: Key) -> Held | None:
        held = self._held.pop(key, None)
        if held is not None:
            self._input_bytes -= held.input_bytes
            self._epochs.discard(key)
        return held

    def finish(self, held: Held, payload: bytes, now: Now) -> Answer:
        """Keep the signed answer, and no longer the inputs, until it is settled."""
        self.forget_run(held.token, now)
        if held.stage is Stage.WAITING:
            self._waiting.remove(held.key)
        self._take_out(held.key)
        return self.unsettled.add(held.key, payload, now)

    # -- the worker's queue ---------------------------------------------------------------------------------------

    def next_variant(self) -> bytes | None:
        """Return the variant of the oldest waiting attempt, if one waits."""
        return self._held[self._waiting[0]].job.variant if self._waiting else None

    def start_next(self, now: Now, lanes: int = 1) -> Held | None:
        """Move the oldest waiting attempt to running, with a whole lease of time from now.

        Args:
            now: the moment.
            lanes: how many runs of its variant the worker computes side by side.
        """
        if not self._waiting:
            return None
        held = self._held[self._waiting.popleft()]
        held.stage = Stage.RUNNING
        seconds = max(MIN_RUN_SECONDS, held.job.lease_ms / 1000)
        self._running[held.token] = _Run(held.key, held.job.variant, seconds, now.monotonic + seconds, lanes)
        return held

    def running(self, token: int) -> Held | None:
        """Return the attempt of a run, unless it was dropped meanwhile."""
        run = self._running.get(token)
        held = self._held.get(run.key) if run else None
        return held if held is not None and held.token == token else None  # it may have been dropped and come again

    def running_count(self) -> int:
        """Return how many runs the worker holds."""
        return len(self._running)

    def running_tokens(self) -> list[int]:
        """Return the tokens of the runs that the worker holds, in the order in which it does them."""
        return list(self._running)

    def computing(self) -> tuple[bytes, bytes] | None:
        """Return what the worker computes, dropped or not; None if it has nothing to do.

        Returns:
            The variant, and what tells its inputs from others: a digest; of a dropped run, the job.
        """
        run = next(iter(self._running.values()), None)
        if run is None:
            return None
        held = self._held.get(run.key)
        return run.variant, run.key[0] if held is None else _digest(held.inputs)

    def back_to_waiting(self, tokens: list[int]) -> None:
        """Put runs that never began back at the head of the queue, in their order."""
        for token in reversed(tokens):
            held = self.running(token)
            self._running.pop(token, None)
            if held is not None:
                held.stage = Stage.WAITING
                self._waiting.appendleft(held.key)

    def forget_run(self, token: int, now: Now) -> None:
        """Take note that the worker no longer has this run; the next one has its time from now."""
        if token not in self._running:
            return
        computing = {id(run) for run in self._computing()}
        del self._running[token]
        for run in self._computing():
            if id(run) not in computing:
                run.until = now.monotonic + run.seconds

    def _computing(self) -> list[_Run]:
        """Return what the worker computes, oldest first."""
        runs = list(self._running.values())
        return runs[: runs[0].lanes] if runs else []

    def computing_tokens(self) -> list[int]:
        """Return the tokens of the runs that the worker computes; those behind them have not begun."""
        return self.running_tokens()[: len(self._computing())]

    def overdue_run(self, now: Now) -> float | None:
        """Say that the run that the worker computes, dropped or not, takes longer than its lease; once a lease.

        Returns:
            The seconds that it was given, or None if all is well.
        """
        for run in self._computing():
            if run.until <= now.monotonic:
                run.until = now.monotonic + run.seconds
                return run.seconds
        return None

    # -- leases and what is due -----------------------------------------------------------------------------------

    def renewable(self) -> list[Held]:
        """Return the attempts whose leases are to be renewed: all without an answer, while we watch over them."""
        return list(self._held.values())

    def waiting(self) -> list[Held]:
        """Return the attempts that have not begun."""
        return [self._held[key] for key in self._waiting]

    def next_deadline(self, *, connected: bool = True) -> float | None:
        """Return the monotonic second at which something here is due, if any."""
        due = [held.renew_at for held in self._held.values()]
        due += [run.until for run in self._computing()]
        if (answer := self.unsettled.next_deadline(connected=connected)) is not None:
            due.append(answer)
        return min(due, default=None)


def _digest(inputs: tuple[Tensor, ...]) -> bytes:
    state = hashlib.sha256()
    for tensor in inputs:
        state.update(repr(tensor.spec).encode())
        state.update(tensor.data)
    return state.digest()


def renew_seconds(job: Job) -> float:
    """Return how often the lease of an attempt is renewed: two messages in a row may get lost."""
    return max(MIN_RENEW_SECONDS, job.lease_ms / 3000)
