"""When optimised copies are made, which file the worker is given, and what becomes of a copy that is of no use."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import canary_done, digits, of_type

from edge_agent.agent import copies, workers
from edge_agent.agent.copies import Copies, Making
from edge_agent.agent.events import CancelCanary, LoadModel, MakeCopy, RunCanary, RunModel
from edge_agent.agent.measuring import PATIENCE_SECONDS, QUIET_SECONDS
from edge_agent.agent.unsealing import Unsealing
from edge_agent.errors import ResourceError
from edge_agent.inference.events import (
    CopyMade,
    CopyWanted,
    LoadFailed,
    ModelLoaded,
    RunDone,
    RunFailed,
    WorkerDied,
    WorkerEvent,
    WorkerStarted,
)
from edge_agent.inference.handle import Request
from edge_agent.inference.launch import Options
from edge_agent.inference.optimising import CALLED_OFF, Failed, Found, Report
from edge_agent.models.content import Content
from edge_agent.models.optimised import OptimisedFiles
from edge_agent.models.store import Store

from .test_planner import Bench

FAMILY = digits()
VARIANT = FAMILY.variants[0]
DIGEST = VARIANT.digest_bytes
LOAD = LoadModel(VARIANT, 1)
LOADED = ModelLoaded(DIGEST, 5.0, (), (), 1)
PID, OTHER = 17, bytes(32)
DIED = WorkerDied(PID, "worker-died", "It was killed.", ())


# -- when: the planner ------------------------------------------------------------------------------------------------


def serving() -> tuple[Bench, bytes]:
    """Return a planner that serves, and what it serves."""
    bench = Bench().serving()
    (offer,) = bench.planner.offers()
    return bench, offer.variant


def wanted(bench: Bench, variant: bytes) -> list[Any]:
    """Say that a copy is wanted, and wait until all has been quiet."""
    commands = list(bench.planner.on_copy(CopyWanted(variant), bench.clock.now))
    bench.clock.advance(QUIET_SECONDS)
    return [*commands, *bench.planner.on_tick(bench.clock.now)]


def test_a_copy_is_made_when_nothing_runs_and_what_is_offered_does_not_wait_for_it() -> None:
    """In the place of a canary run, with memory that nothing else needs; nothing changes in the offers."""
    bench, variant = serving()
    before = bench.offered
    bench.planner.on_load(1, bench.clock.now)
    assert of_type(bench.planner.on_copy(CopyWanted(variant), bench.clock.now), MakeCopy) == []
    bench.planner.on_load(0, bench.clock.now)
    bench.clock.advance(QUIET_SECONDS)
    (made,) = of_type(bench.planner.on_tick(bench.clock.now), MakeCopy)
    assert (made.variant.digest_bytes, made.family.name) == (variant, "digits")
    assert made.limit_bytes > 0
    assert bench.offered == before
    assert bench.planner.ready
    assert of_type(bench.planner.on_copy(CopyMade(variant, ""), bench.clock.now), MakeCopy) == []
    assert of_type(bench.planner.on_tick(bench.clock.now), MakeCopy) == []


def test_a_copy_that_is_called_off_is_made_later() -> None:
    """A rest, for one, has the machine at once."""
    bench, variant = serving()
    assert len(of_type(wanted(bench, variant), MakeCopy)) == 1
    assert of_type(bench.planner.quieten(), CancelCanary)
    assert of_type(bench.planner.on_tick(bench.clock.now), MakeCopy) == []
    assert len(of_type(bench.planner.rise(bench.clock.now), MakeCopy)) == 1


def test_a_copy_that_never_comes_costs_the_variant_nothing() -> None:
    """It is still served, and nothing is held against it."""
    bench, variant = serving()
    before = (bench.offered, bench.lost)
    assert len(of_type(wanted(bench, variant), MakeCopy)) == 1
    bench.clock.advance(PATIENCE_SECONDS)
    assert of_type(bench.planner.on_tick(bench.clock.now), CancelCanary)
    assert (bench.offered, bench.lost) == before


def test_what_is_to_be_measured_again_comes_first_and_is_measured() -> None:
    """A copy that waits beside it does not take its place."""
    bench, variant = serving()
    plan = bench.planner.plans[0]
    assert plan.chosen is not None
    bench.planner._measuring.again(plan, plan.chosen.variant)
    commands = wanted(bench, variant)
    assert len(of_type(commands, RunCanary)) == 1
    assert of_type(commands, MakeCopy) == []
    assert len(of_type(bench.tell(canary_done(variant)), MakeCopy)) == 1


def test_no_copy_is_made_of_what_is_not_served() -> None:
    """Any more."""
    bench, _ = serving()
    assert of_type(wanted(bench, bytes(32)), MakeCopy) == []


# -- which: between agent and worker ----------------------------------------------------------------------------------


class Agent:
    """What is between an agent and its worker, and what either says."""

    def __init__(self, folder: Path) -> None:
        content = Content(folder)
        content.prepare()
        self.files = OptimisedFiles(content, "here", 10**12, 0)
        self.again: list[LoadModel] = []
        self.copies = Copies(self.files, Store(content=content), self.again.append)

    def made(self, *, in_place: bool = True) -> None:
        """Let there be a copy."""
        scratch = self.files.scratch(100)
        assert scratch is not None
        os.write(scratch.fd, b"a copy")
        assert self.files.keep(VARIANT.digest, scratch, in_place=in_place)
        scratch.close()

    def open(self) -> str:
        """Return how the worker is to load what it is given."""
        fd, how = self.copies.open(LOAD)
        os.close(fd)
        self.copies.loads(LOAD, PID, how)
        return how

    def run(self, *tokens: int, digest: bytes = DIGEST) -> None:
        """Have the worker run a model."""
        self.copies.runs(((token, digest) for token in tokens), PID)

    @property
    def is_refused(self) -> bool:
        """Whether there is no copy any more, nor to be one."""
        return self.files.open(VARIANT.digest) is None and not self.files.wants(VARIANT.digest)

    def hear(self, event: WorkerEvent) -> list[WorkerEvent]:
        """Let the worker say something."""
        return list(self.copies.heard(event))


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Agent:
    """Return one on a machine with Landlock."""
    monkeypatch.setattr(copies.containment, "no_copies", lambda: "")
    return Agent(tmp_path)


def test_a_model_without_a_copy_is_loaded_from_its_own_file(agent: Agent) -> None:
    """And a copy is wanted behind it."""
    assert agent.open() == ""
    assert agent.hear(LOADED) == [LOADED, CopyWanted(DIGEST)]


@pytest.mark.parametrize(("in_place", "how"), [(True, "in-place"), (False, "copied")])
def test_a_copy_is_loaded_as_it_was_found_best(agent: Agent, in_place: bool, how: str) -> None:  # noqa: FBT001 a parameter
    """None is wanted then."""
    agent.made(in_place=in_place)
    assert agent.open() == how
    assert agent.hear(LOADED) == [LOADED]


def test_a_copy_that_cannot_be_loaded_is_not_the_models_fault(agent: Agent) -> None:
    """The model is loaded from its own file at once, the planner hears of nothing, and no other copy is made soon."""
    agent.made()
    agent.open()
    assert agent.hear(LoadFailed(DIGEST, "model-load", "No.")) == []
    assert agent.again == [LOAD]
    assert agent.open() == ""
    assert agent.hear(LOADED) == [LOADED]
    failed = LoadFailed(DIGEST, "model-load", "No.")
    assert agent.hear(failed) == [failed]


def test_a_copy_that_there_is_no_memory_for_is_used_again_when_there_is(agent: Agent) -> None:
    """The model itself has its one try meanwhile; if there is no memory for that either, the planner hears of it."""
    agent.made()
    failed = LoadFailed(DIGEST, ResourceError.code, "There is not enough memory.")
    assert agent.open() == "in-place"
    assert agent.hear(failed) == []
    assert agent.again == [LOAD]
    assert agent.open() == ""
    assert agent.hear(failed) == [failed]
    assert agent.open() == "in-place"
    assert agent.hear(LOADED) == [LOADED]


def test_a_worker_that_dies_over_the_load_of_a_copy_takes_it_with_it(agent: Agent) -> None:
    """Whatever it died of: the next one goes by the model itself."""
    agent.made()
    agent.open()
    assert agent.hear(DIED) == [DIED]
    assert agent.is_refused
    assert agent.open() == ""


@pytest.mark.parametrize("failed", [True, False], ids=["after-one-that-failed", "at-once"])
def test_a_worker_that_dies_over_the_first_run_of_a_copy_takes_it_with_it(agent: Agent, failed: bool) -> None:  # noqa: FBT001 as above
    """One without outputs was none."""
    agent.made()
    agent.open()
    agent.hear(LOADED)
    if failed:
        agent.run(1)
        agent.hear(RunFailed(1, "model-run", "No.", "model"))
    agent.run(2, 3)
    agent.hear(DIED)
    assert agent.is_refused


def test_a_worker_that_dies_of_something_else_leaves_the_copies_as_they_were(agent: Agent) -> None:
    """While it waits for work, loads or runs another model; the next one gets the same copy."""
    agent.made()
    for what in ("nothing", "another-load", "another-run", "not-yet-loaded", "not-yet-run"):
        if what == "not-yet-loaded":
            agent.run(1, digest=OTHER)
        assert agent.open() == "in-place", what
        if what != "not-yet-loaded":
            agent.hear(LOADED)
        if what == "another-load":
            agent.copies.loads(LoadModel(FAMILY.variants[1], 1), PID, "")
        if what in {"another-run", "not-yet-run"}:
            agent.run(1, digest=OTHER)
        if what == "not-yet-run":
            agent.run(2)
        assert agent.hear(DIED) == [DIED]


def test_a_worker_that_dies_over_a_later_run_tries_the_model_itself_once(agent: Agent) -> None:
    """So that no copy costs its variant what the model would not have; and the copy stays."""
    agent.made()
    agent.open()
    agent.hear(LOADED)
    agent.run(1, 2)
    agent.copies.has_run([1])
    agent.hear(DIED)
    assert agent.open() == ""
    assert agent.hear(LOADED) == [LOADED]
    agent.copies.forget()
    assert agent.open() == "in-place"


@pytest.mark.parametrize("pid", [None, PID + 1], ids=["dead-before", "another-worker"])
def test_a_death_that_is_heard_late_says_nothing_against_a_copy(agent: Agent, pid: int | None) -> None:
    """It was that of a worker that had never been given it."""
    agent.made()
    fd, how = agent.copies.open(LOAD)
    os.close(fd)
    agent.copies.loads(LOAD, pid, how)
    assert agent.hear(DIED) == [DIED]
    assert agent.open() == "in-place"


@pytest.mark.parametrize("pid", [None, PID + 1], ids=["dead-before", "another-worker"])
def test_a_run_that_no_worker_was_given_says_nothing_against_a_copy(agent: Agent, pid: int | None) -> None:
    """Nobody answers it, so that it would count as the first thing that each later worker was at."""
    agent.made()
    agent.copies.runs([(1, DIGEST)], pid)
    agent.open()
    agent.hear(LOADED)
    assert agent.hear(DIED) == [DIED]
    assert agent.open() == "in-place"


def test_a_worker_that_is_stopped_says_nothing_against_a_copy(agent: Agent) -> None:
    """A later death is that of another one."""
    agent.made()
    agent.open()
    agent.copies.forget()
    agent.hear(DIED)
    assert agent.open() == "in-place"


def test_copies_are_for_the_onnxruntime_that_the_agent_started_with(agent: Agent) -> None:
    """One that was installed beneath it gets none, and none is made for it under the wrong name."""
    agent.made()
    agent.hear(WorkerStarted(1, "onnxruntime 0.0.1", (), 300.0))
    assert agent.open() == ""
    assert agent.hear(LOADED) == [LOADED]
    with pytest.raises(ResourceError):
        agent.copies.making(MakeCopy(VARIANT, FAMILY, 1), Options(1))


def test_without_landlock_there_are_no_copies(
    agent: Agent, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing else could keep who makes one to that one file; the log says so."""
    caplog.set_level("INFO", "edge_agent.optimised")
    agent.made()
    monkeypatch.setattr(copies.containment, "no_copies", lambda: "old kernel")
    agent.copies = Copies(agent.files, Store(), agent.again.append)
    assert "No optimised copies of models are made here: old kernel" in caplog.text
    assert agent.open() == ""
    assert agent.hear(LOADED) == [LOADED]


