"""When a family can be expected: machines that have just come load and measure before they offer."""

from __future__ import annotations

import pytest
from fakes import CoordinatorScript, FakeAgent, ManualClock, of_type

from edge_agent.coordinator.events import SubmitRefused
from edge_agent.coordinator.warming import FIRST_GUESS_SECONDS, LONGEST_SECONDS, Warming


def refused(script: CoordinatorScript) -> SubmitRefused:
    """Submit a job that nobody can have; return what its client is told."""
    (found,) = of_type(script.submit()[1], SubmitRefused)
    return found


@pytest.fixture
def clock() -> ManualClock:
    """Return a clock."""
    return ManualClock()


def test_a_machine_that_has_just_come_is_waited_for(clock: ManualClock) -> None:
    """With the time that is left; one that offers nothing is not waited for."""
    script = CoordinatorScript(clock)
    script.connect()
    assert (refused(script).code, refused(script).retry_after_seconds) == ("no-agent", 2.0)
    agent = FakeAgent("one", clock)
    script.tell(agent.birth())
    told = refused(script)
    assert (told.code, told.retry_after_seconds) == ("loading", FIRST_GUESS_SECONDS)
    assert "5 s" in told.message
    clock.advance(2.0)
    assert refused(script).retry_after_seconds == FIRST_GUESS_SECONDS - 2.0
    script.tell(agent.offers_nothing())
    assert refused(script).code == "no-agent"


def test_the_first_machines_tell_how_long_it_takes(clock: ManualClock) -> None:
    """The next ones are expected as soon as those came."""
    script = CoordinatorScript(clock)
    script.connect()
    for number in range(12):
        agent = FakeAgent(f"agent {number}", clock)
        script.tell(agent.birth())
        clock.advance(20.0)
        script.tell(agent.offers(agent.offer()))
        script.tell(agent.gone())
    clock.advance(3600.0)
    script.tell(FakeAgent("next", clock).birth())
    told = refused(script)
    assert told.retry_after_seconds == pytest.approx(20.0, rel=0.05)


def test_who_takes_longer_than_usual_is_given_longer_and_not_for_ever() -> None:
    """The guess grows with what was waited in vain."""
    warming = Warming()
    assert warming.left([]) is None
    assert warming.left([LONGEST_SECONDS + 1]) is None
    assert warming.left([FIRST_GUESS_SECONDS]) == 1.0
    assert warming.left([FIRST_GUESS_SECONDS + 20]) == 10.0
    assert warming.left([FIRST_GUESS_SECONDS + 20, 1.0]) == FIRST_GUESS_SECONDS - 1.0
    warming.observe(-5.0)
    assert warming.usual_seconds == FIRST_GUESS_SECONDS
