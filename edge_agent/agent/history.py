"""What the owner ordered and what the machine did, kept over restarts: two small files in the state directory.

An order is written before it is obeyed, and survives a loss of power: a machine that was paused stays paused. The
history is bounded, and nothing depends on it.
"""

from __future__ import annotations

import json
import math
from collections import deque
from pathlib import Path
from typing import Any

from edge_agent.agent.policy import Order
from edge_agent.agent.tally import Tally
from edge_agent.clock import Now
from edge_agent.folders import write_atomically, write_durably

ORDER_FILE = "order.json"
HISTORY_FILE = "history.json"
KINDS = {kind: kind for kind in ("pause", "drain")}
MAX_TRANSITIONS = 200
MAX_FILE_BYTES = 1024 * 1024


class OrderFile:
    """The order that holds, on disk.

    Args:
        folder: the state directory.
        boot: a number that changes when the machine is started anew, and the monotonic clock with it.
    """

    def __init__(self, folder: Path, boot: int) -> None:
        self._path = folder / ORDER_FILE
        self._boot = boot

    def write(self, order: Order | None, now: Now) -> None:
        """Keep an order, or that there is none.

        Raises:
            OSError: it cannot be written; what was written before stays.
        """
        if order is None:
            self._path.unlink(missing_ok=True)
            return
        left = None if order.until is None else max(0.0, order.until - now.monotonic)
        document = {
            "kind": order.kind,
            "seconds": left,
            "boot": self._boot,
            "until_monotonic": order.until,
            "until_ms": None if left is None else now.wall_ms + int(left * 1000),
        }
        write_durably(self._path, json.dumps(document) + "\n")

    def read(self, now: Now) -> tuple[Order | None, str]:
        """Return the order that was kept, and what is wrong with the file; one that is damaged counts as a pause.

        After another boot the wall clock decides how much of its time is over, but a clock that was put back never
        makes it longer than it was.
        """
        try:
            document = json.loads(_read(self._path))
        except FileNotFoundError:
            return None, ""
        except (OSError, ValueError, RecursionError) as error:
            return Order("pause"), f"{error}"
        try:
            kind, seconds = KINDS[document["kind"]], document["seconds"]
            if seconds is None:
                return Order(kind), ""
            left = float(document["until_ms"] - now.wall_ms) / 1000
            if self._boot and document["boot"] == self._boot:
                left = document["until_monotonic"] - now.monotonic
            left = _finite(min(left, float(seconds)), seconds)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            return Order("pause"), f"{error}"
        return (Order(kind, now.monotonic + left), "") if left > 0 else (None, "")


class History:
    """The last transitions, and the tally of jobs.

    Args:
        folder: the state directory.
        tally: is filled with what an earlier process counted.
    """

    def __init__(self, folder: Path, tally: Tally) -> None:
        self._path = folder / HISTORY_FILE
        self._tally = tally
        self._transitions: deque[dict[str, Any]] = deque(maxlen=MAX_TRANSITIONS)

    def read(self) -> str:
        """Take over what an earlier process left; return what is wrong with it, or nothing."""
        try:
            document = json.loads(_read(self._path))
            transitions = [_transition(entry) for entry in document["transitions"]]
            rows = [_row(row) for row in document["tally"]]
        except FileNotFoundError:
            return ""
        except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
            return f"{type(error).__name__}: {error}"
        self._transitions.extend(transitions)
        self._tally.load(rows)
        return ""

    def add(self, transition: dict[str, Any]) -> None:
        """Take note of a transition."""
        self._transitions.append(transition)

    def write(self) -> None:
        """Keep it on disk.

        Raises:
            OSError: it cannot be written.
        """
        document = {"transitions": list(self._transitions), "tally": self._tally.dump()}
        write_atomically(self._path, json.dumps(document) + "\n")

    def last(self, count: int) -> list[dict[str, Any]]:
        """Return the last transitions, the newest first."""
        return list(self._transitions)[::-1][:count]


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"{path.name} is longer than {MAX_FILE_BYTES} bytes")
    return content


def _finite(number: float, *others: float) -> float:
    if not all(math.isfinite(one) for one in (number, *others)):
        raise ValueError("it holds for no time that is a number")
    return number


def _transition(entry: dict[str, Any]) -> dict[str, Any]:
    return {
        "at_ms": int(entry["at_ms"]),
        "mode": str(entry["mode"])[:32],
        "by": str(entry["by"])[:128],
        "works": str(entry.get("works", "for everybody"))[:500],
        "reasons": [{key: str(reason[key])[:500] for key in ("code", "text")} for reason in entry["reasons"]][:32],
    }


def _row(row: list[Any]) -> tuple[int, str, int, int, int, int]:
    quarter, family, finished, failed, handed_back, busy_us = row
    return (int(quarter), str(family)[:64], int(finished), int(failed), int(handed_back), int(busy_us))
