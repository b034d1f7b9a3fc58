"""Reads what an operator gives to `catalogue add`: a family's description, and the files that belong to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path

from pydantic import ValidationError

from edge_agent.errors import InputError
from edge_agent.models.catalogue import MAX_CATALOGUE_BYTES
from edge_agent.models.entries import Family, first_problem
from edge_agent.models.publishing.layout import read_bytes


def read_family(path: Path) -> Family:
    """Read a family from JSON as `edge-agent models FAMILY --json` prints it.

    Raises:
        InputError: there is no such file, or it is not a family; the message names the first wrong place.
        StateError: it cannot be read.
    """
    data = read_bytes(path, MAX_CATALOGUE_BYTES)
    if data is None:
        raise InputError(f"There is no file {path}.", hint="Name the description of a family.")
    try:
        return Family.model_validate_json(data)
    except ValidationError as error:
        raise InputError(
            f"{path} is not the description of a family: {first_problem(error)}.",
            hint="Compare it with `edge-agent models digits --json` and docs/catalogue.md.",
        ) from error


def digests(paths: Iterable[Path]) -> dict[str, Path]:
    """Return the files by their SHA-256.

    Raises:
        InputError: one cannot be read.
    """
    found = {}
    for path in paths:
        try:
            with path.open("rb") as stream:
                found[hashlib.file_digest(stream, "sha256").hexdigest()] = path
        except OSError as error:
            raise InputError(
                f"{path} cannot be read: {error.strerror}.", hint="Name a model or golden file."
            ) from error
    return found
