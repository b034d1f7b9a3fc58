"""Both cores together, on a network that does its worst."""

from __future__ import annotations

import pytest
from pair import Pair

from edge_agent.coordinator.jobs import JobState

SEEDS_EACH = 40


def _everything_ends_once(pair: Pair) -> None:
    assert pair.accepted
    assert set(pair.ended) == set(pair.accepted)
    assert all(len(outcomes) == 1 for outcomes in pair.ended.values())
    assert not pair.coordinator.core.leasing.jobs
    assert all(not agent.in_flight for agent in pair.coordinator.registry.agents.values())


def _schedule(pair: Pair, steps: int) -> None:
    """Do what chance says: submit, cut, crash, come back."""
    for _ in range(steps):
        number = pair.rng.randrange(len(pair.agents))
        match pair.rng.choices(range(8), weights=(12, 2, 2, 1, 1, 1, 1, 1))[0]:
            case 0:
                pair.submit()
            case 1:
                pair.drop_agent(number)
            case 2 | 7:
                if pair.agents[number].core.session is None:
                    pair.connect_agent(number)
            case 3:
                pair.crash_agent(number)
                pair.start_agent(number)
            case 4:
                pair.drop_coordinator()
                pair.connect_coordinator()
            case 5:
                pair.crash_coordinator()
                pair.connect_coordinator()
            case 6:
                pair.kill_worker(number)
        pair.run(pair.rng.random())


@pytest.mark.parametrize("block", range(5))
def test_whatever_is_lost_every_accepted_job_ends_and_none_ends_twice(block: int) -> None:
    """Losses, repeats, reordering and crashes: each job ends once, at the latest with its deadline."""
    for seed in range(block * SEEDS_EACH, (block + 1) * SEEDS_EACH):
        pair = Pair(seed)
        pair.run(3.0)
        _schedule(pair, 25)
        pair.run(70.0)
        _everything_ends_once(pair)


def test_once_the_network_is_well_again_every_job_succeeds() -> None:
    """Nothing that was lost keeps a job from its result once messages arrive again."""
    for seed in range(1000, 1060):
        pair = Pair(seed, faults=False)
        pair.run(3.0)
        jobs = {pair.submit(deadline=600.0) for _ in range(3)}
        pair.run(0.1)
        pair.faults = True
        _schedule(pair, 15)
        pair.faults = False
        for number, agent in enumerate(pair.agents):
            if agent.core.session is None:
                pair.connect_agent(number)
        pair.run(150.0)
        _everything_ends_once(pair)
        assert jobs <= pair.ended.keys()
        assert {pair.ended[job][0].state for job in jobs if job} == {JobState.SUCCEEDED}, seed


def test_without_faults_every_job_succeeds_at_the_first_attempt() -> None:
    """On a network that does what it should, nothing is done twice."""
    pair = Pair(1, faults=False)
    pair.run(3.0)
    for _ in range(20):
        assert pair.submit() is not None
    pair.run(10.0)
    _everything_ends_once(pair)
    assert {outcome.state for (outcome,) in pair.ended.values()} == {JobState.SUCCEEDED}
    assert all(stored.epoch == 1 for stored in pair._database.values())


def test_the_same_seed_gives_the_same_schedule() -> None:
    """A schedule that fails can be played again."""

    def play() -> list[tuple[bytes, str]]:
        pair = Pair(7)
        pair.run(3.0)
        _schedule(pair, 30)
        pair.run(70.0)
        return [(job, outcome.state.value) for job, (outcome,) in pair.ended.items()]

    assert play() == play()
