"""The operator's orders for single agents: kept over restarts, in force at once, and never a reason to work more."""

from __future__ import annotations

import asyncio

from fakes import CoordinatorScript, FakeAgent, ManualClock

from edge_agent.clock import Now
from edge_agent.coordinator import identities
from edge_agent.coordinator.events import AgentsChanged
from edge_agent.coordinator.operations import Operations
from edge_agent.coordinator.orders import Orders
from edge_agent.coordinator.store import Store
from edge_agent.wire.job_options import Placement


class Scene:
    """Two agents that serve."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.script = CoordinatorScript(self.clock)
        self.script.connect()
        self.one, self.two = FakeAgent("one", self.clock), FakeAgent("two", self.clock)
        self.script.join(self.one)
        self.script.join(self.two)

    def order(self, **orders: object) -> None:
        """Let the operator order this, and nothing else."""
        everybody = frozenset({self.one.id, self.two.id})
        self.script.tell(AgentsChanged(everybody, {}, Orders(**orders)))  # type: ignore[arg-type] # as given

    def jobs(self, agent: FakeAgent, **options: object) -> int:
        """Submit more jobs than both agents have room for; return how many more this one holds then."""
        known = self.script.registry.agents[agent.id]
        before = len(known.in_flight)
        for _ in range(20):
            self.script.submit(**options)  # type: ignore[arg-type] # as given
        return len(known.in_flight) - before


def test_a_drained_agent_keeps_what_it_has_and_gets_nothing_new() -> None:
    """Until the operator says otherwise."""
    scene = Scene()
    scene.script.submit()
    scene.script.submit()
    held = dict(scene.script.registry.agents[scene.one.id].in_flight)
    scene.order(drained=frozenset({scene.one.id}))
    assert scene.jobs(scene.one) == 0
    assert scene.script.registry.agents[scene.one.id].in_flight == held
    scene.order()  # what waited goes to it at once
    assert len(scene.script.registry.agents[scene.one.id].in_flight) > len(held)


def test_labels_of_the_operator_and_of_the_owner_both_count() -> None:
    """A job that asks for a label goes to whoever has it from either."""
    scene = Scene()
    wanted = Placement(labels=("attic",))
    scene.order(labels={scene.two.id: frozenset({"attic"})})
    assert scene.jobs(scene.two, placement=wanted) > 0
    assert not scene.script.registry.agents[scene.one.id].in_flight


def test_orders_are_kept_and_in_force_at_once(store: Store) -> None:
    """The core is told with the answer, and the next process reads the same."""
    scene = Scene()
    told: list[AgentsChanged] = []

    def apply(event: object) -> None:
        assert isinstance(event, AgentsChanged)
        told.append(event)
        scene.script.tell(event)

    operations = Operations(scene.script.core, store, lambda: Now(0.0, 0), apply)
    agent = scene.one.id

    async def script() -> None:
        await operations.approve(agent, "ada")
        await operations.drain(agent, drained=True)
        await operations.label(agent, frozenset({"attic", "region=eu"}))
        await operations.drain(agent, drained=True)  # again: nothing is new

    asyncio.run(script())
    assert len(told) == 3
    kept = store.standing(None, 0)
    assert (kept.approved, kept.owners) == ({agent}, {agent: "ada"})
    assert kept.orders == Orders(frozenset({agent}), {agent: frozenset({"attic", "region=eu"})})
    assert scene.script.registry.orders == kept.orders
    asyncio.run(operations.label(agent, frozenset()))
    asyncio.run(operations.drain(agent, drained=False))
    asyncio.run(operations.revoke(agent))
    after = store.standing(None, 0)
    assert (after.approved, after.orders) == (frozenset(), Orders())


def test_an_invitation_is_a_token_that_is_stored_and_holds_an_hour(store: Store) -> None:
    """As one made on the command line."""
    scene = Scene()
    operations = Operations(scene.script.core, store, lambda: Now(0.0, 5_000), lambda _: None)
    text = asyncio.run(operations.invite("home", "c" * 32, "ada", 3600.0))
    (kept,) = store.read(identities.all_tokens)
    assert text.startswith("ea1-")
    assert (kept.owner, kept.expires_ms) == ("ada", 3_605_000)
