"""The catalogue: which families there are, and everything known about each of their variants.

One JSON document; its parts are in `entries`. Nothing here opens a model file: `store` does, and holds it against
the digest and the size that stand here.
"""

from __future__ import annotations

import difflib
import functools
from pathlib import Path
from typing import Self

from pydantic import Field, ValidationError, model_validator

from edge_agent.errors import StateError, UnknownFamilyError
from edge_agent.models.entries import (
    MAX_GOLDEN_BYTES,
    MAX_MODEL_BYTES,
    Costs,
    Entry,
    Family,
    Format,
    Golden,
    Port,
    Quality,
    Reproducibility,
    Usual,
    Variant,
    first_problem,
    refuse_twins,
)

__all__ = [
    "BUILTIN_DIR",
    "MAX_CATALOGUE_BYTES",
    "MAX_GOLDEN_BYTES",
    "MAX_MODEL_BYTES",
    "PUBLIC_FILE",
    "Catalogue",
    "Costs",
    "Family",
    "Format",
    "Golden",
    "Port",
    "Quality",
    "Reproducibility",
    "Usual",
    "Variant",
    "builtin",
    "compact",
    "parse",
    "public_models",
    "readable",
]

BUILTIN_DIR = Path(__file__).parent / "builtin"
"""The folder with the built-in catalogue, its models, golden files and test scans."""

PUBLIC_FILE = Path(__file__).parent / "default" / "catalogue.json"
"""Public models, described by `tools/describe_public_models.py`."""

MAX_CATALOGUE_BYTES = 4 * 1024 * 1024
MANY_NAMES = 1000


class Catalogue(Entry):
    """All families; `version` grows with every change of content."""

    version: int = Field(ge=1)
    families: tuple[Family, ...] = Field(max_length=10_000)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        refuse_twins("family", [family.name for family in self.families])
        return self

    def family(self, name: str) -> Family:
        """Return the family `name`.

        Raises:
            UnknownFamilyError: there is none; the message names the nearest ones.
        """
        for family in self.families:
            if family.name == name:
                return family
        names = [family.name for family in self.families]
        close = _nearest(name[:64].lower(), names)
        listed = ", ".join(map(repr, names[:10])) or "none"
        # In the message itself: clients of others show nothing else.
        meant = f" Did you mean {' or '.join(map(repr, close))}?" if close else ""
        raise UnknownFamilyError(
            f"There is no family {name[:64]!r} in the catalogue.{meant}",
            hint=f"The families are: {listed}. `edge-agent models` shows them all.",
        )


def _nearest(name: str, names: list[str]) -> list[str]:
    if len(names) > MANY_NAMES:  # anybody can ask for a wrong name: ten thousand comparisons would hold up all others
        names = [other for other in names if other[:1] == name[:1]]
    return difflib.get_close_matches(name, names, n=3, cutoff=0.5)


def parse(text: str | bytes) -> Catalogue:
    """Return the catalogue in `text`, a JSON document.

    Raises:
        StateError: it is too large or not a valid catalogue; the message names the first wrong place.
    """
    if len(text) > MAX_CATALOGUE_BYTES:
        raise StateError(
            f"The catalogue has {len(text)} bytes; the limit is {MAX_CATALOGUE_BYTES}.",
            hint="Use a catalogue made for this version.",
        )
    try:
        return Catalogue.model_validate_json(text)
    except ValidationError as error:
        raise StateError(
            f"The catalogue is not valid: {first_problem(error)}.",
            hint="Use a catalogue made for this version, or install this program again.",
        ) from error


def compact(catalogue: Catalogue) -> bytes:
    """Return a catalogue as bytes that are signed and sent: no spaces, and nothing that is its default anyway."""
    return catalogue.model_dump_json(exclude_defaults=True).encode()


def readable(catalogue: Catalogue) -> bytes:
    """Return the same with a line for each family, so that changes can be looked through."""
    lines = b",\n".join(family.model_dump_json(exclude_defaults=True).encode() for family in catalogue.families)
    return b'{"version":%d,"families":[\n%b\n]}\n' % (catalogue.version, lines)


@functools.cache
def builtin() -> Catalogue:
    """Return the catalogue that comes with the program, whose files come with it, too.

    Raises:
        StateError: its file is missing or damaged, so the installation is.
    """
    return _installed(BUILTIN_DIR / "catalogue.json")


def public_models() -> Catalogue:
    """Return descriptions of public models; their files come from their own sources, when they are asked for.

    Raises:
        StateError: the file is missing or damaged, so the installation is.
    """
    return _installed(PUBLIC_FILE)


def _installed(path: Path) -> Catalogue:
    try:
        # One byte more than the limit is enough to see that it is above it.
        with path.open("rb") as stream:
            text = stream.read(MAX_CATALOGUE_BYTES + 1)
    except OSError as error:
        raise StateError(
            f"The catalogue {path} cannot be read: {error}.", hint="Install this program again."
        ) from error
    return parse(text)
