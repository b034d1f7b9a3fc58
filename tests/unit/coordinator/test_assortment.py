"""A coordinator that goes by another catalogue from one moment to the next."""

from __future__ import annotations

from fakes import CoordinatorScript, FakeAgent, ManualClock, controls_for, digits, jobs_for, of_type

from edge_agent.coordinator.events import CatalogueChanged, Commit
from edge_agent.models.catalogue import Catalogue

LETTERS = digits().model_copy(
    update={
        "name": "letters",
        "variants": tuple(
            v.model_copy(update={"digest": f"{number:064x}"}) for number, v in enumerate(digits().variants, start=1)
        ),
    }
)
BOTH = Catalogue(version=2, families=(digits(), LETTERS))
ONE = Catalogue(version=3, families=(digits(),))


class Scene:
    """A coordinator that knows `digits`, and an agent that offers `digits` and `letters`."""

    def __init__(self) -> None:
        clock = ManualClock()
        self.script = CoordinatorScript(clock, catalogue=ONE)
        self.agent = FakeAgent("agent", clock)
        self.offers = (
            self.agent.offer(),
            self.agent.offer(LETTERS),
        )
        self.script.connect()
        self.script.join(self.agent, *self.offers)

    def offered(self) -> set[str]:
        """The families that the coordinator would lease to the agent."""
        return set(self.script.core.registry.agents[self.agent.id].offers)


def test_what_was_unknown_is_leased_once_it_is_known() -> None:
    """Agents are asked to say again what they offer; before that, and before the change, nothing of it counts."""
    scene = Scene()
    assert scene.offered() == {"digits"}
    commands = scene.script.tell(CatalogueChanged(BOTH))
    assert controls_for(scene.agent, commands) == ["rebirth"]
    assert scene.offered() == {"digits"}
    scene.script.tell(scene.agent.birth(), scene.agent.offers(*scene.offers))
    assert scene.offered() == {"digits", "letters"}


def test_what_is_gone_is_not_leased_any_more() -> None:
    """A withdrawn family, or variant, disappears from what agents offer at once; the rest stays."""
    scene = Scene()
    scene.script.tell(CatalogueChanged(BOTH))
    scene.script.tell(scene.agent.birth(), scene.agent.offers(*scene.offers))
    scene.script.tell(CatalogueChanged(ONE))
    assert scene.offered() == {"digits"}
    others = tuple(v for v in digits().variants if v.digest_bytes != scene.offers[0].variant)
    less = Catalogue(version=4, families=(digits().model_copy(update={"variants": others}),))
    scene.script.tell(CatalogueChanged(less))
    assert scene.offered() == set()


def test_jobs_that_are_out_are_not_disturbed() -> None:
    """A change that keeps the family lets its jobs end as they would have."""
    scene = Scene()
    _, commands = scene.script.submit()
    (opened,) = jobs_for(scene.agent, commands)
    scene.script.tell(CatalogueChanged(BOTH))
    ended = scene.script.tell(scene.agent.result(opened))
    assert of_type(ended, Commit)
    assert not scene.script.core.leasing.jobs


def test_an_agent_that_is_away_is_not_spoken_to() -> None:
    """It says what it offers when it comes back."""
    scene = Scene()
    scene.script.tell(scene.agent.gone())
    assert controls_for(scene.agent, scene.script.tell(CatalogueChanged(BOTH))) == []
