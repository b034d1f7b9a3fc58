"""The table of idempotency keys: it knows the newest, and knows when it does not know."""

from __future__ import annotations

from edge_agent.coordinator.idempotency import KnownRequests


def test_key_is_known_again() -> None:
    """What was remembered is found until it is forgotten."""
    known = KnownRequests()
    known.remember("k", b"job", b"digest")
    assert known.find("k") == (b"job", b"digest")
    assert known.find("other") is None
    known.forget(["k", "never-there"])
    assert known.find("k") is None


def test_while_nothing_was_dropped_nobody_asks_the_database() -> None:
    """A complete table answers alone: a new key costs no query."""
    known = KnownRequests(most=2)
    known.remember("a", b"1", b"")
    known.remember("b", b"2", b"")
    assert not known.may_be_stored("new")


def test_full_table_drops_the_oldest_and_sends_for_it() -> None:
    """Above its bound the table stays as large as it was, and a key that it misses may be in the database."""
    known = KnownRequests(most=2)
    for key in ("a", "b", "c"):
        known.remember(key, key.encode(), b"")
    assert known.find("a") is None
    assert known.may_be_stored("a")
    assert known.find("b") is not None
    assert not known.may_be_stored("b")
