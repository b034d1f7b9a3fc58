"""What agents say of how they fare: kept for the operator, and nothing else depends on it."""

from __future__ import annotations

import pytest
from fakes import CoordinatorScript, FakeAgent, ManualClock, actions, codes

from edge_agent.coordinator.registry import STATUS_SECONDS
from edge_agent.wire.messages import MAX_LONG_STATEMENT_BYTES
from edge_agent.wire.status import MAX_FITS, MAX_REASONS, FitReport, Reason

FIT = FitReport(
    family="digits",
    variant_name="fp32",
    served=True,
    predicted_us=1,
    predicted_bytes=2,
    measured_us=3,
    measured_bytes=4,
    why="the best",
)


class Scene:
    """A coordinator with one agent that serves."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.script = CoordinatorScript(self.clock)
        self.agent = FakeAgent("agent", self.clock)
        self.script.join(self.agent)

    @property
    def known(self) -> object:
        """What is known of how it fares."""
        return self.script.registry.agents[self.agent.id].status


@pytest.fixture
def scene() -> Scene:
    """An agent that is here."""
    return Scene()


def test_a_status_is_kept_and_leases_go_on(scene: Scene) -> None:
    """Also when the machine says that it rests: it is the offers that count."""
    told = scene.script.tell(scene.agent.status(mode="rest", reasons=(Reason(code="hot", text=""),), celsius=84))
    assert codes(told) == []
    assert (scene.known.mode, scene.known.celsius) == ("rest", 84)
    assert scene.script.submit()[1] != []


def test_fits_stay_when_a_later_status_does_not_repeat_them(scene: Scene) -> None:
    """They are long and change seldom."""
    scene.script.tell(scene.agent.status(fits=(FIT,)))
    scene.clock.advance(STATUS_SECONDS)
    scene.script.tell(scene.agent.status(celsius=61))
    assert (scene.known.celsius, scene.known.fits) == (61, (FIT,))


def test_a_flood_of_statuses_is_passed_over_and_counted(scene: Scene) -> None:
    """One a second counts; the rest costs its check and a counter."""
    scene.script.tell(scene.agent.status(celsius=50))
    told = [c for n in range(20) for c in scene.script.tell(scene.agent.status(celsius=n))]
    assert actions(told) == ["status-too-often"] * 20
    assert scene.known.celsius == 50


def test_a_repeated_status_and_one_of_an_older_session_change_nothing(scene: Scene) -> None:
    """Recorded and played again by the broker."""
    recorded = scene.agent.status(celsius=99)
    scene.script.tell(scene.agent.status(celsius=40))
    scene.clock.advance(STATUS_SECONDS)
    assert codes(scene.script.tell(recorded)) == ["stale-session"]
    scene.agent.session = 2
    scene.script.tell(scene.agent.birth(answers=100))
    assert scene.known is None
    scene.agent.session = 1
    assert codes(scene.script.tell(scene.agent.status())) == ["stale-session"]
    assert scene.known is None


def test_the_longest_status_fits_its_limit(scene: Scene) -> None:
    """Every list full and every text as long as may be, in characters of four bytes."""
    long = "\N{GRINNING FACE}" * 200
    fit = FIT.model_copy(update={"family": "f" * 64, "variant_name": "v" * 64, "why": long})
    reason = Reason(code="c" * 64, text=long)
    message = scene.agent.status(fits=(fit,) * MAX_FITS, reasons=(reason,) * MAX_REASONS)
    assert len(message.payload) < MAX_LONG_STATEMENT_BYTES
    assert codes(scene.script.tell(message)) == []
    assert len(scene.known.fits) == MAX_FITS
