from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import needs
import pytest

from edge_agent.errors import ResourceError
from edge_agent.inference import calibration
from edge_agent.models.rates import Point, Rates
from hardware import profile

if TYPE_CHECKING:
    from pathlib import Path

PROFILE = profile()
PRESENT_SHARE = calibration.present_share
RATES = Rates({1: {"conv.f32": (Point(1e6, 50.0),)}}, {1: 20.0}, 0.95)


@pytest.fixture(autouse=True)
def _usual_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibration, "present_share", lambda _: RATES.share)


def _never(*_: object) -> Rates:
    raise AssertionError("this must not be measured again")


def test_rates_are_measured_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second time they are read, and equal."""
    monkeypatch.setattr(calibration, "_measure", lambda *_: RATES)
    assert calibration.calibrate(PROFILE, tmp_path) == RATES
    monkeypatch.setattr(calibration, "_measure", _never)
    # How busy the machine was then says nothing of now.
    assert calibration.calibrate(PROFILE, tmp_path) == dataclasses.replace(RATES, share=1.0)


@pytest.mark.parametrize("quota", [None, 0.5, 2.0])
def test_how_busy_the_machine_is_now_is_a_share(quota: float | None) -> None:
    """Between a twentieth and all of a CPU, whatever the quota."""
    cpu = dataclasses.replace(PROFILE.cpu, quota_cpus=quota)
    assert 0.05 <= PRESENT_SHARE(dataclasses.replace(PROFILE, cpu=cpu)) <= 1


def test_another_kernel_or_quota_means_measuring_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Old rates do not hold under new conditions; nor does what somebody asks to measure again."""
    measured: list[tuple[int, ...]] = []

    def measure(counts: tuple[int, ...], _seconds: float, _started: object) -> Rates:
        measured.append(counts)
        return RATES

    monkeypatch.setattr(calibration, "_measure", measure)
    calibration.calibrate(PROFILE, tmp_path)
    calibration.calibrate(dataclasses.replace(PROFILE, kernel_release="0.0"), tmp_path)
    quota = dataclasses.replace(PROFILE, cpu=dataclasses.replace(PROFILE.cpu, quota_cpus=0.5))
    calibration.calibrate(quota, tmp_path)
    calibration.calibrate(quota, tmp_path)
    calibration.calibrate(quota, tmp_path, again=True)
    assert len(measured) == 4


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"conditions": {}}', b"\xff\xfe", b"[" * 5000])
def test_a_damaged_file_is_measured_again(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And replaced by a good one."""
    (tmp_path / calibration.FILE_NAME).write_bytes(content)
    monkeypatch.setattr(calibration, "_measure", lambda *_: RATES)
    assert calibration.calibrate(PROFILE, tmp_path) == RATES
    assert Rates.from_json(json.loads((tmp_path / calibration.FILE_NAME).read_bytes())["rates"]) == RATES


def test_a_folder_that_cannot_be_written_to_costs_only_the_memory_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rates are good even where they can't be kept."""
    monkeypatch.setattr(calibration, "_measure", lambda *_: RATES)
    assert calibration.calibrate(PROFILE, tmp_path / "absent") == RATES
    assert not (tmp_path / "absent").exists()


def test_threads_are_one_two_and_all_that_may_be_used() -> None:
    """On one CPU there is only one number; on eight there are three."""

    def counts(usable: int) -> tuple[int, ...]:
        cpu = dataclasses.replace(PROFILE.cpu, usable=tuple(range(usable)), quota_cpus=None, clusters=(), cores=())
        return calibration.thread_counts(dataclasses.replace(PROFILE, cpu=cpu))

    assert counts(1) == (1,)
    assert counts(2) == (1, 2)
    assert counts(8) == (1, 2, 8)


def test_this_machine_is_really_measured(tmp_path: Path) -> None:
    """A short real run gives rates for the most telling kinds, in a process of its own."""
    needs.module("onnxruntime")
    rates = calibration.calibrate(PROFILE, tmp_path, seconds=2.0)
    assert set(rates.curves) == set(calibration.thread_counts(PROFILE))
    assert {"view", "conv.f32"} <= set(rates.curves[1])
    assert all(us > 0 for us in rates.run_us.values())


def test_a_process_that_fails_is_told_with_its_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not a traceback, and nothing is kept."""
    monkeypatch.setattr(calibration.sys, "executable", "/bin/false")
    with pytest.raises(ResourceError, match="failed"):
        calibration.calibrate(PROFILE, tmp_path)
    monkeypatch.setattr(calibration.sys, "executable", str(tmp_path / "absent"))
    with pytest.raises(ResourceError, match="could not be started"):
        calibration.calibrate(PROFILE, tmp_path)
    assert not (tmp_path / calibration.FILE_NAME).exists()
