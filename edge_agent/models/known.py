"""What a process knows of models: the built-in families, a published catalogue that was verified, public models.

`refresh` leaves the last verified catalogue in a folder, with a record beside it; here it is read again, also after a
start without a network. The folder is private: who can write to it can replace the process's key as well. The record
is bound to the pinned root: another root makes it worthless.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge_agent.errors import EdgeAgentError, StateError
from edge_agent.folders import write_durably
from edge_agent.models.catalogue import MAX_CATALOGUE_BYTES, Catalogue, Family, builtin, parse, public_models

RECORD_FILE = "verified.json"
MAX_RECORD_BYTES = 4096
MAX_ROOT_BYTES = 512_000
_FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True)
class Source:
    """Where a process gets its catalogue from, and how long it trusts an old one; made from the settings.

    Attributes:
        folder: of the process's own, for what was verified.
        url: the catalogue's address, ending in a slash; None if there is none.
        root_file: the pinned root.
        refresh_seconds: between two questions for news.
        fetch_seconds: that one may take.
        grace_seconds: an expired catalogue is used for so long.
        public: whether the public models are known, too.
    """

    folder: Path
    url: str | None = None
    root_file: Path | None = None
    refresh_seconds: float = 21_600.0
    fetch_seconds: float = 120.0
    grace_seconds: float = 90 * 86_400.0
    public: bool = False


@dataclass(frozen=True, slots=True)
class Record:
    """What was verified last.

    Attributes:
        pinned: SHA-256 of the root file that it was verified with.
        digest: of the catalogue's bytes.
        catalogue: its version.
        versions: of the metadata, by role.
        expires_ms: the first moment at which one of them expires.
        refreshed_ms: when it was verified.
    """

    pinned: str
    digest: str
    catalogue: int
    versions: Mapping[str, int]
    expires_ms: int
    refreshed_ms: int


@dataclass(frozen=True, slots=True)
class Known:
    """What is known, and how well.

    Attributes:
        catalogue: all families together.
        record: of the published catalogue that is part of it, if any.
        problem: what people should hear: expired, damaged, never fetched; empty if all is well.
        hidden: published families that are not known because a built-in one has their name.
    """

    catalogue: Catalogue
    record: Record | None
    problem: str
    hidden: tuple[str, ...] = ()

    @property
    def state(self) -> dict[str, object]:
        """What is known, in short: for the status of an agent."""
        record = self.record
        return {
            "version": record.catalogue if record is not None else None,
            "expires_ms": record.expires_ms if record is not None else None,
            "refreshed_ms": record.refreshed_ms if record is not None else None,
            "families": len(self.catalogue.families),
            "problem": self.problem,
        }

    @property
    def served(self) -> Catalogue:
        """The families that jobs can be taken for."""
        families = tuple(family for family in self.catalogue.families if family.servable)
        return Catalogue(version=self.catalogue.version, families=families)


def known(source: Source, now_ms: int) -> Known:
    """Read what was verified last and put it together with what comes with the program; asks nobody.

    Raises:
        StateError: the program's own files are damaged.
    """
    own = list(builtin().families)
    record, families, problem = None, tuple[Family, ...](), ""
    if source.url is not None:
        try:
            record, published = _stored(source, now_ms)
            families = published.families
            if now_ms >= record.expires_ms:
                problem = f"the catalogue expired on {day(record.expires_ms)} and no newer one could be had"
        except EdgeAgentError as error:
            problem = error.message
    hidden = _add(own, families)
    if source.public:
        _add(own, public_models().families)
    version = record.catalogue if record is not None else builtin().version
    return Known(Catalogue(version=version, families=tuple(own)), record, problem, hidden)


def read_record(folder: Path) -> Record | None:
    """Return the record, or None if there is none that can be read: then nothing was verified."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        fields = json.loads(_read(folder / RECORD_FILE, MAX_RECORD_BYTES))
        if fields.pop("v") == _FORMAT_VERSION:
            record = Record(**fields)
            numbers = (record.catalogue, record.expires_ms, record.refreshed_ms, *record.versions.values())
            digests = all(re.fullmatch(r"[0-9a-f]{64}", text) for text in (record.pinned, record.digest))
            if digests and all(type(number) is int and number >= 0 for number in numbers):
                return record
    return None


def write(folder: Path, record: Record, catalogue: bytes) -> None:
    """Keep a catalogue that was verified: its bytes first, then the record that says so.

    Raises:
        OSError: it cannot be written; what was kept before stays.
    """
    write_durably(_catalogue_path(folder, record.digest), catalogue)
    write_durably(folder / RECORD_FILE, json.dumps({"v": _FORMAT_VERSION, **asdict(record)}).encode() + b"\n")
    for path in folder.glob("catalogue-*.json"):
        if path != _catalogue_path(folder, record.digest):
            path.unlink(missing_ok=True)


def stored_bytes(folder: Path, digest: str) -> bytes | None:
    """Return the kept bytes of the catalogue with this digest, if they are there and undamaged."""
    with suppress(OSError):
        data = _read(_catalogue_path(folder, digest), MAX_CATALOGUE_BYTES)
        if hashlib.sha256(data).hexdigest() == digest:
            return data
    return None


def read_root(path: Path) -> bytes:
    """Return the bytes of a pinned root file.

    Raises:
        StateError: it cannot be read, or is no root file by its size.
    """
    try:
        data = _read(path, MAX_ROOT_BYTES)
    except OSError as error:
        raise StateError(
            f"The catalogue's root {path} cannot be read: {error.strerror or 'it is too large'}.",
            hint="Get root.json from the catalogue's operator and name it in catalogue.root_file.",
        ) from error
    return data


def day(wall_ms: int) -> str:
    """Return a date for people."""
    try:
        return f"{datetime.fromtimestamp(wall_ms / 1000, UTC):%Y-%m-%d}"
    except (ValueError, OverflowError, OSError):
        return "an impossible date"


def _stored(source: Source, now_ms: int) -> tuple[Record, Catalogue]:
    if source.root_file is None:
        raise StateError("no root is pinned for the catalogue")
    record = read_record(source.folder)
    if record is None:
        raise StateError("the catalogue was not fetched yet")
    if record.pinned != hashlib.sha256(read_root(source.root_file)).hexdigest():
        raise StateError("the catalogue was not fetched yet since another root was pinned")
    # A clock that went back must not make an old catalogue young again.
    overdue_ms = max(now_ms, record.refreshed_ms) - record.expires_ms
    if overdue_ms > source.grace_seconds * 1000:
        raise StateError(
            f"the catalogue expired on {day(record.expires_ms)}, longer ago than catalogue.expired_grace_hours allows"
        )
    data = stored_bytes(source.folder, record.digest)
    if data is None:
        raise StateError("the catalogue that was fetched is damaged; it is fetched again")
    return record, parse(data)


def _add(own: list[Family], more: Iterable[Family]) -> tuple[str, ...]:
    """Add families whose names are free; return the names of the others."""
    names = {family.name for family in own}
    hidden = []
    for family in more:
        if family.name in names:
            hidden.append(family.name)
        else:
            own.append(family)
    return tuple(hidden)


def _catalogue_path(folder: Path, digest: str) -> Path:
    return folder / f"catalogue-{digest}.json"


def _read(path: Path, limit: int) -> bytes:
    with path.open("rb") as stream:
        data = stream.read(limit + 1)
    if len(data) > limit:
        raise OSError(f"{path} has more than {limit} bytes")
    return data
