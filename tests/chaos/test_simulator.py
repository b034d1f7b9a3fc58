"""Both cores in a simulated network: thousands of scripts of faults, and the promises checked after each.

The big run is `benchmarks/simulator.py`; a script that fails here prints its smallest form and how to play it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from simulator.database import Database
from simulator.generate import PROFILES, generate
from simulator.oracle import Violation
from simulator.report import explain, play, play_all
from simulator.script import COORDINATOR, Kind, Script, Step
from simulator.shrink import shrink
from simulator.simulation import Simulation
from simulator.wire import TokenWire, token_wire
from simulator.world import Promise

from edge_agent.coordinator.events import Record
from edge_agent.coordinator.jobs import Job, JobState
from edge_agent.coordinator.ledger_table import Chain, balances
from edge_agent.coordinator.log_table import Appender
from edge_agent.coordinator.pending import read_pending
from edge_agent.coordinator.rows import standing_rows
from edge_agent.coordinator.store import Store
from edge_agent.coordinator.writer import apply

SCRIPTS_EACH = 60
"""Of each profile; the number, not the time, is fixed: every machine runs the same ones."""
FIRST_SEED = 1_000_000
"""Far from the seeds of the big run."""


@pytest.fixture(scope="module")
def wire() -> Iterator[TokenWire]:
    """Let statements travel as tokens, so that there is time for many scripts."""
    with token_wire() as double:
        yield double


def _passes(script: Script, wire: TokenWire | None) -> None:
    violations = play(script, wire)[1]
    assert not violations, explain(script, violations, wire)


def _requests(*, deadline: float = 60.0) -> list[Step]:
    """Ask for one job of each kind, one of them twice, and cancel one."""
    return [
        Step(1.0, Kind.SUBMIT, seconds=deadline, count=1, text="one"),
        Step(1.1, Kind.SUBMIT, seconds=deadline, count=2, text="two", sync=True),
        Step(1.2, Kind.SUBMIT, seconds=deadline, count=3),
        Step(1.3, Kind.SUBMIT, seconds=deadline, count=1, text="one"),
        Step(1.4, Kind.SUBMIT, seconds=deadline, count=4, text="four"),
        Step(1.5, Kind.CANCEL, count=4),
    ]


def _base(*more: Step, agents: int = 2) -> Script:
    steps = sorted([*_requests(), *more], key=lambda step: step.at)
    return Script(7, "base", agents, tuple(steps), agent_room=1)


@pytest.mark.parametrize("profile", PROFILES)
def test_every_script_keeps_every_promise(wire: TokenWire, profile: str) -> None:
    """Whatever is lost, late, repeated, killed, hung, cut, full or off by hours: what was promised holds at the end."""
    tally = play_all(range(FIRST_SEED, FIRST_SEED + SCRIPTS_EACH), wire, profile)
    assert not tally.failures, "\n\n".join(tally.failures)
    assert tally.runs == SCRIPTS_EACH


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 16))
def test_scripts_keep_their_promises_with_real_signatures(seed: int) -> None:
    """The double at the wire hides nothing: the same rules with every message signed, encoded and checked."""
    _passes(generate(seed), None)


@pytest.mark.parametrize("who", [COORDINATOR, 0, 1])
def test_a_process_may_be_killed_before_every_single_command(wire: TokenWire, who: int) -> None:
    """In the middle of any list of commands, wherever in the life of five jobs: nothing is lost and nothing doubled."""
    whole = Simulation(_base()).run()
    process = whole.coordinator if who == COORDINATOR else whole.agents[who]
    assert process.commands > 20
    for command in range(process.commands):
        _passes(_base(Step(0.0, Kind.CRASH, who, 0.7, command)), wire)


def test_a_worker_may_be_killed_before_every_single_command_of_its_agent(wire: TokenWire) -> None:
    """While it starts, measures, loads, computes or does nothing."""
    whole = Simulation(_base(agents=1)).run()
    for command in range(whole.agents[0].commands):
        _passes(_base(Step(0.0, Kind.KILL_WORKER, 0, count=command), agents=1), wire)


@pytest.mark.parametrize("channel", ["birth", "offers", "jobs", "results", "settled", "control", "coordinator"])
@pytest.mark.parametrize("kind", [Kind.LOSE, Kind.REPEAT, Kind.DELAY])
def test_any_single_message_may_be_lost_repeated_or_late(wire: TokenWire, channel: str, kind: Kind) -> None:
    """No single message is needed, once only, or in its place."""
    who = COORDINATOR if channel == "coordinator" else 0
    for count in range(1, 7):
        _passes(_base(Step(0.0, kind, who, 7.0, count, channel)), wire)


def test_without_faults_every_job_succeeds_at_the_first_attempt(wire: TokenWire) -> None:
    """Where everything does what it should, nothing is done twice."""
    steps = tuple(Step(1.0 + number / 10, Kind.SUBMIT, seconds=60.0, count=number) for number in range(1, 21))
    simulation, violations = play(Script(1, "base", 3, steps), wire)
    assert violations == []
    rows = simulation.coordinator.database.tables.jobs.values()
    assert {(row.state, row.epoch) for row in rows} == {(JobState.SUCCEEDED, 1)}


def test_the_same_seed_gives_the_same_run(wire: TokenWire) -> None:
    """A script that fails can be played again, here or from its JSON."""

    def record(script: Script) -> list[str] | None:
        wire.clear()
        return Simulation(script, log=True).run().world.log

    for seed in (FIRST_SEED, FIRST_SEED + 1, FIRST_SEED + 5):
        script = generate(seed)
        assert record(script) == record(generate(seed))
        assert record(script) == record(Script.from_json(script.to_json()))


def test_a_failing_script_is_made_as_small_as_can_be() -> None:
    """What is left is what the failure needs, in round numbers."""
    script = generate(FIRST_SEED, "everything")
    needed = Step(5.123, Kind.CLOCK, COORDINATOR, 3600.0)
    script = Script(script.seed, script.profile, 4, tuple(sorted([*script.steps, needed], key=lambda step: step.at)))
    smallest = shrink(script, lambda found: any(step.kind is Kind.CLOCK and step.seconds > 60 for step in found.steps))
    assert smallest.steps == (Step(5.1, Kind.CLOCK, COORDINATOR, 3600.0),)
    assert smallest.agents == 1


def test_a_failure_says_its_smallest_script_and_how_to_play_it_again(
    wire: TokenWire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """People get sentences, and a command line."""
    monkeypatch.setattr("simulator.oracle.RULES", [_forbids_cancelling])
    script = _base(Step(0.5, Kind.WEATHER, seconds=2.0, count=30), Step(1.35, Kind.CRASH, 1, 1.0, 3))
    text = explain(script, play(script, wire)[1], wire)
    assert "promise 1 (ends_once): something was cancelled" in text
    assert "s  a client cancels its job with number" in text
    assert "is killed" not in text
    replay = text.split("--script '")[1].split("'\n")[0]
    assert play(Script.from_json(replay), wire)[1]


def _forbids_cancelling(simulation: Simulation) -> Iterator[tuple[Promise, str]]:
    states = {row.state for row in simulation.coordinator.database.tables.jobs.values()}
    if JobState.CANCELLED in states:
        yield Promise.ENDS_ONCE, "something was cancelled"


def test_every_kind_of_fault_is_drawn(wire: TokenWire) -> None:
    """A kind that no script has would be a promise that nothing tests."""
    tally = play_all(range(FIRST_SEED, FIRST_SEED + 60), wire, "everything")
    tally.add(play_all(range(FIRST_SEED, FIRST_SEED + 10), wire, "pauses"))  # owners pause in scripts of their own
    missing = {kind for kind in Kind if not tally.counts[kind]}
    assert not missing


def _facts(job: Job) -> tuple[object, ...]:
    held = [(a.epoch, a.agent_id, a.variant, a.agent_session, a.lease_until) for a in job.attempts]
    tried = (job.failures, sorted(job.failed_on), sorted(job.excused.items()), sorted(job.killed), job.refusals)
    return (job.id, job.inputs, job.salt, job.deadline, job.max_attempts, job.state, job.epoch, held, tried)


@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + 12))
def test_the_database_in_memory_gives_the_same_answers_as_the_real_one(
    wire: TokenWire, seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every transaction of a script, written to both: the model hides nothing either."""
    groups: list[list[Record]] = []
    write = Database.write

    def watched(self: Database, records: Sequence[Record], *, durable: bool) -> None:
        groups.append(list(records))
        write(self, records, durable=durable)

    monkeypatch.setattr(Database, "write", watched)
    steps = tuple(s for s in generate(seed, "kills").steps if s.kind is not Kind.POWER_CUT)
    simulation = Simulation(Script(seed, "kills", 3, steps, owners=3)).run()
    assert groups
    model = Database()
    store = Store(tmp_path / "coordinator.sqlite")
    moment = {"monotonic": 50.0, "wall_ms": 1_800_000_020_000, "lease_seconds": 6.0, "boot": 1}
    for group in tuple(groups):
        model.write(group, durable=True)
        _write(store, group)
        assert sorted(map(_facts, store.open_jobs(**moment))) == sorted(map(_facts, model.open_jobs(**moment)))
    assert sorted(store.requests(1000)) == sorted(model.requests(1000))
    assert store.served_families() == model.served_families()
    assert store.accepted() == model.accepted()
    for question in (standing_rows, balances, read_pending):
        assert store.read(question) == model.read(question)
    for job_id, row in simulation.coordinator.database.tables.jobs.items():
        stored = store.job(job_id)
        assert stored is not None
        assert row.outcome is not None
        told = (row.outcome.state, row.outcome.outputs, row.outcome.receipt, row.outcome.error)
        assert (stored.state, stored.outputs, stored.receipt, stored.error) == told
    store.close()


