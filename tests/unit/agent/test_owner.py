"""The owner's side of the daemon: when it looks, what the core is told, what is kept, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent.account.account import Account, Means
from edge_agent.agent.account.tariff import Tariff
from edge_agent.agent.asked import HomeSaid, OwnerAsked
from edge_agent.agent.assistant.discovery import Device
from edge_agent.agent.events import PaceChanged, RestRequested, WorkRequested
from edge_agent.agent.owner import Owner, Told
from edge_agent.agent.policy import Mode, Reading, Readings, Rules
from edge_agent.agent.readers import Readers
from edge_agent.agent.tally import Tally
from edge_agent.agent.wanted import Wanted, Ways, Wishes
from edge_agent.clock import Now
from edge_agent.errors import SettingsError
from edge_agent.settings import Energy, Gate, Policy, parse_gate
from edge_agent.wire.keys import SigningKey
from hardware.meter import Meter
from hardware.sysfs import Root

START_MS = 1_800_000_000_000
REST = {"worker_pid": None, "families": [], "attempts": {"running": 0}, "obstacles": []}
"""What the rest of the agent says of itself, as far as anybody here reads it."""


class Machine(Readers):
    """A machine that the test plays."""

    def __init__(self) -> None:
        self.readings = Readings(cpu_celsius=Reading(40.0))
        self.looks = 0
        self.listens: list[tuple[Gate, ...]] = []

    def listen(self, rules: Rules, *_: object) -> None:
        """Keep to which gates."""
        self.listens.append(rules.gates)

    def read(self, rules: Rules, now: Now) -> Readings:
        """Count, and give what the test wants."""
        self.looks += 1
        return self.readings

    def publish(self, *_: object) -> bool:
        """Say something at home, where nobody listens."""
        return True

    def cpu_celsius(self) -> Reading:
        """Give what the test wants."""
        return self.readings.cpu_celsius


class Scene:
    """An owner's rules, a machine, and a clock."""

    def __init__(self, folder: Path, settings: Policy | None = None) -> None:
        self.folder = folder
        self.machine = Machine()
        self.wanted: Callable[[], Policy] = Policy
        self.seconds = 0.0
        self.wanted_device: Device | None = None
        self.owner = self.start(settings or Policy())

    def start(self, settings: Policy) -> Owner:
        """Start a process."""
        wishes = Wishes(
            Wanted(settings, None, Energy(), self.wanted_device),
            self._reload,
            self.machine,
            lambda _: UTC,
            self._account,
        )
        return Owner(self.folder, wishes, 7, Tally(), self.now, Ways(lambda _: None, lambda: dict(REST), str, int))

    def _reload(self) -> Wanted:
        return Wanted(self.wanted(), None, Energy())

    def _account(self, tally: Tally, now: Now) -> Account:
        nothing = Root(self.folder)
        tariff = Tariff(Energy(), self.machine.number, Meter(nothing, None, None))
        return Account(self.folder, Means(nothing, 1, tariff, SigningKey.generate(), "home"), tally, now)

    @property
    def now(self) -> Now:
        """The moment."""
        return Now(100.0 + self.seconds, START_MS + int(self.seconds * 1000))

    def ask(self, do: str, **more: object) -> tuple[list[Told], dict[str, Any]]:
        """Ask through the control socket; return what the core was told, and the answer."""
        told: list[Told] = []
        answers: list[dict[str, Any]] = []
        self.owner.serve(OwnerAsked({"do": do, **more}, "user 7", answers.append), self.now, told.extend)
        (answer,) = answers
        return told, answer


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """Return one without rules."""
    return Scene(tmp_path)


def test_without_rules_and_orders_nothing_is_told_and_nothing_looked_at_again(scene: Scene) -> None:
    """The loop is never woken for it."""
    assert scene.owner.look(scene.now) == []
    assert scene.owner.look_at == scene.owner.account.look_at


