"""How a job is taken on, or answered why not: for us, for this connection, of what we offer, and room for it. Pure."""

from __future__ import annotations

import logging

from edge_agent.agent.attempts import Attempts
from edge_agent.agent.delivery import Delivery, attempt_note
from edge_agent.agent.events import Command
from edge_agent.agent.planner import Planner
from edge_agent.agent.presence import Presence
from edge_agent.agent.rules import Rules
from edge_agent.agent.terms import Clientele
from edge_agent.clock import Now
from edge_agent.errors import PeerError, RefusedError
from edge_agent.notes import Note
from edge_agent.wire.envelope import Opened, attach, open_envelope, signed_part
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.messages import MAX_HELD, Job
from edge_agent.wire.tensors import Tensor

QUEUE_FULL_RETRY_SECONDS = 1.0
MEMORY_FULL_RETRY_SECONDS = 5.0
"""As a rule, what is held has been computed or settled by then."""


class Intake:
    """Puts jobs into the table of attempts.

    Args:
        presence: who we are, and in which network.
        coordinator_key: the pinned key.
        planner: knows what is offered.
        attempts: the table.
        delivery: answers what is not taken on.
        rules: limits.
        clientele: for whom the machine works.
    """

    def __init__(  # noqa: PLR0913, PLR0917 made in one place
        self,
        presence: Presence,
        coordinator_key: PublicKey,
        planner: Planner,
        attempts: Attempts,
        delivery: Delivery,
        rules: Rules,
        clientele: Clientele,
    ) -> None:
        self._presence = presence
        self._coordinator_key = coordinator_key
        self._planner = planner
        self._attempts = attempts
        self._delivery = delivery
        self._rules = rules
        self._clientele = clientele

    def take(self, payload: bytes, session: int | None, now: Now, *, why_not: str | None) -> list[Command]:
        """Take a job on, or say why not.

        Args:
            payload: foreign bytes.
            session: of our connection.
            now: the moment.
            why_not: why nothing is taken on now, if that is so.

        Raises:
            PeerError: it is not an attempt that was leased to this connection of ours, or is fenced: no answer.
        """
        limit = self._rules.max_message_bytes
        if len(payload) > limit:
            text = f"a job of {len(payload)} bytes is above this agent's limit of {limit} bytes"
            job = self._open(signed_part(payload, Job.max_statement_bytes), session).statement
            return self._refuse(job, "too-large", text, 0.0, now)
        opened = self._open(payload, session)
        job = opened.statement
        key = (job.job, job.epoch)
        if (answer := self._attempts.unsettled.get(key)) is not None:
            return [self._delivery.say(answer)]
        if self._attempts.get(key) is not None:
            return []
        if job.epoch < self._attempts.newest_epoch(job.job):  # it came late
            raise RefusedError("a newer attempt of this job is held already", code="stale-epoch")
        try:
            inputs = tuple(attach(job.inputs, opened.attachments, job.salt, copied=False))
        except PeerError as error:
            text = f"Refused the inputs of a job: {error.message}"
            note = Note(logging.WARNING, text, "refused", (("code", error.error_code), ("job_id", job.job.hex())))
            return [note, self._delivery.refuse(key, error.error_code, error.message, now)]
        if why_not is not None:
            return [self._delivery.refuse(key, "handed-back", why_not, now)]
        return self._admit(job, inputs, now)

    def turn_away(self, signed: bytes, session: int | None, now: Now) -> list[Command]:
        """Answer a job for which the inbox had no room.

        Args:
            signed: the part of the message that is signed.
            session: of our connection.
            now: the moment.

        Raises:
            PeerError: as `take`.
        """
        job = self._open(signed, session).statement
        return self._refuse(job, "queue-full", "the agent's inbox is full", QUEUE_FULL_RETRY_SECONDS, now)

    def _open(self, payload: bytes, session: int | None) -> Opened[Job]:
        network = self._presence.topics.network
        opened = open_envelope(payload, self._coordinator_key, Job, network=network, max_bytes=len(payload))
        job = opened.statement
        if job.agent_id != self._presence.agent_id:
            raise RefusedError("the job is for another agent", code="wrong-agent")
        if job.session != session:  # it was sent before we reconnected, and is leased again by now
            raise RefusedError(f"the job is for session {job.session} of this agent", code="stale-session")
        return opened

    def _admit(self, job: Job, inputs: tuple[Tensor, ...], now: Now) -> list[Command]:
        key = (job.job, job.epoch)
        if (why_not := self._clientele.why_not(job)) is not None:
            return self._refuse(job, self._clientele.code(job), why_not, 0.0, now)
        if self._planner.offered(job.variant) is None:
            return [self._delivery.refuse(key, "wrong-model", "this variant is not offered here", now)]
        self._attempts.drop_older(job.job, job.epoch)
        full = self._why_full(sum(len(tensor.data) for tensor in inputs))
        if full is not None:
            text, seconds = full
            return self._refuse(job, "queue-full", text, seconds, now)
        self._attempts.add(job, inputs, now, first=self._clientele.goes_first(job))
        self._planner.on_job(job.family, now)
        return [attempt_note("Took an attempt on", "attempt-taken", key)]

    def _why_full(self, input_bytes: int) -> tuple[str, float] | None:
        """Say why a job with so many bytes is one too many, and in how many seconds there may be room."""
        rules, held, count = self._rules, self._attempts.held_bytes, len(self._attempts)
        if self._attempts.unfinished() >= rules.max_in_flight:
            return f"the agent holds {rules.max_in_flight} attempts already", QUEUE_FULL_RETRY_SECONDS
        if count >= MAX_HELD:  # a birth could not list it
            return f"the agent holds {count} attempts, unsettled ones included", MEMORY_FULL_RETRY_SECONDS
        if held and held + input_bytes > rules.max_held_bytes:
            text = f"the agent holds {held} bytes of inputs and unsettled answers; its limit is {rules.max_held_bytes}"
            return text, MEMORY_FULL_RETRY_SECONDS
        return None

    def _refuse(self, job: Job, code: str, why: str, retry_after_seconds: float, now: Now) -> list[Command]:
        key = (job.job, job.epoch)
        if key in self._attempts:  # it came a second time, and the first one was taken on
            return []
        fields = (("code", code), ("job_id", job.job.hex()), ("epoch", job.epoch))
        note = Note(logging.WARNING, f"Did not take a job on: {why}", "turned-away", fields)
        return [note, self._delivery.refuse(key, code, why, now, retry_after_seconds=retry_after_seconds)]