def _write(store: Store, records: Sequence[Record]) -> None:
    with store.engine.begin() as connection:
        log, chain = Appender.load(connection), Chain.load(connection)
        for record in records:
            apply(connection, record, log, chain)
        log.write(connection)
        chain.write(connection)


def test_the_real_database_refuses_what_the_model_refuses(wire: TokenWire, tmp_path: Path) -> None:
    """A job that would end twice, or one key for two jobs, ends the coordinator rather than the promise."""
    simulation = Simulation(_base()).run()
    rows = simulation.coordinator.database.tables.jobs
    first, second = list(rows.values())[:2]
    store = Store(tmp_path / "coordinator.sqlite")
    for records in (
        [first.inserted, first.inserted],
        [first.inserted, type(second.inserted)(first.inserted.submit, 1, 2, 3)],
    ):
        with pytest.raises(sa.exc.IntegrityError, match="UNIQUE"):
            _write(store, records)
    store.close()


def test_a_violation_reads_as_a_sentence() -> None:
    """With the number of the promise in docs/reliability.md."""
    assert str(Violation(Promise.TIME, "it went on")) == "promise 4 (time): it went on"


MISJUDGED = {
    "the end of a job is lost with the transaction that a slow disk held open": (
        '{"seed": 8089, "profile": "coordinator", "agents": 1, "lease_seconds": 6.0, "max_attempts": 5, "max_'
        'queued_jobs": 100, "agent_room": 4, "worker_idle_seconds": 0.0, "spool": false, "hedge_share": 0.02,'
        ' "poison": 2, "bad": 3, "steps": [{"at": 3.8, "kind": "unreachable", "who": -1, "seconds": 1.0}, {"a'
        't": 4.2, "kind": "submit", "who": -1, "seconds": 2.0, "count": 1, "text": "k1"}, {"at": 4.7, "kind":'
        ' "slow-disk", "who": -1, "seconds": 5.8}, {"at": 6.2, "kind": "crash", "who": -1, "seconds": 12.54},'
        ' {"at": 15.6, "kind": "cancel", "who": -1, "seconds": 1.0, "count": 2}]}'
    ),
    "the deadline passes in a hang that a kill ends": (
        '{"seed": 22040, "profile": "everything", "agents": 3, "lease_seconds": 4.0, "max_attempts": 50, "max'
        '_queued_jobs": 100, "agent_room": 4, "worker_idle_seconds": 0.0, "spool": true, "hedge_share": 0.02,'
        ' "poison": 0, "bad": 0, "steps": [{"at": 4.5, "kind": "submit", "who": -1, "seconds": 1.0, "count": '
        '1}, {"at": 5.1, "kind": "hang", "who": -1, "seconds": 6.45}, {"at": 9.8, "kind": "crash", "who": -1,'
        ' "seconds": 29.55}, {"at": 15.3, "kind": "crash", "who": 2, "seconds": 1.0}]}'
    ),
    "the power fails while a client of a coordinator that hangs waits": (
        '{"seed": 20144, "profile": "everything", "agents": 2, "lease_seconds": 30.0, "max_attempts": 5, "max'
        '_queued_jobs": 100, "agent_room": 4, "worker_idle_seconds": 0.0, "spool": true, "hedge_share": 1.0, '
        '"poison": 0, "bad": 0, "steps": [{"at": 11.9, "kind": "submit", "who": -1, "seconds": 1.0, "count": '
        '1, "text": "k1"}, {"at": 15.7, "kind": "crash", "who": -1, "seconds": 0.71, "count": 7}, {"at": 16.0'
        ', "kind": "submit", "who": -1, "seconds": 1.0, "count": 2, "text": "k2"}, {"at": 17.1, "kind": "hang'
        '", "who": -1, "seconds": 1.0}, {"at": 17.5, "kind": "power-cut", "who": -1, "seconds": 1.0}]}'
    ),
    "a client asks for two owners and one has withdrawn what it served": (
        '{"seed": 7022790, "profile": "everything", "agents": 2, "lease_seconds": 6.0, "max_attempts": 5, "ma'
        'x_queued_jobs": 100, "agent_room": 4, "worker_idle_seconds": 0.0, "spool": false, "hedge_share": 0.0'
        '2, "poison": 1, "bad": 0, "owners": 2, "mode": "rechecked", "steps": [{"at": 1.1, "kind": "submit", '
        '"who": -1, "seconds": 1.0, "count": 1}, {"at": 16.5, "kind": "kill-worker", "who": 1, "seconds": 1.0'
        '}, {"at": 16.8, "kind": "submit", "who": -1, "seconds": 1.0, "count": 6}, {"at": 18.7, "kind": "hang'
        '-worker", "who": 1, "seconds": 1.0}]}'
    ),
}
"""Of the scripts of the big runs, the kinds in which a promise was kept and the oracle did not see it."""


