"""A catalogue as a refresh would have left it, without a refresh."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from repositories import digits_named

from edge_agent.models.catalogue import Catalogue
from edge_agent.models.known import Record, Source, write

if TYPE_CHECKING:
    from pathlib import Path

NOW_MS = 1_900_000_000_000
DAY_MS = 86_400_000
ROOT = b"a root"


def source(folder: Path, **changes: object) -> Source:
    """Return a source whose root is pinned."""
    root = folder / "root.json"
    root.write_bytes(ROOT)
    fields = {"folder": folder / "state", "url": "http://127.0.0.1:9/", "root_file": root, "grace_seconds": 86_400.0}
    return Source(**{**fields, **changes})  # type: ignore[arg-type]


def keep(folder: Path, *names: str, version: int = 7, expires_ms: int = NOW_MS + DAY_MS) -> Record:
    """Keep a catalogue as a refresh would."""
    data = Catalogue(version=version, families=tuple(digits_named(name) for name in names)).model_dump_json().encode()
    record = Record(
        pinned=hashlib.sha256(ROOT).hexdigest(),
        digest=hashlib.sha256(data).hexdigest(),
        catalogue=version,
        versions={"root": 1},
        expires_ms=expires_ms,
        refreshed_ms=NOW_MS,
    )
    folder.mkdir(exist_ok=True)
    write(folder, record, data)
    return record


def names(catalogue: Catalogue) -> list[str]:
    """Return the families' names."""
    return [family.name for family in catalogue.families]
