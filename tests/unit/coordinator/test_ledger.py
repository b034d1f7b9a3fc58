"""The ledger: one entry for each verified result, in the database with its result, and whether it adds up."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
import wire_samples
from fakes import CoordinatorScript, of_type
from gateways import FakeService
from pools import VARIANT, Pool, lie

from edge_agent.client.ledgers import audit_ledger
from edge_agent.coordinator import ledger_table
from edge_agent.coordinator.books import Books
from edge_agent.coordinator.events import AddEntry, Commit
from edge_agent.coordinator.gateway.app import make_app
from edge_agent.coordinator.ledger import Ledger
from edge_agent.coordinator.receipt_log import ReceiptLog
from edge_agent.coordinator.schema import ledger, results
from edge_agent.coordinator.store import Store
from edge_agent.coordinator.takeover import take_over
from edge_agent.coordinator.trust import Party, TrustRules
from edge_agent.coordinator.writer import Writer
from edge_agent.errors import RefusedError
from edge_agent.wire.draws import commitment, period_of
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.ledger import FORFEIT, WORK, LedgerAudit, LedgerEntry, entry_from, owner_account

OWNERS = {"a1": "ada", "b1": "bob", "c1": "cy"}
RULES = TrustRules(first=2, floor=0.3)
KEY = wire_samples.COORDINATOR
ADA = Party("agent-a", "=ada")


def write(store: Store, records: list[Any]) -> list[Exception]:
    """Have a real writer store records, in one transaction; return what went wrong."""
    failures: list[Exception] = []
    writer = Writer(store, lambda _: None, failures.append)
    writer.write(Commit(tuple(records), urgent=True))
    writer.start()
    writer.stop(20.0)
    return failures


def rows(store: Store) -> list[LedgerEntry]:
    """Return all entries."""
    return store.read(lambda connection: ledger_table.entries(connection, after=0, limit=10_000))


def balances(store: Store) -> dict[str, int]:
    """Return all accounts."""
    return store.read(ledger_table.balances)


def worked(store: Store, jobs: int = 15, owners: dict[str, str | None] | None = None) -> Pool:
    """Let a pool do jobs and store what it did."""
    pool = Pool(dict(OWNERS) if owners is None else owners, check_rules=RULES)
    for number in range(jobs):
        assert pool.true(pool.ask(number), number)
    assert write(store, pool.records) == []
    return pool


# -- one entry a result -----------------------------------------------------------------------------------------------


def test_each_result_of_the_operators_machines_is_exactly_one_entry(store: Store) -> None:
    """Its leaf in the log is the entry's name."""
    pool = worked(store, 5, {"own": None})
    entries = rows(store)
    assert [entry.number for entry in entries] == [1, 2, 3, 4, 5]
    assert len({entry.leaf for entry in entries}) == store.read(_results) == 5
    assert {(entry.kind, entry.debit, entry.credit) for entry in entries} == {("result", WORK, "owner:operator")}
    assert len(of_type(pool.records, AddEntry)) == 5


def test_no_result_has_two_entries_and_the_checks_own_results_count(store: Store) -> None:
    """Confirmed by a check, released from escrow, or waiting there: each result is paid once at most."""
    worked(store)
    paid = [entry for entry in rows(store) if entry.kind == "result"]
    assert len({entry.leaf for entry in paid}) == len(paid)
    assert 15 < len(paid) <= store.read(_results)
    assert {entry.kind for entry in rows(store)} == {"result", "release"}


def test_the_database_refuses_a_second_entry_for_a_result(store: Store) -> None:
    """Whatever the core does: nothing of the transaction is written, and the process is told."""
    pool = worked(store, 1, {"own": None})
    (entry,) = of_type(pool.records, AddEntry)
    before = rows(store)
    assert len(write(store, [replace(entry, credit=owner_account("mal"))])) == 1
    assert rows(store) == before


def test_a_job_without_a_result_is_not_paid(store: Store) -> None:
    """The writer stops rather than writing an entry for nothing."""
    (failure,) = write(store, [AddEntry("result", WORK, owner_account("mal"), 5, 0, b"j" * 16)])
    assert "no result" in str(failure)
    assert rows(store) == []


