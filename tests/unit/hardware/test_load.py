"""CPU time: what others take, beside our own processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from hardware.load import Sample, descendants, other_share, parse_pid_stat, parse_stat, sample
from hardware.sysfs import Root

STAT = "cpu  100 20 30 800 50 5 5 10 40 4\ncpu0 1 2 3 4\n"
PID_STAT = "{pid} (edge) agent) R 1 1 1 0 -1 4194304 1 2 3 4 {utime} {stime} {cutime} {cstime} 20 0 9 0 5 1 2\n"


def pid_stat(pid: int, utime: int = 0, stime: int = 0, cutime: int = 0, cstime: int = 0) -> str:
    """Return a `/proc/PID/stat` whose name has blanks and brackets in it."""
    return PID_STAT.format(pid=pid, utime=utime, stime=stime, cutime=cutime, cstime=cstime)


def test_busy_is_what_is_neither_idle_nor_waiting_for_disks() -> None:
    """Guest time is in user and nice already (proc_stat(5))."""
    assert parse_stat(STAT) == (1020, 170)


@pytest.mark.parametrize("text", ["", "cpu\n", "cpu  1 2 3\n", "cpu0 1 2 3 4\n", "cpu  1 2 x 4\n", "intr 1 2 3 4\n"])
def test_what_the_kernel_would_not_write_is_unknown(tmp_path: Path, text: str) -> None:
    """And said to be."""
    assert parse_stat(text) is None
    assert isinstance(sample(trees.make(tmp_path, {"proc/stat": text}), []), str)


def test_our_processes_are_found_with_all_their_children(tmp_path: Path) -> None:
    """By thread, as the kernel lists them."""
    tree = {"proc/10/task/10/children": "11 ", "proc/10/task/12/children": "13 14 ", "proc/13/task/13/children": "15"}
    files = {**tree, **{f"proc/{pid}/task/{pid}/comm": "x" for pid in (11, 14, 15)}}
    assert sorted(descendants(trees.make(tmp_path, files), 10)) == [10, 11, 13, 14, 15]


def test_a_kernel_that_lists_no_children_is_asked_for_parents(tmp_path: Path) -> None:
    """Without CONFIG_PROC_CHILDREN our worker must not count as somebody else's program."""
    parents = {10: 1, 11: 10, 12: 11, 13: 1, 14: 13}
    files = {f"proc/{pid}/stat": f"{pid} (a ) b) S {parent} 0 0 0" for pid, parent in parents.items()}
    assert sorted(descendants(trees.make(tmp_path, files), 10)) == [10, 11, 12]


def test_a_ring_of_children_ends(tmp_path: Path) -> None:
    """No kernel writes one."""
    root = trees.make(tmp_path, {"proc/1/task/1/children": "2", "proc/2/task/2/children": "1"})
    assert len(descendants(root, 1)) <= 64


def test_what_is_ours_is_not_others(tmp_path: Path) -> None:
    """Of 200 ticks, 120 busy, 70 ours: a quarter is others'."""
    before = sample(
        trees.make(tmp_path / "a", {"proc/stat": "cpu  100 0 0 900\n", "proc/7/stat": pid_stat(7, 10, 10, 5, 5)}), [7]
    )
    after = sample(
        trees.make(
            tmp_path / "b",
            {
                "proc/stat": "cpu  220 0 0 980\n",
                "proc/7/stat": pid_stat(7, 20, 20, 10, 10),
                "proc/8/stat": pid_stat(8, 40),
            },
        ),
        [7, 8, 9],
    )
    assert (before, after) == (Sample(1000, 100, 30), Sample(1200, 220, 100))
    assert isinstance(before, Sample)
    assert isinstance(after, Sample)
    assert other_share(before, after) == 0.25
    assert other_share(after, after) is None


def test_a_process_of_ours_that_ended_never_makes_a_negative_share() -> None:
    """Its time is gone from the sum for a moment."""
    assert other_share(Sample(100, 50, 50), Sample(200, 100, 0)) == 0.5


@given(st.text(max_size=300))
def test_any_text_gives_ticks_or_none(text: str) -> None:
    """Nothing else."""
    for ticks in (parse_stat(text), parse_pid_stat(text)):
        assert ticks is None or min(ticks if isinstance(ticks, tuple) else (ticks,)) >= 0


def test_this_machine_can_be_read() -> None:
    """With our own process in it."""
    root = Root()
    pids = descendants(root, os.getpid())
    assert os.getpid() in pids
    found = sample(root, pids)
    assert isinstance(found, Sample)
    assert 0 < found.own <= found.busy <= found.total
