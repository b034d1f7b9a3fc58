"""Hours of the week: over midnight, over the end of the week, and when the clocks are changed."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.agent.policy.hours import is_open, next_change_ms
from edge_agent.settings import DAY_MINUTES, Window, parse_window

PARIS = ZoneInfo("Europe/Paris")
MINUTE_MS = 60_000


def at(text: str, zone: ZoneInfo = PARIS, fold: int = 0) -> int:
    """Return the Unix milliseconds of a local time."""
    return int(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp() * 1000)


@pytest.mark.parametrize(
    ("window", "moment", "opened"),
    [
        ("22:00-07:00", "2026-11-25T21:59:59", False),  # a Wednesday
        ("22:00-07:00", "2026-11-25T22:00:00", True),
        ("22:00-07:00", "2026-11-26T06:59:59", True),
        ("22:00-07:00", "2026-11-26T07:00:00", False),
        ("mon-fri 22:00-07:00", "2026-11-28T03:00:00", True),  # Saturday morning is still Friday's night
        ("mon-fri 22:00-07:00", "2026-11-28T23:00:00", False),
        ("mon-fri 22:00-07:00", "2026-11-30T03:00:00", False),  # and Monday morning is Sunday's
        ("sat-sun 00:00-24:00", "2026-11-29T23:59:59", True),
        ("sat-sun 00:00-24:00", "2026-11-30T00:00:00", False),
        ("sat-mon 10:00-11:00", "2026-11-30T10:30:00", True),  # over the end of the week
        ("sat-mon 10:00-11:00", "2026-12-01T10:30:00", False),
        ("sun 20:00-04:00", "2026-11-30T03:59:59", True),
    ],
)
def test_hours_by_the_clock_on_the_wall(window: str, moment: str, *, opened: bool) -> None:
    """A window belongs to the day on which it begins."""
    assert is_open((parse_window(window),), at(moment), PARIS) is opened


def test_hours_that_do_not_exist_are_not_worked() -> None:
    """On 29 March 2026 the clock jumps from 2:00 to 3:00: of 1:30 to 3:30 an hour is left."""
    window = (parse_window("01:30-03:30"),)
    start, end = at("2026-03-29T01:30:00"), at("2026-03-29T03:30:00")
    assert end - start == 60 * MINUTE_MS
    assert next_change_ms(window, start - 1, PARIS) == start
    assert next_change_ms(window, start, PARIS) == end


def test_a_window_that_begins_in_the_gap_opens_when_the_clock_has_jumped() -> None:
    """Its first half hour does not exist."""
    window = (parse_window("02:30-03:30"),)
    before = at("2026-03-29T01:00:00")
    opens = next_change_ms(window, before, PARIS)
    assert opens == at("2026-03-29T03:00:00")
    assert next_change_ms(window, opens, PARIS) == at("2026-03-29T03:30:00")


def test_hours_that_come_twice_are_worked_twice() -> None:
    """On 25 October 2026 the clock goes back from 3:00 to 2:00."""
    window = (parse_window("02:00-02:30"),)
    first, again = at("2026-10-25T02:00:00"), at("2026-10-25T02:00:00", fold=1)
    assert again - first == 60 * MINUTE_MS
    changes = [first - 1]
    for _ in range(4):
        change = next_change_ms(window, changes[-1], PARIS)
        assert change is not None
        changes.append(change)
    assert changes[1:] == [first, first + 30 * MINUTE_MS, again, again + 30 * MINUTE_MS]


def test_hours_that_cover_the_week_never_change() -> None:
    """Then there is nothing to look at the clock for."""
    windows = (parse_window("mon-sun 00:00-12:00"), parse_window("12:00-24:00"))
    assert next_change_ms(windows, at("2026-03-28T12:00:00"), PARIS) is None


ZONES = [PARIS, ZoneInfo("Australia/Lord_Howe"), ZoneInfo("America/St_Johns"), ZoneInfo("Asia/Kathmandu")]
WINDOWS = st.lists(
    st.builds(
        Window,
        st.frozensets(st.integers(0, 6), min_size=1),
        st.integers(0, DAY_MINUTES - 1),
        st.integers(1, DAY_MINUTES),
    ),
    max_size=4,
).map(tuple)
YEAR_MS = st.integers(at("2026-01-01T00:00:00"), at("2027-01-01T00:00:00"))


@given(windows=WINDOWS, wall_ms=YEAR_MS, zone=st.sampled_from(ZONES), probe=st.floats(0, 1))
def test_nothing_changes_before_the_next_change(
    windows: tuple[Window, ...], wall_ms: int, zone: ZoneInfo, probe: float
) -> None:
    """Between now and then it is as now, and then it is otherwise; also over changes of the clocks."""
    now = is_open(windows, wall_ms, zone)
    change = next_change_ms(windows, wall_ms, zone)
    end = wall_ms + 7 * DAY_MINUTES * MINUTE_MS if change is None else change
    assert end > wall_ms
    assert is_open(windows, wall_ms + int((end - 1 - wall_ms) * probe), zone) == now
    if change is not None:
        assert is_open(windows, change, zone) != now
        assert is_open(windows, change - 1, zone) == now


@given(window=WINDOWS.filter(bool), wall_ms=YEAR_MS)
def test_an_hour_is_open_as_a_table_of_minutes_says(window: tuple[Window, ...], wall_ms: int) -> None:
    """The same, judged by a table of all minutes of the week."""
    table = {
        (1440 * day + one.start + minute) % (7 * 1440)
        for one in window
        for day in one.days
        for minute in range(one.minutes)
    }
    shown = datetime.fromtimestamp(wall_ms / 1000, UTC)
    minute = 1440 * shown.weekday() + 60 * shown.hour + shown.minute
    assert is_open(window, wall_ms, UTC) == (minute in table)  # type: ignore[arg-type] # any tzinfo
