"""What is offered: measured, chosen, loaded; and a worker that is kept up, but not at any price."""

from __future__ import annotations

from typing import Any

import pytest
from fakes import BUDGET_BYTES, RUNTIME, ManualClock, actions, canary_done, digits, of_type

from edge_agent.agent.events import Command, LoadModel, RunCanary, StartWorker, StopWorker
from edge_agent.agent.planner import (
    MAX_MODEL_DEATHS,
    PATIENCE_SECONDS,
    RESTART_MAX_SECONDS,
    STABLE_SECONDS,
    Planner,
    WorkerState,
)
from edge_agent.agent.policy import Policy
from edge_agent.inference.events import CanaryFailed, LoadFailed, ModelLoaded, WorkerDied, WorkerEvent, WorkerStarted
from edge_agent.models.catalogue import Catalogue, builtin
from edge_agent.models.fit import MachineFacts

FAMILY = digits()
FIRST = FAMILY.variants[0].digest_bytes


class Bench:
    """A planner, a clock, and a worker that is played by the test."""

    def __init__(self, *, catalogue: Catalogue | None = None, budget_bytes: int = BUDGET_BYTES, **policy: Any) -> None:  # noqa: ANN401 any field
        self.clock = ManualClock()
        self.pid = 4000
        self.planner = Planner(
            catalogue or builtin(),
            Policy(**policy),
            MachineFacts(cpus=2.0),
            isa="x86_64+avx2",
            budget_bytes=budget_bytes,
            threads=3,
        )

    def begin(self) -> list[Command]:
        """Plan."""
        return self.planner.begin(self.clock.now)

    def tell(self, event: WorkerEvent) -> list[Command]:
        """Let the worker say something."""
        return self.planner.on_worker_event(event, self.clock.now)

    def started(self, runtime: str = RUNTIME) -> list[Command]:
        """Let another worker be ready."""
        self.pid += 1
        return self.tell(WorkerStarted(self.pid, runtime, (), 300.0))

    def died(self, code: Any = "worker-died") -> list[Command]:  # noqa: ANN401 a literal
        """Let the worker die."""
        return self.planner.on_worker_died(WorkerDied(self.pid, code, "It was killed.", ()), self.clock.now)

    def died_and_back(self) -> list[Command]:
        """Let the worker die, and the next one be ready as soon as it may be."""
        commands = self.died()
        if not of_type(commands, StartWorker):
            commands += self.wait()
        assert len(of_type(commands, StartWorker)) == 1
        return [*commands, *self.started()]

    def wait(self) -> list[Command]:
        """Let time pass until the planner has something to do."""
        due = self.planner.next_deadline()
        assert due is not None
        self.clock.monotonic = due
        return self.planner.on_tick(self.clock.now)

    def measure(self, commands: list[Command], **speeds: int) -> list[Command]:
        """Answer canary runs until a model is to be loaded; by default the first variant is the fastest."""
        while canaries := of_type(commands, RunCanary):
            variant = canaries[0].variant
            p50_us = speeds.get(variant.name.replace("-", "_"), 200 if variant.digest_bytes == FIRST else 5000)
            commands = self.tell(canary_done(variant.digest_bytes, p50_us=p50_us))
        return commands

    def serving(self) -> Bench:
        """Come as far as serving the first variant."""
        self.begin()
        (load,) = of_type(self.measure(self.started()), LoadModel)
        self.tell(ModelLoaded(load.variant.digest_bytes, 5.0, (), (), 1))
        assert self.planner.ready
        return self

    @property
    def offered(self) -> list[str]:
        """The names of the variants that are offered."""
        return [offer.variant_name for offer in self.planner.offers()]

    @property
    def lost(self) -> dict[str, str]:
        """Why each variant lost."""
        return {lost.variant.name: lost.reason for plan in self.planner.plans for lost in plan.lost}


@pytest.fixture
def bench() -> Bench:
    """Return a planner that has not begun."""
    return Bench()


# -- choosing -----------------------------------------------------------------------------------------------------


def test_every_variant_that_fits_is_measured_and_the_best_is_loaded_and_offered(bench: Bench) -> None:
    """One canary run at a time, then one choice, then one load; only then is anything ready."""
    assert [start.threads for start in of_type(bench.begin(), StartWorker)] == [3]
    commands = bench.started()
    measured = []
    while canaries := of_type(commands, RunCanary):
        assert len(canaries) == 1
        assert not bench.planner.decided
        assert bench.offered == []
        measured.append(canaries[0].variant.name)
        commands = bench.tell(canary_done(canaries[0].variant.digest_bytes, p50_us=300))
    assert sorted(measured) == sorted(variant.name for variant in FAMILY.variants)
    (load,) = of_type(commands, LoadModel)
    assert "chosen" in actions(commands)
    assert not bench.planner.ready
    bench.tell(ModelLoaded(load.variant.digest_bytes, 5.0, (), (), 1))
    assert bench.planner.ready
    (offer,) = bench.planner.offers()
    assert (offer.variant, offer.latency_us, offer.max_in_flight) == (load.variant.digest_bytes, 300, 8)
    assert bench.planner.offered(offer.variant) == offer.klass
    assert offer.klass.runtime == RUNTIME
    assert set(bench.lost) == set(measured) - {load.variant.name}


