"""Keeps the account of a running agent: looks at meters and counters at times, sums in memory, writes twice an hour.

Belongs to the daemon's loop, but for `received`, which the link's thread counts.
"""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from edge_agent.agent.account.book import Book, Row, Usage
from edge_agent.agent.account.shares import JOULES_PER_KWH, Interval, own_joules, split
from edge_agent.agent.account.tariff import Tariff
from edge_agent.agent.own_copy import Entry, OwnCopy
from edge_agent.agent.tally import Tally
from edge_agent.clock import Now
from edge_agent.errors import StateError
from edge_agent.wire.keys import SigningKey
from hardware import io, load
from hardware.meter import Watts
from hardware.sysfs import Root

BUSY_SECONDS = 10.0
IDLE_SECONDS = 60.0
"""Between two looks, after some work and after none."""
WRITE_SECONDS = 1800.0
_QUARTER_MS = 900_000
MAX_WAITING_ENTRIES = 2000
"""Of the own copy, for each time that it is written: with it a day of jobs without a pause stays below 5 MB."""

log = logging.getLogger("edge_agent.agent.account")


@dataclass(frozen=True, slots=True)
class Means:
    """What an account is kept with.

    Attributes:
        root: of the machine.
        pid: our own process.
        tariff: watts and prices.
        key: signs the own copy.
        network: whose jobs these are.
    """

    root: Root
    pid: int
    tariff: Tariff
    key: SigningKey
    network: str


@dataclass(slots=True)
class Totals:
    """Sums that are not on disk yet, or of one day."""

    rows: dict[tuple[str, str], Row] = field(default_factory=dict)
    usage: dict[str, Usage] = field(default_factory=dict)

    def row(self, day: str, family: str) -> Row:
        """Return the row of a day and family, to be added to."""
        return self.rows.setdefault((day, family), Row())

    def used(self, day: str) -> Usage:
        """Return what was used on a day, to be added to."""
        return self.usage.setdefault(day, Usage())


