"""The coordinator's log: one leaf for each accepted result, in order; tree heads and proofs over HTTP."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import receipt_logs
import sqlalchemy as sa
import wire_samples
from fakes import CoordinatorScript, FakeAgent, ManualClock, jobs_for, of_type
from gateways import FakeService

from edge_agent.coordinator import log_table, receipt_log
from edge_agent.coordinator.events import Commit
from edge_agent.coordinator.gateway.app import make_app
from edge_agent.coordinator.receipt_log import HEAD_SECONDS, ReceiptLog, SignedHead
from edge_agent.coordinator.schema import log_nodes
from edge_agent.coordinator.store import Store
from edge_agent.coordinator.writer import Writer
from edge_agent.errors import InputError, RefusedError
from edge_agent.wire import merkle
from edge_agent.wire.bundles import verify_bundle, verify_tree_head
from edge_agent.wire.merkle import Frontier
from edge_agent.wire.receipts import receipt_leaf

KEY = wire_samples.COORDINATOR
WAIT_SECONDS = 20.0


def append(store: Store, *leaves: bytes) -> None:
    """Append leaves in one transaction, as the writer does."""
    with store.engine.begin() as connection:
        log = log_table.Appender.load(connection)
        for leaf in leaves:
            log.append(leaf)
        log.write(connection)


def numbered(number: int) -> bytes:
    """Return the leaf of this number."""
    return merkle.leaf_hash(b"%d" % number)


def log_with(store: Store, clock: ManualClock, leaves: int = 0) -> ReceiptLog:
    """Return a log over this database, with so many leaves."""
    append(store, *map(numbered, range(leaves)))
    return ReceiptLog(store, KEY, wire_samples.NETWORK, lambda: clock.now)


class Network:
    """A coordinator's core with a real writer and one honest agent."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = ManualClock()
        self.script = CoordinatorScript(self.clock)
        self.agent = FakeAgent("agent", self.clock)
        self.write(self.script.connect())
        self.write(self.script.join(self.agent, self.agent.offer(room=10)))

    def write(self, commands: Any) -> None:  # noqa: ANN401 commands of the core
        """Put all commits into the database."""
        failures: list[Exception] = []
        writer = Writer(self.store, lambda _: None, failures.append)
        for commit in of_type(commands, Commit):
            writer.write(commit)
        writer.start()
        writer.stop(WAIT_SECONDS)
        assert failures == []

    def do_jobs(self, number: int) -> list[bytes]:
        """Have so many jobs done; return their ids in the order in which their results came."""
        opened = []
        for _ in range(number):
            _, commands = self.script.submit()
            self.write(commands)
            opened += jobs_for(self.agent, commands)
        done = opened[::-1]  # not in the order of submission
        for job in done:
            self.write(self.script.tell(self.agent.result(job)))
        return [job.statement.job for job in done]


def receipts_of(store: Store, ids: list[bytes]) -> list[bytes]:
    """Return the receipts of jobs."""
    found = [store.job(job_id) for job_id in ids]
    return [job.receipt for job in found if job is not None and job.receipt is not None]


def test_each_accepted_result_is_one_leaf_in_the_order_of_acceptance(store: Store) -> None:
    """A repeated result, a failed job and a refused one are none."""
    network = Network(store)
    ids = network.do_jobs(3)
    _, commands = network.script.submit()
    network.write(commands)
    (job,) = jobs_for(network.agent, commands)
    network.write(network.script.tell(network.agent.failure(job.statement, retry=False)))
    receipts = receipts_of(store, ids)
    assert len(receipts) == 3
    expected = receipt_logs.log_of(receipts)
    with store.engine.connect() as connection:
        assert log_table.size(connection) == 3
        assert log_table.root(connection, 3) == expected.root
        assert [log_table.find(connection, receipt_leaf(data)) for data in receipts] == [0, 1, 2]


