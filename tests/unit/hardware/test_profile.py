"""The profile as a whole: it survives anything, is quick, plain and documented."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hardware
from hardware import cpu, schema
from hardware.schema import Cluster, Cpu, Profile, Record

DOCS = Path(__file__).parents[3] / "docs" / "profile.md"
CPU = "sys/devices/system/cpu"
# Every file that decides something, in the order of the probes.
FILES = [
    "proc/cpuinfo",
    "proc/version",
    "proc/meminfo",
    "proc/swaps",
    "proc/mounts",
    "proc/self/cgroup",
    "proc/self/mountinfo",
    "proc/self/status",
    "proc/sys/kernel/arch",
    "proc/sys/kernel/osrelease",
    "bin/sh",
    f"{CPU}/online",
    f"{CPU}/offline",
    f"{CPU}/present",
    f"{CPU}/cpu0/cpu_capacity",
    f"{CPU}/cpu0/regs/identification/midr_el1",
    f"{CPU}/cpu0/topology/core_cpus_list",
    f"{CPU}/cpu0/topology/core_id",
    f"{CPU}/cpu0/cache/index0/level",
    f"{CPU}/cpu0/cache/index0/type",
    f"{CPU}/cpu0/cache/index0/size",
    f"{CPU}/cpu0/cache/index0/shared_cpu_list",
    f"{CPU}/cpufreq/policy0/cpuinfo_max_freq",
    f"{CPU}/cpufreq/policy0/related_cpus",
    f"{CPU}/cpufreq/policy0/scaling_governor",
    "sys/devices/cpu_core/cpus",
    "sys/devices/cpu_atom/cpus",
    "sys/firmware/devicetree/base/model",
    "sys/firmware/devicetree/base/compatible",
    "sys/class/dmi/id/sys_vendor",
    "sys/class/dmi/id/product_name",
    "sys/fs/cgroup/memory.max",
    "sys/fs/cgroup/memory.current",
    "sys/fs/cgroup/memory.stat",
    "sys/fs/cgroup/cpu.max",
    "sys/fs/cgroup/cpuset.cpus.effective",
    "sys/class/thermal/thermal_zone0/type",
    "sys/class/thermal/thermal_zone0/temp",
    "sys/class/hwmon/hwmon0/name",
    "sys/class/hwmon/hwmon0/power1_input",
    "sys/class/power_supply/BAT0/type",
    "sys/class/power_supply/BAT0/capacity",
    "sys/class/powercap/intel-rapl:0/energy_uj",
    "sys/bus/pci/devices/0000:00:02.0/vendor",
    "sys/bus/pci/devices/0000:00:02.0/device",
    "sys/class/drm/renderD128/device/uevent",
    "sys/block/zram0/disksize",
    "sys/block/sda/queue/rotational",
]
JUNK = st.one_of(
    st.binary(max_size=64),
    st.sampled_from(
        [
            b"",
            b"\0",
            b"\n",
            b"0-16383\n",
            b"99999999999999999999\n",
            b"-1\n",
            b"nan\n",
            b"max 100000\n",
            b"max 0\n",
            b"processor : 0\r\nflags : lm\r\n",
            b"processor\t: 0\nCPU part\t: 0xd03\nCPU implementer\t: 0x41\n",
            b"0::/../../..\n",
            b"30 1 0:26 /../.. /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
            b"MemTotal: 1 kB\nMemAvailable: -1 kB\n",
            b"\xff" * 5000,
        ]
    ),
)
KINDS = st.sampled_from(["file", "folder", "fifo", "loop", "absolute", "dangling"])


def plant(root: Path, rel: str, kind: str, data: bytes) -> None:
    """Put something of any kind where a file is expected."""
    path = root / rel
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            path.write_bytes(data)
        elif kind == "folder":
            path.mkdir()
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            path.symlink_to({"loop": path.name, "absolute": "/", "dangling": "nowhere"}[kind])
    except OSError:
        return  # something planted before is in the way: that too is a tree


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(st.sampled_from(FILES), st.tuples(KINDS, JUNK), max_size=len(FILES)))
def test_any_tree(planted: dict[str, tuple[str, bytes]]) -> None:
    """Whatever the files hold and are, there is a profile, no probe breaks, and it is plain JSON."""
    with tempfile.TemporaryDirectory() as folder:
        for rel, (kind, data) in planted.items():
            plant(Path(folder), rel, kind, data)
        profile = hardware.profile(folder)
    assert not {path: why for path, why in profile.unknown.items() if "probe failed" in why}
    json.dumps(profile.to_dict(), allow_nan=False)
    assert profile.usable_threads >= 1
    assert profile.isa_path


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=300))
def test_the_same_bytes_everywhere(data: bytes) -> None:
    """One blob in every file: no parser expects the text of another."""
    with tempfile.TemporaryDirectory() as folder:
        for rel in FILES:
            plant(Path(folder), rel, "file", data)
        profile = hardware.profile(folder)
    assert not {path: why for path, why in profile.unknown.items() if "probe failed" in why}


def cost_seconds(root: Path) -> float:
    """Return the CPU time of reading a machine: the least of three, since nothing makes it cheaper than it is."""

    def once() -> float:
        begin = time.process_time()
        hardware.profile(root)
        return time.process_time() - begin

    return min(once() for _ in range(3))


def test_huge_files_are_read_in_part(tmp_path: Path) -> None:
    """Files of 64 MB cost no more than their first four: by far not sixteen times as much."""
    costs = []
    for size_mib in (4, 64):
        root = tmp_path / str(size_mib)
        for rel in ("proc/cpuinfo", "proc/meminfo", "proc/self/cgroup", "proc/self/mountinfo", f"{CPU}/online"):
            plant(root, rel, "file", b"")
            os.truncate(root / rel, size_mib * 1024 * 1024)
        costs.append(cost_seconds(root))
    assert costs[1] < 5 * costs[0]


def test_a_probe_that_breaks_costs_its_own_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fault in one probe is told in `unknown`; the other parts are there."""
    plant(tmp_path, "proc/meminfo", "file", b"MemTotal: 1024 kB\n")

    def broken(*_: object) -> None:
        raise ZeroDivisionError("made to fail")

    monkeypatch.setattr(cpu, "probe", broken)
    profile = hardware.profile(tmp_path)
    assert profile.unknown["cpu"] == "the probe failed: ZeroDivisionError: made to fail"
    assert profile.cpu == Cpu()
    assert profile.memory.total_kib == 1024