class Account:
    """What became of attempts, and what they took.

    Args:
        folder: the state directory.
        means: what it is kept with.
        tally: counts the attempts.
        now: the moment.
    """

    def __init__(self, folder: Path, means: Means, tally: Tally, now: Now) -> None:
        self._folder = folder
        self._means = means
        self.tariff = means.tariff
        self._tally = tally
        self._fresh = Totals()
        self._book: Book | None = None
        self._known = Totals()
        self._before = Row()
        self._copy = OwnCopy(means.key, means.network, MAX_WAITING_ENTRIES)
        self._open(now)
        self._sample = load.sample(means.root, self._pids())
        self._writes = io.Writes(means.root)
        self._sampled_at = now.monotonic
        self._write_at = now.monotonic + WRITE_SECONDS
        self.look_at = now.monotonic + BUSY_SECONDS
        self.watts = Watts(None, why="it takes two looks")
        self._received = 0
        self._received_seen = 0
        self._downloaded = 0

    def _open(self, now: Now) -> None:
        """Open the file; read this month, for the limits that hold over restarts, and where the own copy goes on."""
        first, book = day_of(now)[:8] + "01", None
        try:
            book = Book(self._folder)
            known, before = Totals(book.rows(first, "9999"), book.usage(first, "9999")), book.total()
            last = book.last_block()
        except (OSError, sqlite3.Error, StateError) as error:
            log.warning("Without an account on disk: %s", error, extra={"action": "account"})
            if book is not None:
                book.close()
            return
        self._book, self._known, self._before = book, known, before
        if last is not None:
            self._copy.go_on(last[0], hashlib.sha256(last[1]).digest())

    # -- what others tell ---------------------------------------------------------------------------------------------

    def settled(self, family: str, entry: Entry, amount: int, now: Now) -> None:
        """Take note that a result was accepted, and of what it is worth."""
        row = self._fresh.row(day_of(now), family)
        row.accepted += 1
        row.credit += amount
        self._copy.add(entry, now.wall_ms)

    def sent(self, count: int, now: Now) -> None:
        """Count bytes that go to the broker."""
        self._fresh.used(day_of(now)).sent += count

    def received(self, count: int) -> None:
        """Count bytes that came from the broker; called on the link's thread."""
        self._received += count

    def downloaded(self, count: int, now: Now) -> None:
        """Count bytes of models: how many this process has fetched in all."""
        self._fresh.used(day_of(now)).downloaded += max(0, count - self._downloaded)
        self._downloaded = count

    # -- looking ------------------------------------------------------------------------------------------------------

    def look(self, now: Now) -> None:
        """Read meters and counters, share what they say, and write when it is time."""
        day, seconds = day_of(now), now.monotonic - self._sampled_at
        counts = self._tally.take()
        busy_us = {family: count.busy_us for family, count in counts.items()}
        for family, count in counts.items():
            row = self._fresh.row(day, family)
            row.finished += count.finished
            row.failed += count.failed
            row.handed_back += count.handed_back
            row.busy_us += count.busy_us
        usage = self._fresh.used(day)
        usage.seconds += seconds
        received, seen = self._received, self._received_seen
        usage.received += received - seen
        self._received_seen = received
        pids = self._pids()
        interval = self._interval(seconds, pids)
        usage.written += self._writes.since(pids)
        self._meter(interval, busy_us, now)
        self._sampled_at = now.monotonic
        self.look_at = now.monotonic + (BUSY_SECONDS if counts else IDLE_SECONDS)
        if now.monotonic >= self._write_at:
            self.write(now)

    def _pids(self) -> list[int]:
        return load.descendants(self._means.root, self._means.pid)

    def _interval(self, seconds: float, pids: Sequence[int]) -> Interval:
        before, after = self._sample, load.sample(self._means.root, pids)
        self._sample = after
        if isinstance(before, str) or isinstance(after, str) or after.total <= before.total:
            return Interval(seconds, None, 0.0)
        total = after.total - before.total
        return Interval(seconds, (after.busy - before.busy) / total, max(0, after.own - before.own) / total)

    def _meter(self, interval: Interval, busy_us: dict[str, int], now: Now) -> None:
        tariff = self.tariff
        self.watts = watts = tariff.meter.read(now.monotonic, interval.busy_share, tariff.plug(now))
        if watts.value is None:
            return
        day = day_of(now)
        usage = self._fresh.used(day)
        usage.joules += watts.value * interval.seconds
        usage.known_seconds += interval.seconds
        price, idle = tariff.price(now), tariff.meter.idle_watts(watts.source)
        for family, joules in split(own_joules(interval, watts.value, idle), busy_us).items():
            row = self._fresh.row(day, family)
            if watts.measured:
                row.measured_joules += joules
            else:
                row.estimated_joules += joules
            if price is None:
                row.unpriced_joules += joules
            else:
                row.cost += price * joules / JOULES_PER_KWH

    # -- the disk -----------------------------------------------------------------------------------------------------

    def write(self, now: Now) -> None:
        """Write what is not on disk yet; what the disk does not take waits for the next time."""
        self._write_at = now.monotonic + WRITE_SECONDS
        if self._book is None:
            self._open(now)
        if self._book is None:
            return
        blocks = self._copy.sealed()
        try:
            self._book.add(self._fresh.rows, self._fresh.usage, blocks)
        except sqlite3.Error as error:
            log.warning("Could not write the account: %s", error, extra={"action": "account"})
            return
        self._copy.written(blocks)
        self._remember()

    def _remember(self) -> None:
        """Keep this month's sums in memory: by day alone, as the limits need them."""
        for key, row in self._fresh.rows.items():
            self._known.rows.setdefault(key, Row()).add(row)
            self._before.add(row)
        for day, used in self._fresh.usage.items():
            self._known.used(day).add(used)
        newest = max(self._known.usage, default="")
        month = newest[:7]
        self._known = Totals(
            {key: row for key, row in self._known.rows.items() if key[0] == newest},
            {day: used for day, used in self._known.usage.items() if day[:7] == month},
        )
        self._fresh = Totals()

    def leave(self, now: Now) -> None:
        """Write the rest, and close the file."""
        self.look(now)
        self.write(now)
        if self._book is not None:
            self._book.close()
            self._book = None

    # -- what others ask ----------------------------------------------------------------------------------------------

    def _usage(self) -> Sequence[tuple[str, Usage]]:
        return [*self._known.usage.items(), *self._fresh.usage.items()]

    def network_bytes(self, now: Now) -> int:
        """Return the bytes that went over the network this month, models included."""
        month = day_of(now)[:7]
        waiting = self._received - self._received_seen
        return waiting + sum(used.network for day, used in self._usage() if day[:7] == month)

    def written_bytes(self, now: Now) -> int:
        """Return the bytes that were written to disks today."""
        today = day_of(now)
        return sum(used.written for day, used in self._usage() if day == today)

    def report(self, now: Now) -> dict[str, Any]:
        """Return what today took, and what the machine draws."""
        today, total = day_of(now), Row()
        for rows in (self._known.rows, self._fresh.rows):
            for (day, _), row in rows.items():
                if day == today:
                    total.add(row)
        used = Usage()
        for day, one in self._usage():
            if day == today:
                used.add(one)
        ever = Row()
        for row in (self._before, *self._fresh.rows.values()):
            ever.add(row)
        known = used.known_seconds > 0
        return {
            "watts": None if self.watts.value is None else round(self.watts.value, 2),
            "watts_source": self.watts.source or None,
            "watts_why": self.watts.why or None,
            "kwh_today": round(total.joules / JOULES_PER_KWH, 6) if known else None,
            "kwh_measured_today": round(total.measured_joules / JOULES_PER_KWH, 6),
            "machine_kwh_today": round(used.joules / JOULES_PER_KWH, 6) if known else None,
            "cost_today": round(total.cost, 4) if total.unpriced_joules < total.joules else None,
            "currency": self.tariff.settings.currency,
            "accepted_today": total.accepted,
            "credit_today": total.credit,
            "kwh_ever": round(ever.joules / JOULES_PER_KWH, 6),
            "finished_ever": ever.finished,
            "network_bytes_month": self.network_bytes(now),
            "written_bytes_today": self.written_bytes(now),
        }


def day_of(now: Now) -> str:
    """Return the date here, as `2026-09-21`."""
    return _day_of_quarter(now.wall_ms // _QUARTER_MS)


@lru_cache(maxsize=8)
def _day_of_quarter(quarter: int) -> str:
    """Return the date of a quarter of an hour, in which no time zone has a midnight; each job asks twice."""
    return time.strftime("%Y-%m-%d", time.localtime(quarter * _QUARTER_MS / 1000))
