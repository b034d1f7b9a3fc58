"""The attempts that an agent holds: waiting, running, or finished and not yet settled. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from edge_agent.clock import Now
from edge_agent.wire.messages import Job
from edge_agent.wire.tensors import Tensor

REDELIVER_FIRST_SECONDS = 5.0
REDELIVER_MAX_SECONDS = 60.0

Key = tuple[bytes, int]
"""(job, epoch)"""


class Stage(StrEnum):
    """Where an attempt stands on this machine."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


@dataclass(slots=True)
class Held:
    """One attempt.

    Attributes:
        lease_until: monotonic seconds; a run that is not over by then is given up.
        renew_at: monotonic seconds at which the lease is renewed, until there is an answer.
        token: names the run in the worker.
        answer: the signed result or failure, kept until the coordinator settles it.
        redeliver_at: monotonic seconds at which the answer is sent again.
    """

    job: Job
    inputs: tuple[Tensor, ...]
    received_ms: int
    lease_until: float
    renew_at: float
    token: int
    stage: Stage = Stage.WAITING
    answer: bytes = b""
    redeliver_at: float = 0.0
    redeliver_after_seconds: float = REDELIVER_FIRST_SECONDS


class Attempts:
    """The table of held attempts, in the order in which they came."""

    def __init__(self) -> None:
        self._held: dict[Key, Held] = {}
        self._waiting: deque[Key] = deque()
        self._running: dict[int, Key] = {}
        self._token = 0

    def __len__(self) -> int:
        return len(self._held)

    def keys(self) -> list[Key]:
        """Return every (job, epoch) that is held, finished ones included."""
        return list(self._held)

    def get(self, key: Key) -> Held | None:
        """Return one attempt."""
        return self._held.get(key)

    def active(self) -> int:
        """How many are waiting or running; runs that were dropped count until the worker is through with them."""
        return len(self._waiting) + len(self._running)

    def unfinished(self) -> int:
        """How many are waiting or running for the coordinator: what it counts, too."""
        return sum(1 for held in self._held.values() if held.stage is not Stage.FINISHED)

    def newest_epoch(self, job: bytes) -> int:
        """Return the newest epoch of a job that is held, 0 for none."""
        return max((epoch for held_job, epoch in self._held if held_job == job), default=0)

    def drop_older(self, job: bytes, epoch: int) -> None:
        """Forget the attempts of a job before this epoch: their answers would be refused."""
        for key in [key for key in self._held if key[0] == job and key[1] < epoch]:
            self.drop(key)

    def add(self, job: Job, inputs: tuple[Tensor, ...], now: Now) -> Held:
        """Take an attempt in."""
        self._token += 1
        lease = job.lease_ms / 1000
        held = Held(job, inputs, now.wall_ms, now.monotonic + lease, now.monotonic + lease / 3, self._token)
        self._held[job.job, job.epoch] = held
        self._waiting.append((job.job, job.epoch))
        return held

    def start_next(self, now: Now) -> Held | None:
        """Move the oldest waiting attempt to running, with a whole lease of time from now."""
        if not self._waiting:
            return None
        key = self._waiting.popleft()
        held = self._held[key]
        held.stage = Stage.RUNNING
        held.lease_until = now.monotonic + held.job.lease_ms / 1000
        self._running[held.token] = key
        return held

    def running(self, token: int) -> Held | None:
        """Return the attempt of a run, unless it was dropped meanwhile."""
        key = self._running.get(token)
        held = self._held.get(key) if key else None
        return held if held is not None and held.token == token else None  # it may have been dropped and come again

    def running_tokens(self) -> list[int]:
        """Return the tokens of the runs that the worker holds, in the order in which it does them."""
        return list(self._running)

    def finish(self, held: Held, answer: bytes, now: Now) -> None:
        """Keep the signed answer until it is settled."""
        key = (held.job.job, held.job.epoch)
        self._running.pop(held.token, None)
        if held.stage is Stage.WAITING and key in self._waiting:
            self._waiting.remove(key)
        held.stage = Stage.FINISHED
        held.inputs = ()
        held.answer = answer
        held.redeliver_at = now.monotonic + held.redeliver_after_seconds

    def back_to_waiting(self, tokens: list[int]) -> None:
        """Put runs that never began back at the head of the queue, in their order."""
        for token in reversed(tokens):
            held = self.running(token)
            key = self._running.pop(token, None)
            if held is not None and key is not None:
                held.stage = Stage.WAITING
                self._waiting.appendleft(key)

    def drop(self, key: Key) -> bool:
        """Forget an attempt; a run of it goes on in the worker and its outcome is ignored."""
        held = self._held.pop(key, None)
        if held is None:
            return False
        if held.stage is Stage.WAITING:
            self._waiting.remove(key)
        return True

    def forget_run(self, token: int, now: Now) -> None:
        """Take note that the worker no longer has this run; the next one has its time from now."""
        self._running.pop(token, None)
        if (following := self.first_running()) is not None:
            following.lease_until = now.monotonic + following.job.lease_ms / 1000

    def unsettled(self) -> list[Held]:
        """Return the finished attempts whose answers may have to be sent again."""
        return [held for held in self._held.values() if held.stage is Stage.FINISHED]

    def renewable(self) -> list[Held]:
        """Return the attempts whose leases are to be renewed: all that are not finished, while we watch over them."""
        return [held for held in self._held.values() if held.stage is not Stage.FINISHED]

    def waiting(self) -> list[Held]:
        """Return the attempts that have not begun."""
        return [self._held[key] for key in self._waiting]

    def first_running(self) -> Held | None:
        """Return the attempt that the worker is computing, as far as we know."""
        return next((held for token in self._running if (held := self.running(token)) is not None), None)

    def next_deadline(self) -> float | None:
        """Return the monotonic second at which something here is due, if any."""
        due = [held.renew_at for held in self.renewable()]
        due += [held.redeliver_at for held in self.unsettled()]
        if (first := self.first_running()) is not None:
            due.append(first.lease_until)
        return min(due, default=None)
