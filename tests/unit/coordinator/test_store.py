"""The database: what is written comes back, once, in order; what cannot be read or written is said."""

from __future__ import annotations

import os
import queue
import sqlite3
import stat
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
from fakes import CoordinatorScript, FakeAgent, digits, jobs_for, of_type, scan
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.coordinator import pending, schema
from edge_agent.coordinator.events import (
    Commit,
    EndAttempt,
    EndJob,
    InsertAttempt,
    InsertJob,
    JobStored,
    Outcome,
    Record,
    SaveAgent,
    Submit,
)
from edge_agent.coordinator.jobs import Blame, JobError, JobState
from edge_agent.coordinator.retries import EXCUSED
from edge_agent.coordinator.rows import pack_tensors, unpack_tensors
from edge_agent.coordinator.store import CACHE_KIB, READERS, Store, reading_threads
from edge_agent.coordinator.writer import Writer
from edge_agent.errors import StateError
from edge_agent.wire.job_options import Placement
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.receipts import make_receipt
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

JOB = b"j" * 16
VARIANT = digits().variants[0].digest_bytes
AGENT = SigningKey.generate(bytes(32)).public
RECEIPT = make_receipt(
    SigningKey.generate(bytes(32)), result=b"signed", agent_key=AGENT, network="home", salt=bytes(32), accepted_ms=1
)
WAIT_SECONDS = 20.0


class Writing:
    """A writer whose words are kept.

    Args:
        store: written to.
    """

    def __init__(self, store: Store) -> None:
        self.stored: list[Commit] = []
        self.groups: queue.Queue[Sequence[Commit]] = queue.Queue()
        self.failures: queue.Queue[Exception] = queue.Queue()
        self.writer = Writer(store, self._committed, self.failures.put)

    def _committed(self, group: Sequence[Commit]) -> None:
        self.stored += group
        self.groups.put(group)

    def write(self, *records: Record, durable: bool = False) -> None:
        """Queue one commit."""
        self.writer.write(Commit(records, durable=durable))

    def finish(self) -> None:
        """Write all that is queued, and stop."""
        self.writer.start()
        self.writer.stop(WAIT_SECONDS)


def _write(store: Store, *records: Record) -> None:
    writing = Writing(store)
    for record in records:
        writing.write(record)
    writing.finish()
    assert writing.failures.empty()
    assert len(writing.stored) == len(records)


def _insert(
    job_id: bytes = JOB,
    *,
    idempotency_key: str | None = None,
    submitted_ms: int = 1000,
    **options: Any,  # noqa: ANN401 any field of a submission
) -> InsertJob:
    submit = Submit(
        job_id=job_id,
        salt=b"s" * 32,
        family="digits",
        inputs=(scan(1),),
        outputs=("label",),
        variant=VARIANT,
        idempotency_key=idempotency_key,
        request_digest=b"d" * 32,
        durable=False,
        deadline_seconds=60.0,
        **options,
    )
    return InsertJob(submit, submitted_ms, submitted_ms + 60_000, 5)


def _attempt(epoch: int = 1, job_id: bytes = JOB) -> InsertAttempt:
    return InsertAttempt(job_id, epoch, AGENT.id, VARIANT, 7, 100, 2000)


def _failed(job_id: bytes = JOB, ended_ms: int = 3000, epoch: int = 0) -> EndJob:
    error = JobError("deadline", "too late", Blame.DEADLINE)
    return EndJob(Outcome(job_id, JobState.FAILED, error=error), epoch, ended_ms)


def _succeeded(job_id: bytes = JOB) -> EndJob:
    outcome = Outcome(
        job_id,
        JobState.SUCCEEDED,
        outputs=(scan(9),),
        receipt=RECEIPT,
        agent_id=AGENT.id,
        variant=VARIANT,
        run_us=250,
    )
    return EndJob(outcome, 1, 3000)


def _rows(store: Store, table: sa.Table) -> list[dict[str, Any]]:
    with store.engine.connect() as connection:
        return [dict(row) for row in connection.execute(sa.select(table)).mappings()]


