"""Jobs that nobody was promised: written once, at their end or when they are a second old, and in order."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from records import end, insert, lease, lives, lose

from edge_agent.coordinator import pending, writer, young
from edge_agent.coordinator.events import PENDING, Commit, InsertJob, JobStored, Record, Verification, Verified
from edge_agent.coordinator.log_table import Appender
from edge_agent.coordinator.rows import NO_INPUTS, unpack_tensors
from edge_agent.coordinator.schema import attempts, jobs, log_nodes, results
from edge_agent.coordinator.store import Store
from edge_agent.coordinator.writer import Writer
from edge_agent.coordinator.young import YoungJobs, input_bytes, job_of

JOB = (1).to_bytes(16, "big")
WAIT_SECONDS = 20.0


def waits(*records: Record) -> Commit:
    """Return a commit that nobody waits for."""
    return Commit(records, urgent=False)


def test_a_job_that_ends_in_time_is_written_at_its_end_without_its_inputs() -> None:
    """Three records, once."""
    waiting = YoungJobs(10**6)
    assert list(waiting.take(waits(insert(1)), 0.0)) == []
    assert list(waiting.take(waits(lease(1, 1)), 0.1)) == []
    assert waiting.input_bytes == input_bytes(insert(1)) > 0
    begin, leased, ended = waiting.take(Commit((end(1, 1, well=True),)), 0.2)
    assert isinstance(begin, InsertJob)
    assert begin == replace(insert(1), submit=replace(insert(1).submit, inputs=()))
    assert (leased, ended) == (lease(1, 1), end(1, 1, well=True))
    assert (waiting.input_bytes, waiting.next_due()) == (0, None)


def test_a_job_is_written_when_it_is_a_second_old() -> None:
    """With its inputs, which another attempt may need; what comes later is written as it comes."""
    waiting = YoungJobs(10**6)
    list(waiting.take(waits(insert(1)), 7.0))
    list(waiting.take(waits(insert(2)), 7.5))
    assert waiting.next_due() == 7.0 + young.SECONDS
    assert list(waiting.due(7.9)) == []
    assert list(waiting.due(8.0)) == [insert(1)]
    assert waiting.next_due() == 7.5 + young.SECONDS
    assert list(waiting.take(waits(lease(1, 1)), 8.0)) == [lease(1, 1)]


@pytest.mark.parametrize("why", ["it is durable", "something follows", "it is urgent"])
def test_whoever_is_told_of_a_job_is_told_of_what_is_written(why: str) -> None:
    """Whatever a commit lets follow, the jobs that it is about are written with it, in their order."""
    waiting = YoungJobs(10**6)
    list(waiting.take(waits(insert(1)), 0.0))
    list(waiting.take(waits(insert(2)), 0.0))
    follows = (JobStored(JOB, b"t", repeated=True),)
    commit = {
        "it is durable": Commit((), durable=True, then=follows),
        "something follows": Commit((lose(1, 1),), urgent=False, then=follows),
        "it is urgent": Commit((lose(1, 1),)),
    }[why]
    written = list(waiting.take(commit, 0.1))
    assert written == ([insert(1), insert(2)] if commit.durable else [insert(1), lose(1, 1)])


def test_memory_for_jobs_that_wait_is_bounded() -> None:
    """The oldest are written."""
    waiting = YoungJobs(2 * input_bytes(insert(1)))
    assert list(waiting.take(waits(insert(1)), 0.0)) == []
    assert list(waiting.take(waits(insert(2)), 0.0)) == []
    assert list(waiting.take(waits(insert(3)), 0.0)) == [insert(1)]
    assert waiting.input_bytes == 2 * input_bytes(insert(1))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives(), st.data())
def test_the_database_is_the_same_as_if_everything_were_written_at_once(
    tmp_path_factory: pytest.TempPathFactory, groups: list[list[Record]], data: st.DataObject
) -> None:
    """Whatever is urgent or durable, whenever it comes, and however little memory there is."""
    folder = tmp_path_factory.mktemp("young")
    waiting = YoungJobs(data.draw(st.sampled_from([0, 300, 10**6])))
    now, delayed = 0.0, []
    for group in groups:
        now += data.draw(st.sampled_from([0.0, 0.4, 1.0]))
        durable, urgent = data.draw(st.booleans()), data.draw(st.booleans())
        delayed.append([*waiting.take(Commit(tuple(group), durable=durable, urgent=urgent), now), *waiting.due(now)])
    delayed.append(list(waiting.all()))
    asked = [record for group in groups for record in group]
    written = [record for group in delayed for record in group]
    for job_id in {job_of(record) for record in asked}:
        assert [type(r) for r in written if job_of(r) == job_id] == [type(r) for r in asked if job_of(r) == job_id]
    found = []
    for name, records in (("at-once", groups), ("delayed", delayed)):
        store = Store(folder / f"{name}.db")
        for part in records:
            with store.engine.begin() as connection:
                log = Appender.load(connection)
                writer.apply_all(connection, part, log)
                log.write(connection)
        with store.engine.connect() as connection:
            tables = (jobs, attempts, results, log_nodes)
            found.append([sorted(map(repr, connection.execute(sa.select(table)))) for table in tables])
        store.close()
    assert found[0] == found[1]


def _inputs(store: Store) -> bytes | None:
    with store.engine.connect() as connection:
        found: bytes | None = connection.scalar(sa.select(jobs.c.inputs).where(jobs.c.id == JOB))
        return found


def test_the_writer_wakes_up_for_a_job_that_grows_old(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though nothing else happens."""
    monkeypatch.setattr(young, "SECONDS", 0.05)
    failures: list[Exception] = []
    written = threading.Event()
    sa.event.listen(store.engine, "commit", lambda _: written.set())
    writing = Writer(store, lambda _: None, failures.append)
    writing.start()
    writing.write(waits(insert(1)))
    assert written.wait(WAIT_SECONDS)  # the event comes before the commit itself
    writing.stop(WAIT_SECONDS)
    assert unpack_tensors(_inputs(store) or b"") == insert(1).submit.inputs
    assert failures == []