def test_a_cheat_loses_what_waits_in_escrow(store: Store) -> None:
    """What it earned since its last check goes to `forfeit`; owners that agree are paid."""
    pool = Pool({"mallory": "mal", **OWNERS, "d1": "dee"}, quick=["mallory"], check_rules=RULES)
    for number in range(20):
        pool.ask(number)
    pool.members["mallory"].behave = lambda image: lie(image, b"later")
    for number in range(100, 160):
        pool.ask(number)
    assert write(store, pool.records) == []
    assert pool.failures("mallory") == 1
    found = balances(store)
    lost = [entry for entry in rows(store) if entry.kind == "forfeit"]
    assert lost
    assert all(entry.debit.startswith("escrow:mal/") and entry.credit == FORFEIT for entry in lost)
    assert all(not amount for name, amount in found.items() if name.startswith("escrow:mal/"))
    assert sum(found.values()) == 0
    _audited(store)


def test_a_newcomers_work_waits_and_is_released_in_one_entry() -> None:
    """Pure: what `Ledger` makes of it."""
    book = Ledger()
    waiting = book.confirmed(b"1" * 16, ADA, VARIANT, 7, 0, newcomer=True)
    waiting += book.unchecked(b"2" * 16, ADA, VARIANT, 7, 0)
    assert [entry.credit for entry in waiting] == [f"escrow:ada/agent-a/{VARIANT[:8].hex()}"] * 2
    result, released = book.confirmed(b"3" * 16, ADA, VARIANT, 7, 0, newcomer=False)
    assert (result.credit, result.amount) == ("owner:ada", 7)
    assert (released.kind, released.credit, released.amount, released.job_id) == ("release", "owner:ada", 14, None)
    assert book.release(ADA, VARIANT, 0) == book.forfeited(ADA, 0) == []


def test_forfeiting_leaves_agents_with_a_longer_name_alone() -> None:
    """Accounts are compared by whole parts."""
    book = Ledger()
    other = Party("agent-ab", "=ada")
    for number, party in enumerate((ADA, other)):
        book.unchecked(b"%d" % number * 16, party, VARIANT, 3, 0)
    (lost,) = book.forfeited(ADA, 0)
    assert "/agent-a/" in lost.debit
    assert [name.split("/")[1] for name in book.escrow] == ["agent-ab"]


# -- sums and chain -----------------------------------------------------------------------------------------------


def test_all_accounts_are_zero_together(store: Store) -> None:
    """After each entry, not only at the end."""
    worked(store)
    entries = rows(store)
    for end in range(1, len(entries) + 1):
        audit = LedgerAudit()
        audit.take(entries[:end])
        assert sum(audit.balances.values()) == 0
        assert all(amount >= 0 for name, amount in audit.balances.items() if name != WORK)
    assert {name: amount for name, amount in balances(store).items() if amount} == {
        name: amount for name, amount in audit.balances.items() if amount
    }


@pytest.mark.parametrize(
    "column",
    [{"amount": 1_000_000}, {"credit": "owner:mal"}, {"at_ms": 1}, {"leaf": bytes(32)}],
    ids=["amount", "credit", "at_ms", "leaf"],
)
def test_an_entry_that_was_changed_in_the_database_breaks_the_audit(store: Store, column: dict[str, Any]) -> None:
    """The signed chain is over every field."""
    worked(store, 5, {"own": None})
    with store.engine.begin() as connection:
        connection.execute(sa.update(ledger).where(ledger.c.number == 2).values(column))
    with pytest.raises(RefusedError) as caught:
        _audited(store)
    assert caught.value.error_code == "ledger-wrong"


def test_an_entry_that_was_taken_out_breaks_the_audit(store: Store) -> None:
    """A gap is told by its number."""
    worked(store, 5, {"own": None})
    with store.engine.begin() as connection:
        connection.execute(sa.delete(ledger).where(ledger.c.number == 3))
    with pytest.raises(RefusedError, match="Entry 4 of the ledger comes after entry 2"):
        _audited(store)


def test_an_entry_for_a_receipt_that_is_in_no_log_breaks_the_audit(store: Store) -> None:
    """Also where it is rightly chained and signed."""
    worked(store, 2, {"own": None})
    with store.engine.begin() as connection:
        chain = ledger_table.Chain.load(connection)
        chain.note(b"j" * 16, bytes(32))
        chain.append(connection, AddEntry("result", WORK, owner_account("mal"), 5, 0, b"j" * 16))
        chain.write(connection)
    with pytest.raises(RefusedError, match="receipts are not in the log"):
        _audited(store)


# -- a restart ------------------------------------------------------------------------------------------------------


