from __future__ import annotations

import queue
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fakes import digits

from edge_agent.agent import calibrator as module
from edge_agent.agent.calibrator import Calibrator
from edge_agent.agent.events import Event, MachineMeasured, PlanRequested
from edge_agent.errors import ResourceError
from edge_agent.models.catalogue import Catalogue, builtin
from edge_agent.models.fit import MachineFacts
from edge_agent.models.rates import Rates
from edge_agent.models.store import Store
from edge_agent.models.trials import MAX_RUNS
from hardware import Profile, profile

WAIT_SECONDS = 30
FACTS = MachineFacts(cpus=2.0)


def many_variants() -> Catalogue:
    """Return a catalogue with a family of more variants than are measured."""
    first, *others = digits().variants
    more = [first.model_copy(update={"name": f"v{number}", "digest": f"{number:064x}"}) for number in range(MAX_RUNS)]
    return Catalogue(version=1, families=(digits().model_copy(update={"variants": (first, *others, *more)}),))


@pytest.fixture
def machine() -> Profile:
    """Return this machine."""
    return profile()


def test_few_variants_need_no_measuring(tmp_path: Path, machine: Profile, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are all run anyway: planning begins at once."""
    monkeypatch.setattr(module, "calibrate", lambda *_, **__: pytest.fail("it was measured"))
    events: list[Event] = []
    Calibrator(machine, tmp_path, Store(), FACTS).before(PlanRequested(), builtin(), events.append)
    assert events == [PlanRequested()]


def test_many_variants_are_planned_after_the_machine_was_measured(
    tmp_path: Path, machine: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once: the second catalogue finds it known."""
    rates = Rates.from_json({"curves": {}, "run_us": {}, "share": 1.0})
    monkeypatch.setattr(module, "calibrate", lambda *_, **__: rates)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    calibrator = Calibrator(machine, tmp_path, Store(), FACTS)
    calibrator.before(PlanRequested(), many_variants(), events.put)
    measured = events.get(timeout=WAIT_SECONDS)
    assert isinstance(measured, MachineMeasured)
    assert measured.facts.rates == rates
    assert events.get(timeout=WAIT_SECONDS) == PlanRequested()
    calibrator.before(PlanRequested(), many_variants(), events.put)
    assert events.get_nowait() == PlanRequested()


def test_a_machine_that_cannot_be_measured_is_planned_with_all_the_same(
    tmp_path: Path, machine: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its predictions are wide guesses, which canary runs make up for."""

    def fails(*_: object, **__: object) -> Rates:
        raise ResourceError("There is not enough memory.")

    monkeypatch.setattr(module, "calibrate", fails)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    Calibrator(machine, tmp_path, Store(), FACTS).before(PlanRequested(), many_variants(), events.put)
    assert events.get(timeout=WAIT_SECONDS) == PlanRequested()


def test_a_pause_breaks_a_measurement_off_and_it_begins_anew_afterwards(
    tmp_path: Path, machine: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The owner's pause does not wait for three seconds of CPU time; nothing is planned with half a measurement."""
    rates = Rates.from_json({"curves": {}, "run_us": {}, "share": 1.0})
    began: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()

    def measures(*_: object, started: Callable[[subprocess.Popen[bytes]], None]) -> Rates:
        if began_before:
            return rates
        began_before.append(True)
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"])
        started(process)
        began.put(process)
        process.wait()
        raise ResourceError("It was killed.")

    began_before: list[bool] = []
    monkeypatch.setattr(module, "calibrate", measures)
    events: queue.SimpleQueue[Event] = queue.SimpleQueue()
    calibrator = Calibrator(machine, tmp_path, Store(), FACTS)
    calibrator.before(PlanRequested(), many_variants(), events.put)
    process = began.get(timeout=WAIT_SECONDS)
    calibrator.allow(work=False)
    assert process.wait(WAIT_SECONDS) == -signal.SIGKILL
    assert events.empty()
    calibrator.allow(work=True)
    measured = events.get(timeout=WAIT_SECONDS)
    assert isinstance(measured, MachineMeasured)
    assert measured.facts.rates == rates
