"""Gets answers to the coordinator: said, kept, on disk if they were expensive, said again, given up. Pure."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from edge_agent.agent.answers import Answers, Blame
from edge_agent.agent.attempts import Attempts, Held
from edge_agent.agent.events import (
    Command,
    CountAccepted,
    ForgetSpooled,
    Publish,
    Spooled,
    SpoolFailed,
    SpoolLoaded,
    SpoolResult,
)
from edge_agent.agent.own_copy import Entry
from edge_agent.agent.rules import Rules
from edge_agent.agent.tally import Tally
from edge_agent.agent.unsettled import Answer, Key
from edge_agent.clock import Now
from edge_agent.errors import PeerError
from edge_agent.inference.events import RunDone
from edge_agent.notes import Note
from edge_agent.wire.envelope import attached_bytes
from edge_agent.wire.messages import MAX_HELD, Settled, VariantClass


class _Unsigned(NamedTuple):
    held: Held
    done: RunDone
    klass: VariantClass


class Delivery:
    """What becomes of the answers in a table of attempts.

    Args:
        attempts: the table.
        answers: signs.
        topic: where answers go.
        rules: limits and times.
        worth: gives what a result of a family and variant is worth.

    Attributes:
        tally: of what became of attempts.
    """

    def __init__(
        self, attempts: Attempts, answers: Answers, topic: str, rules: Rules, worth: Callable[[str, bytes], int]
    ) -> None:
        self.tally = Tally()
        self._attempts = attempts
        self._unsettled = attempts.unsettled
        self._answers = answers
        self._topic = topic
        self._rules = rules
        self._worth = worth
        self._max_answer_bytes = rules.max_message_bytes
        self._unsigned: list[_Unsigned] = []

    # -- answers --------------------------------------------------------------------------------------------------

    def result(self, held: Held, done: RunDone, klass: VariantClass) -> None:
        """Keep a result until `sign`; its attempt stays without an answer so long."""
        self._unsigned.append(_Unsigned(held, done, klass))

    def sign(self, now: Now) -> list[Command]:
        """Sign the results of this moment, together; give them, and keep on disk too what took long to compute."""
        if not self._unsigned:
            return []
        results = [one for one in self._unsigned if self._attempts.get(one.held.key) is one.held]
        self._unsigned.clear()
        payloads = self._answers.results([(one.held, one.klass, one.done) for one in results], now)
        commands: list[Command] = []
        for one, payload in zip(results, payloads, strict=True):
            commands += self._give(one.held, payload, one.done, now)
        return commands

    def _give(self, held: Held, payload: bytes, done: RunDone, now: Now) -> list[Command]:
        if len(payload) > self._max_answer_bytes:
            return self.fail(held, "too-large", self._too_large(len(payload)), "agent", now, retry=True)
        self.tally.finished(held.job.family, done.run_us, now.wall_ms)
        answer = self._attempts.finish(held, payload, now)
        answer.family, answer.variant = held.job.family, held.job.variant
        answer.signed_bytes = len(payload) - attached_bytes([tensor.data for tensor in done.outputs])
        note = attempt_note("Finished an attempt", "attempt-finished", answer.key)
        return [note, *self._spool(answer, done.run_us / 1e6), self.say(answer)]

    def fail(  # noqa: PLR0913 the fields of the statement
        self, held: Held, code: str, message: str, blame: Blame, now: Now, *, retry: bool
    ) -> list[Command]:
        """Give a signed failure."""
        self.tally.failed(held.job.family, code, now.wall_ms)
        payload = self._answers.failure(held.key, code, message, blame, now, retry=retry)
        return [self.say(self._attempts.finish(held, payload, now))]

    def hand_back_withdrawn(self, offered: Callable[[bytes], object | None], now: Now) -> list[Command]:
        """Hand back what waits for a variant that is served here no longer: others may have it."""
        waiting = self._attempts.waiting()
        if not waiting:
            return []
        withdrawn = {variant for variant in {held.job.variant for held in waiting} if offered(variant) is None}
        gone = [held for held in waiting if held.job.variant in withdrawn]
        why = "the variant was withdrawn"
        handed = [self.fail(held, "handed-back", why, "agent", now, retry=True) for held in gone]
        return [command for commands in handed for command in commands]

    def refuse(self, key: Key, code: str, message: str, now: Now, *, retry_after_seconds: float = 0.0) -> Publish:
        """Answer a job that is not taken on; not kept: when it is lost, the lease runs out."""
        payload = self._answers.failure(
            key, code, message, "agent", now, retry=True, retry_after_seconds=retry_after_seconds
        )
        return Publish(self._topic, payload)

    def say(self, answer: Answer) -> Publish:
        """Send an answer, for the first time or again."""
        return Publish(self._topic, answer.payload)

    # -- again ----------------------------------------------------------------------------------------------------

    def on_link_up(self, max_message_bytes: int | None, now: Now) -> list[Command]:
        """Learn what the broker takes; what is larger would never get through, so the attempt is handed back."""
        self._max_answer_bytes = min(self._rules.max_message_bytes, max_message_bytes or self._rules.max_message_bytes)
        commands: list[Command] = []
        for answer in [a for a in self._unsettled if len(a.payload) > self._max_answer_bytes]:
            text = self._too_large(len(answer.payload))
            self._unsettled.drop(answer.key)
            payload = self._answers.failure(answer.key, "too-large", text, "agent", now, retry=True)
            self._unsettled.add(answer.key, payload, now)
            commands.append(Note(logging.WARNING, f"Gave a result up: {text}", "answer-too-large", _fields(answer.key)))
        return commands

    def _too_large(self, size: int) -> str:
        return f"the result of {size} bytes is above the limit of {self._max_answer_bytes} bytes on the way back"

    def say_all_again(self, now: Now) -> list[Command]:
        """Begin to send every answer again: whatever was sent before may have been lost."""
        self._unsettled.again(now)
        return self.on_tick(now, connected=True)

    def on_tick(self, now: Now, *, connected: bool) -> list[Command]:
        """Give up what is too old, and send again what is due."""
        commands: list[Command] = []
        for answer in self._unsettled.expired(now):
            text = f"Nobody settled an answer for {self._rules.unsettled_seconds / 3600:g} hours; gave it up"
            commands.append(Note(logging.WARNING, text, "answer-given-up", _fields(answer.key)))
        if connected:
            commands += [self.say(answer) for answer in self._unsettled.due(now)]
        return commands

    def settle(self, settled: Settled) -> list[Command]:
        """Take note of what became of answers; they are not said again."""
        commands: list[Command] = []
        for attempt in settled.settled:
            key = (attempt.job, attempt.epoch)
            answer = self._unsettled.get(key)
            if not self._attempts.drop(key):
                continue
            if answer is not None and answer.family and attempt.outcome == "accepted":
                amount = self._worth(answer.family, answer.variant)
                commands.append(CountAccepted(answer.family, amount, Entry.of(*key, answer.signed())))
            if attempt.outcome == "refused":
                text = f"The coordinator refused our answer: {attempt.code}"
                commands.append(Note(logging.WARNING, text, "answer-refused", _fields(key)))
            text = f"The coordinator settled an attempt as {attempt.outcome}"
            commands.append(attempt_note(text, f"attempt-{attempt.outcome}", key))
        return commands

    # -- the disk -------------------------------------------------------------------------------------------------

    def _spool(self, answer: Answer, run_seconds: float) -> list[Command]:
        rules, size = self._rules, len(answer.payload)
        if run_seconds < rules.spool_seconds or size > rules.spool_bytes:
            return []
        commands: list[Command] = []
        removed = self._unsettled.make_room_on_disk(size, max_bytes=rules.spool_bytes, max_results=rules.spool_results)
        if removed:
            text = f"The spool is full: the {len(removed)} oldest of its results are in memory alone now"
            commands += [ForgetSpooled(tuple(removed)), Note(logging.WARNING, text, "spool-full")]
        answer.spooled = True
        job, epoch = answer.key
        return [*commands, SpoolResult(job, epoch, answer.payload)]

    def on_spool_loaded(self, event: SpoolLoaded, now: Now) -> list[Command]:
        """Take in what an earlier process left; what is not as we made it, or too much, is forgotten."""
        commands: list[Command] = []
        refused: dict[Key, str | None] = {}
        models: dict[Key, tuple[str, bytes]] = {}
        for spooled in event.answers:
            try:
                models[_key(spooled)], refused[_key(spooled)] = self._answers.model_of(spooled), None
            except PeerError as error:
                refused[_key(spooled)] = error.message
        newest = {job: epoch for job, epoch in sorted(refused, key=lambda key: key[1]) if refused[job, epoch] is None}
        wanted: list[Spooled] = []
        for spooled in reversed(event.answers):  # somebody still waits for the newest, if for any
            why = refused[_key(spooled)]
            if why is None and max(newest[spooled.job], self._attempts.newest_epoch(spooled.job) + 1) > spooled.epoch:
                why = "a newer attempt of this job is held"
            if why is None and spooled.age_seconds >= self._rules.unsettled_seconds:
                why = f"nobody settled it for {spooled.age_seconds / 3600:g} hours"
            if why is None and not self._has_room_for(spooled, wanted):
                why = "there are too many"
            if why is None:
                wanted.append(spooled)
            else:
                text = f"Left an answer in the spool aside: {why}"
                commands.append(Note(logging.WARNING, text, "spool-refused", _fields(_key(spooled))))
                refused[_key(spooled)] = why
        for spooled in reversed(wanted):
            self._attempts.drop_older(spooled.job, spooled.epoch)
            answer = self._unsettled.add(_key(spooled), spooled.payload, now, age_seconds=spooled.age_seconds)
            answer.spooled, (answer.family, answer.variant) = True, models[_key(spooled)]
        if wanted:
            text = f"Took {len(wanted)} unsettled results over from the spool"
            commands.append(Note(logging.INFO, text, "spool-loaded", (("results", len(wanted)),)))
        unwanted = tuple(key for key, why in refused.items() if why is not None)
        return [*commands, ForgetSpooled(unwanted)] if unwanted else commands

    def _has_room_for(self, spooled: Spooled, wanted: list[Spooled]) -> bool:
        size = sum(len(other.payload) for other in (*wanted, spooled))
        room = min(self._rules.spool_results, MAX_HELD - self._rules.max_in_flight)
        return len(wanted) < room and size <= self._rules.spool_bytes

    def on_spool_failed(self, event: SpoolFailed) -> list[Command]:
        """Go on without the disk: the answers are in memory alone."""
        self._unsettled.not_on_disk(event.keys)
        text = f"The spool does not work, so results are in memory alone: {event.reason}"
        return [Note(logging.WARNING, text, "spool-failed")]

    def forget_on_disk(self) -> list[Command]:
        """Take off the disk what was settled, fenced or given up meanwhile."""
        forgotten = self._unsettled.take_forgotten()
        return [ForgetSpooled(forgotten)] if forgotten else []

    def on_disk(self) -> list[Key]:
        """Return what would survive this process."""
        return [answer.key for answer in self._unsettled if answer.spooled]


def attempt_note(sentence: str, action: str, key: Key) -> Note:
    """Make a line for the log at its most talkative: with it, every attempt can be followed to its end."""
    return Note(logging.DEBUG, sentence, action, _fields(key))


def _key(spooled: Spooled) -> Key:
    return (spooled.job, spooled.epoch)


def _fields(key: Key) -> tuple[tuple[str, str | int], ...]:
    job, epoch = key
    return (("job_id", job.hex()), ("epoch", epoch))
