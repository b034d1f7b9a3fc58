"""What is offered: measured, chosen, loaded; and a worker that is kept up, but not at any price."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
from fakes import BUDGET_BYTES, RUNTIME, ManualClock, actions, canary_done, digits, of_type, scan, two_families

from edge_agent.agent.deaths import MAX_DEATHS, WITHIN_SECONDS
from edge_agent.agent.events import (
    CancelCanary,
    Command,
    FetchModels,
    LoadModel,
    RunCanary,
    SaveExperience,
    StartWorker,
    StopWorker,
    UnloadModel,
)
from edge_agent.agent.keeper import PATIENCE_SECONDS, RESTART_MAX_SECONDS, STABLE_SECONDS
from edge_agent.agent.measuring import MAX_WAIT_SECONDS, QUIET_SECONDS
from edge_agent.agent.planner import REVIEW_SECONDS, Circumstances, Planner, WorkerState
from edge_agent.agent.policy import Policy
from edge_agent.inference.events import CanaryFailed, LoadFailed, ModelLoaded, WorkerDied, WorkerEvent, WorkerStarted
from edge_agent.models.catalogue import Catalogue, builtin
from edge_agent.models.experience import Experience, parse
from edge_agent.models.fit import MachineFacts
from edge_agent.models.obstacles import Here

FAMILY = digits()
FIRST = FAMILY.variants[0].digest_bytes


class Bench:
    """A planner, a clock, and workers that are played by the test."""

    def __init__(
        self,
        *,
        catalogue: Catalogue | None = None,
        budget_bytes: int = BUDGET_BYTES,
        circumstances: Circumstances | None = None,
        **policy: Any,  # noqa: ANN401 any field
    ) -> None:
        self.clock = ManualClock()
        self.pid = 4000
        self.planner = Planner(
            catalogue or builtin(),
            Policy(**policy),
            MachineFacts(cpus=2.0),
            isa="x86_64+avx2",
            budget_bytes=budget_bytes,
            threads=3,
            circumstances=circumstances,
        )

    def begin(self) -> list[Command]:
        """Plan."""
        return self.planner.begin(self.clock.now)

    def tell(self, event: WorkerEvent) -> list[Command]:
        """Let a worker say something."""
        return self.planner.on_worker_event(event, self.clock.now)

    def started(self, runtime: str = RUNTIME) -> list[Command]:
        """Let another worker be ready."""
        self.pid += 1
        return self.tell(WorkerStarted(self.pid, runtime, (), 300.0))

    def died(self, code: Any = "worker-died") -> list[Command]:  # noqa: ANN401 a literal
        """Let the worker die."""
        return self.died_over(None, code)

    def died_over(
        self,
        variant: bytes | None,
        code: Any = "worker-died",  # noqa: ANN401 as above
        inputs: bytes | None = None,
    ) -> list[Command]:
        """Let the worker die while it runs a variant, each time on other inputs if it is not said on which."""
        died = WorkerDied(self.pid, code, "It was killed.", ())
        computing = None if variant is None else (variant, inputs or str(self.pid).encode())
        return self.planner.on_worker_died(died, computing, self.clock.now)

    def died_and_back(self, variant: bytes | None = None, inputs: bytes | None = None) -> list[Command]:
        """Let the worker die, and the next one be ready as soon as it may be."""
        commands = self.died_over(variant, inputs=inputs)
        if not of_type(commands, StartWorker):
            commands += self.wait()
        assert len(of_type(commands, StartWorker)) == 1
        return [*commands, *self.started()]

    def wait(self) -> list[Command]:
        """Let time pass until the planner has something to do."""
        due = self.planner.next_deadline()
        assert due is not None
        self.clock.monotonic = max(self.clock.monotonic, due)
        return self.planner.on_tick(self.clock.now)

    def measure(self, commands: list[Command], **speeds: int) -> list[Command]:
        """Answer canary runs until none is asked for; by default the first variant is the fastest."""
        while canaries := of_type(commands, RunCanary):
            variant = canaries[0].variant
            p50_us = speeds.get(variant.name.replace("-", "_"), 200 if variant.digest_bytes == FIRST else 5000)
            commands = self.tell(canary_done(variant.digest_bytes, p50_us=p50_us))
        return commands

    def loaded(self, commands: list[Command]) -> list[Command]:
        """Let what is to be loaded be loaded, one after the other; return what is asked for then."""
        while loads := of_type(commands, LoadModel):
            commands = self.tell(ModelLoaded(loads[0].variant.digest_bytes, 5.0, (), (), 1))
        return commands

    def measure_family(self, commands: list[Command]) -> list[Command]:
        """Answer canary runs until a worker is started for what came of them."""
        while not of_type(commands, StartWorker):
            (canary,) = of_type(commands, RunCanary)
            commands = self.tell(canary_done(canary.variant.digest_bytes))
        return commands

    def serving(self) -> Bench:
        """Come as far as serving all there is."""
        commands = self.begin()
        while of_type(commands, RunCanary) or of_type(commands, StartWorker):
            commands = self.measure(commands)
            if of_type(commands, StartWorker):
                commands = self.started()
            commands = self.loaded(commands)
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


def test_the_best_of_what_was_measured_is_loaded_and_offered(bench: Bench) -> None:
    """One canary run at a time, then one choice, then a worker and one load; only then is anything ready."""
    commands = bench.begin()
    measured = []
    while canaries := of_type(commands, RunCanary):
        assert len(canaries) == 1
        assert of_type(commands, StartWorker) == []
        assert not bench.planner.decided
        assert bench.offered == []
        measured.append(canaries[0].variant.name)
        commands = bench.tell(canary_done(canaries[0].variant.digest_bytes, p50_us=300))
    assert len(measured) >= 2
    assert [start.threads for start in of_type(commands, StartWorker)] == [3]
    assert "chosen" in actions(commands)
    (load,) = of_type(bench.started(), LoadModel)
    assert not bench.planner.ready
    bench.tell(ModelLoaded(load.variant.digest_bytes, 5.0, (), (), 1))
    assert bench.planner.ready
    (offer,) = bench.planner.offers()
    assert (offer.variant, offer.latency_us, offer.max_in_flight) == (load.variant.digest_bytes, 300, 8)
    assert bench.planner.offered(offer.variant) == offer.klass
    assert offer.klass.runtime == RUNTIME
    assert set(bench.lost) == {variant.name for variant in FAMILY.variants} - {load.variant.name}


def test_a_canary_run_has_the_limits_of_real_work(bench: Bench) -> None:
    """The same memory as the serving worker gets."""
    (canary,) = of_type(bench.begin(), RunCanary)
    (start,) = of_type(bench.measure([canary]), StartWorker)
    assert canary.limit_bytes == start.limit_bytes == Policy().room_bytes(BUDGET_BYTES)


def test_a_variant_with_wrong_outputs_is_never_offered(bench: Bench) -> None:
    """However fast it is."""
    commands = bench.begin()
    while canaries := of_type(commands, RunCanary):
        digest = canaries[0].variant.digest_bytes
        broken = digest == FIRST
        commands = bench.tell(canary_done(digest, p50_us=1 if broken else 900, golden_ok=not broken, why="off by 7"))
    bench.started()
    assert len(bench.offered) == 1
    assert bench.offered != [FAMILY.variants[0].name]
    assert FAMILY.variants[0].name in bench.lost


def test_a_variant_that_does_not_run_is_left_out_with_the_reason(bench: Bench) -> None:
    """The others are measured all the same."""
    (canary,) = of_type(bench.begin(), RunCanary)
    failed = bench.tell(CanaryFailed(canary.variant.digest_bytes, "model-load", "No such operator."))
    assert "canary-failed" in actions(failed)
    assert of_type(failed, RunCanary)[0].variant != canary.variant
    bench.measure(failed)
    bench.started()
    assert len(bench.offered) == 1
    assert "No such operator." in bench.lost[canary.variant.name]


def test_when_no_variant_works_nothing_is_offered_and_it_is_said(bench: Bench) -> None:
    """The owner can see that the machine serves nothing."""
    commands = bench.begin()
    said: list[Command] = []
    while canaries := of_type(commands, RunCanary):
        commands = bench.tell(CanaryFailed(canaries[0].variant.digest_bytes, "model-load", "No."))
        said += commands
    assert bench.planner.decided
    assert bench.offered == []
    assert of_type(said, StartWorker) == []
    assert "no-variant" in actions(said)
    assert len(bench.lost) == len(FAMILY.variants)


def test_when_nothing_fits_no_worker_is_started() -> None:
    """And the reasons are kept."""
    bench = Bench(budget_bytes=1)
    commands = bench.begin()
    assert actions(commands) == ["no-variant", "nothing-fits"]
    assert of_type(commands, StartWorker) == []
    assert of_type(commands, RunCanary) == []
    assert bench.planner.decided
    assert len(bench.lost) == len(FAMILY.variants)


def test_what_the_owner_does_not_allow_is_not_even_measured() -> None:
    """The owner comes first."""
    bench = Bench(families=("letters",))
    assert of_type(bench.begin(), RunCanary) == []
    assert all("the owner allows only letters" in reason for reason in bench.lost.values())
    assert "the owner allows only letters" in bench.planner.plans[0].why


@pytest.mark.parametrize(
    ("here", "words"),
    [
        (Here(runtime="onnxruntime 1.2.0"), "needs onnxruntime 1.27, and here is onnxruntime 1.2.0"),
        (Here(present=lambda variant: variant.name == "nothing"), "`edge-agent models pull digits` fetches"),
        (Here(uncontained="a worker cannot be contained here: files (no Landlock)"), "files (no Landlock)"),
    ],
    ids=["an old runtime", "no files", "a stranger's, and no Landlock"],
)
def test_a_variant_that_cannot_run_here_is_left_out_without_a_canary_run(here: Here, words: str) -> None:
    """What is known beforehand costs nothing."""
    bench = Bench(circumstances=Circumstances(here=here))
    assert of_type(bench.begin(), RunCanary) == []
    assert all(words in reason for reason in bench.lost.values())
    assert bench.offered == []


def test_what_came_with_the_program_is_served_where_strangers_models_are_not() -> None:
    """Whoever trusts the program trusts what is in it."""
    own = frozenset(variant.digest for variant in FAMILY.variants)
    bench = Bench(circumstances=Circumstances(here=Here(uncontained="it has no Landlock", own=own))).serving()
    assert len(bench.offered) == 1


def test_an_answer_that_was_not_asked_for_changes_nothing(bench: Bench) -> None:
    """Late words about another variant are not taken for the one that is measured."""
    (canary,) = of_type(bench.begin(), RunCanary)
    other = next(v for v in FAMILY.variants if v != canary.variant).digest_bytes
    bench.tell(canary_done(other, p50_us=1))
    bench.tell(CanaryFailed(other, "model-load", "No."))
    assert bench.planner.plans[0].measured == []
    assert bench.lost == {}


# -- canary runs --------------------------------------------------------------------------------------------------


def test_a_worker_that_dies_while_it_measures_is_given_another_chance(bench: Bench) -> None:
    """One death says nothing about the model: it may have been killed from outside."""
    (canary,) = of_type(bench.begin(), RunCanary)
    died = CanaryFailed(canary.variant.digest_bytes, "worker-died", "It was killed.")
    (again,) = of_type(bench.tell(died), RunCanary)
    assert again.variant == canary.variant
    (other,) = of_type(bench.tell(died), RunCanary)
    assert other.variant != canary.variant
    assert "It was killed." in bench.lost[canary.variant.name]


def test_an_outcome_that_never_comes_is_given_up(bench: Bench) -> None:
    """A canary run that was lost with its thread keeps nobody from the next one."""
    (canary,) = of_type(bench.begin(), RunCanary)
    commands = bench.wait()
    assert len(of_type(commands, CancelCanary)) == 1
    assert of_type(commands, RunCanary)[0].variant != canary.variant


def test_a_broken_canary_costs_what_is_served_nothing() -> None:
    """The serving worker and its offers are as they were, whatever becomes of a canary run."""
    bench = Bench(catalogue=two_families())
    commands = bench.started() if of_type(bench.measure_family(bench.begin()), StartWorker) else []
    (canary,) = of_type(bench.loaded(commands), RunCanary)
    assert canary.family.name == "letters"
    before = bench.planner.offers()
    commands = bench.tell(CanaryFailed(canary.variant.digest_bytes, "worker-hung", "It hangs."))
    assert of_type(commands, StopWorker) == []
    assert of_type(commands, StartWorker) == []
    assert bench.planner.offers() == before
    assert bench.planner.ready


def test_nothing_is_measured_while_a_job_runs() -> None:
    """The next canary run waits for a quiet moment, and for ever for none."""
    bench = Bench(catalogue=two_families())
    bench.measure_family(bench.begin())
    bench.planner.on_load(1, bench.clock.now)
    commands = bench.loaded(bench.started())
    assert of_type(commands, RunCanary) == []
    assert of_type(bench.planner.on_load(0, bench.clock.now), RunCanary) == []
    bench.clock.advance(QUIET_SECONDS)
    assert len(of_type(bench.planner.on_tick(bench.clock.now), RunCanary)) == 1


def test_on_a_machine_that_is_never_quiet_it_is_measured_all_the_same() -> None:
    """What jobs disturbed serves for now, is not remembered, and is measured again."""
    bench = Bench(catalogue=two_families())
    bench.measure_family(bench.begin())
    bench.planner.on_load(1, bench.clock.now)
    bench.loaded(bench.started())
    bench.clock.advance(MAX_WAIT_SECONDS)
    (canary,) = of_type(bench.planner.on_tick(bench.clock.now), RunCanary)
    commands = bench.tell(canary_done(canary.variant.digest_bytes, p50_us=300))
    assert "canary-disturbed" in actions(commands)
    assert of_type(commands, SaveExperience) == []


def test_a_job_that_comes_while_it_is_measured_makes_the_measurement_worth_less(bench: Bench) -> None:
    """It began in a quiet moment, which ended."""
    (canary,) = of_type(bench.begin(), RunCanary)
    bench.planner.on_load(1, bench.clock.now)
    bench.planner.on_load(0, bench.clock.now)
    commands = bench.tell(canary_done(canary.variant.digest_bytes))
    assert "canary-disturbed" in actions(commands)
    assert of_type(commands, SaveExperience) == []


# -- what is remembered -------------------------------------------------------------------------------------------


def _known(bench: Bench) -> Circumstances:
    """Return the circumstances of the next start, with all that was written down at this one."""
    commands = bench.begin()
    written = []
    while canaries := of_type(commands, RunCanary):
        commands = bench.tell(canary_done(canaries[0].variant.digest_bytes))
        written += of_type(commands, SaveExperience)
    return Circumstances(here=Here(runtime=RUNTIME), experience=parse(written[-1].document.encode()))


def test_what_was_measured_is_offered_at_once_at_the_next_start() -> None:
    """Without a single canary run, and before the worker is up."""
    first = Bench(circumstances=Circumstances(here=Here(runtime=RUNTIME)))
    known = _known(first)
    bench = Bench(circumstances=known)
    commands = bench.begin()
    assert of_type(commands, RunCanary) == []
    assert len(of_type(commands, StartWorker)) == 1
    assert bench.planner.decided
    assert bench.offered == first.offered
    assert bench.planner.offers()[0].latency_us == first.planner.offers()[0].latency_us


@pytest.mark.parametrize("changed", ["runtime", "kernel", "conditions"])
def test_what_was_measured_elsewhere_is_measured_again(changed: str) -> None:
    """Another onnxruntime, kernel or governor makes other numbers."""
    known = _known(Bench(circumstances=Circumstances(here=Here(runtime=RUNTIME))))
    other = {"kernel": "6.99", "conditions": "powersave", "here": Here(runtime="onnxruntime 1.33.0")}
    name = "here" if changed == "runtime" else changed
    bench = Bench(circumstances=dataclasses.replace(known, **{name: other[name]}))
    assert len(of_type(bench.begin(), RunCanary)) == 1


def test_what_failed_is_not_tried_again_until_a_while_has_passed(bench: Bench) -> None:
    """Not at the next start either; then it gets another chance by itself."""
    experience = Experience()
    known = Circumstances(here=Here(runtime=RUNTIME), experience=experience)
    bench = Bench(circumstances=known)
    (canary,) = of_type(bench.begin(), RunCanary)
    bench.measure(bench.tell(CanaryFailed(canary.variant.digest_bytes, "model-load", "No such operator.")))
    again = Bench(circumstances=known)
    again.clock.advance(60)
    commands = again.begin()
    assert of_type(commands, RunCanary) == []
    assert "it failed here before (No such operator.)" in again.lost[canary.variant.name]
    again.loaded(again.started())
    again.clock.advance(3700)
    (retry,) = of_type(again.planner.on_tick(again.clock.now), RunCanary)
    assert retry.variant == canary.variant
    assert len(again.offered) == 1


def test_a_file_that_is_wrong_is_no_failure_of_the_model(bench: Bench) -> None:
    """A fetch mends it; nothing is held against the variant."""
    (canary,) = of_type(bench.begin(), RunCanary)
    commands = bench.tell(CanaryFailed(canary.variant.digest_bytes, "digest-mismatch", "It was changed."))
    assert of_type(commands, SaveExperience) == []


def test_another_onnxruntime_than_was_thought_is_measured_anew() -> None:
    """It was upgraded under the running agent: what is served stays served, what is known is not believed."""
    bench = Bench(circumstances=Circumstances(here=Here(runtime=RUNTIME))).serving()
    (offer,) = bench.planner.offers()
    bench.died()
    commands = bench.started("onnxruntime 1.33.0")
    assert "runtime-changed" in actions(commands)
    (now,) = bench.planner.offers()
    assert now.variant == offer.variant
    assert now.klass.runtime == "onnxruntime 1.33.0"
    assert len(of_type(bench.loaded(commands), RunCanary)) == 1


# -- files that are not here ---------------------------------------------------------------------------------------


def _fetched(commands: list[Command]) -> list[tuple[str, str]]:
    return [(wanted.family, wanted.variant) for command in of_type(commands, FetchModels) for wanted in command.wanted]


def test_nothing_is_fetched_unless_the_owner_allows_it() -> None:
    """The owner comes first; the reason says how to fetch it."""
    bench = Bench(circumstances=Circumstances(here=Here(present=lambda _: False)))
    assert of_type(bench.begin(), FetchModels) == []
    assert "edge-agent models pull digits" in bench.planner.plans[0].why


def test_what_would_be_measured_first_is_fetched() -> None:
    """Two variants of each family that is allowed and worth something, and nothing that is here."""
    bench = Bench(
        catalogue=two_families(),
        circumstances=Circumstances(here=Here(present=lambda _: False)),
        download=True,
        values=(("letters", 2.0),),
    )
    fetched = _fetched(bench.begin())
    assert [family for family, _ in fetched] == ["letters", "letters", "digits", "digits"]
    assert len(set(fetched)) == 4
    assert "they are being fetched" in bench.planner.plans[0].why
    bench = Bench(download=True)
    assert _fetched(bench.begin()) == []


@pytest.mark.parametrize("policy", [{"families": ("other",)}, {"values": (("*", 0.0),)}], ids=["refused", "worthless"])
def test_what_the_owner_does_not_want_is_not_fetched(policy: dict[str, Any]) -> None:
    """Whatever the catalogue has."""
    bench = Bench(circumstances=Circumstances(here=Here(present=lambda _: False)), download=True, **policy)
    assert _fetched(bench.begin()) == []


def test_what_cannot_fit_is_not_fetched() -> None:
    """Traffic and disk are the owner's, too."""
    family = FAMILY.model_copy(
        update={
            "variants": tuple(
                variant.model_copy(update={"costs": None, "size_bytes": 10**10}) for variant in FAMILY.variants
            )
        }
    )
    bench = Bench(
        catalogue=Catalogue(version=1, families=(family,)),
        circumstances=Circumstances(here=Here(present=lambda _: False)),
        download=True,
    )
    assert _fetched(bench.begin()) == []


