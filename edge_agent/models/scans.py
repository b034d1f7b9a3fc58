"""Scans of handwritten digits that no variant was trained on, as package data: input for the demonstration.

Standard library only. One record of `builtin/digits_test.bin` is the label (one byte, 0 to 9) and then 64
pixels, row by row (one byte each, 0 to 16).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edge_agent.errors import StateError
from edge_agent.models.catalogue import BUILTIN_DIR

if TYPE_CHECKING:
    from pathlib import Path

SCANS_FILE = "digits_test.bin"
PIXELS = 64
MAX_PIXEL = 16
MAX_LABEL = 9
RECORD_BYTES = 1 + PIXELS
MAX_FILE_BYTES = 10_000 * RECORD_BYTES

_FLOATS = struct.Struct(f"<{PIXELS}f")


@dataclass(frozen=True, slots=True)
class Scan:
    """One scan: raw little-endian float32 pixels, as the family's input is, and the digit it shows."""

    image: bytes
    label: int


def load_scans(folder: Path = BUILTIN_DIR) -> list[Scan]:
    """Return all scans of the test part, in their fixed order.

    Raises:
        StateError: the file is missing or is not what it should be, so the installation is damaged.
    """
    path = folder / SCANS_FILE
    hint = "Install this program again."
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise StateError(f"The test scans cannot be read: {error}.", hint=hint) from error
    if not data or len(data) > MAX_FILE_BYTES or len(data) % RECORD_BYTES:
        raise StateError(
            f"The test scans in {path} have {len(data)} bytes, which is no whole number of records.",
            hint=hint,
        )
    scans = []
    for start in range(0, len(data), RECORD_BYTES):
        label, pixels = data[start], data[start + 1 : start + RECORD_BYTES]
        if label > MAX_LABEL or max(pixels) > MAX_PIXEL:
            raise StateError(f"The test scan {start // RECORD_BYTES} in {path} is damaged.", hint=hint)
        scans.append(Scan(_FLOATS.pack(*pixels), label))
    return scans
