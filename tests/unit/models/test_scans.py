from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import pytest

from edge_agent.errors import StateError
from edge_agent.models.scans import RECORD_BYTES, SCANS_FILE, load_scans

if TYPE_CHECKING:
    from pathlib import Path


def test_there_are_enough_scans_and_all_digits_among_the_first() -> None:
    """A demonstration of 200 jobs sees every digit, none of them rarely."""
    scans = load_scans()
    assert len(scans) == 364
    counts = [sum(scan.label == digit for scan in scans[:200]) for digit in range(10)]
    assert min(counts) >= 10
    assert len({scan.image for scan in scans}) == len(scans)


def test_a_scan_is_what_the_input_wants() -> None:
    """64 little-endian float32, whole numbers from 0 to 16."""
    for scan in load_scans():
        pixels = struct.unpack("<64f", scan.image)
        assert set(pixels) <= set(range(17))


@pytest.mark.parametrize(
    "data",
    [b"", b"\0" * (RECORD_BYTES - 1), b"\0" * (RECORD_BYTES + 1), b"\x0a" + b"\0" * 64, b"\0" * 64 + b"\x11"],
    ids=["empty", "cut", "grown", "label 10", "pixel 17"],
)
def test_a_damaged_file_is_a_clear_error(tmp_path: Path, data: bytes) -> None:
    """Neither half of the scans nor wrong ones."""
    (tmp_path / SCANS_FILE).write_bytes(data)
    with pytest.raises(StateError):
        load_scans(tmp_path)


def test_a_missing_file_is_a_clear_error(tmp_path: Path) -> None:
    """It says what to do."""
    with pytest.raises(StateError) as caught:
        load_scans(tmp_path)
    assert "Install" in caught.value.hint