def test_files_that_came_are_measured_and_offered() -> None:
    """Once the watcher of the store has said so."""
    here: set[str] = set()
    circumstances = Circumstances(here=Here(RUNTIME, present=lambda variant: variant.name in here))
    bench = Bench(circumstances=circumstances, download=True)
    fetched = _fetched(bench.begin())
    assert bench.offered == []
    here |= {name for _, name in fetched}
    commands = bench.planner.on_catalogue(builtin(), bench.clock.now)
    assert _fetched(commands) == []
    bench.measure(commands)
    assert len(bench.offered) == 1


# -- sets of families ---------------------------------------------------------------------------------------------


def _tight(value: str = "letters") -> Bench:
    """Return a bench in whose memory one of two families fits, of which one is worth more to the owner."""
    return Bench(catalogue=two_families(), budget_bytes=90_000_000, values=((value, 3.0),))


def test_of_families_that_do_not_fit_together_the_owners_favourite_is_served() -> None:
    """The other one is told why not."""
    bench = _tight().serving()
    assert [offer.family for offer in bench.planner.offers()] == ["letters"]
    (digits_plan,) = [plan for plan in bench.planner.plans if plan.family.name == "digits"]
    assert "does not fit beside letters" in digits_plan.why
    assert "agent.values" not in digits_plan.why