def test_a_variant_with_wrong_outputs_is_never_offered(bench: Bench) -> None:
    """However fast it is."""
    bench.begin()
    commands = bench.started()
    while canaries := of_type(commands, RunCanary):
        digest = canaries[0].variant.digest_bytes
        broken = digest == FIRST
        commands = bench.tell(canary_done(digest, p50_us=1 if broken else 900, golden_ok=not broken, why="off by 7"))
    assert bench.offered != [FAMILY.variants[0].name]
    assert "off by 7" in bench.lost[FAMILY.variants[0].name]


def test_a_variant_that_does_not_run_is_left_out_with_the_reason(bench: Bench) -> None:
    """The others are measured all the same."""
    bench.begin()
    (canary,) = of_type(bench.started(), RunCanary)
    failed = bench.tell(CanaryFailed(canary.variant.digest_bytes, "model-load", "No such operator."))
    assert "canary-failed" in actions(failed)
    assert of_type(failed, RunCanary)[0].variant != canary.variant
    bench.measure(failed)
    assert len(bench.offered) == 1
    assert "No such operator." in bench.lost[canary.variant.name]


def test_when_no_variant_works_nothing_is_offered_and_it_is_said(bench: Bench) -> None:
    """The owner can see that the machine serves nothing."""
    bench.begin()
    commands = bench.started()
    said: list[Command] = []
    while canaries := of_type(commands, RunCanary):
        commands = bench.tell(CanaryFailed(canaries[0].variant.digest_bytes, "model-load", "No."))
        said += commands
    assert bench.planner.decided
    assert bench.offered == []
    assert of_type(said, LoadModel) == []
    assert "no-variant" in actions(said)
    assert len(bench.lost) == len(FAMILY.variants)


def test_when_nothing_fits_no_worker_is_started() -> None:
    """And the reasons are kept."""
    bench = Bench(budget_bytes=1)
    commands = bench.begin()
    assert actions(commands) == ["nothing-fits"]
    assert of_type(commands, StartWorker) == []
    assert bench.planner.decided
    assert bench.planner.next_deadline() is None
    assert len(bench.lost) == len(FAMILY.variants)


def test_what_the_owner_does_not_allow_is_not_even_measured() -> None:
    """The owner comes first."""
    bench = Bench(families=("letters",))
    assert of_type(bench.begin(), StartWorker) == []
    assert all("the owner allows only letters" in reason for reason in bench.lost.values())
    assert "the owner allows only letters" in bench.planner.plans[0].why


def test_a_variant_that_needs_a_newer_runtime_is_left_out(bench: Bench) -> None:
    """Without a canary run."""
    bench.begin()
    assert of_type(bench.started("onnxruntime 1.2.0"), RunCanary) == []
    assert all("needs onnxruntime" in reason for reason in bench.lost.values())
    assert bench.offered == []


def test_an_answer_that_was_not_asked_for_changes_nothing(bench: Bench) -> None:
    """Late words about another variant are not taken for the one that is measured."""
    bench.begin()
    (canary,) = of_type(bench.started(), RunCanary)
    other = next(v for v in FAMILY.variants if v != canary.variant).digest_bytes
    bench.tell(canary_done(other, p50_us=1))
    bench.tell(CanaryFailed(other, "model-load", "No."))
    assert bench.planner.plans[0].measured == []
    assert bench.lost == {}


# -- a worker that dies -------------------------------------------------------------------------------------------


def test_a_worker_that_dies_while_it_measures_is_given_another_chance(bench: Bench) -> None:
    """One death says nothing about the model: it may have been killed from outside."""
    bench.begin()
    (canary,) = of_type(bench.started(), RunCanary)
    (again,) = of_type(bench.died_and_back(), RunCanary)
    assert again.variant == canary.variant
    bench.measure([again])
    assert len(bench.offered) == 1


def test_a_variant_that_ends_the_worker_again_and_again_is_left_out(bench: Bench) -> None:
    """The others get their turn; it does not go round for ever."""
    bench.begin()
    commands = bench.started()
    (canary,) = of_type(commands, RunCanary)
    for _ in range(MAX_MODEL_DEATHS):
        assert of_type(commands, RunCanary)[0].variant == canary.variant
        commands = bench.died_and_back()
    assert of_type(commands, RunCanary)[0].variant != canary.variant
    bench.measure(commands)
    assert len(bench.offered) == 1
    assert "it ends the worker" in bench.lost[canary.variant.name]


def test_a_variant_that_ends_the_worker_while_it_is_loaded_is_withdrawn(bench: Bench) -> None:
    """After it was chosen, too; the offer goes with it."""
    bench.begin()
    commands = bench.measure(bench.started())
    for _ in range(MAX_MODEL_DEATHS):
        assert len(of_type(commands, LoadModel)) == 1
        commands = bench.died_and_back()
    assert "withdrawn" in actions(commands)
    assert of_type(commands, LoadModel) == []
    assert bench.offered == []