def test_a_model_that_is_gone_is_not_loaded_from_its_copy(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the owner removed is not served from what is left of it."""
    agent.made()
    monkeypatch.setattr(Store, "has", lambda *_: False)
    assert agent.open() == ""


# -- who asks: the agent's loop ---------------------------------------------------------------------------------------


class Loading:
    """In the place of the worker's handle: takes everything, and its test answers by `sink`."""

    def __init__(self, sink: Callable[[WorkerEvent], None], **_: object) -> None:
        self.sink = sink
        self.pid = PID
        self.loaded: list[str] = []
        self.refuses = False

    def load(self, _: bytes, fd: int, *__: object, optimised: str, **___: object) -> None:
        """Take a model."""
        os.close(fd)
        if self.refuses:
            raise ResourceError("Full.", code="queue-full")
        self.loaded.append(optimised)

    def run_all(self, requests: Sequence[Request]) -> list[Request]:
        """Take the runs, but the last one if there are several."""
        return list(requests[1:][-1:])

    @staticmethod
    def full() -> ResourceError:
        """Say why not."""
        return ResourceError("Full.", code="queue-full")


class Machine:
    """An agent's workers, with the events that wait for its loop."""

    def __init__(self, agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(workers, "Worker", Loading)
        monkeypatch.setattr(workers.control_group, "enter", lambda: (None, "not here"))
        self.waiting: list[WorkerEvent] = []
        unsealing = Unsealing((), "home", "agent")
        store = Store(content=agent.files._content)
        self.workers = workers.Workers(self.waiting.append, store, 1, 0, unsealing, agent.files)
        self.worker: Loading = self.workers._worker  # type: ignore[assignment] # as above

    def loop(self) -> list[WorkerEvent]:
        """Take out what waits; return what the core is told."""
        told: list[WorkerEvent] = []
        while self.waiting:
            told += self.workers.heard(self.waiting.pop(0))
        return told

    def run(self, *tokens: int) -> None:
        """Have runs made."""
        for token in tokens:
            self.workers.do(RunModel(token, DIGEST, (), (), 1))
        self.workers.flush()


@pytest.fixture
def machine(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Return one whose model has a copy."""
    agent.made()
    return Machine(agent, monkeypatch)


@pytest.mark.parametrize("event", [LOADED, LoadFailed(DIGEST, "model-load", "No."), DIED])
def test_the_thread_that_hears_the_worker_only_enqueues(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, event: WorkerEvent
) -> None:
    """It reads, hashes and writes no file, and asks the worker for nothing: a slow disk would keep runs waiting."""
    machine.workers.do(LOAD)
    with monkeypatch.context() as nowhere:
        for name in ("open", "wants", "refuse"):
            nowhere.delattr(OptimisedFiles, name)
        machine.worker.sink(event)
    assert machine.waiting == [event]
    assert machine.worker.loaded == ["in-place"]
    told = machine.loop()
    assert told == ([] if isinstance(event, LoadFailed) else [event])
    assert machine.worker.loaded == (["in-place", ""] if isinstance(event, LoadFailed) else ["in-place"])


def test_a_copy_that_never_reached_the_worker_is_not_at_fault(agent: Agent, machine: Machine) -> None:
    """The planner hears of it as of any model."""
    machine.workers.do(LOAD)
    machine.worker.sink(LOADED)
    machine.loop()
    machine.worker.refuses = True
    machine.workers.do(LOAD)
    assert machine.loop() == [LoadFailed(DIGEST, "queue-full", "Full.")]
    assert agent.open() == "in-place"


@pytest.mark.parametrize("has_run", [False, True])
def test_runs_are_counted_as_the_worker_takes_and_answers_them(agent: Agent, machine: Machine, has_run: bool) -> None:  # noqa: FBT001 as above
    """One that it had no room for is none."""
    machine.workers.do(LOAD)
    machine.worker.sink(LOADED)
    machine.run(1, 2)
    assert machine.waiting == [LOADED, RunFailed(2, "queue-full", "Full.", "agent")]
    machine.loop()
    if has_run:
        machine.workers.has_run([CopyWanted(OTHER), RunDone(1, (), 5)])
        machine.run(3)
    machine.worker.sink(DIED)
    assert machine.loop() == [DIED]
    assert agent.is_refused is not has_run


# -- one that is made -------------------------------------------------------------------------------------------------

FOUND = Found(100_000, 10**8, same=True)
FAST = Found(10_000, 10**8, same=True)


@pytest.mark.parametrize(
    ("report", "kept", "why"),
    [
        (Report(FOUND, FAST, FAST), True, ""),
        (Report(FOUND, FOUND, FOUND), False, "it loads in 100.0 ms instead of 100.0"),
        (Failed("it ended with -11"), False, "it ended with -11"),
        (
            Failed("it ended with -9", passing=True),
            False,
            "it ended with -9",
        ),
    ],
    ids=["kept", "not-worth-it", "failed", "killed"],
)
def test_what_becomes_of_a_copy(
    agent: Agent,
    monkeypatch: pytest.MonkeyPatch,
    report: Report | Failed,
    kept: bool,  # noqa: FBT001 as above
    why: str,
) -> None:
    """It is loaded the next time, or not made again soon; what was being made is gone."""
    monkeypatch.setattr(copies.Optimising, "run", lambda _: report)
    making = agent.copies.making(MakeCopy(VARIANT, FAMILY, 1), Options(1))
    assert isinstance(making, Making)
    assert making.run() == CopyMade(DIGEST, why)
    assert agent.open() == ("in-place" if kept else "")
    assert not agent.files.wants(VARIANT.digest)


def test_a_copy_that_was_called_off_is_still_wanted(agent: Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is told, since somebody knows."""
    monkeypatch.setattr(copies.Optimising, "run", lambda _: CALLED_OFF)
    assert agent.copies.making(MakeCopy(VARIANT, FAMILY, 1), Options(1)).run() is None
    assert agent.files.wants(VARIANT.digest)