def test_families_that_fit_together_are_served_together() -> None:
    """One after the other is measured, the first is offered before the second is known."""
    bench = Bench(catalogue=two_families()).serving()
    assert [offer.family for offer in bench.planner.offers()] == ["digits", "letters"]


def test_a_family_without_value_is_not_served() -> None:
    """Though the owner allows it."""
    bench = Bench(catalogue=two_families(), values=(("digits", 0.0),)).serving()
    assert [offer.family for offer in bench.planner.offers()] == ["letters"]
    (plan,) = [plan for plan in bench.planner.plans if plan.family.name == "digits"]
    assert plan.why == "the owner gives it no value (agent.values)"


def test_less_memory_leaves_families_out_and_more_takes_them_in() -> None:
    """What is dropped is unloaded."""
    bench = Bench(catalogue=two_families(), circumstances=Circumstances(here=Here(runtime=RUNTIME))).serving()
    commands = bench.planner.on_conditions(90_000_000, "", bench.clock.now)
    assert len(of_type(commands, UnloadModel)) == 1
    assert len(bench.offered) == 1
    bench.planner.on_conditions(BUDGET_BYTES, "", bench.clock.now)
    assert len(bench.offered) == 2


def test_demand_decides_in_the_long_run_and_not_at_once() -> None:
    """A family that is asked for far more than the one that is served takes its place at a review."""
    bench = _tight("nothing").serving()
    (served,) = [offer.family for offer in bench.planner.offers()]
    other = "letters" if served == "digits" else "digits"
    bench.planner.on_job(other, bench.clock.now)
    for _ in range(20):
        bench.planner.on_job(other, bench.clock.now)
    assert [offer.family for offer in bench.planner.offers()] == [served]
    bench.clock.advance(REVIEW_SECONDS)
    commands = bench.planner.on_tick(bench.clock.now)
    assert len(of_type(commands, UnloadModel)) == 1
    assert [offer.family for offer in bench.planner.offers()] == [other]


