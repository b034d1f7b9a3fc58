"""Signed answers that wait for the coordinator's settlement: when each is sent again, when it is given up. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass

from edge_agent.clock import Now
from edge_agent.wire.envelope import signed_part
from edge_agent.wire.messages import Result

REDELIVER_FIRST_SECONDS = 5.0
REDELIVER_MAX_SECONDS = 60.0

BATCH_ANSWERS = 64
BATCH_BYTES = 4 * 1024 * 1024
"""So much is sent again at once; the rest follows after `BATCH_PAUSE_SECONDS`. The outbox is bounded, too."""
BATCH_PAUSE_SECONDS = 0.1

Key = tuple[bytes, int]
"""(job, epoch)"""


def no_jitter() -> float:
    """Stand in for a random number from 0 to 1, for scripts that must know when something is due."""
    return 1.0


class Epochs:
    """The epochs of each job in a table, so that nobody has to walk over all of it for those of one job."""

    def __init__(self) -> None:
        self._of: dict[bytes, set[int]] = {}

    def of(self, job: bytes) -> Collection[int]:
        """Return those of a job."""
        return self._of.get(job, ())

    def add(self, key: Key) -> None:
        """Take note of an attempt."""
        self._of.setdefault(key[0], set()).add(key[1])

    def discard(self, key: Key) -> None:
        """Forget one that is there."""
        epochs = self._of[key[0]]
        epochs.discard(key[1])
        if not epochs:
            del self._of[key[0]]


@dataclass(slots=True)
class Answer:
    """One signed result or failure.

    Attributes:
        redeliver_at: monotonic seconds at which it is sent again.
        give_up_at: monotonic seconds at which it is forgotten, settled or not.
        pause_seconds: the last one before it was sent again.
        spooled: whether it is on disk, too.
        family: of a result; empty for a failure.
        variant: of a result, by its digest.
        signed_bytes: at the start of the payload; 0 where it was not made here and now.
    """

    key: Key
    payload: bytes
    redeliver_at: float
    give_up_at: float
    pause_seconds: float = REDELIVER_FIRST_SECONDS
    spooled: bool = False
    family: str = ""
    variant: bytes = b""
    signed_bytes: int = 0

    def signed(self) -> bytes:
        """Return the part of a result that is signed."""
        return self.payload[: self.signed_bytes] or signed_part(self.payload, Result.max_statement_bytes)


class Unsettled:
    """The table of unsettled answers, in the order in which they were made.

    Args:
        max_age_seconds: an answer that nobody settled for so long is given up.
        draw: gives random numbers from 0 to 1. A pause is half fixed and half drawn, so that the answers of many
            agents that lost the same coordinator do not come back in the same instant.

    Attributes:
        epochs: to which there is an answer, by job.
    """

    def __init__(self, max_age_seconds: float, draw: Callable[[], float]) -> None:
        self._max_age_seconds = max_age_seconds
        self._draw = draw
        self._answers: dict[Key, Answer] = {}
        self.epochs = Epochs()
        self._held_bytes = 0
        self._not_before = 0.0  # the last batch was a full one
        self._forgotten: list[Key] = []

    def __len__(self) -> int:
        return len(self._answers)

    def __iter__(self) -> Iterator[Answer]:
        return iter(self._answers.values())

    def keys(self) -> list[Key]:
        """Return (job, epoch) of every answer."""
        return list(self._answers)

    def get(self, key: Key) -> Answer | None:
        """Return one answer."""
        return self._answers.get(key)

    def add(self, key: Key, payload: bytes, now: Now, *, age_seconds: float = 0.0) -> Answer:
        """Keep an answer; it is said for the first time by the caller.

        Args:
            key: job and epoch; an older answer under it is replaced.
            payload: the signed message.
            now: the moment.
            age_seconds: how long it was kept before, by an agent that has been restarted since.
        """
        left = max(0.0, self._max_age_seconds - age_seconds)
        first = now.monotonic + self._jittered(REDELIVER_FIRST_SECONDS)
        self._take_out(key)
        answer = Answer(key, payload, first, now.monotonic + left)
        self._answers[key] = answer
        self.epochs.add(key)
        self._held_bytes += len(payload)
        return answer

    def _take_out(self, key: Key) -> Answer | None:
        answer = self._answers.pop(key, None)
        if answer is not None:
            self._held_bytes -= len(answer.payload)
            self.epochs.discard(key)
        return answer

    def drop(self, key: Key) -> bool:
        """Forget an answer, on disk too."""
        answer = self._take_out(key)
        if answer is None:
            return False
        if answer.spooled:
            self._forgotten.append(key)
        return True

    # -- delivery -------------------------------------------------------------------------------------------------

    def again(self, now: Now) -> None:
        """Make every answer due, as after a reconnection: whatever was sent before may be lost."""
        self._not_before = now.monotonic
        for answer in self._answers.values():
            answer.redeliver_at = now.monotonic
            answer.pause_seconds = REDELIVER_FIRST_SECONDS / 2

    def due(self, now: Now) -> list[Answer]:
        """Take one batch of what is due; each comes again later than the last time."""
        if now.monotonic < self._not_before:
            return []
        batch: list[Answer] = []
        size = 0
        for answer in self._answers.values():
            if answer.redeliver_at > now.monotonic:
                continue
            size += len(answer.payload)
            if batch and (len(batch) >= BATCH_ANSWERS or size > BATCH_BYTES):
                self._not_before = now.monotonic + BATCH_PAUSE_SECONDS
                break
            batch.append(answer)
        for answer in batch:
            answer.pause_seconds = min(2 * answer.pause_seconds, REDELIVER_MAX_SECONDS)
            answer.redeliver_at = now.monotonic + self._jittered(answer.pause_seconds)
        return batch

    def expired(self, now: Now) -> list[Answer]:
        """Take out the answers that nobody settled in time."""
        old = [answer for answer in self._answers.values() if answer.give_up_at <= now.monotonic]
        for answer in old:
            self.drop(answer.key)
        return old

    def next_deadline(self, *, connected: bool) -> float | None:
        """Return the monotonic second at which something is due; without a connection nothing is sent."""
        due = [answer.give_up_at for answer in self._answers.values()]
        if connected:
            due += [max(self._not_before, answer.redeliver_at) for answer in self._answers.values()]
        return min(due, default=None)

    def _jittered(self, seconds: float) -> float:
        return seconds * (0.5 + 0.5 * self._draw())

    # -- bounds ---------------------------------------------------------------------------------------------------

    @property
    def held_bytes(self) -> int:
        """Bytes of all answers together."""
        return self._held_bytes

    def make_room_on_disk(self, more_bytes: int, *, max_bytes: int, max_results: int) -> list[Key]:
        """Take the oldest answers off the disk until one more of this size fits; they stay in memory.

        Returns:
            What is to be forgotten there.
        """
        spooled = [answer for answer in self._answers.values() if answer.spooled]
        size = sum(len(answer.payload) for answer in spooled)
        removed: list[Key] = []
        for answer in spooled:
            if size + more_bytes <= max_bytes and len(spooled) - len(removed) < max_results:
                break
            answer.spooled = False
            size -= len(answer.payload)
            removed.append(answer.key)
        return removed

    def not_on_disk(self, keys: tuple[Key, ...]) -> None:
        """Take note that these answers could not be written; they are in memory alone."""
        for key in keys:
            if (answer := self._answers.get(key)) is not None:
                answer.spooled = False

    def take_forgotten(self) -> tuple[Key, ...]:
        """Return what was dropped and is still on disk, once."""
        forgotten, self._forgotten = tuple(self._forgotten), []
        return forgotten
