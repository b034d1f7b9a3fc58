"""A few seconds of each class of faults against real processes: nothing lost, nothing twice, nothing stuck.

The long form is `benchmarks/chaos.py`.
"""

from __future__ import annotations

import os
from pathlib import Path

import needs
import pytest
from harness.cleanup import clean_stale
from harness.faults import CLASSES
from harness.namespaces import PREFIX
from harness.run import Plan, classes_of, lanes_of, run

SECONDS = {"kill": 8.0, "partition": 7.0, "proxy": 8.0}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", CLASSES)
def test_faults_lose_double_and_block_nothing(tmp_path: Path, name: str) -> None:
    """Faults of one class, then an account of every number: client, database and agents' logs agree."""
    reason = CLASSES[name].missing()
    if reason is not None:
        if os.geteuid() != 0 and CLASSES[name].root:
            pytest.skip(reason)  # a choice of whoever runs the tests, not a broken machine
        needs.absent(reason)
    clean_stale()
    folder = tmp_path / f"{PREFIX}-{os.getpid()}-{name}"
    folder.mkdir()
    plan = Plan(
        classes_of([name]), SECONDS.get(name, 5.0), rate=2.0, seed=5, agents=2, gap_seconds=(0.3, 1.0), stretch=0.25
    )
    report = run(plan, folder)
    assert report.violations == [], "\n".join(str(violation) for violation in report.violations)
    assert len(report.faults) >= 2
    assert report.jobs >= 8
    assert report.succeeded >= 0.9 * report.jobs, report.ended


def test_one_disk_breaks_in_one_way_at_a_time() -> None:
    """Of all classes in one run, those that break the same part are on one lane; each is on exactly one of two."""
    lanes = lanes_of(list(CLASSES.values()))
    assert sorted(found.name for lane in lanes for found in lane) == sorted(CLASSES)
    names = [{found.name for found in lane} for lane in lanes]
    assert len(names) == 2
    assert sum({"read-only", "power"} <= lane for lane in names) == 1
    assert abs(len(names[0]) - len(names[1])) <= 2