def test_leaves_stay_when_jobs_are_forgotten(store: Store) -> None:
    """And the next ones come behind them; who kept the receipt can still have its proof."""
    network = Network(store)
    kept = receipts_of(store, network.do_jobs(2))
    store.forget_older(1000, 0)
    assert store.forget_older(10_000, 0) == []
    assert store.newest_jobs(10) == []
    later = receipts_of(store, network.do_jobs(2))
    log = ReceiptLog(store, KEY, wire_samples.NETWORK, lambda: network.clock.now)
    expected = receipt_logs.log_of([*kept, *later])
    found, head = asyncio.run(log.inclusion(receipt_leaf(kept[1])))
    assert (found.index, found.size, head.statement.root) == (1, 4, expected.root)
    assert found.path == expected.inclusion(1)


def test_a_transaction_that_fails_leaves_no_leaf(store: Store) -> None:
    """The result and its leaf are stored together or not at all."""
    append(store, numbered(0))
    before = store.read(lambda connection: connection.execute(sa.select(log_nodes)).all())
    with store.engine.connect() as connection:
        log = log_table.Appender.load(connection)
        log.append(numbered(1))
        log.write(connection)
        assert log_table.size(connection) == 2
        connection.rollback()
    assert store.read(lambda connection: connection.execute(sa.select(log_nodes)).all()) == before


def test_an_append_reads_nothing_and_writes_little(store: Store) -> None:
    """On average two hashes for each leaf, and never more than the tree is high."""
    statements: list[str] = []
    append(store, *map(numbered, range(1000)))
    with store.engine.begin() as connection:
        log = log_table.Appender.load(connection)
        driver = connection.connection.driver_connection
        assert isinstance(driver, sqlite3.Connection)
        driver.set_trace_callback(statements.append)  # told of each row
        for number in range(1000, 1024):
            before = len(statements)
            log.append(numbered(number))
            log.write(connection)
            assert 1 <= len(statements) - before <= 11
        driver.set_trace_callback(None)
        assert {statement.split()[0] for statement in statements} == {"BEGIN", "INSERT"}
        assert len(statements) <= 1 + 2 * 24 + 10
        connection.rollback()
    assert store.read(lambda connection: connection.scalar(sa.select(sa.func.count()).select_from(log_nodes))) < 2000


def test_a_restart_goes_on_where_it_was(store: Store) -> None:
    """The frontier is read back, at any size."""
    whole = Frontier()
    for number in range(40):
        append(store, numbered(number))
        whole.append(numbered(number))
        with store.engine.connect() as connection:
            assert whole.root == log_table.root(connection, number + 1)


# -- tree heads -----------------------------------------------------------------------------------------------------


def test_a_tree_head_is_kept_for_a_moment_and_renewed(store: Store) -> None:
    """A newer leaf that somebody asks about makes a new one at once; otherwise a second has to pass."""
    clock = ManualClock()

    async def script() -> None:
        log = log_with(store, clock, 3)
        first = await log.head()
        assert first.statement.size == 3
        append(store, numbered(3))
        assert await log.head() is first
        clock.advance(0.1)
        found, newer = await log.inclusion(numbered(3))
        assert (found.index, newer.statement.size) == (3, 4)
        clock.advance(HEAD_SECONDS + 0.1)
        last = await log.head()
        assert last is not newer
        assert last.statement.root == newer.statement.root
        assert last.statement.issued_ms > newer.statement.issued_ms

    asyncio.run(script())


