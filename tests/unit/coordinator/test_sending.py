"""Jobs on their way to the broker, and bodies and messages on their way in: what does not fit is known at once."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from fakes import START_MS
from starlette.requests import Request

from edge_agent.coordinator.events import Commit, EndJob, InsertJob, Outcome, Publish, SendFailed, Submit
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.inbox import Inbox
from edge_agent.coordinator.jobs import JobState
from edge_agent.coordinator.sending import SUSPECT_BYTES, SUSPECT_TIMES, Sending
from edge_agent.coordinator.timers import SMALLEST, Kind, Timer, Timers
from edge_agent.coordinator.writer import Writer
from edge_agent.coordinator.young import commit_bytes
from edge_agent.errors import ResourceError, TooLargeError, TransportError
from edge_agent.mqtt import Disconnected, LinkEvent, Message, Published, PublishRefused
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec


class FakeLink:
    """Takes what it is given, or raises what a test says."""

    def __init__(self) -> None:
        self.token = 0
        self.error: Exception | None = None

    def publish(self, topic: str, payload: bytes, *, retain: bool) -> int:
        """Accept a message."""
        if self.error is not None:
            raise self.error
        self.token += 1
        return self.token


@pytest.fixture
def sending() -> Sending:
    """Return one over a link that takes everything."""
    return Sending(FakeLink())  # type: ignore[arg-type] # what it needs of a link


def job(number: int, size: int = 10) -> Publish:
    """Make the message of a job's first attempt."""
    return Publish("t", bytes(size), attempt=(number.to_bytes(16, "big"), 1))


def lost(*tokens: int, code: str = "unreachable") -> Disconnected:
    """Make the end of a connection."""
    return Disconnected(1, "it ended", code, tokens)


def test_a_job_that_the_broker_refuses_is_reported_with_its_reason(sending: Sending) -> None:
    """MQTT 5 says why; a refusal for size is final, another one is not."""
    for message in (job(1), job(2), Publish("t", b"")):
        sending.publish(message)
    (large,) = sending.refused(PublishRefused("t", 1, "Packet too large"))
    (denied,) = sending.refused(PublishRefused("t", 2, "Not authorized"))
    assert (large.job_id, large.epoch, large.code) == (job(1).attempt[0], 1, "too-large")  # type: ignore[index] # it has one
    assert denied.code == "broker-refused"
    assert list(sending.refused(PublishRefused("t", 3, "Packet too large"))) == []
    assert list(sending.refused(PublishRefused("t", 1, "Packet too large"))) == []


def test_what_the_link_does_not_take_is_not_on_the_way(sending: Sending) -> None:
    """The error is the caller's."""
    link: Any = sending._link
    link.error = TransportError("no", code="not-connected")
    with pytest.raises(TransportError):
        sending.publish(job(1))
    assert sending._on_the_way == {}


def test_connections_that_end_over_the_same_large_job_again_and_again_end_the_job(sending: Sending) -> None:
    """MQTT 3.1.1 has no other way to say that a packet is too large."""
    reports: list[SendFailed] = []
    for _ in range(SUSPECT_TIMES):
        assert reports == []
        sending.publish(job(1, SUSPECT_BYTES))
        sending.publish(job(2))
        link: Any = sending._link
        reports += sending.disconnected(lost(link.token - 1, link.token))
    assert [(r.job_id, r.code) for r in reports] == [(job(1).attempt[0], "too-large")]  # type: ignore[index] # as above


@pytest.mark.parametrize("why", ["small", "other jobs", "something as large got through", "timeout"])
def test_a_flapping_network_ends_no_job(sending: Sending, why: str) -> None:
    """Chance is no proof."""
    link: Any = sending._link
    for number in range(1, 3 * SUSPECT_TIMES):
        if why == "something as large got through":
            sending.publish(job(99, SUSPECT_BYTES))
            sending.acknowledged(Published(link.token))
        sending.publish(job(number if why == "other jobs" else 1, 10 if why == "small" else SUSPECT_BYTES))
        code = "timeout" if why == "timeout" else "unreachable"
        assert list(sending.disconnected(lost(link.token, code=code))) == []
    assert sending._on_the_way == {}


# -- what waits is bounded in bytes -----------------------------------------------------------------------------------


