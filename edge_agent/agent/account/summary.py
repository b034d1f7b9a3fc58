"""An account read from its file, summed for people: by day, by month, by family. Reads only."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from edge_agent.agent.account.book import ACCOUNT_FILE, Row, Usage, blocks_of, rows_of, usage_of
from edge_agent.agent.account.shares import ITSELF, JOULES_PER_KWH
from edge_agent.errors import StateError

NAMELESS = "(the agent itself)"
COLUMNS = (
    *("day", "family", "finished", "accepted", "failed", "handed_back", "busy_seconds"),
    *("kwh", "kwh_measured", "cost", "kwh_unpriced", "credit_mmac"),
)


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of some days.

    Attributes:
        rows: by (day or month, family).
        usage: by day or month.
        blocks: of the own copy, all that are kept.
    """

    rows: Mapping[tuple[str, str], Row]
    usage: Mapping[str, Usage]
    blocks: tuple[bytes, ...]

    def total(self) -> Row:
        """Return the sum of everything."""
        whole = Row()
        for row in self.rows.values():
            whole.add(row)
        return whole

    def by_period(self) -> dict[str, Row]:
        """Return the sum of each day or month that anything is known of."""
        sums = {period: Row() for period in self.usage}
        for (period, _), row in self.rows.items():
            sums.setdefault(period, Row()).add(row)
        return dict(sorted(sums.items()))

    def by_month(self) -> Summary:
        """Return the same by month."""
        rows: dict[tuple[str, str], Row] = {}
        usage: dict[str, Usage] = {}
        for (day, family), row in self.rows.items():
            rows.setdefault((day[:7], family), Row()).add(row)
        for day, used in self.usage.items():
            usage.setdefault(day[:7], Usage()).add(used)
        return Summary(rows, usage, self.blocks)

    def table(self) -> Iterable[tuple[str | int | float, ...]]:
        """Return a row of `COLUMNS` for each period and family."""
        for (period, family), row in self.rows.items():
            yield (
                period,
                named(family),
                row.finished,
                row.accepted,
                row.failed,
                row.handed_back,
                round(row.busy_us / 1e6, 3),
                round(row.joules / JOULES_PER_KWH, 6),
                round(row.measured_joules / JOULES_PER_KWH, 6),
                round(row.cost, 6),
                round(row.unpriced_joules / JOULES_PER_KWH, 6),
                row.credit,
            )


def named(family: str) -> str:
    """Return what people call a family of the account."""
    return NAMELESS if family == ITSELF else family


def read(folder: Path, first: str, last: str) -> Summary:
    """Read an account's days, both included.

    Args:
        folder: the state directory.
        first: a date such as `2026-09-21`.
        last: another one.

    Raises:
        StateError: there is none, or it cannot be read.
    """
    path = folder / ACCOUNT_FILE
    try:
        if not path.exists():
            raise StateError(
                f"there is no account in {folder}",
                hint="An agent keeps one from its first start on; name its folder with --state DIR.",
            )
        database = sqlite3.connect(f"file:{_quoted(path)}?mode=ro", uri=True, timeout=5.0)
        try:
            return Summary(rows_of(database, first, last), usage_of(database, first, last), tuple(blocks_of(database)))
        finally:
            database.close()
    except (sqlite3.Error, OSError) as error:
        raise StateError(f"the account {path} cannot be read: {error}") from error


def _quoted(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")