def test_jobs_that_wait_are_written_at_the_end_of_the_process(store: Store) -> None:
    """A coordinator that is stopped loses nothing."""
    writing = Writer(store, lambda _: None, lambda _: None)
    writing.start()
    writing.write(waits(insert(1)))
    writing.stop(WAIT_SECONDS)
    assert unpack_tensors(_inputs(store) or b"") == insert(1).submit.inputs


@pytest.mark.parametrize("well", [True, False])
def test_the_inputs_of_a_job_that_was_written_before_are_removed_at_its_end(store: Store, *, well: bool) -> None:
    """They are the client's, and nothing needs them."""
    for records in ([insert(1), lease(1, 1)], [end(1, 1, well=well)]):
        with store.engine.begin() as connection:
            log = Appender.load(connection)
            writer.apply_all(connection, records, log)
            log.write(connection)
    assert _inputs(store) == NO_INPUTS


def test_the_inputs_of_a_result_that_is_still_checked_stay_until_it_is_not(store: Store) -> None:
    """Another machine is sent them, also after a restart."""
    done = end(1, 1, well=True)
    checked = replace(done, outcome=replace(done.outcome, klass="c", verification=Verification("signed", PENDING)))
    verified = Verified(JOB, Verification("signed", "rechecked"))
    waiting = YoungJobs(10**6)
    list(waiting.take(waits(insert(1)), 0.0))
    list(waiting.take(waits(lease(1, 1)), 0.0))
    kept = []
    for records in (list(waiting.take(Commit((checked,)), 0.0)), [verified]):
        with store.engine.begin() as connection:
            log = Appender.load(connection)
            writer.apply_all(connection, records, log)
            log.write(connection)
        kept.append(_inputs(store))
    assert unpack_tensors(kept[0] or b"") == insert(1).submit.inputs
    assert kept[1] == NO_INPUTS
    assert store.read(pending.read_pending) == []


# -- keys, and when the writer is woken ------------------------------------------------------------------------------


@contextmanager
def running(store: Store, **bounds: int) -> Iterator[tuple[Writer, list[Exception], threading.Event]]:
    """Run a writer; give it with its failures, and what is set when it has taken a group; it writes all at the end."""
    failures: list[Exception] = []
    taken = threading.Event()
    writing = Writer(store, lambda _: taken.set(), failures.append, **bounds)
    writing.start()
    yield writing, failures, taken
    writing.stop(WAIT_SECONDS)


def test_a_key_whose_job_is_young_is_known_though_memory_and_database_have_it_not(store: Store) -> None:
    """Another job under it would break the database's rule, and end the coordinator."""
    with running(store) as (writing, failures, _):
        writing.write(waits(insert(1)))
        known = (insert(1).submit.job_id, insert(1).submit.request_digest)
        assert writing.request("key-1") == known
        assert store.request("key-1") is None
    assert writing.request("key-1") is None
    assert store.request("key-1") == known
    assert failures == []


def _counted(monkeypatch: pytest.MonkeyPatch, store: Store, commits: list[Commit], **bounds: int) -> int:
    """Return how often a writer is woken by commits that come while a young job waits."""
    rings: list[None] = []
    with running(store, **bounds) as (writing, _, taken):
        writing.write(waits(insert(1)))
        assert taken.wait(WAIT_SECONDS)
        monkeypatch.setattr(writing, "_ring", lambda: rings.append(None))
        for commit in commits:
            writing.write(commit)
        monkeypatch.undo()
    return len(rings)


def test_nobody_is_woken_for_jobs_that_may_wait_and_at_once_for_anything_else(
    monkeypatch: pytest.MonkeyPatch, store: Store
) -> None:
    """What was found out about an agent, above all."""
    assert _counted(monkeypatch, store, [waits(insert(2)), waits(lease(2, 1))]) == 0
    verdict = waits(Verified(JOB, Verification("signed", "rechecked")))
    assert _counted(monkeypatch, store, [verdict, Commit((end(2, 1, well=False),))]) == 2


@pytest.mark.parametrize("what", ["bytes", "commits"])
def test_the_writer_is_woken_before_what_waits_is_too_much(
    monkeypatch: pytest.MonkeyPatch, store: Store, what: str
) -> None:
    """Else nothing new would be taken on for a second, though nobody writes."""
    one = input_bytes(insert(2))
    if what == "bytes":
        assert _counted(monkeypatch, store, [waits(insert(n)) for n in range(2, 6)], max_bytes=12 * one) == 2
    else:
        many = [waits(lease(1, epoch)) for epoch in range(1, writer.GROUP_COMMITS + 2)]
        assert _counted(monkeypatch, store, many) == 2


def test_a_job_is_a_second_old_a_second_after_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """However late the writer took it."""
    waiting = YoungJobs(10**6)
    assert list(waiting.take(waits(insert(1)), 5.0)) == []
    assert list(waiting.due(5.9)) == []
    assert list(waiting.due(5.0 + young.SECONDS)) == [insert(1)]