def test_deaths_with_successful_loads_between_them_do_not_add_up() -> None:
    """A worker that is killed now and then for years does not cost a family its place."""
    bench = Bench().serving()
    for _ in range(3 * MAX_MODEL_DEATHS):
        commands = bench.died_and_back()
        (load,) = of_type(commands, LoadModel)
        commands = bench.died_and_back()
        (load,) = of_type(commands, LoadModel)
        bench.tell(ModelLoaded(load.variant.digest_bytes, 5.0, (), (), 1))
    assert len(bench.offered) == 1


def test_a_model_that_can_no_longer_be_loaded_is_withdrawn_at_once() -> None:
    """A refusal, unlike a death, says something about the model."""
    bench = Bench().serving()
    (load,) = of_type(bench.died_and_back(), LoadModel)
    commands = bench.tell(LoadFailed(load.variant.digest_bytes, "digest-mismatch", "It was changed."))
    assert "withdrawn" in actions(commands)
    assert bench.offered == []
    assert bench.planner.offered(load.variant.digest_bytes) is None
    assert "It was changed." in bench.planner.plans[0].why


def test_a_worker_that_served_for_long_is_started_again_at_once(bench: Bench) -> None:
    """And what was chosen is loaded, not measured anew."""
    bench.serving()
    bench.clock.advance(STABLE_SECONDS)
    assert len(of_type(bench.died(), StartWorker)) == 1
    assert not bench.planner.ready
    assert len(bench.offered) == 1
    commands = bench.started()
    assert of_type(commands, RunCanary) == []
    assert len(of_type(commands, LoadModel)) == 1


def test_a_worker_that_keeps_dying_is_started_later_and_later(bench: Bench) -> None:
    """Up to a longest pause, and at once again after a long life."""
    bench.serving()
    pauses = []
    for _ in range(20):
        before = bench.clock.monotonic
        commands = bench.died()
        commands = commands if of_type(commands, StartWorker) else bench.wait()
        assert len(of_type(commands, StartWorker)) == 1
        pauses.append(bench.clock.monotonic - before)
        bench.started()
    assert pauses[0] == 0.0
    assert pauses == sorted(pauses)
    assert pauses[-1] == RESTART_MAX_SECONDS
    bench.clock.advance(STABLE_SECONDS)
    assert len(of_type(bench.died(), StartWorker)) == 1


def test_a_worker_that_dies_before_it_is_ready_is_not_started_in_a_circle(bench: Bench) -> None:
    """The long life of the one before it does not count for it."""
    bench.serving()
    bench.clock.advance(10 * STABLE_SECONDS)
    assert len(of_type(bench.died(), StartWorker)) == 1
    starts = 0
    for _ in range(50):
        bench.pid += 1  # it never gets as far as saying so
        starts += len(of_type(bench.died(), StartWorker))
        bench.clock.advance(0.01)
        starts += len(of_type(bench.planner.on_tick(bench.clock.now), StartWorker))
    assert starts < 10


@pytest.mark.parametrize("stuck", ["starting", "measuring", "loading"])
def test_a_worker_that_does_not_come_back_is_ended(bench: Bench, stuck: str) -> None:
    """A model that loads for ever must not keep the agent from serving others."""
    bench.begin()
    if stuck != "starting":
        commands = bench.started()
        if stuck == "loading":
            bench.measure(commands)
    bench.clock.advance(PATIENCE_SECONDS - 0.01)
    assert bench.planner.on_tick(bench.clock.now) == []
    commands = bench.wait()
    assert [stop.hung for stop in of_type(commands, StopWorker)] == [True]
    assert actions(commands) == ["worker-hung"]
    bench.pid += stuck == "starting"
    assert len(of_type(bench.died("worker-hung"), StartWorker)) == 1


def test_a_worker_that_is_idle_is_not_taken_for_hung() -> None:
    """It owes no answer."""
    assert Bench().serving().planner.next_deadline() is None


# -- sleep --------------------------------------------------------------------------------------------------------


def test_a_worker_sleeps_and_wakes_with_what_was_chosen() -> None:
    """Offers stay; the first job wakes it."""
    bench = Bench().serving()
    assert len(of_type(bench.planner.sleep(), StopWorker)) == 1
    assert bench.planner.sleep() == []
    assert not bench.planner.ready
    assert len(bench.offered) == 1
    assert len(of_type(bench.planner.wake(bench.clock.now), StartWorker)) == 1
    assert bench.planner.wake(bench.clock.now) == []
    assert len(of_type(bench.started(), LoadModel)) == 1


@pytest.mark.parametrize("awake", [True, False])
def test_a_worker_that_died_while_it_was_asked_to_stop_is_not_missed(*, awake: bool) -> None:
    """Its death, heard late, starts no second worker."""
    bench = Bench().serving()
    bench.planner.sleep()
    if awake:
        bench.planner.wake(bench.clock.now)
    state = bench.planner.worker
    assert bench.died() == []
    assert bench.planner.worker is state
    if not awake:
        assert bench.planner.next_deadline() is None
        assert state is WorkerState.ASLEEP
