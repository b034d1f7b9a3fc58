"""Hours of the week in local time. What counts is what a clock on the wall would show. Pure.

When clocks are put forward, hours that do not exist are not worked; when they are put back, hours that come twice are
worked twice.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, tzinfo

from edge_agent.settings import DAY_MINUTES, Window

WEEK_DAYS = 7


def is_open(windows: tuple[Window, ...], wall_ms: int, zone: tzinfo) -> bool:
    """Return whether a moment is inside one of these windows.

    Args:
        windows: any number.
        wall_ms: Unix milliseconds.
        zone: in which the windows are meant.
    """
    return any(_inside(window, _local(wall_ms, zone)) for window in windows)


def next_change_ms(windows: tuple[Window, ...], wall_ms: int, zone: tzinfo) -> int | None:
    """Return the Unix milliseconds at which `is_open` next becomes otherwise; None if it does not within eight days.

    Args:
        windows: any number.
        wall_ms: Unix milliseconds.
        zone: in which the windows are meant.
    """
    before = is_open(windows, wall_ms, zone)
    at, end = wall_ms, wall_ms + (WEEK_DAYS + 1) * DAY_MINUTES * 60_000
    while at < end:
        offset = _offset_ms(at, zone)
        # With this offset, the clock on the wall shows the next of all starts and ends at:
        shown = _local(at, zone).replace(tzinfo=None)
        due = at + min((_until_ms(minute, shown) for minute in _edges(windows)), default=end - at)
        if _offset_ms(due, zone) != offset:
            due = _change_of_offset(at, due, zone)  # the clocks are changed before that
        if is_open(windows, due, zone) != before:
            return due
        at = due
    return None


def clock_text(wall_ms: int, zone: tzinfo) -> str:
    """Return what a clock on the wall shows, with the day."""
    return _local(wall_ms, zone).strftime("%a %H:%M")


def _local(wall_ms: int, zone: tzinfo) -> datetime:
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=wall_ms)).astimezone(zone)


def _inside(window: Window, at: datetime) -> bool:
    minute = 60 * at.hour + at.minute
    since = minute - window.start
    if since >= 0:
        return since < window.minutes and at.weekday() in window.days
    return since + DAY_MINUTES < window.minutes and (at.weekday() - 1) % WEEK_DAYS in window.days


def _edges(windows: tuple[Window, ...]) -> set[int]:
    """Minutes of the day at which something may change."""
    return {minute % DAY_MINUTES for window in windows for minute in (window.start, window.start + window.minutes)}


def _until_ms(minute: int, shown: datetime) -> int:
    """Milliseconds until the clock shows this minute of a day next, more than none."""
    passed = (60 * shown.hour + shown.minute) * 60_000 + shown.second * 1000 + shown.microsecond // 1000
    return (minute * 60_000 - passed - 1) % (DAY_MINUTES * 60_000) + 1


def _offset_ms(wall_ms: int, zone: tzinfo) -> int:
    offset = _local(wall_ms, zone).utcoffset()
    return 0 if offset is None else int(offset.total_seconds() * 1000)


def _change_of_offset(low: int, high: int, zone: tzinfo) -> int:
    """The first millisecond after `low`, at most `high`, at which the offset is another one."""
    offset = _offset_ms(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset_ms(middle, zone) == offset else (low, middle)
    return high
