"""On the machine the tests run on, the profile agrees with the usual tools and with limits set here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import needs
import pytest

import hardware
from hardware import cgroup_place
from hardware.sysfs import Root, parse_cpulist

if TYPE_CHECKING:
    from collections.abc import Iterator

PROFILE = (
    "import hardware, json; p = hardware.profile(); print(json.dumps({'cpu': p.cpu.to_dict(), 'n': p.usable_threads}))"
)


def output(*command: str) -> str:
    """Return what a program prints."""
    return subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"LC_ALL": "C"}).stdout


def profile_below(*prefix: str) -> dict[str, Any]:
    """Return CPUs and threads as a child process sees them that starts behind `prefix`."""
    return dict(json.loads(output(*prefix, sys.executable, "-c", PROFILE)))


def lscpu() -> dict[str, str]:
    """Return the fields of `lscpu -J` by name."""

    def walk(rows: list[dict[str, Any]]) -> Iterator[tuple[str, str]]:
        for row in rows:
            yield row["field"].rstrip(":"), row["data"] or ""
            yield from walk(row.get("children", []))

    return dict(walk(json.loads(output(needs.tool("lscpu"), "-J"))["lscpu"]))


def test_lscpu() -> None:
    """Instruction set, CPUs, names and features are those that lscpu shows."""
    fields, profile = lscpu(), hardware.profile()
    names = {"x86_64": "x86_64", "aarch64": "aarch64", "armv7l": "aarch32", "i686": "x86", "riscv64": "riscv64"}
    if sys.maxsize > 2**32:  # lscpu names the kernel's, we the programs'
        assert profile.isa == names.get(fields["Architecture"], fields["Architecture"])
    assert profile.cpu.online == parse_cpulist(fields["On-line CPU(s) list"])
    if "Vendor ID" in fields and profile.cpu.vendor_id is not None:
        assert profile.cpu.vendor_id == fields["Vendor ID"]
    shown = {cluster.name for cluster in profile.cpu.clusters if cluster.name}
    assert fields["Model name"] in shown or fields["Model name"] == "-"
    if "Flags" in fields and profile.isa == "x86_64":
        flags = set(fields["Flags"].split())
        assert {name for name, has in profile.cpu.features.items() if has} <= flags
        assert profile.cpu.features["avx2"] is ("avx2" in flags)


def test_lscpu_counts_the_same_cores() -> None:
    """As many cores as lscpu has different pairs of core and socket."""
    rows = [
        line.split(",") for line in output(needs.tool("lscpu"), "-p=CPU,CORE,SOCKET").splitlines() if line[0] != "#"
    ]
    assert hardware.profile().cpu.cores is None or len(hardware.profile().cpu.cores or ()) == len(
        {(c, s) for _, c, s in rows}
    )


def test_nproc_and_affinity() -> None:
    """As many usable CPUs as nproc counts, and those of the affinity mask."""
    usable = hardware.profile().cpu.usable
    assert usable is not None
    counted = output("env", "-u", "OMP_NUM_THREADS", "-u", "OMP_THREAD_LIMIT", needs.tool("nproc"))
    assert len(usable) == int(counted)
    assert set(usable) == os.sched_getaffinity(0)


def test_taskset() -> None:
    """A process pinned to one CPU may use that CPU only, with one thread."""
    cpu = max(os.sched_getaffinity(0))
    seen = profile_below(needs.tool("taskset"), "-c", str(cpu))
    assert seen["cpu"]["usable"] == [cpu]
    assert seen["n"] == 1
    assert cpu in seen["cpu"]["online"]


@pytest.fixture
def cpu_group() -> Iterator[Path]:
    """Yield a cgroup of the cpu controller that was made for the test and is removed after it."""
    if os.geteuid() != 0:
        pytest.skip("making a cgroup needs root")
    place = cgroup_place.locate(Root("/"), "cpu")
    if isinstance(place, str) or not place.levels:
        pytest.skip("no cgroup hierarchy with the cpu controller is mounted")
    parent = Path("/", place.levels[-1])
    group = parent / f"edge-agent-test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"a cgroup cannot be made here: {error}")
    try:
        if not ((group / "cpu.max").exists() or (group / "cpu.cfs_quota_us").exists()):
            pytest.skip("the cpu controller is not handed down to new cgroups here")
        yield group
    finally:
        group.rmdir()


def test_a_quota_set_here(cpu_group: Path) -> None:
    """A process in a cgroup with half of a second CPU's time sees 1.5 CPUs, and where that is written."""
    if (cpu_group / "cpu.max").exists():
        (cpu_group / "cpu.max").write_text("150000 100000")
        file = "cpu.max"
    else:
        (cpu_group / "cpu.cfs_period_us").write_text("100000")
        (cpu_group / "cpu.cfs_quota_us").write_text("150000")
        file = "cpu.cfs_quota_us"
    join = f'echo $$ > "{cpu_group}/cgroup.procs" && exec "$@"'
    seen = profile_below("sh", "-c", join, "sh")
    assert seen["cpu"]["quota_cpus"] == pytest.approx(1.5)
    assert seen["cpu"]["quota_source"] == f"{cpu_group}/{file}"
    assert seen["n"] == 1


def test_the_tree_at_the_root_is_the_machine(tmp_path: Path) -> None:
    """Read as a tree, through a link, the machine has the same processors as read live."""
    (tmp_path / "root").symlink_to("/")
    tree, live = hardware.profile(tmp_path / "root"), hardware.profile()
    assert tree.isa == live.isa
    assert tree.cpu == live.cpu
    assert tree.board == live.board