# -- other catalogues and conditions ------------------------------------------------------------------------------


def test_a_new_family_is_measured_and_the_old_one_stays_served() -> None:
    """Without a break."""
    bench = Bench(circumstances=Circumstances(here=Here(runtime=RUNTIME))).serving()
    before = bench.offered
    commands = bench.planner.on_catalogue(two_families(), bench.clock.now)
    (canary,) = of_type(commands, RunCanary)
    assert canary.family.name == "letters"
    assert bench.offered == before
    assert of_type(commands, StopWorker) == of_type(commands, UnloadModel) == []


def test_a_family_that_left_the_catalogue_is_no_longer_served() -> None:
    """Its memory is given back."""
    bench = Bench(catalogue=two_families(), circumstances=Circumstances(here=Here(runtime=RUNTIME))).serving()
    commands = bench.planner.on_catalogue(builtin(), bench.clock.now)
    assert len(of_type(commands, UnloadModel)) == 1
    assert [offer.family for offer in bench.planner.offers()] == ["digits"]


def test_throttling_has_everything_measured_again_while_it_is_served() -> None:
    """And what comes out of it is offered then."""
    bench = Bench(circumstances=Circumstances(here=Here(runtime=RUNTIME))).serving()
    commands = bench.planner.on_conditions(BUDGET_BYTES, "throttled", bench.clock.now)
    assert len(of_type(commands, RunCanary)) == 1
    assert len(bench.offered) == 1
    bench.measure(commands, fp32=800)
    assert bench.planner.offers()[0].latency_us == 800


