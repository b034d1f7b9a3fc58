"""Agents that change their key to shed what they owe: it is kept under the id that they had first, and stays theirs."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import NETWORK, START_MS, FakeAgent, key
from pools import Member, Pool, lie

from edge_agent.coordinator import identities
from edge_agent.coordinator.enrolment import succeed
from edge_agent.coordinator.events import AddEntry, AgentsChanged
from edge_agent.coordinator.orders import Orders, read_orders, write_drained, write_labels
from edge_agent.coordinator.store import Store
from edge_agent.coordinator.trust import TrustRules
from edge_agent.wire import successions
from edge_agent.wire.envelope import open_envelope
from edge_agent.wire.identity import Revoked, Succession
from edge_agent.wire.keys import SigningKey

HONEST = {"a1": "ada", "b1": "bob", "c1": "cy", "d1": "dee"}


def _change_key(pool: Pool, name: str) -> Member:
    """Let a member go on under a new key, as the database tells it of a succession."""
    member, registry = pool.members[name], pool.script.registry
    old, new = member.agent, FakeAgent(f"{name}, again", pool.clock)
    owners = {new.id if agent == old.id else agent: owner for agent, owner in registry.owners.items()}
    revoked = {old.id: Revoked(id=old.id, since_ms=pool.clock.now.wall_ms, reason="replaced by a new key")}
    approved = registry.approved - {old.id} | {new.id}
    member.agent = new
    pool.by_id[new.id] = member
    pool.quick |= {new.id} if old.id in pool.quick else set()
    pool.carry_out(pool.script.tell(AgentsChanged(approved, owners, revoked=revoked, first_ids={new.id: old.id})))
    pool.come(member)
    return member


def _ask(pool: Pool, numbers: range) -> None:
    for number in numbers:
        assert pool.true(pool.ask(number), number)


def _rests(pool: Pool, member: Member) -> None:
    """See that an agent is there, offers, and is given nothing."""
    assert pool.script.registry.agents[member.agent.id].offers
    assert member.agent.id not in {agent.id for agent in pool.script.registry.offering("digits")}


def test_key_changed_to_end_a_rest() -> None:
    """Whoever was proven wrong is given nothing under its new key either, and its failures are remembered."""
    pool = Pool({"mallory": "mal", **HONEST}, quick=["mallory"])
    cheat = pool.members["mallory"]
    cheat.behave = lambda image: lie(image, b"rest")
    _ask(pool, range(40))
    assert pool.failures("mallory") == 1
    before = dict(pool.script.core.checking.trust.standings)
    given = len(cheat.seen)
    _change_key(pool, "mallory")
    _rests(pool, cheat)
    _ask(pool, range(40, 80))
    assert len(cheat.seen) == given
    mals = (cheat.agent.id, "owner:=mal")
    assert {s: st for s, st in pool.script.core.checking.trust.standings.items() if s.name in mals} == {
        s: st for s, st in before.items() if s.name in mals
    }


def test_key_changed_while_a_result_is_checked() -> None:
    """The blame for what the old key signed is the new key's, too, and it forfeits what waits in escrow."""
    pool = Pool({"mallory": "mal", **HONEST}, quick=["mallory"], check_rules=TrustRules(first=3, floor=0.02))
    _ask(pool, range(60))
    cheat = pool.members["mallory"]
    old = cheat.agent.id
    waiting = sum(amount for name, amount in pool.script.core.checking.ledger.escrow.items() if old in name)
    assert waiting > 0
    cheat.behave = lambda image: lie(image, b"checked")
    for name in HONEST:
        pool.members[name].silent = True
    number = 1000
    while not any(pool.members[name].waiting for name in HONEST):  # until one of its lies is drawn for a check
        pool.ask(number)
        number += 1
    _change_key(pool, "mallory")
    pool.only("mallory", *HONEST)
    for name in HONEST:
        pool.members[name].silent = False
    for name in HONEST:
        while (member := pool.members[name]).waiting:
            pool.carry_out(pool.answer(member, member.waiting.pop(0)))
    _rests(pool, cheat)  # under the key that signed nothing wrong
    lost = [r for r in pool.records if isinstance(r, AddEntry) and r.kind == "forfeit" and old in r.debit]
    assert sum(entry.amount for entry in lost) >= waiting
    assert not any(old in name or cheat.agent.id in name for name in pool.script.core.checking.ledger.escrow)


def test_changed_key_of_an_honest_agent_loses_nothing() -> None:
    """It is no newcomer again, and what waits for its next check is released by that."""
    pool = Pool({"a1": "ada", "b1": "bob"}, check_rules=TrustRules(first=3, floor=0.3))
    trust, escrow = pool.script.core.checking.trust, pool.script.core.checking.ledger.escrow
    _ask(pool, range(40))
    number = 40
    while not any(escrow.values()):
        _ask(pool, range(number, number + 1))
        number += 1
    name, honest = next((n, m) for n, m in pool.members.items() if any(m.agent.id in account for account in escrow))
    old = honest.agent.id
    counts = {subject: standing.count for subject, standing in trust.standings.items() if subject.name == old}
    assert max(counts.values()) >= 3
    given, done = len(honest.seen), len(pool.records)
    _change_key(pool, name)
    _ask(pool, range(number, number + 40))
    assert len(honest.seen) > given
    assert all(trust.standings[subject].count > count for subject, count in counts.items())
    released = [r for r in pool.records[done:] if isinstance(r, AddEntry) and r.kind == "release"]
    assert any(f"/{old}/" in entry.debit for entry in released)
    assert not any(subject.name == honest.agent.id for subject in trust.standings)


def _succeed(store: Store, old: SigningKey, new: SigningKey, now_ms: int) -> None:
    said = successions.make(old, new, network=NETWORK, new_sealing_key=bytes(32), now_ms=now_ms)
    opened = open_envelope(said, old.public, Succession, network=NETWORK, max_bytes=1 << 16)
    assert store.write(lambda connection: succeed(connection, opened, now_ms)).state == "admitted"


def test_key_changed_to_shed_the_operators_orders(tmp_path: Path) -> None:
    """Drain and labels hold for the new key; the core is told which agent it was, over any number of changes."""
    store = Store(tmp_path / "coordinator.db")
    keys = [key(name) for name in ("first", "second", "third")]
    first, _, last = (each.public.id for each in keys)
    store.write(lambda c: identities.admit(c, first, owner="mal", public_key=keys[0].public.raw, sealing_key=bytes(32)))
    store.write(lambda connection: write_drained(connection, first, drained=True))
    store.write(lambda connection: write_labels(connection, first, frozenset({"attic"})))
    _succeed(store, keys[0], keys[1], START_MS)
    _succeed(store, keys[1], keys[2], START_MS + identities.SUCCESSION_MS)
    assert store.read(read_orders) == Orders(frozenset({last}), {last: frozenset({"attic"})})
    said = store.standing(None, START_MS)
    assert (said.approved, said.owners, said.first_ids) == (frozenset({last}), {last: "mal"}, {last: first})
    store.close()


@pytest.mark.parametrize("links", [(), (("a", "b"),), (("b", "c"), ("a", "b"), ("x", None))])
def test_first_ids_follow_every_change(links: tuple[tuple[str, str | None], ...]) -> None:
    """From the present id back to the first, in whatever order the changes are read."""
    last = {0: {}, 1: {"b": "a"}, 3: {"c": "a"}}[len(links)]
    assert identities.first_ids(links) == last
