"""What happens at one moment is signed, stored and told together, and each part of it holds alone."""

from __future__ import annotations

import pytest
from fakes import COORDINATOR_KEY, CoordinatorScript, FakeAgent, of_type, scan

from edge_agent.coordinator.events import Commit, EndJob, Event, MessageReceived, Outcome, Publish, Submit
from edge_agent.wire import cose
from edge_agent.wire.messages import Job, Settled
from edge_agent.wire.receipts import receipt_leaf, verify_receipt, without_salt


def submit(number: int) -> Submit:
    """Submit a synchronous job."""
    job_id = number.to_bytes(16, "big")
    return Submit(
        job_id, bytes([number]) * 32, "digits", (scan(number),), (), None, None, bytes(32),
        durable=False, deadline_seconds=60.0,
    )  # fmt: skip


@pytest.fixture
def here() -> CoordinatorScript:
    """Return a coordinator that is connected."""
    script = CoordinatorScript()
    script.connect()
    return script


def together(here: CoordinatorScript, *events: Event) -> list[object]:
    """Apply events of one moment."""
    return [*here.core.handle_together(events, here.clock.now)]


def signatures(payloads: list[bytes]) -> set[bytes]:
    """Return the different signatures over some messages."""
    return {cose.parse_sign1(payload[: cose.sign1_end(payload)], 20_000).signature for payload in payloads}


def test_jobs_results_and_receipts_of_one_moment_share_signatures(here: CoordinatorScript) -> None:
    """Three jobs: one signature for the jobs, one for the results, one for the receipts, one settlement."""
    agent = FakeAgent("agent", here.clock)
    here.join(agent, agent.offer(room=8))
    leased = [p for p in of_type(together(here, *map(submit, (1, 2, 3))), Publish) if p.attempt is not None]
    assert len(leased) == 3
    assert len(signatures([p.payload for p in leased])) == 1
    answers = [agent.result(agent.open(p, Job)) for p in leased]
    commands = together(here, *answers)
    commits = of_type(commands, Commit)
    receipts = [r.outcome.receipt for c in commits for r in c.records if isinstance(r, EndJob)]
    assert len(receipts) == 3
    assert len(signatures([receipt for receipt in receipts if receipt])) == 1
    told = [command for commit in commits for command in commit.then]
    assert len(of_type(told, Outcome)) == 3
    (settled,) = of_type(told, Publish)
    assert isinstance(told[-1], Publish), "nothing is settled before the last of it is stored"
    assert len(agent.open(settled, Settled).statement.settled) == 3
    for number, receipt in enumerate(receipts, 1):
        assert receipt is not None
        cose._verify_once.cache_clear()
        proof = verify_receipt(receipt, COORDINATOR_KEY.public)
        proof.check_inputs([scan(number)])
        shown = verify_receipt(without_salt(receipt), COORDINATOR_KEY.public)
        assert shown.result == proof.result
        assert shown.salt is None
        assert receipt_leaf(without_salt(receipt)) == receipt_leaf(receipt)


def test_one_bad_answer_among_good_ones_spoils_none_of_them(here: CoordinatorScript) -> None:
    """It is refused by itself."""
    agent = FakeAgent("agent", here.clock)
    here.join(agent, agent.offer(room=8))
    leased = [p for p in of_type(together(here, *map(submit, (1, 2, 3))), Publish) if p.attempt is not None]
    answers = [agent.result(agent.open(p, Job)) for p in leased]
    cut = MessageReceived(answers[1].topic, answers[1].payload[:-40])
    commands = together(here, answers[0], cut, answers[2])
    ended = [r.outcome.job_id[-1] for c in of_type(commands, Commit) for r in c.records if isinstance(r, EndJob)]
    assert ended == [1, 3]
    assert list(here.core.leasing.jobs) == [(2).to_bytes(16, "big")]


def test_a_defect_over_one_message_costs_no_other(here: CoordinatorScript, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was accepted before it and behind it is stored and told."""
    agent = FakeAgent("agent", here.clock)
    here.join(agent, agent.offer(room=8))
    leased = [p for p in of_type(together(here, *map(submit, (1, 2, 3))), Publish) if p.attempt is not None]
    answers = [agent.result(agent.open(p, Job)) for p in leased]
    real = here.core._on_message

    def breaks(event: MessageReceived, now: object) -> object:
        if event is answers[1]:
            raise RuntimeError("a defect")
        return real(event, now)  # type: ignore[arg-type]

    monkeypatch.setattr(here.core, "_on_message", breaks)
    defects: list[Event] = []
    commands = here.core.handle_together(answers, here.clock.now, lambda event, _: defects.append(event))
    assert defects == [answers[1]]
    ended = [r.outcome.job_id[-1] for c in of_type(commands, Commit) for r in c.records if isinstance(r, EndJob)]
    assert ended == [1, 3]