def test_jobs_that_take_far_longer_for_long_start_a_new_canary_run() -> None:
    """Once it is quiet; its outcome is what is offered then."""
    bench = Bench(circumstances=Circumstances(here=Here(runtime=RUNTIME))).serving()
    for _ in range(30):
        bench.clock.advance(5)
        bench.planner.on_job_done(FIRST, (scan(),), 9_000, bench.clock.now)
    assert bench.planner.offers()[0].latency_us > 5_000
    (canary,) = of_type(bench.planner.on_load(0, bench.clock.now), RunCanary)
    assert canary.variant.digest_bytes == FIRST
    bench.measure(bench.tell(canary_done(FIRST, p50_us=8_000)))
    assert len(bench.offered) == 1


# -- a worker that dies -------------------------------------------------------------------------------------------


def test_a_variant_that_ends_the_worker_while_it_is_loaded_is_withdrawn(bench: Bench) -> None:
    """After it was chosen; the next best that was measured takes its place."""
    bench.measure(bench.begin())
    commands = bench.started()
    (first,) = bench.offered
    for _ in range(MAX_DEATHS):
        assert of_type(commands, LoadModel)[0].variant.name == first
        commands = bench.died_and_back()
    (load,) = of_type(commands, LoadModel)
    assert load.variant.name != first
    assert bench.offered == [load.variant.name]
    assert "ended over it 3 times within 1 h" in bench.lost[first]


