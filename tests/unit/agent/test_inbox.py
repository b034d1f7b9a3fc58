"""The agent's queue: bounded by number and by bytes for what strangers send, with an answer for jobs."""

from __future__ import annotations

from fakes import TOPICS, AgentScript, ManualClock

from edge_agent.agent.events import JobTurnedAway, LinkDown, MessageReceived, Tick
from edge_agent.agent.inbox import Inbox
from edge_agent.wire.envelope import signed_part
from edge_agent.wire.messages import Job

AGENT = AgentScript(ManualClock())
JOBS = TOPICS.jobs(AGENT.id)


def take_all(inbox: Inbox) -> list[object]:
    """Empty the queue."""
    found = []
    while (event := inbox.get(0.0)) is not None:
        found.append(event)
    return found


def test_events_come_out_in_order_and_nothing_comes_out_of_nothing() -> None:
    """Ours and foreign ones in one line."""
    inbox = Inbox(10, 1000, JOBS)
    inbox.put(Tick())
    inbox.put_message("t", b"1")
    inbox.put(LinkDown("the cable"))
    assert take_all(inbox) == [Tick(), MessageReceived("t", b"1"), LinkDown("the cable")]
    assert inbox.take_dropped() == 0


def test_above_the_number_jobs_are_kept_to_be_answered_and_the_rest_is_dropped_and_counted() -> None:
    """A settlement is repeated by the coordinator, a job is not."""
    inbox = Inbox(4, 10**6, JOBS)
    jobs = [AGENT.coordinator.job(number).payload for number in range(6)]
    for payload in jobs:
        inbox.put_message(JOBS, payload)
    inbox.put_message("other", b"settled")
    inbox.put(Tick())
    signed = signed_part(jobs[4], Job.max_statement_bytes)
    assert take_all(inbox) == [
        *(MessageReceived(JOBS, payload) for payload in jobs[:4]),
        JobTurnedAway(JOBS, signed),
        Tick(),
    ]
    assert inbox.take_dropped() == 2
    assert inbox.take_dropped() == 0
    inbox.put_message("other", b"room again")
    assert take_all(inbox) == [MessageReceived("other", b"room again")]


def test_above_the_bytes_a_job_is_kept_without_its_tensors() -> None:
    """They are what takes the room."""
    payload = AGENT.coordinator.job(1).payload
    signed = signed_part(payload, Job.max_statement_bytes)
    assert len(signed) < len(payload)
    inbox = Inbox(100, 4 * len(payload) - 1, JOBS)
    for _ in range(4):
        inbox.put_message(JOBS, payload)
    assert [type(event) for event in take_all(inbox)] == [MessageReceived] * 3 + [JobTurnedAway]
    assert inbox.take_dropped() == 0


def test_a_single_message_above_the_bytes_is_taken_when_nothing_waits() -> None:
    """The core answers that it is too large."""
    inbox = Inbox(100, 10, JOBS)
    inbox.put_message(JOBS, bytes(1000))
    inbox.put_message(JOBS, bytes(1000))
    assert take_all(inbox) == [MessageReceived(JOBS, bytes(1000))]
    assert inbox.take_dropped() == 1


def test_a_flood_of_jobs_is_bounded_too() -> None:
    """Who sends ten thousand at once is answered for some of them; the others' leases run out."""
    inbox = Inbox(100, 10**6, JOBS)
    payload = AGENT.coordinator.job(1).payload
    for _ in range(10_000):
        inbox.put_message(JOBS, payload)
    inbox.put_message(JOBS, b"no job at all")
    assert len(take_all(inbox)) == 125
    assert inbox.take_dropped() == 10_001 - 125
