"""Unsettled answers: sent again later and later, in batches, and given up in the end."""

from __future__ import annotations

import random

from fakes import ManualClock, job_id

from edge_agent.agent.unsettled import (
    BATCH_ANSWERS,
    BATCH_BYTES,
    BATCH_PAUSE_SECONDS,
    REDELIVER_FIRST_SECONDS,
    REDELIVER_MAX_SECONDS,
    Unsettled,
    no_jitter,
)

DAY = 24 * 3600.0


def _moments(table: Unsettled, clock: ManualClock, seconds: float) -> list[float]:
    """Return when something was sent again, in seconds from now."""
    start, found = clock.monotonic, []
    while (due := table.next_deadline(connected=True)) is not None and due <= start + seconds:
        clock.monotonic = max(clock.monotonic, due)
        found += [clock.monotonic - start] * len(table.due(clock.now))
    clock.monotonic = start + seconds
    return found


def test_pauses_double_up_to_a_minute_and_are_jittered() -> None:
    """Each pause is between half of its bound and all of it, and two agents do not go in step."""
    pauses = []
    for seed in (1, 2):
        clock = ManualClock()
        table = Unsettled(DAY, random.Random(seed).random)
        table.add((job_id(1), 1), b"answer", clock.now)
        moments = _moments(table, clock, 600.0)
        pauses.append([later - earlier for earlier, later in zip([0.0, *moments], moments, strict=False)])
    bounds = [min(REDELIVER_FIRST_SECONDS * 2**n, REDELIVER_MAX_SECONDS) for n in range(30)]
    for found in pauses:
        assert all(bound / 2 <= pause <= bound for pause, bound in zip(found, bounds, strict=False))
    assert pauses[0] != pauses[1]


def test_many_answers_come_in_batches() -> None:
    """After a reconnection everything is due at once, but the outbox is bounded, and so is the coordinator's inbox."""
    clock = ManualClock()
    table = Unsettled(DAY, no_jitter)
    for number in range(3 * BATCH_ANSWERS - 1):
        table.add((job_id(number), 1), b"answer", clock.now)
    table.again(clock.now)
    assert len(table.due(clock.now)) == BATCH_ANSWERS
    assert table.due(clock.now) == []
    assert table.next_deadline(connected=True) == clock.monotonic + BATCH_PAUSE_SECONDS
    assert len(_moments(table, clock, 1.0)) == 2 * BATCH_ANSWERS - 1
    assert table.due(clock.now) == []


def test_a_batch_is_bounded_by_bytes_too_but_always_has_one() -> None:
    """A single large answer is not kept back for ever."""
    clock = ManualClock()
    table = Unsettled(DAY, no_jitter)
    for number in range(3):
        table.add((job_id(number), 1), bytes(BATCH_BYTES * 2 // 3 + number * BATCH_BYTES), clock.now)
    table.again(clock.now)
    for number in range(3):
        assert [answer.key for answer in table.due(clock.now)] == [(job_id(number), 1)]
        clock.advance(BATCH_PAUSE_SECONDS)


def test_without_a_connection_only_the_end_is_awaited() -> None:
    """Nothing wakes the agent up for what it cannot send."""
    clock = ManualClock()
    table = Unsettled(DAY, no_jitter)
    assert table.next_deadline(connected=False) is None
    table.add((job_id(1), 1), b"answer", clock.now, age_seconds=3600.0)
    assert table.next_deadline(connected=False) == clock.monotonic + DAY - 3600.0


def test_an_answer_that_nobody_settles_is_given_up_also_on_disk() -> None:
    """Its age counts from before the restart."""
    clock = ManualClock()
    table = Unsettled(DAY, no_jitter)
    table.add((job_id(1), 1), b"answer", clock.now, age_seconds=DAY - 10).spooled = True
    table.add((job_id(2), 1), b"answer", clock.now)
    assert table.expired(clock.advance(9.9)) == []
    assert [answer.key for answer in table.expired(clock.advance(0.2))] == [(job_id(1), 1)]
    assert table.take_forgotten() == ((job_id(1), 1),)
    assert table.take_forgotten() == ()
    assert table.keys() == [(job_id(2), 1)]


def test_the_oldest_make_room_on_disk_and_stay_in_memory() -> None:
    """By bytes and by number."""
    clock = ManualClock()
    table = Unsettled(DAY, no_jitter)
    for number in range(4):
        table.add((job_id(number), 1), bytes(100), clock.now).spooled = True
    assert table.make_room_on_disk(100, max_bytes=500, max_results=5) == []
    assert table.make_room_on_disk(100, max_bytes=400, max_results=5) == [(job_id(0), 1)]
    assert table.make_room_on_disk(100, max_bytes=400, max_results=2) == [(job_id(1), 1), (job_id(2), 1)]
    assert len(table) == 4
    assert table.held_bytes == 400
    table.not_on_disk(((job_id(3), 1), (job_id(9), 1)))
    table.drop((job_id(3), 1))
    assert table.take_forgotten() == ()