TENSORS = st.lists(
    st.one_of(
        st.binary(max_size=20).map(lambda data: Tensor(TensorSpec("a", DataType.UINT8, (len(data),)), data)),
        st.just(Tensor(TensorSpec("scalar", DataType.FP64, ()), b"\xff" * 8)),
        st.just(Tensor(TensorSpec("empty", DataType.FP16, (0, 3)), b"")),
        st.just(Tensor(TensorSpec("text", DataType.BYTES, (1,)), b"\x02\x00\x00\x00hi")),
    ),
    max_size=4,
)


@given(TENSORS)
def test_tensors_come_back_from_their_column_as_they_were(tensors: list[Tensor]) -> None:
    """Scalars, empty tensors, NaNs and texts included."""
    assert unpack_tensors(pack_tensors(tensors)) == tuple(tensors)


# -- opening ------------------------------------------------------------------------------------------------------


def test_the_file_is_for_its_owner_alone(store: Store) -> None:
    """Inputs and outputs of clients are nobody else's business."""
    assert stat.S_IMODE(store.path.stat().st_mode) == 0o600
    _write(store, _insert())
    for path in store.path.parent.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0


def test_a_path_may_hold_characters_that_mean_something_in_a_url(tmp_path: Path) -> None:
    """The database is where it was asked for."""
    path = tmp_path / "what? #1 100%.db"
    Store(path).close()
    assert path.stat().st_size > 0
    assert len(list(tmp_path.iterdir())) == 1


def test_a_database_of_a_newer_version_is_refused_and_left_unchanged(store: Store) -> None:
    """Nobody's future data is damaged by an older program."""
    with store.engine.begin() as connection:
        newer = sa.update(schema.meta).where(schema.meta.c.name == "schema").values(value=schema.SCHEMA_VERSION + 1)
        connection.execute(newer)
    store.close()
    before = store.path.read_bytes()
    with pytest.raises(
        StateError, match=f"schema {schema.SCHEMA_VERSION + 1}; this version knows {schema.SCHEMA_VERSION}"
    ) as caught:
        Store(store.path)
    assert caught.value.error_code == "newer-schema"
    assert store.path.read_bytes() == before


@pytest.mark.parametrize(
    "content", [b"not a database, but long enough to look like a file" * 100, b"SQLite format 3\0x"]
)
def test_a_damaged_file_is_said_to_be_one_and_left_unchanged(tmp_path: Path, content: bytes) -> None:
    """The error names the file and what to do."""
    path = tmp_path / "coordinator.db"
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"coordinator\.db cannot be used") as caught:
        Store(path)
    assert "backup" in caught.value.hint
    assert path.read_bytes() == content


def test_a_first_start_that_was_cut_short_is_completed(tmp_path: Path) -> None:
    """Tables without the schema's number are what a kill in the first moment leaves behind."""
    path = tmp_path / "coordinator.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE meta (name VARCHAR NOT NULL PRIMARY KEY, value BIGINT NOT NULL)")
    connection.close()
    store = Store(path)
    _write(store, _insert())
    assert [job.id for job in store.open_jobs(monotonic=0, wall_ms=0, lease_seconds=1)] == [JOB]
    store.close()
    Store(path).close()