def big_server(root: Path, cpus: int) -> Path:
    """Plant a machine with so many CPUs, two threads a core, with all their folders."""
    paragraph = (
        "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t: 17\nmodel name\t: EPYC\nwp\t: yes\nflags\t: lm avx2\n\n"
    )
    plant(root, "proc/cpuinfo", "file", "".join(f"processor\t: {c}\n{paragraph}" for c in range(cpus)).encode())
    plant(root, f"{CPU}/online", "file", f"0-{cpus - 1}\n".encode())
    cores = cpus // 2
    for c in range(cpus):
        siblings = f"{c % cores},{c % cores + cores}\n"
        plant(root, f"{CPU}/cpu{c}/topology/core_cpus_list", "file", siblings.encode())
        for i, (level, kind) in enumerate((("1", "Data"), ("1", "Instruction"), ("2", "Unified"), ("3", "Unified"))):
            for name, value in (("level", level), ("type", kind), ("size", "32K"), ("shared_cpu_list", str(c))):
                plant(root, f"{CPU}/cpu{c}/cache/index{i}/{name}", "file", value.encode())
    return root


def test_a_big_server_takes_no_longer_than_it_has_cpus(tmp_path: Path) -> None:
    """192 CPUs with all their folders: eight times 24 CPUs, and by far not their square."""
    small, big = big_server(tmp_path / "small", 24), big_server(tmp_path / "big", 192)
    assert cost_seconds(big) < 24 * cost_seconds(small)
    profile = hardware.profile(big)
    assert (len(profile.cpu.online or ()), profile.usable_threads) == (192, 96)