@pytest.mark.parametrize("text", MISJUDGED.values(), ids=MISJUDGED)
def test_what_could_not_be_done_is_no_broken_promise(wire: TokenWire, text: str) -> None:
    """Ends that were lost with the process, times in which it could do nothing, an owner too few for what was asked."""
    _passes(Script.from_json(text), wire)


BROKEN_ONCE = {
    "the result of a hedged job is held when the power fails": (
        '{"seed": 5005939, "profile": "processes", "agents": 2, "lease_seconds": 4.0, "max_attempts": 5, "max_'
        'queued_jobs": 3, "agent_room": 4, "worker_idle_seconds": 0.0, "spool": true, "hedge_share": 1.0, "poi'
        'son": 0, "bad": 0, "owners": 2, "mode": "rechecked", "steps": [{"at": 12.4, "kind": "submit", "who": '
        '-1, "seconds": 300.0, "count": 4, "sync": true}, {"at": 17.7, "kind": "power-cut", "who": -1, "second'
        's": 12.39}, {"at": 19.1, "kind": "power-cut", "who": 1, "seconds": 1.0}]}'
    ),
    "a job that one owner's machine refuses is lost by the other's": (
        '{"seed": 6100074, "profile": "everything", "agents": 2, "lease_seconds": 6.0, "max_attempts": 5, "max_'
        'queued_jobs": 100, "agent_room": 4, "worker_idle_seconds": 0.0, "spool": true, "hedge_share": 1.0, "p'
        'oison": 0, "bad": 3, "owners": 2, "mode": "rechecked", "steps": [{"at": 1.5, "kind": "submit", "who":'
        ' -1, "seconds": 1.0, "count": 1, "text": "k1"}, {"at": 5.2, "kind": "submit", "who": -1, "seconds": 1'
        '.0, "count": 2, "text": "k2"}, {"at": 6.6, "kind": "broker-restart", "who": -1, "seconds": 1.0}, {"at'
        '": 6.8, "kind": "submit", "who": -1, "seconds": 60.0, "count": 3}, {"at": 8.0, "kind": "lose", "who":'
        ' 1, "seconds": 1.0, "count": 3, "text": "jobs"}, {"at": 12.5, "kind": "submit", "who": -1, "seconds":'
        ' 1.0, "count": 4, "text": "k4"}, {"at": 12.9, "kind": "submit", "who": -1, "seconds": 1.0, "count": 5'
        '}, {"at": 15.7, "kind": "submit", "who": -1, "seconds": 120.0, "count": 6, "text": "k6"}, {"at": 16.9'
        ', "kind": "submit", "who": -1, "seconds": 1.0, "count": 7, "text": "k7"}, {"at": 18.7, "kind": "crash'
        '", "who": 1, "seconds": 1.0}]}'
    ),
    "a power cut takes back attempts that an agent was given": (
        '{"seed": 62233, "profile": "coordinator", "agents": 1, "lease_seconds": 4.0, "max_attempts": 5, "max'
        '_queued_jobs": 100, "agent_room": 4, "worker_idle_seconds": 0.0, "spool": false, "hedge_share": 0.02'
        ', "poison": 2, "bad": 0, "steps": [{"at": 6.9, "kind": "submit", "who": -1, "seconds": 1.0, "count":'
        ' 1}, {"at": 10.7, "kind": "submit", "who": -1, "seconds": 1.0, "count": 3, "text": "k3"}, {"at": 11.'
        '2, "kind": "crash", "who": -1, "seconds": 0.18, "count": 6}, {"at": 11.9, "kind": "submit", "who": -'
        '1, "seconds": 120.0, "count": 2}, {"at": 13.144, "kind": "power-cut", "who": -1, "seconds": 1.0}]}'
    ),
    "the first birth of an agent comes after its offers": (
        '{"seed": 75762, "profile": "network", "agents": 2, "lease_seconds": 6.0, "max_attempts": 50, "max_qu'
        'eued_jobs": 100, "agent_room": 4, "worker_idle_seconds": 0.0, "spool": true, "hedge_share": 0.02, "p'
        'oison": 0, "bad": 0, "steps": [{"at": 0.1, "kind": "lose", "who": 1, "seconds": 1.0, "count": 1, "te'
        'xt": "birth"}, {"at": 0.1, "kind": "lose", "who": 1, "seconds": 1.0, "count": 2, "text": "birth"}]}'
    ),
    "a job waits for one busy machine while another has room": (
        '{"seed": 265, "profile": "processes", "agents": 3, "lease_seconds": 30.0, "max_attempts": 50, "max'
        '_queued_jobs": 100, "agent_room": 1, "worker_idle_seconds": 0.0, "spool": false, "hedge_share": 0.'
        '02, "poison": 0, "bad": 0, "owners": 2, "mode": "rechecked", "steps": [{"at": 4.7, "kind": "submit'
        '", "who": -1, "seconds": 10.0, "count": 1, "text": "k1"}, {"at": 5.1, "kind": "submit", "who": -1,'
        ' "seconds": 1.0, "count": 2, "text": "k2"}, {"at": 7.6, "kind": "crash", "who": -1, "seconds": 1.0'
        '}, {"at": 9.3, "kind": "cut", "who": 1, "seconds": 1.0}, {"at": 9.7, "kind": "submit", "who": -1, '
        '"seconds": 1.0, "count": 3}, {"at": 13.6, "kind": "crash", "who": -1, "seconds": 1.0, "count": 8},'
        ' {"at": 15.9, "kind": "submit", "who": -1, "seconds": 120.0, "count": 4, "text": "k4"}, {"at": 18.'
        '7, "kind": "submit", "who": -1, "seconds": 1.0, "count": 5, "text": "k5"}]}'
    ),
}
"""Scripts of the big run that broke a promise, and what was wrong; it was mended."""


@pytest.mark.parametrize("text", BROKEN_ONCE.values(), ids=BROKEN_ONCE)
def test_what_was_broken_once_holds(wire: TokenWire, text: str) -> None:
    """The smallest script of each."""
    _passes(Script.from_json(text), wire)
