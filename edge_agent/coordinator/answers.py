"""What the coordinator does about what agents answer: results and failures. Pure."""

from __future__ import annotations

import logging

from edge_agent.clock import Now
from edge_agent.coordinator.checking import Checking
from edge_agent.coordinator.events import Command, Commit
from edge_agent.coordinator.job_note import note
from edge_agent.coordinator.jobs import Attempt, Blame, Job, JobError, JobState
from edge_agent.coordinator.leasing import Leasing
from edge_agent.coordinator.parties import Parties
from edge_agent.coordinator.registry import Agent, Registry
from edge_agent.coordinator.retries import BACKOFF_MAX_SECONDS, Draw, as_said
from edge_agent.coordinator.rules import Rules
from edge_agent.coordinator.statements import Statements
from edge_agent.coordinator.trust import Party
from edge_agent.coordinator.verification import match_attempt, open_answer, verify_result
from edge_agent.errors import PeerError, RefusedError
from edge_agent.models.catalogue import Family
from edge_agent.notes import Note
from edge_agent.wire.envelope import Opened
from edge_agent.wire.messages import Failure, Result

LATE_CODES = frozenset({"stale-epoch", "stale-session", "unknown-job"})
"""What honest agents and brokers send, too, after a fault: repeated, retained, or overtaken. Worth no warning."""


class Answers:
    """Takes answers to attempts, verifies them, and settles them.

    Args:
        registry: the agents.
        parties: whose each of them is.
        leasing: the jobs.
        statements: signs what we say; holds our key.
        checking: decides which results are checked, and how.
        families: of the catalogue, by name.
        rules: limits and times.
        draw: gives random numbers from 0 to 1.
    """

    def __init__(  # noqa: PLR0913, PLR0917 each is a part of the core
        self,
        registry: Registry,
        parties: Parties,
        leasing: Leasing,
        statements: Statements,
        checking: Checking,
        families: dict[str, Family],
        rules: Rules,
        draw: Draw,
    ) -> None:
        self._registry = registry
        self._parties = parties
        self._leasing = leasing
        self._statements = statements
        self._checking = checking
        self._families = families
        self._rules = rules
        self._draw = draw

    def on_answer(self, agent_id: str, payload: bytes, now: Now) -> list[Command]:
        """Accept a result, take note of a failure, or refuse either. What is accepted is told by `Acceptance.finish`.

        Raises:
            PeerError: it could not be opened, and nothing has changed.
        """
        agent = self._registry.get(agent_id)
        network = self._statements.topics.network
        opened = open_answer(payload, agent.key, network=network, max_bytes=self._rules.max_message_bytes)
        statement = opened.statement
        job = self._leasing.jobs.get(statement.job)
        if job is None:  # ended or never known: say so, so that it is not sent again
            text = "the job has ended or was never known"
            settled = self._statements.settled(agent_id, statement, "unknown", "unknown-job", now)
            return [
                Commit((), then=(settled,)),  # if it ended a moment ago, its end is stored first
                refusal(f"results of {agent_id}", RefusedError(text, code="unknown-job")),
            ]
        try:
            attempt = match_attempt(statement, job, agent_id)
            if isinstance(statement, Failure):
                if job.state is JobState.HELD:  # its result is here; the settlement tells it what became of that
                    return []
                return self._on_failure(agent, statement, job, attempt, now)
            return self._accept(agent, opened, job, attempt, now)
        except RefusedError as error:
            return [
                self._statements.settled(agent_id, statement, "refused", error.error_code, now),
                refusal(f"results of {agent_id}", error),
            ]
        except PeerError as error:  # the tensors beside the signature were changed on the way: it may send them again
            return [refusal(f"results of {agent_id}", error)]

    def _accept(
        self, agent: Agent, opened: Opened[Result | Failure], job: Job, attempt: Attempt, now: Now
    ) -> list[Command]:
        family = self._families.get(job.family)
        if family is None:  # the job is from before a change of the catalogue
            raise RefusedError(f"the family {job.family} is no longer in the catalogue", code="wrong-model")
        max_skew_ms = int(self._rules.max_clock_skew_seconds * 1000)
        verified = verify_result(opened, job, family, received_ms=now.wall_ms, max_skew_ms=max_skew_ms)
        if job.state is JobState.HELD:  # it came again, and is settled when it is checked
            return []
        self._learn(agent, job, attempt, verified.statement.run_us, now)
        return self._checking.on_result(job, attempt, verified, now)

    def _learn(self, agent: Agent, job: Job, attempt: Attempt, run_us: int, now: Now) -> None:
        """Refine what is known of the agent's speed and room."""
        offer = agent.offers.get(job.family)
        if offer is None or offer.variant != attempt.variant:
            return  # withdrawn meanwhile
        agent.credit.answer(offer.max_in_flight)
        turnaround_us = (now.monotonic - attempt.leased_at) * 1e6
        agent.speed(offer).observe(run_us=run_us, turnaround_us=turnaround_us, ahead=attempt.ahead)

    def _on_failure(self, agent: Agent, failure: Failure, job: Job, attempt: Attempt, now: Now) -> list[Command]:
        settled = self._statements.settled(agent.id, failure, "accepted", None, now)
        after_seconds, code = failure.retry_after_ms / 1000, as_said(failure.code)
        if code == "queue-full":
            agent.credit.refuse(len(agent.in_flight) - 1, now.monotonic, self._draw, after_seconds)
        else:
            if job.excused[agent.id, code]:  # it handed the same job back before: its offers got lost, or are not meant
                after_seconds = BACKOFF_MAX_SECONDS
            agent.credit.pause(now.monotonic, after_seconds)
        failed = note(logging.WARNING, f"An attempt failed: {failure.message}", "attempt-failed", job, attempt)
        party = self._parties.party(agent.id)
        if failure.retry or not self._believed(party, job, now):
            # Who says that others may succeed says that it was its own fault, whatever it names besides.
            blame = Blame(failure.blame) if party.trusted else Blame.AGENT
            lost = self._leasing.lose(
                job,
                attempt,
                code,
                now,
                message=failure.message,
                blame=blame,
                refused_by=None if failure.retry else party.owner,
                then=settled,
            )
            return [failed, *lost]
        error = JobError(code, failure.message, Blame(failure.blame))
        return [failed, *self._leasing.fail(job, attempt, error, now, then=settled)]

    def _believed(self, party: Party, job: Job, now: Now) -> bool:
        """Whether a job ends because a machine says that it can never succeed.

        It does if the operator trusts the machine, if another owner's has said so, too, or if there is no other to ask.
        """
        if party.trusted or job.refusals.keys() - {party.owner}:
            return True
        return not self._leasing.refusals.can_ask(job, {party.owner}, now.monotonic)


def refusal(where: str, error: PeerError) -> Note:
    """Make the log line about a message that was refused."""
    text = f"Refused a message on {where}: {error.message}"
    level = logging.INFO if error.error_code in LATE_CODES else logging.WARNING
    return Note(level, text, "refused", (("code", error.error_code),))