def test_a_variant_that_ends_the_worker_while_it_runs_is_withdrawn(bench: Bench) -> None:
    """Although it can be loaded each time. The reason is remembered, and the next best takes its place."""
    bench.serving()
    (first,) = bench.offered
    digest = FAMILY.variant(bench.planner.plans[0].chosen.variant.digest).digest_bytes  # type: ignore[union-attr]
    for _ in range(MAX_DEATHS - 1):
        bench.clock.advance(STABLE_SECONDS)
        bench.loaded(bench.died_and_back(digest))
        assert bench.offered == [first]
    bench.clock.advance(STABLE_SECONDS)
    commands = bench.died_and_back(digest)
    assert "withdrawn" in actions(commands)
    assert bench.planner.offered(digest) is None
    (saved,) = of_type(commands, SaveExperience)
    assert "ended over it 3 times" in saved.document
    assert "It was killed." in bench.lost[first]
    bench.loaded(commands)
    assert len(bench.offered) == 1


def test_every_variant_that_ends_the_worker_is_withdrawn_in_its_turn(bench: Bench) -> None:
    """Until nothing is offered, with the reason; after a while it is tried again."""
    bench.serving()
    deaths = 0
    while (chosen := bench.planner.plans[0].chosen) is not None:
        commands = bench.died_over(chosen.variant.digest_bytes)
        deaths += 1
        if bench.planner.plans[0].chosen is not None:
            commands += [] if of_type(commands, StartWorker) else bench.wait()
            bench.loaded(bench.measure([*commands, *bench.started()]))
    assert deaths == MAX_DEATHS * len(FAMILY.variants)
    assert bench.offered == []
    assert "ended over it 3 times" in bench.planner.plans[0].why