def test_the_inbox_is_bounded_in_bytes_and_keeps_what_the_link_says() -> None:
    """Messages above the bound are dropped and counted; a large one alone is taken; the order stays."""

    async def script() -> tuple[list[LinkEvent], int]:
        handled: list[LinkEvent] = []
        dropped: list[str] = []
        inbox = Inbox(
            asyncio.get_running_loop(),
            handled.append,
            handled.extend,
            max_messages=100,
            max_bytes=100,
            dropped=dropped.append,
        )
        for size in (500, 1, 1):
            inbox.put(Message("t", bytes(size), retain=False))
        inbox.put(Published(1))
        await asyncio.sleep(0)
        for size in (60, 41, 40, 1):
            inbox.put(Message("t", bytes(size), retain=False))
        await asyncio.sleep(0)
        return handled, len(dropped)

    handled, dropped = asyncio.run(script())
    sizes = [len(event.payload) if isinstance(event, Message) else 0 for event in handled]
    assert sizes == [500, 0, 60, 40]
    assert dropped == 4


def test_the_writer_says_that_it_is_full_and_leaves_nothing_out() -> None:
    """By number and by bytes, until what waits is written."""
    tensor = Tensor(TensorSpec("x", DataType.UINT8, (100,)), bytes(100))
    submit = Submit(bytes(16), bytes(32), "digits", (tensor,), (), None, None, b"", durable=False, deadline_seconds=1)
    inserted = Commit((InsertJob(submit, START_MS, START_MS, 1),))
    ended = Commit((EndJob(Outcome(bytes(16), JobState.SUCCEEDED, outputs=(tensor, tensor)), 1, START_MS),))
    assert (commit_bytes(inserted), commit_bytes(ended), commit_bytes(Commit(()))) == (100, 200, 0)
    for most in ({"max_bytes": 300}, {"max_commits": 2}):
        writer = Writer(None, lambda _: None, lambda _: None, **most)  # type: ignore[arg-type] # it is never started
        assert not writer.full
        writer.write(inserted)
        assert not writer.full
        writer.write(ended)
        assert writer.full
        group = writer._next_group()
        assert group is not None
        assert [commit for _, commit in group] == [inserted, ended]


def _request(body: bytes, *, announced: int | None = None) -> Request:
    sent = iter([{"type": "http.request", "body": body, "more_body": False}])

    async def receive() -> Any:  # noqa: ANN401 a message of ASGI
        return next(sent)

    length = [] if announced is None else [(b"content-length", str(announced).encode())]
    return Request({"type": "http", "method": "POST", "headers": length}, receive)


def test_bodies_that_are_read_at_once_are_bounded_together() -> None:
    """A further one is refused before it is read, and all is given back at the end, whatever the end."""
    intake = Intake(max_request_bytes=100, max_bytes=150)

    async def script() -> None:
        async with intake.body(_request(bytes(80), announced=80)) as first:
            assert (len(first), intake.held_bytes) == (80, 80)
            with pytest.raises(ResourceError, match="80 bytes") as caught:
                async with intake.body(_request(bytes(90), announced=90)):
                    pass
            assert caught.value.error_code == "queue-full"
            with pytest.raises(ResourceError):
                async with intake.body(_request(bytes(90))):  # not announced
                    pass
            assert intake.held_bytes == 80
            async with intake.body(_request(bytes(60))):
                assert intake.held_bytes == 140
        with pytest.raises(TooLargeError):
            async with intake.body(_request(bytes(101))):
                pass
        with pytest.raises(ZeroDivisionError):
            async with intake.body(_request(bytes(50), announced=50)):
                raise ZeroDivisionError

    asyncio.run(script())
    assert intake.held_bytes == 0


# -- timers ---------------------------------------------------------------------------------------------------------


def test_timers_that_mean_nothing_any_more_do_not_pile_up() -> None:
    """A hundred thousand jobs with deadlines in a day, all ended: their timers are gone."""
    alive: set[bytes] = {bytes(16)}
    timers = Timers(lambda timer: timer.job_id in alive)
    timers.set(5.0, Kind.DEADLINE, bytes(16))
    for number in range(1, 100_000):
        timers.set(86_400.0, Kind.DEADLINE, number.to_bytes(16, "big"))
    assert len(timers) <= 2 * SMALLEST
    assert timers.next_at() == 5.0


def test_timers_ring_in_order_and_only_while_they_count() -> None:
    """One that lost its meaning on the way does not ring, and nobody is woken for it."""
    gone: set[int] = set()
    timers = Timers(lambda timer: timer.epoch not in gone)
    for at, epoch in ((3.0, 3), (1.0, 1), (2.0, 2), (2.0, 4), (9.0, 5)):
        timers.set(at, Kind.LEASE, bytes(16), epoch)
    gone.add(1)
    assert timers.next_at() == 2.0
    rung: list[Timer] = []
    for timer in timers.due(3.0):
        rung.append(timer)
        gone.add(4)
    assert [timer.epoch for timer in rung] == [2, 3]
    gone.add(5)
    assert timers.next_at() is None
    assert len(timers) == 0
