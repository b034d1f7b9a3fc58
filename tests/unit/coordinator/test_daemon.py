"""The coordinator's executor: no message ends it, and what only a restart mends ends it with a reason."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from edge_agent.clock import Now
from edge_agent.coordinator import daemon
from edge_agent.coordinator.daemon import Coordinator
from edge_agent.coordinator.events import Event, MessageReceived, Outcome, Tick
from edge_agent.coordinator.jobs import JobState
from edge_agent.coordinator.options import Options
from edge_agent.coordinator.rows import StoredJob
from edge_agent.coordinator.rules import Rules
from edge_agent.coordinator.store import Store
from edge_agent.errors import EdgeAgentError, StateError, TransportError
from edge_agent.models.catalogue import builtin
from edge_agent.mqtt import BrokerAddress, Connected, LinkOptions
from edge_agent.wire.keys import SigningKey


@pytest.fixture
def coordinator(tmp_path: Path) -> Iterator[Coordinator]:
    """A coordinator whose broker is not there."""
    options = Options(
        network="home",
        link=LinkOptions(address=BrokerAddress.parse("mqtt://127.0.0.1:1"), client_id="test"),
        rules=Rules(),
        admit_anyone=False,
        job_deadline_seconds=1.0,
        retention_seconds=60.0,
    )
    store = Store(tmp_path / "coordinator.db")
    yield Coordinator(options, SigningKey.generate(), store, builtin())
    store.close()


def run(coordinator: Coordinator, script: Callable[[], None]) -> None:
    """Run the coordinator with a gateway that does nothing but the script, and then stops everything."""

    async def gateway(stop: asyncio.Event) -> None:
        script()
        stop.set()

    asyncio.run(coordinator.run(lambda stop: asyncio.ensure_future(gateway(stop))))


def break_core(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the core raise whatever it is told."""

    def apply(event: Event, now: Now) -> list[object]:
        raise RuntimeError(f"a defect of ours at {type(event).__name__} {now.wall_ms > 0}")

    monkeypatch.setattr(coordinator._core, "_apply", apply)


def test_defect_over_a_strangers_message_ends_nothing(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever can reach the broker cannot end the coordinator: the defect is counted, logged, and left behind."""
    break_core(coordinator, monkeypatch)

    def script() -> None:
        coordinator._apply(MessageReceived("t", b""))
        coordinator._apply(MessageReceived("t", b""))

    run(coordinator, script)
    assert coordinator.counters["defect"] == 2
    assert "A defect while handling MessageReceived" in caplog.text


def test_defect_of_our_own_ends_with_its_reason(coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch) -> None:
    """A coordinator whose timers are broken does not stay and look alive."""
    break_core(coordinator, monkeypatch)
    with pytest.raises(EdgeAgentError, match="a defect of ours at Tick") as caught:
        run(coordinator, lambda: coordinator._apply(Tick()))
    assert caught.value.exit_status == 70


def test_database_that_cannot_be_written_at_a_reconnect_ends_it(coordinator: Coordinator) -> None:
    """A new session must be stored before it is announced; a full disk ends the process instead of deafening it."""

    def script() -> None:
        with coordinator._store.engine.begin() as connection:
            connection.execute(sa.text("DROP TABLE meta"))
        coordinator._on_link_event(Connected(1, "5", None, 20, retain_available=True))

    with pytest.raises(StateError, match="no such table"):
        run(coordinator, script)


def test_a_job_that_ends_before_anything_of_it_is_stored_is_waited_for(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A synchronous job is stored with its result: who asks in between gets that, and no error that it is late."""
    ended = Outcome(b"j" * 16, JobState.SUCCEEDED, receipt=b"receipt")
    told: list[Outcome | None] = []

    async def gateway(stop: asyncio.Event) -> None:
        looked_up, look_up = asyncio.Event(), coordinator.job

        async def job(job_id: bytes) -> StoredJob | None:
            found = await look_up(job_id)
            looked_up.set()
            return found

        monkeypatch.setattr(coordinator, "job", job)
        waiting = asyncio.create_task(coordinator.outcome(ended.job_id, 60.0))
        await looked_up.wait()
        coordinator._clients.tell(ended)  # as it is told once it is stored
        told.append(await waiting)
        stop.set()

    asyncio.run(coordinator.run(lambda stop: asyncio.ensure_future(gateway(stop))))
    assert told == [ended]


@pytest.mark.parametrize("failed", [False, True], ids=["told to stop", "database lost"])
def test_clients_that_wait_when_it_stops_are_told_to_come_again(
    coordinator: Coordinator, monkeypatch: pytest.MonkeyPatch, *, failed: bool
) -> None:
    """Neither an answer that says the job failed nor a broken connection: its end is not known yet."""
    monkeypatch.setattr(daemon, "ANSWER_SECONDS", 0.0)
    job_id = b"j" * 16
    told: list[BaseException | object] = []

    async def gateway(stop: asyncio.Event) -> None:
        waiting = asyncio.create_task(coordinator.outcome(job_id, 60.0))
        await asyncio.sleep(0)
        if failed:
            coordinator._on_write_failed(OSError(28, "No space left on device"))
        else:
            stop.set()
        told.extend(await asyncio.gather(waiting, return_exceptions=True))
        told.extend(await asyncio.gather(coordinator.outcome(job_id, 60.0), return_exceptions=True))

    with pytest.raises(StateError) if failed else contextlib.nullcontext():
        asyncio.run(coordinator.run(lambda stop: asyncio.ensure_future(gateway(stop))))
    assert [error.error_code for error in told if isinstance(error, TransportError)] == ["stopping", "stopping"]