def test_a_folder_that_cannot_be_written_is_an_error_of_the_machine(tmp_path: Path) -> None:
    """No half-made database is left behind."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "coordinator.db").mkdir()
    with pytest.raises((StateError, OSError)):
        Store(folder / "coordinator.db")
    assert os.listdir(folder) == ["coordinator.db"]  # noqa: PTH208 names are enough


# -- sessions and agents ------------------------------------------------------------------------------------------


def test_sessions_grow_over_restarts_and_when_the_clock_goes_back(store: Store) -> None:
    """No two sessions are alike, and later ones are larger."""
    sessions = [store.next_session(5000), store.next_session(4000), store.next_session(4000)]
    store.close()
    again = Store(store.path)
    sessions += [again.next_session(1), again.next_session(9000)]
    again.close()
    assert sessions == [5000, 5001, 5002, 5003, 9000]


def test_agents_are_approved_before_and_after_they_were_first_seen(store: Store) -> None:
    """A birth does not undo an approval, and an approval does not undo what a birth told."""
    store.approve("early")
    save = SaveAgent("early", AGENT.raw, 3, "edge-agent/1", 1000)
    _write(store, save, SaveAgent("late", AGENT.raw, 4, "edge-agent/1", 1000))
    store.approve("late")
    store.approve("early", owner="ada")
    store.approve("early")
    store.approve("late", approved=False)
    found = {agent.id: agent for agent in store.agents()}
    assert (found["early"].approved, found["early"].session, found["early"].public_key) == (True, 3, AGENT.raw)
    assert (found["late"].approved, found["late"].session) == (False, 4)
    assert (found["early"].owner, found["late"].owner) == ("ada", None)


def test_what_an_agent_served_is_known_after_a_restart(store: Store) -> None:
    """So that clients may wait a little for it to come back."""
    _write(store, _insert(), _attempt())
    assert store.served_families() == {AGENT.id: {"digits"}}


# -- jobs ---------------------------------------------------------------------------------------------------------


def test_a_queued_job_comes_back_as_it_was(store: Store) -> None:
    """With its inputs, and its deadline counted on the new clock."""
    _write(store, _insert())
    (job,) = store.open_jobs(monotonic=50.0, wall_ms=31_000, lease_seconds=30.0)
    assert (job.id, job.family, job.inputs, job.outputs) == (JOB, "digits", (scan(1),), ("label",))
    assert (job.state, job.epoch, job.attempts) == (JobState.QUEUED, 0, [])
    assert (job.variant, job.salt, job.max_attempts, job.deadline) == (VARIANT, b"s" * 32, 5, 80.0)


def test_a_leased_job_comes_back_with_its_newest_attempt_and_a_whole_lease(store: Store) -> None:
    """The attempt is the one that was sent last."""
    _write(store, _insert(), _attempt(1), EndAttempt(JOB, 1, "lease-expired", 2500), _attempt(2))
    (job,) = store.open_jobs(monotonic=50.0, wall_ms=31_000, lease_seconds=30.0)
    assert (job.state, job.epoch) == (JobState.LEASED, 2)
    (attempt,) = job.attempts
    assert (attempt.epoch, attempt.agent_id, attempt.variant) == (2, AGENT.id, VARIANT)
    assert (attempt.agent_session, attempt.coordinator_session) == (7, 100)
    assert attempt.lease_until == 80.0
    assert (job.failures, job.failed_on, job.killed) == (1, {AGENT.id}, set())


def test_a_job_that_ended_does_not_come_back_and_keeps_its_result(store: Store) -> None:
    """What a client asks for later is what was accepted."""
    _write(store, _insert(), _attempt(), _succeeded())
    assert store.open_jobs(monotonic=0.0, wall_ms=0, lease_seconds=1.0) == []
    job = store.job(JOB)
    assert job is not None
    assert (job.state, job.outputs, job.receipt, job.error) == (JobState.SUCCEEDED, (scan(9),), RECEIPT, None)
    assert (job.agent_id, job.variant, job.run_us, job.ended_ms) == (AGENT.id, VARIANT, 250, 3000)
    assert store.job(b"?" * 16) is None


def test_a_job_that_failed_keeps_its_reason(store: Store) -> None:
    """Code, sentence and blame."""
    _write(store, _insert(), _failed())
    job = store.job(JOB)
    assert job is not None
    assert (job.state, job.error) == (JobState.FAILED, JobError("deadline", "too late", Blame.DEADLINE))
    assert (job.receipt, job.outputs) == (None, ())


def test_a_job_that_ends_while_it_is_queued_does_not_rewrite_its_last_attempt(store: Store) -> None:
    """The history says how each attempt ended."""
    _write(store, _insert(), _attempt(), EndAttempt(JOB, 1, "lease-expired", 2500), _failed(epoch=1))
    (row,) = _rows(store, schema.attempts)
    assert (row["outcome"], row["ended_ms"]) == ("lease-expired", 2500)


def test_jobs_come_back_in_the_order_of_their_submission(store: Store) -> None:
    """A restart makes nobody wait longer than others."""
    late, early = _insert(b"a" * 16, submitted_ms=2000), _insert(b"b" * 16, submitted_ms=1000)
    _write(store, late, early)
    jobs = store.open_jobs(monotonic=0.0, wall_ms=0, lease_seconds=1.0)
    assert [job.id for job in jobs] == [b"b" * 16, b"a" * 16]


def test_idempotency_keys_come_back(store: Store) -> None:
    """With the job and the digest of the request that they stand for."""
    _write(store, _insert(idempotency_key="k"), _insert(b"o" * 16))
    assert store.requests(10) == [("k", JOB, b"d" * 32)]


def test_what_ended_long_ago_is_forgotten_and_nothing_else(store: Store) -> None:
    """Its attempts and its result too; jobs that have not ended stay, however old."""
    old, new, live = (letter * 16 for letter in (b"o", b"n", b"l"))
    _write(store, _insert(idempotency_key="k"), _attempt(), _succeeded(), _insert(old), _failed(old), _insert(live))
    assert store.forget_older(10_000, 3_000) == []  # they are as old as the moment at which their end was noticed
    _write(store, _insert(new), _failed(new))
    assert store.forget_older(13_000, 3_000) == []
    assert store.forget_older(13_001, 3_000, limit=1) == ["k"]
    assert {row["id"] for row in _rows(store, schema.jobs)} == {new, live}
    assert _rows(store, schema.attempts) == []
    assert _rows(store, schema.results) == []
    assert store.forget_older(13_001, 3_000) == []


def test_the_options_of_a_job_come_back(store: Store) -> None:
    """Client, priority and every part of the placement."""
    placement = Placement(("kitchen", "region=eu"), "ada", "0" * 32)
    _write(store, _insert(client="reports", priority=-7, placement=placement))
    (job,) = store.open_jobs(monotonic=50.0, wall_ms=31_000, lease_seconds=30.0)
    assert (job.client, job.priority, job.placement) == ("reports", -7, placement)
    stored = store.job(JOB)
    assert stored is not None
    assert (stored.client, stored.priority) == ("reports", -7)


def test_a_hedged_job_comes_back_with_both_attempts(store: Store) -> None:
    """And goes on with the one that is left when the other ends."""
    _write(store, _insert(), _attempt(1), replace(_attempt(2), agent_id="other", state=JobState.HEDGED))
    (job,) = store.open_jobs(monotonic=50.0, wall_ms=31_000, lease_seconds=30.0)
    assert (job.state, job.epoch) == (JobState.HEDGED, 2)
    assert [(a.epoch, a.agent_id) for a in job.attempts] == [(1, AGENT.id), (2, "other")]
    _write(store, EndAttempt(JOB, 1, "lease-expired", 2500, state=JobState.LEASED))
    (job,) = store.open_jobs(monotonic=50.0, wall_ms=31_000, lease_seconds=30.0)
    assert (job.state, job.epoch, [a.epoch for a in job.attempts]) == (JobState.LEASED, 2, [2])
    assert (job.failures, job.failed_on) == (1, {AGENT.id})


def test_a_hedged_job_whose_result_was_held_comes_back_with_the_attempt_that_has_it(store: Store) -> None:
    """The other one was overtaken, which changed no state: when this one is lost, the job is queued again."""
    overtaken = EndAttempt(JOB, 1, "overtaken", 3000, state=None)
    _write(store, _insert(), _attempt(1), replace(_attempt(2), agent_id="other", state=JobState.HEDGED), overtaken)
    (job,) = store.open_jobs(monotonic=50.0, wall_ms=31_000, lease_seconds=30.0)
    assert (job.state, [a.epoch for a in job.attempts]) == (JobState.LEASED, [2])


def test_the_second_attempt_of_a_job_that_succeeded_is_no_failure(store: Store) -> None:
    """It was overtaken; each attempt keeps its own end."""
    overtaken = EndAttempt(JOB, 2, "overtaken", 3000, state=None)
    _write(store, _insert(), _attempt(1), replace(_attempt(2), state=JobState.HEDGED), overtaken, _succeeded())
    assert [(row["epoch"], row["outcome"]) for row in _rows(store, schema.attempts)] == [
        (1, "succeeded"),
        (2, "overtaken"),
    ]
    assert store.accepted() == {VARIANT: 1}


def test_workers_that_died_over_a_job_are_remembered(store: Store) -> None:
    """A restart of ours does not let a poisonous job go round once more."""
    died = EndAttempt(JOB, 1, "worker-died", 2500)
    full = EndAttempt(JOB, 2, "queue-full", 2600)
    _write(store, _insert(), _attempt(1), died, replace(_attempt(2), agent_id="other"), full)
    (job,) = store.open_jobs(monotonic=50.0, wall_ms=31_000, lease_seconds=30.0)
    assert (job.state, job.failures, job.failed_on, job.killed) == (JobState.QUEUED, 1, {AGENT.id}, {AGENT.id})


def test_a_connection_that_is_still_read_with_is_closed_when_it_is_given_back(tmp_path: Path) -> None:
    """A reading thread may be the last to leave."""
    store = Store(tmp_path / "coordinator.db")

    def question(connection: sa.Connection) -> sqlite3.Connection:
        store.close()
        assert connection.scalar(sa.text("SELECT 1")) == 1
        return cast("sqlite3.Connection", connection.connection.dbapi_connection)

    left = store.read(question)
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        left.execute("SELECT 1")


def test_who_handed_a_job_back_is_remembered(store: Store) -> None:
    """A restart of ours gives nobody more excuses than there are, and others are still preferred."""
    for epoch in range(1, EXCUSED + 2):
        _write(store, *([] if epoch > 1 else [_insert()]), _attempt(epoch), EndAttempt(JOB, epoch, "handed-back", 2500))
        (job,) = store.open_jobs(monotonic=50.0, wall_ms=31_000, lease_seconds=30.0)
        assert (job.failures, job.failed_on) == (int(epoch > EXCUSED), {AGENT.id})
        assert job.excused == {(AGENT.id, "handed-back"): epoch}


def test_who_refused_a_job_is_remembered(store: Store) -> None:
    """A restart of ours asks no owner twice, and a refusal still costs the job no attempt."""
    refused = EndAttempt(JOB, 1, "bad-input", 2500, refused_by="=ada")
    _write(store, _insert(), _attempt(1), refused, _attempt(2), EndAttempt(JOB, 2, "lease-expired", 2600))
    (job,) = store.open_jobs(monotonic=50.0, wall_ms=31_000, lease_seconds=30.0)
    assert (job.failures, job.failed_on, job.refusals) == (1, {AGENT.id}, {"=ada": "bad-input"})


@pytest.mark.parametrize("jump_ms", [0, 3_600_000, -3_600_000, 50 * 365 * 86_400_000])
def test_deadlines_survive_restarts_of_the_process_whatever_the_wall_clock_does(store: Store, jump_ms: int) -> None:
    """Inside one boot they are exact: 20 of 60 seconds have passed."""
    assert store.open_jobs(monotonic=10.0, wall_ms=0, lease_seconds=30.0, boot=7) == []
    _write(store, replace(_insert(), deadline=160.0))
    (job,) = store.open_jobs(monotonic=120.0, wall_ms=21_000 + jump_ms, lease_seconds=30.0, boot=7)
    assert job.deadline == pytest.approx(160.0)
    (late,) = store.open_jobs(monotonic=170.0, wall_ms=21_000 + jump_ms, lease_seconds=30.0, boot=7)
    assert late.deadline == pytest.approx(160.0)  # it is over


@pytest.mark.parametrize(("jump_ms", "left"), [(0, 40.0), (3_600_000, 30.0), (-3_600_000, 60.0)])
def test_after_a_start_of_the_machine_deadlines_are_bounded_and_then_exact_again(
    store: Store, jump_ms: int, left: float
) -> None:
    """Neither over at once nor further away than ever; and further restarts in that boot add nothing."""
    store.open_jobs(monotonic=10.0, wall_ms=0, lease_seconds=30.0, boot=7)
    _write(store, replace(_insert(), deadline=160.0))
    wall_ms = 21_000 + jump_ms
    (job,) = store.open_jobs(monotonic=5.0, wall_ms=wall_ms, lease_seconds=30.0, boot=8)
    assert job.deadline == pytest.approx(5.0 + left)
    for monotonic in (15.0, 25.0):
        (again,) = store.open_jobs(monotonic=monotonic, wall_ms=wall_ms, lease_seconds=30.0, boot=8)
        assert again.deadline == pytest.approx(5.0 + left, abs=0.002)


def test_the_age_of_the_database_goes_by_the_monotonic_clock(store: Store) -> None:
    """No jump of the wall clock makes receipts old; between two boots a day counts at most, and nothing backwards."""
    day = 86_400_000
    readings = [
        (7, 10.0, 0, 0),
        (7, 70.0, 60_000, 60_000),
        (7, 71.0, 50 * 365 * day, 61_000),
        (7, 72.0, -day, 62_000),
        (8, 5.0, 1_000_000, 62_000 + day),
        (9, 5.0, 0, 62_000 + day),
        (9, 6.0, 0, 63_000 + day),
    ]
    for boot, monotonic, wall_ms, age_ms in readings:
        assert store.age_ms(boot=boot, monotonic=monotonic, wall_ms=wall_ms) == age_ms


def test_the_newest_jobs_are_listed_first(store: Store) -> None:
    """So many as are asked for, of one client or of all, without their tensors."""
    for number in range(1, 5):
        client = "a" if number % 2 else "b"
        _write(store, _insert(bytes([number]) * 16, submitted_ms=number * 1000, client=client))
    _write(store, _attempt(job_id=b"\4" * 16), _succeeded(b"\4" * 16))
    assert [job.id[0] for job in store.newest_jobs(3)] == [4, 3, 2]
    (first, _) = store.newest_jobs(10, "b")
    assert (first.id[0], first.state, first.outputs, first.agent_id) == (4, JobState.SUCCEEDED, (), AGENT.id)


# -- the writer ---------------------------------------------------------------------------------------------------


def test_a_burst_of_readers_leaves_few_connections_open(store: Store) -> None:
    """Descriptors and page caches of a coordinator do not grow with the busiest moment it has seen."""
    with reading_threads() as threads:
        found = list(threads.map(lambda _: store.job(JOB), range(50)))
    assert found == [None] * 50
    pool = store.engine.pool
    assert isinstance(pool, sa.pool.QueuePool)
    assert pool.checkedin() <= READERS
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA cache_size").scalar() == -CACHE_KIB


def test_a_job_never_ends_twice(store: Store) -> None:
    """The second end is a failure of the writer, and the first result stays."""
    writing = Writing(store)
    for record in (_insert(), _attempt(), _succeeded()):
        writing.write(record)
    writing.finish()
    again = Writing(store)
    again.write(_failed())
    again.finish()
    assert "would end twice" in str(again.failures.get(timeout=WAIT_SECONDS))
    assert again.stored == []
    job = store.job(JOB)
    assert job is not None
    assert job.state is JobState.SUCCEEDED


def test_commits_are_grouped_and_handed_back_in_order(store: Store) -> None:
    """What waits shares a transaction, and the order is the one in which it was given."""
    writing = Writing(store)
    ids = [bytes([number]) * 16 for number in range(1, 200)]
    for job_id in ids:
        writing.write(_insert(job_id))
    writing.finish()
    assert writing.groups.qsize() < len(ids)
    written = [record.submit.job_id for commit in writing.stored for record in of_type(commit.records, InsertJob)]
    assert written == ids


def test_an_empty_commit_waits_for_what_was_written_before_it(store: Store) -> None:
    """A repeated submission is not answered before the first one is stored."""
    writing = Writing(store)
    first = Commit((_insert(),))
    answer = Commit((), durable=True, then=(JobStored(JOB, b"t", repeated=True),))
    writing.writer.write(first)
    writing.writer.write(answer)
    writing.finish()
    assert writing.stored == [first, answer]
    assert store.job(JOB) is not None


def test_a_group_is_written_whole_or_not_at_all(store: Store) -> None:
    """A failure in a group takes the whole group back, is reported once, and ends the writing."""
    writing = Writing(store)
    writing.write(_insert())
    writing.write(_insert())  # the same id: impossible
    writing.write(_insert(b"n" * 16))
    writing.finish()
    assert isinstance(writing.failures.get(timeout=WAIT_SECONDS), sa.exc.IntegrityError)
    assert writing.failures.empty()
    assert writing.stored == []
    assert _rows(store, schema.jobs) == []


def test_a_disk_that_is_full_is_reported_and_nobody_is_told_of_success(store: Store) -> None:
    """The same for any other reason why SQLite cannot write."""
    with store.engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()

    def limit(connection: Any, _: object) -> None:  # noqa: ANN401 the driver's own connection
        connection.execute(f"PRAGMA max_page_count={pages}")

    store.engine.dispose()
    sa.event.listen(store.engine, "connect", limit)
    writing = Writing(store)
    for number in range(1, 100):
        writing.write(_insert(bytes([number]) * 16))
    writing.finish()
    assert "full" in str(writing.failures.get(timeout=WAIT_SECONDS))
    assert writing.stored == []


def test_only_what_must_survive_a_power_cut_is_synchronised(store: Store) -> None:
    """FULL for durable commits, NORMAL for others: asked of SQLite itself."""
    modes: list[str] = []

    def spy(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "synchronous" in statement:
            modes.append(statement.rpartition("=")[2])

    sa.event.listen(store.engine, "before_cursor_execute", spy)
    writing = Writing(store)
    writing.writer.start()
    for number, durable in enumerate([False, True, True, False]):
        writing.write(_insert(bytes([number]) * 16), durable=durable)
        writing.groups.get(timeout=WAIT_SECONDS)
    writing.writer.stop(WAIT_SECONDS)
    assert modes == ["NORMAL", "FULL", "NORMAL"]


def test_what_a_core_commits_is_what_the_database_gives_back(store: Store) -> None:
    """The whole way of jobs, written for real and taken over by another coordinator."""
    script = CoordinatorScript()
    agent = FakeAgent("agent", script.clock)
    commands = [*script.connect(), *script.join(agent)]
    opened = []
    for _ in range(3):
        _, submitted = script.submit()
        commands += submitted
        opened += jobs_for(agent, submitted)
    commands += script.tell(agent.result(opened[0]), agent.failure(opened[1].statement))
    writing = Writing(store)
    for commit in of_type(commands, Commit):
        writing.writer.write(commit)
    writing.finish()
    assert writing.failures.empty()
    now = script.clock.now
    back = store.open_jobs(monotonic=now.monotonic, wall_ms=now.wall_ms, lease_seconds=script.rules.lease_seconds)
    live = script.core.leasing.jobs
    assert {job.id for job in back} == set(live)
    for job in back:
        was = live[job.id]
        assert (job.state, job.epoch, job.inputs, job.salt) == (was.state, was.epoch, was.inputs, was.salt)
        assert job.deadline == pytest.approx(was.deadline, abs=0.002)
        assert [a.agent_id for a in job.attempts] == [a.agent_id for a in was.attempts]
    ended = store.job(opened[0].statement.job)
    assert ended is not None
    assert ended.state is JobState.SUCCEEDED
    assert ended.outputs == agent.outputs(opened[0])


def test_the_results_that_are_being_checked_are_found_by_an_index_of_them_alone(store: Store) -> None:
    """Else each start would read millions of results with their outputs."""
    with store.engine.connect() as connection:
        query = str(pending.PENDING.compile(store.engine, compile_kwargs={"literal_binds": True}))
        plan = [row.detail for row in connection.execute(sa.text(f"EXPLAIN QUERY PLAN {query}"))]
    assert any("results_pending" in step for step in plan), plan
    assert not any(step.startswith("SCAN jobs") for step in plan), plan
