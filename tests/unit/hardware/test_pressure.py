"""Pressure on memory, as the kernel says it."""

from __future__ import annotations

from pathlib import Path

import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from hardware.pressure import memory_pressure_share, parse_pressure

SOME = "some avg10={} avg60=12.58 avg300=9.85 total=9067594536\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n"


@pytest.mark.parametrize(("avg10", "share"), [("0.00", 0.0), ("19.58", 0.1958), ("100.00", 1.0)])
def test_share_of_the_last_ten_seconds(tmp_path: Path, avg10: str, share: float) -> None:
    """Of `some`, not of `full`."""
    root = trees.make(tmp_path, {"proc/pressure/memory": SOME.format(avg10)})
    assert memory_pressure_share(root) == pytest.approx(share)


@pytest.mark.parametrize(
    "text", ["", "full avg10=1.00 avg60=0.00 avg300=0.00 total=0\n", SOME.format("x"), SOME.format("999.00")]
)
def test_what_the_kernel_would_not_write_is_unknown(tmp_path: Path, text: str) -> None:
    """And said to be."""
    found = memory_pressure_share(trees.make(tmp_path, {"proc/pressure/memory": text}))
    assert isinstance(found, str)
    assert "/proc/pressure/memory" in found


def test_a_kernel_without_it_is_told_apart(tmp_path: Path) -> None:
    """Many boards' kernels are built without PSI."""
    assert memory_pressure_share(trees.make(tmp_path, {})) == "/proc/pressure/memory does not exist"


@given(st.text(max_size=300))
def test_any_text_gives_a_share_or_none(text: str) -> None:
    """Nothing else."""
    share = parse_pressure(text)
    assert share is None or 0 <= share <= 1
