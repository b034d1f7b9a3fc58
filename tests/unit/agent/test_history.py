"""Orders and the history, kept over restarts: after a crash, another boot, with a wrong clock or a damaged file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.agent.history import HISTORY_FILE, MAX_TRANSITIONS, ORDER_FILE, History, OrderFile
from edge_agent.agent.policy import Order
from edge_agent.agent.tally import QUARTER_MS, Count, Tally
from edge_agent.clock import Now

NOW = Now(5000.0, 1_800_000_000_000)
HOUR_MS = 3_600_000


def kept(folder: Path, order: Order, now: Now, boot: int = 7) -> Order | None:
    """Write an order in boot 7, and read it at another moment, perhaps in another boot."""
    OrderFile(folder, 7).write(order, NOW)
    found, problem = OrderFile(folder, boot).read(now)
    assert problem == ""
    return found


@pytest.mark.parametrize("kind", ["pause", "drain"])
def test_an_order_survives_the_process(tmp_path: Path, kind: str) -> None:
    """Without a time it holds until it is taken back; with one, for what is left of it."""
    assert kept(tmp_path, Order(kind), Now(9000.0, 0)) == Order(kind)
    later = Now(NOW.monotonic + 600, NOW.wall_ms + 600_000)
    assert kept(tmp_path, Order(kind, NOW.monotonic + 3600), later) == Order(kind, NOW.monotonic + 3600)
    after = Now(NOW.monotonic + 3600, NOW.wall_ms + HOUR_MS)
    assert kept(tmp_path, Order(kind, NOW.monotonic + 3600), after) is None


def test_in_the_same_boot_a_jump_of_the_clock_changes_nothing(tmp_path: Path) -> None:
    """The monotonic clock goes on."""
    jumped = Now(NOW.monotonic + 600, NOW.wall_ms + 365 * 24 * HOUR_MS)
    assert kept(tmp_path, Order("pause", NOW.monotonic + 3600), jumped) == Order("pause", NOW.monotonic + 3600)


def test_after_another_boot_the_clock_on_the_wall_decides(tmp_path: Path) -> None:
    """The time that the machine was off counts."""
    rebooted = Now(20.0, NOW.wall_ms + 600_000)
    assert kept(tmp_path, Order("pause", NOW.monotonic + 3600), rebooted, boot=8) == Order("pause", 20.0 + 3000)
    late = Now(20.0, NOW.wall_ms + 2 * HOUR_MS)
    assert kept(tmp_path, Order("pause", NOW.monotonic + 3600), late, boot=8) is None


def test_a_board_without_a_clock_pauses_no_longer_than_it_was_told(tmp_path: Path) -> None:
    """It comes up in 1970."""
    found = kept(tmp_path, Order("pause", NOW.monotonic + 3600), Now(20.0, 0), boot=8)
    assert found == Order("pause", 20.0 + 3600)


def test_a_resume_leaves_nothing(tmp_path: Path) -> None:
    """Nor does one without a pause."""
    orders = OrderFile(tmp_path, 7)
    orders.write(Order("pause"), NOW)
    orders.write(None, NOW)
    orders.write(None, NOW)
    assert orders.read(NOW) == (None, "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"kind": "work", "seconds": null}',
        b'{"kind": ["pause"], "seconds": null}',
        b'{"kind": "pause", "seconds": 60}',
        b'{"kind": "pause", "seconds": "x", "until_ms": 0, "boot": 7, "until_monotonic": 1}',
        b'{"kind": "pause", "seconds": NaN, "until_ms": 0, "boot": 7, "until_monotonic": 1}',
        b'{"kind": "pause", "seconds": 60, "until_ms": 0, "boot": 7, "until_monotonic": NaN}',
        b'{"kind": "pause", "seconds": Infinity, "until_ms": 1e999, "boot": 8, "until_monotonic": 1}',
        b"[" * 100_000,
        b"\xff" * 100,
        b" " * (1 << 20) + b"{}",
    ],
)
def test_a_damaged_order_counts_as_a_pause(tmp_path: Path, content: bytes) -> None:
    """Something was ordered; the machine must not work only because nobody knows what."""
    (tmp_path / ORDER_FILE).write_bytes(content)
    found, problem = OrderFile(tmp_path, 7).read(NOW)
    assert found == Order("pause")
    assert problem


NUMBERS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=3), st.lists(st.none()))


@given(kind=st.sampled_from(["pause", "drain", "work", 1, None]), seconds=NUMBERS, until=NUMBERS, boot=NUMBERS)
def test_whatever_stands_in_an_order_it_is_one_or_is_over(
    tmp_path_factory: pytest.TempPathFactory, kind: object, seconds: object, until: object, boot: object
) -> None:
    """It never raises, and never lasts longer than it says."""
    folder = tmp_path_factory.mktemp("order")
    document = {"kind": kind, "seconds": seconds, "until_ms": until, "until_monotonic": until, "boot": boot}
    (folder / ORDER_FILE).write_text(json.dumps(document))
    found, problem = OrderFile(folder, 7).read(NOW)
    if problem:
        assert found == Order("pause")
    if found is not None and found.until is not None:
        assert NOW.monotonic < found.until <= NOW.monotonic + float(seconds)  # type: ignore[arg-type] # it was a number


def transition(number: int) -> dict[str, object]:
    """Return a transition."""
    return {"at_ms": number, "mode": "rest", "by": "your rules", "reasons": [{"code": "hot", "text": "it is hot"}]}


def test_the_history_is_bounded_and_survives_the_process(tmp_path: Path) -> None:
    """The newest first; what was counted of jobs, too."""
    history = History(tmp_path, Tally())
    for number in range(MAX_TRANSITIONS + 50):
        history.add(transition(number))
    history.write()
    again = History(tmp_path, Tally())
    assert again.read() == ""
    assert [entry["at_ms"] for entry in again.last(3)] == [249, 248, 247]
    assert len(again.last(10_000)) == MAX_TRANSITIONS


def test_jobs_of_today_are_counted_over_restarts(tmp_path: Path) -> None:
    """By quarters of an hour, so that any midnight can be asked for."""
    tally, midnight = Tally(), 96 * QUARTER_MS
    tally.finished("digits", 1000, midnight - 1)
    tally.finished("digits", 2000, midnight)
    tally.failed("digits", "handed-back", midnight + 5)
    tally.failed("digits", "worker-died", midnight + 5)
    history = History(tmp_path, tally)
    history.write()
    again = Tally()
    assert History(tmp_path, again).read() == ""
    again.finished("letters", 500, midnight + QUARTER_MS)
    assert again.since(midnight) == {"digits": Count(1, 1, 1, 2000), "letters": Count(1, 0, 0, 500)}
    assert tally.since(0)["digits"].finished == 2


def test_the_tally_is_bounded() -> None:
    """Of years, only the last days are kept."""
    tally = Tally()
    for quarter in range(1000):
        tally.finished("digits", 1, quarter * QUARTER_MS)
    assert tally.since(0)["digits"].finished == 200
    assert tally.since(999 * QUARTER_MS)["digits"].finished == 1


@pytest.mark.parametrize(
    "content", [b"", b"[]", b'{"transitions": [{"at_ms": 1}], "tally": []}', b'{"transitions": [], "tally": [[1]]}']
)
def test_a_damaged_history_is_told_and_gone_on_without(tmp_path: Path, content: bytes) -> None:
    """Nothing depends on it."""
    (tmp_path / HISTORY_FILE).write_bytes(content)
    tally = Tally()
    history = History(tmp_path, tally)
    assert history.read()
    assert history.last(10) == []
    assert tally.since(0) == {}
    history.add(transition(1))
    history.write()
    assert json.loads((tmp_path / HISTORY_FILE).read_text())["transitions"] == [transition(1)]