def test_inputs_that_end_workers_do_not_cost_an_honest_variant_its_place() -> None:
    """The same poison again and again is no proof against the model; two kinds of it are not, either."""
    bench = Bench().serving()
    digest = bench.planner.offers()[0].variant
    for number in range(6):
        bench.loaded(bench.died_and_back(digest, b"poison" if number % 2 else b"another"))
    assert [offer.variant for offer in bench.planner.offers()] == [digest]
    bench.died_over(digest, inputs=b"a third")
    assert digest not in [offer.variant for offer in bench.planner.offers()]


def test_deaths_far_apart_do_not_add_up() -> None:
    """A worker that is killed now and then for years does not cost a family its place; nor when it does nothing."""
    bench = Bench().serving()
    digest = bench.planner.offers()[0].variant
    for _ in range(3 * MAX_DEATHS):
        bench.clock.advance(WITHIN_SECONDS / (MAX_DEATHS - 1) + 1)
        bench.loaded(bench.died_and_back(digest))
        bench.loaded(bench.died_and_back())
    assert [offer.variant for offer in bench.planner.offers()] == [digest]


def test_a_model_that_can_no_longer_be_loaded_is_withdrawn_at_once() -> None:
    """A refusal, unlike a death, says something about the model; when none is left, nothing is offered."""
    bench = Bench().serving()
    commands = bench.died_and_back()
    withdrawn = set()
    while loads := of_type(commands, LoadModel):
        variant = loads[0].variant
        assert bench.offered == [variant.name]
        commands = bench.tell(LoadFailed(variant.digest_bytes, "digest-mismatch", "It was changed."))
        assert "withdrawn" in actions(commands)
        assert bench.planner.offered(variant.digest_bytes) is None
        withdrawn.add(variant.name)
        commands = bench.measure(commands)
    assert withdrawn == {variant.name for variant in FAMILY.variants}
    assert bench.offered == []
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
        bench.loaded(bench.started())
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


@pytest.mark.parametrize("stuck", ["starting", "loading"])
def test_a_worker_that_does_not_come_back_is_ended(bench: Bench, stuck: str) -> None:
    """A model that loads for ever must not keep the agent from serving others."""
    bench.measure(bench.begin())
    if stuck == "loading":
        bench.started()
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