def test_a_restart_keeps_entries_escrow_and_the_chain(tmp_path: Path) -> None:
    """The next entry continues the chain, and what waited is released by the next check."""
    store = Store(tmp_path / "coordinator.db")
    pool = worked(store)
    before, escrow = rows(store), pool.script.core.checking.ledger.escrow
    assert escrow.total() > 0
    store.close()
    again = Store(tmp_path / "coordinator.db")
    script = CoordinatorScript(pool.clock, admit_anyone=False, check_rules=RULES)
    take_over(script.core, again, pool.clock.now, 1, lease_seconds=10.0)
    assert {name: amount for name, amount in script.core.checking.ledger.escrow.items() if amount} == dict(escrow)
    assert rows(again) == before
    waiting = next(iter(escrow))
    owner, agent_id, _ = waiting.removeprefix("escrow:").split("/")
    entries = script.core.checking.ledger.release(Party(agent_id, f"={owner}"), VARIANT, 1)
    assert write(again, list(entries)) == []
    assert rows(again)[:-1] == before
    assert balances(again)[waiting] == 0
    assert _audited(again) == len(before) + 1
    again.close()


# -- over HTTP ------------------------------------------------------------------------------------------------------


def test_entries_are_given_by_owner_and_in_pages(store: Store) -> None:
    """An owner's entries are those of its account and its escrow."""
    worked(store)
    found = _Calls(store)
    every = json.loads(found.get("/api/v1/ledger/entries"))
    assert [entry_from(row) for row in every] == rows(store)
    ada = json.loads(found.get("/api/v1/ledger/entries?owner=ada"))
    assert ada == [
        row for row in every if any(row[side].startswith(("owner:ada", "escrow:ada/")) for side in ("debit", "credit"))
    ]
    assert 0 < len(ada) < len(every)
    assert json.loads(found.get("/api/v1/ledger/entries?after=3&limit=2")) == every[3:5]
    assert json.loads(found.get("/api/v1/ledger/entries?owner=a")) == []


@pytest.mark.parametrize("query", ["after=-1", "after=x", "limit=10001", "limit=1e3", f"after={2**53}"])
def test_bounds_that_are_none_are_refused(store: Store, query: str) -> None:
    """Said as an error of the caller."""
    assert _Calls(store).answer(f"/api/v1/ledger/entries?{query}").status_code == 400


def test_keys_of_the_draws_are_given_out_only_when_their_day_is_over(store: Store) -> None:
    """Before that, only what they are bound to."""
    calls = _Calls(store)
    given = json.loads(calls.get("/api/v1/checks/keys"))
    today = period_of(calls.pool_clock_ms)
    assert [row["period"] for row in given][:2] == [today + 1, today]
    assert [row["period"] for row in given if "key" not in row] == [today + 1, today]
    assert all(commitment(bytes.fromhex(row["key"])).hex() == row["commitment"] for row in given if "key" in row)


def test_keys_of_the_draws_are_signed_once_a_day(store: Store) -> None:
    """Strangers who ask again and again cost no signatures; on the next day there is one key more."""
    clock = CoordinatorScript().clock
    books = Books(store, KEY, wire_samples.NETWORK, b"secret", lambda: clock.now)
    first = books.check_keys()
    clock.advance(1.0)
    assert books.check_keys() is first
    clock.advance(86_400.0)
    later = books.check_keys()
    assert [row["period"] for row in later] == [row["period"] + 1 for row in first]
    assert sum("key" in row for row in later) == sum("key" in row for row in first)


class _Calls:
    """What an auditor calls, answered by the real routes over a database."""

    def __init__(self, store: Store, key: SigningKey = KEY) -> None:
        clock = CoordinatorScript().clock
        self.pool_clock_ms = clock.now.wall_ms
        self._service = FakeService()
        self._service.books = Books(store, key, wire_samples.NETWORK, b"secret", lambda: clock.now)
        self._service.receipt_log = ReceiptLog(store, key, wire_samples.NETWORK, lambda: clock.now)

    def answer(self, path: str) -> httpx.Response:
        async def call() -> httpx.Response:
            app = make_app(self._service, max_request_bytes=1000, wait_seconds=1.0)
            transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
            async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
                return await client.get(path)

        return asyncio.run(call())

    def get(self, path: str) -> bytes:
        found = self.answer(path)
        assert found.status_code == 200
        return found.content


def _audited(store: Store) -> int:
    found = audit_ledger(_Calls(store), KEY.public)  # type: ignore[arg-type] # asks for pages, as the client does
    assert sum(found.audit.balances.values()) == 0
    return found.audit.size


def _results(connection: sa.engine.Connection) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(results)) or 0
