"""When a machine says how it fares, and what: seldom, and no more than its owner wants told."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import NETWORK, TOPICS, AgentScript, ManualClock, key

from edge_agent.agent.events import Publish
from edge_agent.agent.policy import Reason
from edge_agent.agent.reporting import AGAIN_SECONDS, FITS_EVERY, SOON_SECONDS, Detail, Reporting, Standing, reasons_of
from edge_agent.wire.envelope import open_envelope
from edge_agent.wire.status import Status
from hardware.sysfs import Root

AT_HOME = ("gate", "the gate `home/door > 0` is closed: the reading is 0")
MEASURING = ("measuring", "the models are still to be measured")


class Machine:
    """A machine with a thermal zone and CPU time, and an agent that is ready."""

    def __init__(self, folder: Path, detail: Detail = "codes") -> None:
        self.clock = ManualClock()
        self.folder = folder
        zone = folder / "sys/class/thermal/thermal_zone0"
        zone.mkdir(parents=True)
        (zone / "type").write_text("cpu-thermal\n")
        (zone / "temp").write_text("61400\n")
        (folder / "proc").mkdir()
        self.cpu(busy=0, idle=1000)
        self.key = key("agent")
        self.reporting = Reporting(self.key, TOPICS, Root(folder), detail)
        self.script = AgentScript()
        self.script.ready()

    def cpu(self, *, busy: int, idle: int) -> None:
        """Set the CPU time so far, in ticks."""
        (self.folder / "proc/stat").write_text(f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\n")

    def look(self, **changes: object) -> list[Status]:
        """Let it look, and return what it said."""
        fields: dict[str, object] = {"session": 1, "coordinator_session": 1, "resting": False, "reasons": (), **changes}
        standing = Standing(**fields)  # type: ignore[arg-type] # as given
        return [self._open(p) for p in self.reporting.look(standing, self.script.planner.plans, self.clock.now)]

    def _open(self, said: Publish) -> Status:
        assert said.topic == TOPICS.status(self.key.public.id)
        return open_envelope(said.payload, self.key.public, Status, network=NETWORK, max_bytes=1 << 20).statement


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    """A machine that tells codes."""
    return Machine(tmp_path)


def test_it_says_one_status_a_session_and_one_in_two_minutes(machine: Machine) -> None:
    """An hour in which nothing changes is thirty messages, whatever else happens."""
    (first,) = machine.look()
    assert (first.mode, first.celsius, first.cpu_percent) == ("work", 61, None)
    said = 0
    for _ in range(3600):
        machine.clock.advance(1.0)
        said += len(machine.look())
    assert said == 30
    assert machine.look(session=2) != []
    assert machine.look(session=2, coordinator_session=2) != []


def test_a_change_is_said_at_once_but_not_each_of_many(machine: Machine) -> None:
    """Rules that flap cost a message every two seconds at most; sentences that change cost none."""
    machine.look()
    said = []
    for tenth in range(200):
        machine.clock.advance(0.1)
        said += machine.look(resting=tenth % 2 == 0, reasons=(("hot", f"{tenth}"),) if tenth % 2 == 0 else ())
    assert len(said) <= 20 / SOON_SECONDS + 1
    machine.clock.advance(SOON_SECONDS)
    machine.look(resting=True, reasons=(("hot", "80 °C"),))
    machine.clock.advance(SOON_SECONDS)
    assert machine.look(resting=True, reasons=(("hot", "81 °C"),)) == []


def test_a_change_right_after_a_status_is_not_said_up_to_a_minute_late(machine: Machine) -> None:
    """The loop, which may have nothing else to do, is told to look again as soon as it may be said."""
    machine.look()
    assert machine.reporting.due_at == machine.clock.monotonic + AGAIN_SECONDS
    said_at = machine.clock.monotonic
    machine.clock.advance(SOON_SECONDS / 4)
    assert machine.look(resting=True) == []
    assert machine.reporting.due_at == said_at + SOON_SECONDS
    machine.clock.advance(said_at + SOON_SECONDS - machine.clock.monotonic)
    assert len(machine.look(resting=True)) == 1
    assert machine.reporting.due_at == machine.clock.monotonic + AGAIN_SECONDS
    machine.clock.advance(SOON_SECONDS / 4)
    assert machine.look() == []
    machine.look(resting=True)  # as it was said: nothing waits any more
    assert machine.reporting.due_at > machine.clock.monotonic + SOON_SECONDS


def test_what_the_owners_rules_go_by_stays_with_the_owner(machine: Machine) -> None:
    """Whether anybody is at home, and what sensors say, is not told unless the owner wants it."""
    (said,) = machine.look(resting=True, reasons=(AT_HOME,))
    assert [(reason.code, reason.text) for reason in said.reasons] == [("gate", "")]
    machine.clock.advance(AGAIN_SECONDS)
    (said,) = machine.look(reasons=(MEASURING,))
    assert said.reasons[0].text == MEASURING[1]


@pytest.mark.parametrize(("detail", "texts"), [("full", [AT_HOME[1]]), ("none", None)])
def test_the_owner_decides_how_much_is_told(tmp_path: Path, detail: Detail, texts: list[str] | None) -> None:
    """All, or nothing at all."""
    machine = Machine(tmp_path, detail)
    said = machine.look(resting=True, reasons=(AT_HOME,))
    assert ([reason.text for reason in said[0].reasons] if said else None) == texts


def test_fits_are_said_once_and_again_when_somebody_may_not_have_heard_them(machine: Machine) -> None:
    """After a coordinator's restart, and now and then in case they got lost."""
    (first,) = machine.look()
    assert first.fits is not None
    served = [fit for fit in first.fits if fit.served]
    assert [fit.family for fit in served] == ["digits"]
    assert served[0].measured_us == 2000
    assert served[0].predicted_us is not None
    with_fits = 0
    for _ in range(FITS_EVERY):
        machine.clock.advance(AGAIN_SECONDS)
        with_fits += machine.look()[0].fits is not None
    assert with_fits == 1
    assert machine.look(coordinator_session=2)[0].fits is not None


def test_the_load_is_that_since_the_last_status(machine: Machine) -> None:
    """Ticks of /proc/stat: nobody looks in between."""
    machine.look()
    machine.cpu(busy=250, idle=1750)
    machine.clock.advance(AGAIN_SECONDS)
    assert machine.look()[0].cpu_percent == 25


def test_nobody_is_told_anything_without_a_broker(machine: Machine) -> None:
    """What is not heard is not made."""
    machine.clock.advance(10 * AGAIN_SECONDS)
    assert machine.look(session=None) == []
    assert machine.reporting.due_at > machine.clock.monotonic
    assert machine.look() != []


def test_the_owners_reasons_come_first() -> None:
    """A machine that rests does not also have to say that it measures nothing."""
    own = Reason("paused", "you paused it", "edge-agent resume")
    assert reasons_of((own,), [{"code": "measuring", "text": "…", "change": ""}]) == (("paused", "you paused it"),)
    assert reasons_of((), [{"code": "measuring", "text": "…", "change": ""}]) == (("measuring", "…"),)