def test_pause_and_resume_are_told_once(scene: Scene) -> None:
    """And the answer says how things stand after it."""
    told, answer = scene.ask("pause")
    assert told == [RestRequested("you paused it", 5.0)]
    assert (answer["mode"], answer["order"], [reason["code"] for reason in answer["reasons"]]) == (
        "rest",
        "pause",
        ["paused"],
    )
    assert scene.ask("pause")[0] == []
    told, answer = scene.ask("resume")
    assert told == [WorkRequested()]
    assert (answer["mode"], answer["order"], answer["reasons"]) == ("work", None, [])
    assert scene.ask("resume")[0] == []


def test_a_pause_after_a_drain_hurries(scene: Scene) -> None:
    """What the drain lets finish gets the grace time now."""
    assert scene.ask("drain")[0] == [RestRequested("you drained it", None)]
    assert scene.ask("pause")[0] == [RestRequested("you paused it", 5.0)]


def test_a_pause_ends_by_itself(scene: Scene) -> None:
    """At the moment that was said, and the file goes with it."""
    scene.ask("pause", seconds=7200)
    scene.seconds = 7200
    assert scene.owner.look(scene.now) == [WorkRequested()]
    assert not (scene.folder / "order.json").exists()


def test_a_pause_survives_the_process(scene: Scene) -> None:
    """The next one is told to rest before it offers anything."""
    scene.ask("pause")
    again = scene.start(Policy())
    assert again.look(scene.now, "the start") == [RestRequested("you paused it", 5.0)]


def test_a_disk_that_takes_no_order_is_told_and_the_order_holds(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner wants the memory now; that a next process will not know of it is said."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge_agent.agent.history.write_durably", full)
    told, answer = scene.ask("pause")
    assert [type(event) for event in told] == [RestRequested]
    assert "No space left" in answer["order_not_kept"]
    assert "not over a restart" in answer["order_not_kept"]
    monkeypatch.undo()
    assert scene.ask("pause")[1]["order_not_kept"] is None


def test_why_looks_afresh(tmp_path: Path) -> None:
    """And acts on what it sees."""
    scene = Scene(tmp_path, Policy(max_cpu_celsius=70.0))
    scene.owner.look(scene.now)
    scene.machine.readings = Readings(cpu_celsius=Reading(90.0))
    told, answer = scene.ask("why")
    assert [type(event) for event in told] == [RestRequested]
    assert [reason["code"] for reason in answer["reasons"]] == ["hot"]
    assert answer["cpu_celsius"] == 90.0


def test_every_change_is_in_the_history_with_its_reasons_and_who_made_it(tmp_path: Path) -> None:
    """Newest first."""
    scene = Scene(tmp_path, Policy(max_cpu_celsius=70.0, dwell_seconds=10.0))
    scene.machine.readings = Readings(cpu_celsius=Reading(90.0))
    scene.owner.look(scene.now)
    scene.machine.readings = Readings(cpu_celsius=Reading(30.0))
    scene.seconds = 10
    scene.owner.look(scene.now)
    scene.ask("pause")
    _, answer = scene.ask("history")
    shown = [
        (entry["mode"], entry["by"], [reason["code"] for reason in entry["reasons"]]) for entry in answer["transitions"]
    ]
    assert shown == [("rest", "user 7", ["paused"]), ("work", "your rules", []), ("rest", "your rules", ["hot"])]
    assert len(scene.ask("history", count=1)[1]["transitions"]) == 1


# -- orders of the broker at home --------------------------------------------------------------------------------------


def at_home(folder: Path, control: str) -> Scene:
    """Return an owner whom Home Assistant may give orders."""
    scene = Scene(folder)
    device = Device("a" * 32, "Kitchen Pi", "Pi 5", "1.2.3", control, False, {})  # type: ignore[arg-type]
    scene.wanted_device = device
    scene.owner = scene.start(Policy())
    scene.owner.start(scene.now)
    return scene


def press(scene: Scene, what: str = "pause", payload: bytes = b"PRESS") -> list[Told]:
    """Press a button in Home Assistant; return what the core was told."""
    told: list[Told] = []
    topic = scene.wanted_device.order_topic(what)  # type: ignore[union-attr] # set by `at_home`
    scene.owner.hear(HomeSaid(topic, payload, retained=False), scene.now, told.extend)
    return told