def test_threads_obey_the_quota_and_never_reach_zero() -> None:
    """Threads are one a usable big core, whole CPUs of quota, and at least one."""
    clusters = (Cluster(cpus=(0, 1, 2, 3), big=False), Cluster(cpus=(4, 5, 6, 7), big=True))
    profile = Profile(cpu=Cpu(online=tuple(range(8)), usable=tuple(range(8)), clusters=clusters))
    assert profile.usable_threads == 4
    for quota, threads in ((2.5, 2), (0.5, 1), (100.0, 4)):
        assert replace(profile, cpu=replace(profile.cpu, quota_cpus=quota)).usable_threads == threads
    only_little = replace(profile, cpu=replace(profile.cpu, usable=(0, 1)))
    assert only_little.usable_threads == 2
    threaded = replace(profile, cpu=replace(profile.cpu, cores=((0, 1), (2, 3), (4, 5), (6, 7))))
    assert threaded.usable_threads == 2


@pytest.mark.parametrize(
    ("isa", "features", "path"),
    [
        ("x86_64", ("avx2", "fma", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"), "x86_64+avx512_vnni"),
        ("x86_64", ("avx2", "fma", "avx512f"), "x86_64+avx2"),
        ("x86_64", ("avx2",), "x86_64"),
        ("aarch64", ("dotprod", "i8mm", "neon", "bf16"), "aarch64+dotprod+i8mm"),
        ("aarch64", (), "aarch64"),
        ("ppc64le", (), "ppc64le"),
        (None, ("avx2",), "unknown"),
    ],
)
def test_isa_paths(isa: str | None, features: tuple[str, ...], path: str) -> None:
    """The path is the best step whose needs are all met."""
    profile = Profile(isa=isa, cpu=Cpu(features=dict.fromkeys(features, True) | {"sme": None}))
    assert profile.isa_path == path


def test_import_is_light() -> None:
    """Importing the package takes neither numpy nor onnxruntime nor psutil, and less time than pydantic's models."""
    code = (
        "import sys, time; begin = time.process_time(); import hardware; took = time.process_time() - begin\n"
        "heavy = sorted({'numpy', 'onnxruntime', 'psutil', 'edge_agent', 'pydantic'} & set(sys.modules))\n"
        "begin = time.process_time(); from pydantic import BaseModel\n"
        "print(took / (time.process_time() - begin), *heavy)"
    )
    ratios = []
    for _ in range(3):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        ratio, *heavy = done.stdout.split()
        assert heavy == []
        ratios.append(float(ratio))
    assert min(ratios) < 1


def test_it_is_plain_and_frozen() -> None:
    """`to_dict` gives lists, dicts and scalars under the names of the fields; nothing can be changed."""
    profile = hardware.profile()
    plain = profile.to_dict()
    assert json.loads(json.dumps(plain)) == plain
    assert plain["schema"] == 1
    assert {"isa", "board", "cpu", "memory", "accelerators", "thermal", "power", "disk", "unknown"} <= set(plain)
    with pytest.raises(AttributeError):
        profile.isa = "vax"  # type: ignore[misc]


def paths(record: type[Record], prefix: str = "") -> list[str]:
    """Return the path of every field of a profile, as the documentation writes them."""
    found = []
    for item in fields(record):
        inner = next(
            (
                kind
                for name, kind in vars(schema).items()
                if isinstance(kind, type)
                and is_dataclass(kind)
                and kind is not Record
                and re.search(rf"\b{name}\b", str(item.type))
            ),
            None,
        )
        if inner is None:
            found.append(prefix + item.name)
        else:
            many = "[]" if "tuple" in str(item.type) else ""
            found += paths(inner, f"{prefix}{item.name}{many}.")
    return found


def test_every_field_is_documented() -> None:
    """docs/profile.md has a row for each field of the profile, and none for others."""
    documented = re.findall(r"^\| `([a-z0-9_.\[\]]+)` \|", DOCS.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(paths(Profile))


def test_every_row_is_complete() -> None:
    """Each row says what the field is, where it comes from and when it is null."""
    rows = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    cells: list[list[Any]] = [[cell.strip() for cell in row.strip("|").split(" | ")] for row in rows]
    assert [row[0] for row in cells if len(row) != 4 or not all(row)] == []
