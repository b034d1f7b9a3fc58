"""Facts about machines that can't be read off them: one TOML file a board, each figure with its source.

Adding a board is adding a file. Its `[match]` has the device-tree strings (`compatible`) and the names
(`model`: the device tree's or DMI's product name, without a Raspberry Pi's `Rev 1.2`) by which the machine is
known. Figures are tables of a `value` and its `source`. What is not known is left out.
"""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

_REVISION = re.compile(r" Rev [0-9]+(?:\.[0-9]+)*$")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class Figure:
    """One fact and where it was read."""

    value: Any
    source: str


@dataclass(frozen=True)
class Cores:
    """Cores of one kind and clock."""

    type: str
    count: int
    max_mhz: int | None
    source: str


@dataclass(frozen=True)
class BoardAccelerator:
    """An accelerator that the board carries, or (`optional`) that is sold to go with it."""

    kind: str
    name: str
    family: str
    """Which drivers and nodes belong to it, in the words of `hardware.accelerator` (`rknpu`, `hailo`)."""
    tops: float | None
    optional: bool
    source: str


@dataclass(frozen=True)
class BoardFacts:
    """What a board file says."""

    id: str
    name: str
    kind: str
    """`sbc`, `module`, `mini-pc` or `laptop`."""
    vendor: str | None
    soc: str | None
    note: str | None
    compatible: tuple[str, ...]
    model: tuple[str, ...]
    match_source: str
    cores: tuple[Cores, ...]
    memory: dict[str, Figure]
    """`type`, `sizes_gib`, `bus_bits`, `transfer_mts`, `peak_gb_s` (data sheet), `copy_mb_s` (measured)."""
    power: dict[str, Figure]
    """`idle_watts`, `max_watts`, `typical_watts`: at the plug, of the whole board."""
    accelerators: tuple[BoardAccelerator, ...]

    @property
    def idle_watts(self) -> float | None:
        """Consumption of the idle board, in watts."""
        return self._number(self.power, "idle_watts")

    @property
    def max_watts(self) -> float | None:
        """Highest consumption that was measured or is allowed, in watts."""
        return self._number(self.power, "max_watts")

    @property
    def core_count(self) -> int | None:
        """How many CPUs the board has, or None if its file doesn't say."""
        return sum(group.count for group in self.cores) or None

    @staticmethod
    def _number(figures: dict[str, Figure], name: str) -> float | None:
        return float(figures[name].value) if name in figures else None


def parse(text: str) -> BoardFacts:
    """Return the facts in one board file. Raises ValueError, KeyError or TypeError for another form."""
    data = tomllib.loads(text)
    match = data["match"]
    return BoardFacts(
        id=str(data["id"]),
        name=str(data["name"]),
        kind=str(data["kind"]),
        vendor=data.get("vendor"),
        soc=data.get("soc"),
        note=data.get("note"),
        compatible=tuple(match.get("compatible", ())),
        model=tuple(match.get("model", ())),
        match_source=str(match["source"]),
        cores=tuple(
            Cores(str(row["type"]), int(row["count"]), row.get("max_mhz"), str(row["source"]))
            for row in data.get("cores", ())
        ),
        memory=_figures(data.get("memory", {})),
        power=_figures(data.get("power", {})),
        accelerators=tuple(
            BoardAccelerator(
                str(row["kind"]),
                str(row["name"]),
                str(row["family"]),
                row.get("tops"),
                bool(row.get("optional", False)),
                str(row["source"]),
            )
            for row in data.get("accelerators", ())
        ),
    )


@cache
def load_boards() -> tuple[BoardFacts, ...]:
    """Return all board files, by id. Takes some 100 ms at its first call; `match` needs less."""
    return tuple(parse(text) for _, text in _texts())


def get(board_id: str | None) -> BoardFacts | None:
    """Return the board of that id, or None."""
    return next((parse(text) for name, text in _texts() if name == board_id), None)


def match(compatible: Sequence[str], model: str | None, cpus: int | None = None) -> BoardFacts | None:
    """Return the board that a machine is, by its device tree's strings and its name, or None if none is sure.

    `cpus` is the number of CPUs present: boards that share every string (ROCK 5C and 5C Lite) are told apart
    by it, and without it are not told apart at all.
    """
    name = _plain_model(model)
    wanted = _expand(compatible)
    boards = [parse(text) for text in _candidates([*wanted, *([name] if name else [])])]
    # The most specific string that any board knows decides: device trees name the board before its kin.
    for string in wanted:
        found = [board for board in boards if string in board.compatible]
        if found:
            return _decide(found, name, cpus)
    return _decide(
        [board for board in boards if name is not None and name in map(_plain_model, board.model)], name, cpus
    )


def _decide(found: list[BoardFacts], name: str | None, cpus: int | None) -> BoardFacts | None:
    if len(found) > 1 and name is not None:
        found = [board for board in found if name in map(_plain_model, board.model)] or found
    if len(found) > 1 and cpus is not None:
        found = [board for board in found if board.core_count == cpus]
    return found[0] if len(found) == 1 else None


def _plain_model(model: str | None) -> str | None:
    if model is None:
        return None
    return _REVISION.sub("", _SPACES.sub(" ", model.strip(" \t\r\n\0"))) or None


def _expand(compatible: Sequence[str]) -> list[str]:
    """Return the strings, and for NVIDIA's "carrier+module" pairs the module's own, the surest first."""
    strings = []
    for string in compatible:
        strings.append(string)
        vendor, _, rest = string.partition(",")
        if vendor == "nvidia" and "+" in rest:
            strings.append(f"nvidia,{rest.rpartition('+')[2].removesuffix('-super')}")
    return strings


def _candidates(strings: Sequence[str]) -> list[str]:
    # Most files are passed over by a search in their text: parsing all of them takes ten times as long.
    needles = [string for string in strings if string]
    return [text for _, text in _texts() if any(needle in text for needle in needles)]


@cache
def _texts() -> tuple[tuple[str, str], ...]:
    files = sorted(resources.files(__name__).iterdir(), key=lambda file: file.name)
    return tuple(
        (file.name.removesuffix(".toml"), file.read_text("utf-8")) for file in files if file.name.endswith(".toml")
    )


def _figures(table: dict[str, Any]) -> dict[str, Figure]:
    return {name: Figure(row["value"], str(row["source"])) for name, row in table.items()}
