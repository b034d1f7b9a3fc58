"""Memory: what there is, and what may be taken."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import needs
import trees
from hypothesis import given
from hypothesis import strategies as st

from hardware import memory
from hardware.sysfs import Root

MEMINFO = "MemTotal: 4000 kB\nMemFree: 1000 kB\nMemAvailable: 2000 kB\nSwapTotal: 10 kB\nSwapFree: 5 kB\n"
MOUNT = "30 24 0:27 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"


def limited(tmp_path: Path, **files: str) -> Root:
    """Return a tree with a memory cgroup whose files are given (memory_max: memory.max)."""
    inside = {f"sys/fs/cgroup/a/{name.replace('_', '.', 1)}": text for name, text in files.items()}
    base = {"proc/meminfo": MEMINFO, "proc/self/cgroup": "0::/a\n", "proc/self/mountinfo": MOUNT}
    return trees.make(tmp_path, {**base, "sys/fs/cgroup/a/cgroup.procs": "", **inside})


def test_without_a_limit_the_kernels_estimate_is_the_budget(tmp_path: Path) -> None:
    """MemAvailable counts, and None as a limit has no reason: there is none."""
    found, unknown = memory.probe(limited(tmp_path, memory_max="max\n"))
    assert (found.budget_bytes, found.limit_bytes, found.limit_source) == (2000 * 1024, None, None)
    assert unknown == {}


def test_budget_of_a_limited_process(tmp_path: Path) -> None:
    """Limit - usage + inactive file, where that is less than what the machine has."""
    root = limited(
        tmp_path, memory_max="1000000", memory_current="400000", memory_stat="inactive_file 100000\nanon 1\n"
    )
    found, _ = memory.probe(root)
    assert (found.limit_bytes, found.budget_bytes) == (1000000, 700000)
    assert found.limit_source == "/sys/fs/cgroup/a/memory.max"


def test_limit_without_usage_leaves_the_budget_unknown(tmp_path: Path) -> None:
    """A budget is not guessed from a limit alone."""
    found, unknown = memory.probe(limited(tmp_path, memory_max="1000000"))
    assert found.budget_bytes is None
    assert "usage" in unknown["memory.budget_bytes"]


def test_old_kernel_without_an_estimate(tmp_path: Path) -> None:
    """What is free is the lower bound; MemAvailable itself is unknown."""
    root = trees.make(tmp_path, {"proc/meminfo": "MemTotal: 400 kB\nMemFree: 100 kB\nCached: 200 kB\n"})
    found, unknown = memory.probe(root)
    assert (found.available_kib, found.budget_bytes) == (None, 100 * 1024)
    assert "3.14" in unknown["memory.available_kib"]


def test_zram_devices_in_use_only(tmp_path: Path) -> None:
    """An empty zram0 is what every kernel with the module has."""
    root = trees.make(
        tmp_path,
        {
            "sys/block/zram0/disksize": "8589934592\n",
            "sys/block/zram0/comp_algorithm": "lzo [zstd] lz4\n",
            "sys/block/zram1/disksize": "0\n",
            "proc/swaps": "Filename Type Size Used Priority\n/dev/zram0 partition 8388604 76 100\n",
        },
    )
    found, _ = memory.probe(root)
    assert [(z.name, z.size_bytes, z.algorithm) for z in found.zram] == [("zram0", 8589934592, "zstd")]


def test_agrees_with_free() -> None:
    """Total and swap are those of free(1); what is available moves, but not far within a moment."""
    output = subprocess.run([needs.tool("free"), "-b"], capture_output=True, text=True, check=True).stdout
    ram, swap = (line.split() for line in output.splitlines()[1:3])
    found, _ = memory.probe(Root("/"))
    assert found.total_kib == int(ram[1]) // 1024
    assert found.swap_total_kib == int(swap[1]) // 1024
    assert found.available_kib is not None
    assert abs(found.available_kib * 1024 - int(ram[6])) < 0.2 * int(ram[1])


@given(st.binary(max_size=400))
def test_no_bytes_raise(data: bytes) -> None:
    """Any /proc/meminfo and /proc/swaps give values that are at least 0, or reasons."""
    with tempfile.TemporaryDirectory() as folder:
        root = trees.make(Path(folder), {"proc/meminfo": b"MemTotal: 5 kB\n" + data, "proc/swaps": data})
        found, _ = memory.probe(root)
        assert found.total_kib == 5
        assert (found.budget_bytes or 0) >= 0


@given(st.text(max_size=200))
def test_parsers_take_any_text(text: str) -> None:
    """The pure parsers never raise and give whole numbers."""
    assert all(value >= 0 for value in memory.parse_meminfo(text).values())
    assert all(value >= 0 for value in memory.parse_swaps(text).values())