@pytest.mark.parametrize(
    ("order", "seconds", "left"),
    [
        ("pause", 7200.0, 7200.0),
        ("pause", None, None),
        ("drain", 7200.0, 7200.0),
        ("drain", None, None),
        ("pause", 60.0, 3600.0),
        ("drain", 60.0, 3600.0),
    ],
)
def test_a_home_that_may_only_tighten_shortens_no_order_of_the_owners(
    tmp_path: Path, order: str, seconds: float | None, left: float | None
) -> None:
    """An hour's pause there adds to what holds already: whatever is later, also for a next process."""
    scene = at_home(tmp_path, "tighten")
    scene.ask(order, seconds=seconds)
    told = press(scene)
    assert [type(event) for event in told] == ([RestRequested] if order == "drain" else [])  # it hurries
    for owner in (scene.owner, scene.start(Policy())):
        owner.look(scene.now)
        assert owner.status(scene.now)["order"] == "pause"
        assert owner.mode is Mode.REST
    if left is not None:
        scene.seconds = left - 1
        scene.owner.look(scene.now)
        assert scene.owner.mode is Mode.REST
    scene.seconds = 1e6 if left is None else left
    scene.owner.look(scene.now)
    assert scene.owner.mode is (Mode.REST if left is None else Mode.WORK)


def test_a_home_that_may_give_orders_gives_them_in_the_owners_place(tmp_path: Path) -> None:
    """There the last order holds, as it does on the command line."""
    scene = at_home(tmp_path, "orders")
    scene.ask("pause", seconds=7200.0)
    press(scene)
    scene.seconds = 3600.0
    assert scene.owner.look(scene.now) == [WorkRequested()]


# -- new rules --------------------------------------------------------------------------------------------------------


def test_new_rules_hold_at_once(scene: Scene) -> None:
    """Without a restart."""
    scene.wanted = lambda: Policy(work_hours=("20:00-21:00",))
    (told,) = scene.owner.reload(scene.now)
    assert isinstance(told, RestRequested)
    assert "policy.work_hours" in told.why
    scene.wanted = Policy
    assert scene.owner.reload(scene.now) == [WorkRequested()]


def test_the_gates_of_new_rules_are_listened_to(scene: Scene) -> None:
    """And no longer those of the old ones."""
    scene.owner.start(scene.now)
    scene.wanted = lambda: Policy(gates=("roof/watts > 500",))
    scene.owner.reload(scene.now)
    assert scene.machine.listens == [(), (parse_gate("roof/watts > 500"),)]


def test_invalid_rules_are_refused_with_the_reason_and_the_old_ones_stay(tmp_path: Path) -> None:
    """Those that hold go on holding, and the owner sees why the new ones do not."""
    scene = Scene(tmp_path, Policy(work_hours=("20:00-21:00",)))
    scene.owner.look(scene.now)

    def broken() -> Policy:
        raise SettingsError("policy.work_hours = 'nights': must be hours such as 22:00-07:00.")

    scene.wanted = broken
    assert scene.owner.reload(scene.now) == []
    assert scene.owner.mode is Mode.REST
    assert "'nights'" in scene.ask("status")[1]["refused_rules"]
    scene.wanted = Policy
    assert scene.owner.reload(scene.now) == [WorkRequested()]
    assert scene.ask("status")[1]["refused_rules"] is None


def test_a_share_of_the_cpus_is_told_as_threads_and_as_what_the_kernel_is_to_hold(scene: Scene) -> None:
    """A share below one CPU is one thread, which the kernel holds to the share; the whole is no limit."""
    scene.wanted = lambda: Policy(cpu_share=0.25)
    assert scene.owner.reload(scene.now) == [PaceChanged(1, 0.25)]
    assert scene.owner.reload(scene.now) == []
    scene.wanted = Policy
    assert scene.owner.reload(scene.now) == [PaceChanged(1, None)]