def test_many_who_ask_at_once_share_one_signature(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asked before it was begun."""
    clock = ManualClock()
    made: list[SignedHead] = []
    sign = ReceiptLog._sign

    def counted(log: ReceiptLog) -> SignedHead:
        made.append(sign(log))
        return made[-1]

    monkeypatch.setattr(ReceiptLog, "_sign", counted)

    async def script() -> None:
        log = log_with(store, clock, 5)
        heads = await asyncio.gather(*(log.head() for _ in range(50)))
        assert set(map(id, heads)) == {id(made[0])}

    asyncio.run(script())
    assert len(made) == 1


def test_what_is_signed_is_on_the_disk_first(store: Store) -> None:
    """Synchronised, once for each size: a power cut must not make a forked log of an honest one."""
    clock = ManualClock()
    log = log_with(store, clock, 2)

    def signed() -> int | None:
        return store.read(lambda connection: store._number(connection, log_table.SIGNED))

    assert signed() is None
    assert asyncio.run(log.head()).statement.size == 2
    assert signed() == 2
    assert store.read(lambda connection: connection.exec_driver_sql("PRAGMA synchronous").scalar()) == 2


def test_an_empty_log_has_a_tree_head(store: Store) -> None:
    """From which every log goes on."""
    head = asyncio.run(log_with(store, ManualClock()).head())
    assert (head.statement.size, head.statement.root) == (0, merkle.EMPTY_ROOT)
    assert verify_tree_head(head.signed, KEY.public).statement == head.statement


def test_every_proof_from_the_database_verifies(store: Store) -> None:
    """Of all leaves and between all sizes of a log of 20."""

    async def script() -> None:
        log = log_with(store, ManualClock(), 20)
        roots = [store.read(lambda connection, size=size: log_table.root(connection, size)) for size in range(21)]
        for size in range(1, 21):
            for index in range(size):
                found, _ = await log.inclusion(numbered(index), size)
                merkle.check_inclusion(numbered(index), index, size, found.path, roots[size])
            for old in range(size + 1):
                path = await log.consistency(old, size)
                merkle.check_consistency(old, roots[old], size, roots[size], path)

    asyncio.run(script())


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda log: log.inclusion(numbered(99)), RefusedError),
        (lambda log: log.inclusion(numbered(1), 1), InputError),
        (lambda log: log.inclusion(numbered(1), 4), InputError),
        (lambda log: log.inclusion(numbered(1), 0), InputError),
        (lambda log: log.consistency(2, 1), InputError),
        (lambda log: log.consistency(2, 4), InputError),
    ],
)
def test_what_is_not_there_cannot_be_proven(
    store: Store, ask: Callable[[ReceiptLog], Any], error: type[Exception]
) -> None:
    """Another leaf, a smaller tree than the leaf's, a larger one than there is, the wrong way round."""
    log = log_with(store, ManualClock(), 3)
    with pytest.raises(error):
        asyncio.run(ask(log))


def test_nothing_is_signed_for_who_asks_for_more_than_there_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """However often, and from whomever."""
    signed = []
    seal = receipt_log.seal
    monkeypatch.setattr(receipt_log, "seal", lambda *given: signed.append(given) or seal(*given))
    log = log_with(store, ManualClock(), 3)
    for _ in range(20):
        for asked in (log.consistency(0, 10**15), log.inclusion(numbered(1), 10**15)):
            with pytest.raises(InputError, match="has 3 leaves"):
                asyncio.run(asked)
    assert signed == []


# -- over HTTP --------------------------------------------------------------------------------------------------------


class Service(FakeService):
    """A coordinator with a log and jobs."""

    def __init__(self, store: Store, clock: ManualClock) -> None:
        super().__init__()
        self._store = store
        self.receipt_log = ReceiptLog(store, KEY, wire_samples.NETWORK, lambda: clock.now)

    async def job(self, job_id: bytes) -> Any:  # noqa: ANN401 a stored job or None
        """Look a job up."""
        return self._store.job(job_id)


def get(store: Store, *paths: str) -> list[httpx.Response]:
    """Ask a gateway."""

    async def call() -> list[httpx.Response]:
        app = make_app(Service(store, ManualClock()), max_request_bytes=1000, wait_seconds=1.0)
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
            return [await client.get(path) for path in paths]

    return asyncio.run(call())


def test_the_log_over_http(store: Store) -> None:
    """Tree head, inclusion by job and by leaf, consistency: all verify with the coordinator's key."""
    ids = Network(store).do_jobs(3)
    receipts = receipts_of(store, ids)
    expected = receipt_logs.log_of(receipts)
    leaf = receipt_leaf(receipts[1]).hex()
    head, by_job, by_leaf, smaller, between = get(
        store,
        "/api/v1/log",
        f"/api/v1/log/inclusion?job={ids[1].hex()}",
        f"/api/v1/log/inclusion?leaf={leaf}",
        f"/api/v1/log/inclusion?leaf={leaf}&size=2",
        "/api/v1/log/consistency?from=1&to=3",
    )
    assert head.json()["size"] == 3
    assert head.json()["root"] == expected.root.hex()
    signed = verify_tree_head(bytes.fromhex(head.json()["tree_head"]), KEY.public).statement
    assert signed.issued_ms == head.json()["issued_ms"]
    assert by_job.json() == by_leaf.json()
    assert by_job.json() | {"tree_head": ""} == {
        "leaf": leaf,
        "index": 1,
        "size": 3,
        "path": [entry.hex() for entry in expected.inclusion(1)],
        "tree_head": "",
    }
    assert smaller.json() == {"leaf": leaf, "index": 1, "size": 2, "path": [receipt_leaf(receipts[0]).hex()]}
    path = [bytes.fromhex(entry) for entry in between.json()["path"]]
    merkle.check_consistency(1, expected.root_at(1), 3, expected.root, path)
    assert "immutable" in between.headers["cache-control"]
    assert "immutable" in smaller.headers["cache-control"]
    assert head.headers["cache-control"] == by_job.headers["cache-control"] == "no-store"


def test_a_receipt_with_its_proof_over_http(store: Store) -> None:
    """One file, which proves itself. The receipts are others, since the fakes' coordinator has a key of its own."""
    receipts = [receipt_logs.receipt(number) for number in range(3)]
    ids = Network(store).do_jobs(1)
    with store.engine.begin() as connection:
        connection.execute(sa.text("UPDATE results SET receipt = :r"), {"r": receipts[2]})
        connection.execute(sa.delete(log_nodes))
    append(store, *map(receipt_leaf, receipts))
    (answer,) = get(store, f"/api/v1/log/bundle?job={ids[0].hex()}")
    assert answer.headers["content-type"] == "application/edge-agent-receipt-bundle+cbor"
    found = verify_bundle(answer.content, KEY.public)
    assert (found.index, found.tree_head.size, found.receipt.result.epoch) == (2, 3, 3)


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("inclusion", 400, "bad-input"),
        (f"inclusion?job={'0' * 32}&leaf={'0' * 64}", 400, "bad-input"),
        ("inclusion?job=x", 400, "bad-input"),
        ("inclusion?leaf=x", 400, "bad-input"),
        (f"inclusion?leaf={'A' * 64}", 400, "bad-input"),
        (f"inclusion?leaf={'0' * 64}&size=-1", 400, "bad-input"),
        (f"inclusion?leaf={'0' * 64}&size={'9' * 17}", 400, "bad-input"),
        (f"inclusion?leaf={'0' * 64}", 404, "not-logged"),
        (f"inclusion?job={'0' * 32}", 404, "unknown-job"),
        (f"bundle?job={'0' * 32}", 404, "unknown-job"),
        ("bundle", 400, "bad-input"),
        ("consistency", 400, "bad-input"),
        ("consistency?from=0&to=", 400, "bad-input"),
        ("consistency?from=1&to=0", 400, "bad-input"),
        (f"consistency?from=0&to={'9' * 16}", 400, "bad-input"),
        ("consistency?from=%C2%B2&to=3", 400, "bad-input"),
    ],
)
def test_wrong_questions_get_their_code(store: Store, path: str, status: int, code: str) -> None:
    """And a hint, as everywhere."""
    (answer,) = get(store, f"/api/v1/log/{path}")
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.json()["hint"]
