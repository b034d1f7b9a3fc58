"""A key that was revoked while its agent works: what it holds goes to others, nothing that it signs is looked at."""

from __future__ import annotations

from fakes import (
    COORDINATOR_KEY,
    NETWORK,
    TOPICS,
    CoordinatorScript,
    FakeAgent,
    ManualClock,
    codes,
    jobs_for,
    key,
    of_type,
    outcomes,
)

from edge_agent.coordinator.events import AgentCertificates, AgentsChanged, Publish
from edge_agent.coordinator.jobs import JobState
from edge_agent.wire.certificates import check_certificate, issue
from edge_agent.wire.envelope import open_envelope
from edge_agent.wire.identity import Enrolled, Revocations, Revoked
from edge_agent.wire.receipts import verify_receipt

REGISTRAR = key("registrar")
MAX = 1 << 20


def certificates(*agents: FakeAgent) -> dict[str, AgentCertificates]:
    """Return a certificate for each."""
    return {
        agent.id: AgentCertificates(
            issue(
                REGISTRAR,
                network=NETWORK,
                agent=agent.key.public,
                sealing_key=None,
                owner="ada",
                now_ms=agent.clock.now.wall_ms,
            ),
            None,
        )
        for agent in agents
    }


def test_result_of_a_revoked_key() -> None:
    """Refused before its signature, in a network for anyone, too; the list is retained for everybody."""
    clock = ManualClock()
    script = CoordinatorScript(clock)  # lets anyone in
    agent, other = FakeAgent("agent", clock), FakeAgent("other", clock)
    script.connect()
    script.join(agent)
    script.join(other, other.offer(latency_us=10_000))
    job_id, commands = script.submit()
    (opened,) = jobs_for(agent, commands)
    revoked = {agent.id: Revoked(id=agent.id, since_ms=clock.now.wall_ms, reason="stolen")}
    commands = script.tell(AgentsChanged(frozenset(), revoked=revoked))
    assert [job.statement.epoch for job in jobs_for(other, commands)] == [2]
    (said,) = [command for command in of_type(commands, Publish) if command.topic == TOPICS.revocations]
    assert said.retain
    listed = open_envelope(said.payload, COORDINATOR_KEY.public, Revocations, network=NETWORK, max_bytes=MAX)
    assert [entry.id for entry in listed.statement.revoked] == [agent.id]
    for message in (agent.result(opened), agent.birth(session=agent.session + 1), agent.offers()):
        assert codes(script.tell(message)) == ["revoked"]
    assert script.core.leasing.jobs[job_id].state is JobState.LEASED
    assert [command.topic for command in of_type(script.connect(200), Publish)] == [
        TOPICS.coordinator,
        TOPICS.revocations,
    ]


def test_receipts_carry_the_certificate_that_the_agent_is_given() -> None:
    """The newest one, which the agent gets in its session and whenever it is renewed."""
    clock = ManualClock()
    script = CoordinatorScript(clock, admit_anyone=False)
    agent = FakeAgent("agent", clock)
    script.connect()
    first = certificates(agent)
    script.tell(AgentsChanged(frozenset({agent.id}), certificates=first))
    assert given(script.join(agent)) == [first[agent.id].signed]
    clock.advance(1.0)
    newer = certificates(agent)
    changed = AgentsChanged(frozenset({agent.id}), certificates=newer)
    assert given(script.tell(changed)) == [newer[agent.id].signed]
    assert given(script.tell(changed)) == []
    _, commands = script.submit()
    (opened,) = jobs_for(agent, commands)
    (outcome,) = outcomes(script.tell(agent.result(opened)))
    assert outcome.receipt is not None
    receipt = verify_receipt(outcome.receipt, COORDINATOR_KEY.public)
    assert receipt.certificate == newer[agent.id].signed
    checked = check_certificate(
        receipt.certificate, REGISTRAR.public, network=NETWORK, at_ms=receipt.accepted_ms, agent_id=agent.id
    )
    assert checked.statement.owner == "ada"


def given(commands: list[object]) -> list[bytes | None]:
    """Return the certificates that an agent is sent."""
    sent = [command for command in of_type(commands, Publish) if command.topic.endswith("/enrolled")]
    return [
        open_envelope(
            each.payload, COORDINATOR_KEY.public, Enrolled, network=NETWORK, max_bytes=MAX
        ).statement.certificate
        for each in sent
    ]
