"""Ends jobs with their results: the receipts, the records, and what agents and clients are told. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace

from edge_agent.clock import Now
from edge_agent.coordinator.events import Command, Commit, EndJob, Outcome, Record, Verification
from edge_agent.coordinator.jobs import Attempt, Job
from edge_agent.coordinator.leasing import Leasing
from edge_agent.coordinator.registry import Registry
from edge_agent.coordinator.statements import Statements
from edge_agent.coordinator.verification import VerifiedResult
from edge_agent.wire.messages import Result
from edge_agent.wire.receipts import make_receipts


@dataclass(frozen=True, slots=True)
class _Accepted:
    """A result that has ended its job and has no receipt yet; `records` are of the job's other attempts."""

    verified: VerifiedResult
    verification: Verification
    job: Job
    attempt: Attempt
    records: tuple[Record, ...]
    also: tuple[Record, ...]

    def commit(self, receipt: bytes, now: Now) -> Commit:
        """Return what is stored of it."""
        statement, job = self.verified.statement, self.job
        outcome = Outcome(
            job.id,
            job.state,
            outputs=self.verified.outputs,
            receipt=receipt,
            agent_id=statement.agent_id,
            variant=statement.variant,
            klass=statement.klass.id,
            run_us=statement.run_us,
            verification=self.verification,
        )
        end = (*self.records, EndJob(outcome, self.attempt.epoch, now.wall_ms), *self.also)
        return Commit(end, durable=not job.synchronous, then=(outcome,))


class Acceptance:
    """Accepts results.

    Args:
        registry: the agents, with their certificates.
        leasing: the jobs.
        statements: signs what we say; holds our key.
    """

    def __init__(self, registry: Registry, leasing: Leasing, statements: Statements) -> None:
        self._registry = registry
        self._leasing = leasing
        self._statements = statements
        self._accepted: list[_Accepted] = []
        self._later: list[Record] = []

    def accept(  # noqa: PLR0913, PLR0917 what an accepted result consists of
        self,
        job: Job,
        attempt: Attempt,
        verified: VerifiedResult,
        verification: Verification,
        now: Now,
        also: tuple[Record, ...] = (),
    ) -> list[Command]:
        """End a job with this result. It is told by `finish`.

        Args:
            job: a live one.
            attempt: a live one of it.
            verified: its result.
            verification: what else was done to verify it.
            now: the moment.
            also: what is written in the same transaction.
        """
        cancels, records = self._leasing.succeed(job, attempt, now)
        self._accepted.append(_Accepted(verified, verification, job, attempt, tuple(records), also))
        # The other attempt is called off first: what its agent still computes is for nothing.
        return cancels

    def later(self, records: tuple[Record, ...]) -> None:
        """Write these behind the results that were accepted by now: they may be about them."""
        self._later += records

    def finish(self, now: Now) -> list[Command]:
        """Countersign what was accepted since the last call, with one signature, and store it; then it is told."""
        commits: list[Command] = []
        if self._accepted:
            accepted, self._accepted = self._accepted, []
            receipts = make_receipts(
                self._statements.key,
                [one.verified.countersigned(one.job.salt, self._certificate(one)) for one in accepted],
                network=self._statements.topics.network,
                accepted_ms=now.wall_ms,
            )
            ends = [one.commit(receipt, now) for one, receipt in zip(accepted, receipts, strict=True)]
            by_agent: dict[str, list[Result]] = {}
            for one in accepted:
                by_agent.setdefault(one.verified.statement.agent_id, []).append(one.verified.statement)
            settled = [p for agent, results in by_agent.items() for p in self._statements.accepted(agent, results, now)]
            # Commits are stored in order: behind the last of them, all are.
            ends[-1] = replace(ends[-1], then=(*ends[-1].then, *settled))
            commits += ends
        if self._later:
            commits.append(Commit(tuple(self._later), urgent=False))
            self._later = []
        return commits

    def _certificate(self, one: _Accepted) -> bytes | None:
        certified = self._registry.certificates.get(one.verified.statement.agent_id)
        return certified.signed if certified is not None else None
