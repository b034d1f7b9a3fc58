"""What an operator is told of how far each machine is trusted."""

from __future__ import annotations

from typing import Any

from fakes import FakeAgent
from gateways import PlayedOperations
from pools import Pool, lie

from edge_agent.coordinator.events import AgentsChanged
from edge_agent.coordinator.gateway.pages import agent_row
from edge_agent.coordinator.rows import StoredAgent
from edge_agent.coordinator.trust import FIRST_REST_MS, TrustRules


def shown(pool: Pool, name: str) -> dict[str, Any] | None:
    """Return what is shown of a member."""
    operations = PlayedOperations(pool.script.core, ())
    operations.clock = lambda: pool.clock.now
    return operations.trust_in(pool.members[name].agent.id)


def test_own_machines_newcomers_and_known_ones_are_told_apart() -> None:
    """The share of the next results that is checked is the rule's own, and falls as results are confirmed."""
    pool = Pool({"own": None, "a1": "ada", "b1": "bob"}, quick=["a1"], check_rules=TrustRules(first=3, floor=0.25))
    assert shown(pool, "own") == {"kind": "own", "check_share": 0.0, "resting_until_ms": None}
    assert shown(pool, "a1") == {"kind": "owner", "check_share": 1.0, "resting_until_ms": None}
    for number in range(30):
        assert pool.true(pool.ask(number), number)
    known = shown(pool, "a1")
    assert known is not None
    assert known["check_share"] == 0.25


def test_a_machine_that_was_proven_wrong_says_until_when_it_rests() -> None:
    """Its owner's other machines begin anew, and go on."""
    pool = Pool({"mallory": "mal", "other": "mal", "a1": "ada", "b1": "bob", "c1": "cy"}, quick=["mallory"])
    pool.members["mallory"].behave = lie
    for number in range(5):
        assert pool.true(pool.ask(number), number)
    until = pool.clock.now.wall_ms + FIRST_REST_MS
    told = shown(pool, "mallory")
    assert told is not None
    assert told["check_share"] == 1.0
    assert 0 <= until - told["resting_until_ms"] < FIRST_REST_MS / 10
    other = shown(pool, "other")
    assert other is not None
    assert (other["check_share"], other["resting_until_ms"]) == (1.0, None)


def test_nothing_is_said_of_machines_that_were_not_let_in() -> None:
    """There is no trust to speak of; the row of one that is away and known says whose it is."""
    pool = Pool({"a1": "ada"})
    stranger = FakeAgent("stranger", pool.clock).id
    operations = PlayedOperations(pool.script.core, ())
    operations.clock = lambda: pool.clock.now
    assert operations.trust_in(stranger) is None
    pool.carry_out(pool.script.tell(AgentsChanged(frozenset({*pool.by_id, stranger}), {stranger: "bob"})))
    trust = operations.trust_in(stranger)
    assert trust == {"kind": "owner", "check_share": None, "resting_until_ms": None}
    stored = StoredAgent(stranger, b"", approved=True, session=0, software="", seen_ms=None, owner="bob")
    assert agent_row(stored, None, pool.script.core.registry.orders, trust)["trust"] == trust
