"""What the coordinator says to agents, as signed messages ready to be published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from edge_agent import __version__
from edge_agent.clock import Now
from edge_agent.coordinator.events import AgentCertificates, Publish
from edge_agent.coordinator.jobs import Attempt, Job
from edge_agent.coordinator.rules import Rules
from edge_agent.coordinator.verification import input_digests
from edge_agent.wire.envelope import seal, seal_together
from edge_agent.wire.identity import MAX_REVOKED, Enrolled, Revocations, Revoked
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import (
    MAX_SETTLED,
    PROTOCOL_VERSIONS,
    WITH_TERMS,
    Control,
    Failure,
    Hello,
    Result,
    Settled,
    SettledAttempt,
)
from edge_agent.wire.messages import Job as JobStatement
from edge_agent.wire.tensors import Tensor
from edge_agent.wire.terms import Terms
from edge_agent.wire.topics import Topics


@dataclass(frozen=True, slots=True)
class Lease:
    """A job for an agent that is not signed yet."""

    topic: str
    statement: JobStatement
    inputs: tuple[Tensor, ...]


class Statements:
    """Signs with the coordinator's key for one network.

    Args:
        key: the coordinator's.
        topics: of the network.
    """

    def __init__(self, key: SigningKey, topics: Topics) -> None:
        self.key = key
        self.topics = topics

    def hello(self, session: int, now: Now) -> Publish:
        """Announce a session of the coordinator; every agent answers with a birth."""
        hello = Hello(
            network=self.topics.network,
            issued_ms=now.wall_ms,
            coordinator_key=self.key.public.raw,
            session=session,
            software=f"edge-agent/{__version__}",
            versions=PROTOCOL_VERSIONS,
        )
        return Publish(self.topics.coordinator, seal(self.key, hello), retain=True)

    def lease(self, job: Job, attempt: Attempt, now: Now, rules: Rules, terms: Terms | None = None) -> Lease:
        """Lease an attempt: the statement, with the inputs that go beside it; to terms, whose it is as they name it."""
        more: dict[str, Any] = {}
        if terms is not None:
            labels = terms.labels_for(job.placement.job_labels)
            more = {"v": WITH_TERMS, "client": terms.name_for(job.client), "labels": labels}
        statement = JobStatement(
            network=self.topics.network,
            issued_ms=now.wall_ms,
            job=job.id,
            epoch=attempt.epoch,
            agent_id=attempt.agent_id,
            session=attempt.agent_session,
            family=job.family,
            variant=attempt.variant,
            inputs=input_digests(job),
            salt=job.salt,
            outputs=job.outputs,
            lease_ms=int(rules.lease_seconds * 1000),
            max_output_bytes=rules.max_output_bytes,
            **more,
        )
        return Lease(self.topics.jobs(attempt.agent_id), statement, job.inputs)

    def jobs(self, leases: Sequence[Lease]) -> list[Publish]:
        """Sign what was leased at one moment, together, as messages of their own."""
        messages = seal_together(self.key, [(each.statement, [t.data for t in each.inputs]) for each in leases])
        return [
            Publish(each.topic, message, attempt=(each.statement.job, each.statement.epoch))
            for each, message in zip(leases, messages, strict=True)
        ]

    def settled(
        self,
        agent_id: str,
        answer: Result | Failure,
        outcome: Literal["accepted", "refused", "unknown"],
        code: str | None,
        now: Now,
    ) -> Publish:
        """Tell an agent that it need not send an answer again."""
        attempt = SettledAttempt(job=answer.job, epoch=answer.epoch, outcome=outcome, code=code)
        return self._settled(agent_id, (attempt,), now)

    def accepted(self, agent_id: str, answers: Sequence[Result], now: Now) -> list[Publish]:
        """Tell an agent which of its results were accepted, as many in a message as may be."""
        attempts = [SettledAttempt(job=a.job, epoch=a.epoch, outcome="accepted", code=None) for a in answers]
        parts = range(0, len(attempts), MAX_SETTLED)
        return [self._settled(agent_id, tuple(attempts[at : at + MAX_SETTLED]), now) for at in parts]

    def _settled(self, agent_id: str, attempts: tuple[SettledAttempt, ...], now: Now) -> Publish:
        settled = Settled(network=self.topics.network, issued_ms=now.wall_ms, agent_id=agent_id, settled=attempts)
        return Publish(self.topics.settled(agent_id), seal(self.key, settled))

    def control(self, agent_id: str, command: Literal["rebirth", "not-enrolled", "no-room"], now: Now) -> Publish:
        """Ask an agent for its birth, or tell it that it has no place here."""
        return self._control(agent_id, command, now, None, None)

    def certificates(self, agent_id: str, certificates: AgentCertificates, now: Now) -> Publish:
        """Give an agent its newest certificates."""
        enrolled = Enrolled(
            network=self.topics.network,
            issued_ms=now.wall_ms,
            agent_id=agent_id,
            coordinator_key=self.key.public.raw,
            state="admitted",
            code=None,
            commitment=None,
            nonce=None,
            certificate=certificates.signed,
            x509=certificates.x509,
            registrar_key=None,
            broker_url=None,
            broker_ca=None,
        )
        return Publish(self.topics.enrolled(agent_id), seal(self.key, enrolled))

    def revocations(self, revoked: Mapping[str, Revoked], now: Now) -> Publish:
        """Tell everybody which keys count no more."""
        statement = revocations_of(revoked, self.topics.network, now.wall_ms)
        return Publish(self.topics.revocations, seal(self.key, statement), retain=True)

    def cancel(self, job: Job, attempt: Attempt, now: Now) -> Publish:
        """Ask the agent that holds an attempt to drop it."""
        return self._control(attempt.agent_id, "cancel", now, job.id, attempt.epoch)

    def _control(
        self,
        agent_id: str,
        command: Literal["rebirth", "cancel", "not-enrolled", "no-room"],
        now: Now,
        job: bytes | None,
        epoch: int | None,
    ) -> Publish:
        control = Control(
            network=self.topics.network,
            issued_ms=now.wall_ms,
            agent_id=agent_id,
            command=command,
            job=job,
            epoch=epoch,
        )
        return Publish(self.topics.control(agent_id), seal(self.key, control))


def revocations_of(revoked: Mapping[str, Revoked], network: str, now_ms: int) -> Revocations:
    """Make the list of the keys that count no more, in the order in which they were revoked, while there is room."""
    entries = sorted(revoked.values(), key=lambda each: (each.since_ms, each.id))[:MAX_REVOKED]
    return Revocations(network=network, issued_ms=now_ms, number=len(entries), revoked=tuple(entries))
