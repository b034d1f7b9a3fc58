"""The profile of 113 captures of real machines agrees with every fact stated about them.

EXPECTED.json beside each capture states the facts. Where it is wrong, or states what cannot be known from the
capture, `EXCEPTIONS` says so with the reason; an exception that is no longer one fails.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import time
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import needs
import pytest

import hardware
from hardware.cpu_topology import parse_size_kib
from hardware.sysfs import parse_cpulist, parse_hex

if TYPE_CHECKING:
    from collections.abc import Iterator

EXCEPTIONS = {
    ("scaleway-arm64-thunderx", "processors"): "the upstream test says 2, the capture lists 6 everywhere",
    ("redmi-note3-snapdragon650", "named Cortex-A53"): "one part field for two kinds: whose it is stays open",
    ("redmi-note3-snapdragon650", "named Cortex-A72"): "nothing in the capture names the second kind",
    ("atm7029b-tablet-1-of-4-online", "named Cortex-A5"): "no CPU part anywhere, and 3 of 4 CPUs are offline",
    ("huawei-mate20-kirin980", "upstream dotprod"): "a kernel too old to list asimddp; its word counts",
    ("galaxy-s9-exynos9810", "upstream fp16"): "the kernel lists asimdhp, and its word counts",
}
"""(capture, fact): why the profile differs."""

_NOT_FIELDS = {"hypervisor"}  # a flag, not something to compute with; checked against `virtual_machine`
_RENAMED = {"v": "rvv"}


@cache
def _dumps() -> tuple[Path, ...]:
    value = os.environ.get(needs.REFERENCE_DATA)
    return tuple(sorted(Path(value, "hardware", "dumps").iterdir())) if value else ()


def facts(root: Path, expected: dict[str, Any], profile: hardware.Profile) -> Iterator[tuple[str, Any, Any]]:
    """Yield (name, what the profile says, what is stated) for each fact that the profile has a field for."""
    yield from _cpus(root, expected, profile)
    yield from _kinds(expected, profile)
    yield from _caches(expected, profile)
    yield from _machine(expected, profile)
    yield from _cgroups(expected.get("cgroup_values", {}), profile)
    yield from _upstream(expected.get("stated_by_upstream_test", {}), profile)


def _cpus(  # noqa: C901 - a list of facts
    root: Path, expected: dict[str, Any], profile: hardware.Profile
) -> Iterator[tuple[str, Any, Any]]:
    cpu = profile.cpu
    for name in ("online", "offline", "present"):
        if name in expected.get("cpu_lists", {}):
            yield name, getattr(cpu, name), parse_cpulist(expected["cpu_lists"][name])
    listed = expected.get("cpuinfo", {}).get("processor_ids")
    if listed and not (root / "sys/devices/system/cpu/online").exists():
        yield "processor_ids", cpu.online, tuple(listed)
    if "view" in expected:
        yield "isa", profile.isa, expected["view"]
    for line in expected.get("isa", ()):
        yield "isa", profile.isa, f"riscv{line[2:4]}"
    for name, value in expected.get("features_all_cpus", {}).items():
        if name not in _NOT_FIELDS:
            yield name, cpu.features.get(_RENAMED.get(name, name)), value
    if "cpu_cores_field" in expected:
        packages = len(expected["physical_ids"])
        if int(expected["siblings_field"][0]) * packages == len(cpu.online or ()):
            yield "cores", len(cpu.cores or ()), int(expected["cpu_cores_field"][0]) * packages
    if "model_name" in expected:
        yield "model", cpu.model, expected["model_name"]
        yield "vendor_id", cpu.vendor_id, expected["vendor_id"]
        yield "names", {cluster.name for cluster in cpu.clusters}, {expected["model_name"]}


def _kinds(expected: dict[str, Any], profile: hardware.Profile) -> Iterator[tuple[str, Any, Any]]:
    clusters = profile.cpu.clusters
    of = {cpu: cluster for cluster in clusters for cpu in cluster.cpus}
    cores = expected.get("cores", [])
    for core in cores:
        if core["cpus"] is not None:
            numbers = (parse_hex(core[key]) for key in ("implementer", "part", "variant"))
            stated = (core["name"], core["vendor"], *numbers, int(core["revision"]), core["count"])
            found = [
                (c.name, c.vendor, c.implementer, c.part, c.variant, c.revision, len(c.cpus))
                for c in clusters
                if list(c.cpus) == core["cpus"]
            ]
            yield f"cluster {core['part']}", found, [stated]
    if cores and all(core["cpus"] for core in cores):
        yield "clusters", len(clusters), len(cores)
        yield "heterogeneous", len({c.part for c in clusters}) > 1, expected["heterogeneous_by_part"]
    for name, cpus in expected.get("cores_from_midr", {}).items():
        yield f"midr {name}", [c.cpus for c in clusters if c.name == name], [tuple(cpus)]
    for cpu, register in expected.get("midr_el1", {}).items():
        value = parse_hex(register) or 0
        found_midr = (of[int(cpu)].implementer, of[int(cpu)].part)
        yield f"midr {cpu}", found_midr, (value >> 24 & 0xFF, value >> 4 & 0xFFF)
    for design in expected.get("uarch", ()):
        yield "uarch", {cluster.name for cluster in clusters}, {design}
    clocks = expected.get("cpuinfo_max_freq_khz", {})
    khz = {cpu: int(clock) for clock, cpus in clocks.items() for cpu in cpus}
    capacity = {int(cpu): value for cpu, value in expected.get("cpu_capacity", {}).items()}
    for cluster in clusters:
        if set(cluster.cpus) & set(khz):
            yield f"khz {cluster.cpus}", cluster.max_khz, max(khz.get(cpu, 0) for cpu in cluster.cpus)
        if capacity:
            yield f"capacity {cluster.cpus}", cluster.capacity, max(capacity[cpu] for cpu in cluster.cpus)


def _caches(expected: dict[str, Any], profile: hardware.Profile) -> Iterator[tuple[str, Any, Any]]:
    for which in ("caches_first_cpu", "caches_last_cpu"):
        stated = expected.get(which, {})
        for level, kind, size, shared in stated.get("caches", ()):
            cpus = parse_cpulist(shared)
            found = [
                (cache.size_kib, cache.cpus if shared else None)
                for cache in profile.cpu.caches
                if f"L{cache.level}" == level and cache.kind == kind.lower() and stated["cpu"] in (cache.cpus or ())
            ]
            yield f"{which} {level} {kind}", found, [(parse_size_kib(size), cpus)]


def _machine(  # noqa: C901 - a list of facts
    expected: dict[str, Any], profile: hardware.Profile
) -> Iterator[tuple[str, Any, Any]]:
    memory = profile.memory
    for key, field in (
        ("MemTotal", "total_kib"),
        ("MemAvailable", "available_kib"),
        ("SwapTotal", "swap_total_kib"),
        ("SwapFree", "swap_free_kib"),
    ):
        if key in expected.get("mem_kib", {}):
            yield key, getattr(memory, field), expected["mem_kib"][key]
    if expected.get("mem_available_missing"):
        yield "available", (memory.available_kib, "memory.available_kib" in profile.unknown), (None, True)
    for key, field in (("sys_vendor", "vendor"), ("product_name", "model")):
        if key in expected.get("dmi", {}):
            yield key, getattr(profile.board, field), expected["dmi"][key]
    stated = expected.get("cpuinfo_board", {})
    for key, field in (("Hardware", "hardware"), ("Model", "model")):
        if key in stated:
            yield key, getattr(profile.board, field), stated[key]
    if "zram_devices" in expected:
        yield "zram", [device.name for device in memory.zram], expected["zram_devices"]
    if "kernel_release" in expected and "kernel_release" not in profile.unknown:
        yield "kernel_release", profile.kernel_release, expected["kernel_release"]
    if "hypervisor" in expected.get("features_all_cpus", {}):
        yield "hypervisor", profile.virtual_machine is not None, expected["features_all_cpus"]["hypervisor"]


def _cgroups(values: dict[str, str], profile: hardware.Profile) -> Iterator[tuple[str, Any, Any]]:
    """What all files state of one kind holds for any process in them; where they differ none is compared."""
    limits = [
        int(text)
        for path, text in values.items()
        if path.endswith(("limit_in_bytes", "memory.max")) and text.isdecimal() and int(text) < 2**62
    ]
    if values:
        yield "limit", profile.memory.limit_bytes, min(limits, default=None)
    quotas = {text for path, text in values.items() if path.endswith(("cfs_quota_us", "cpu.max"))}
    if quotas and quotas <= {"-1", "max 100000"}:
        yield "quota", profile.cpu.quota_cpus, None
    sets = {text for path, text in values.items() if path.endswith("cpuset.cpus")}
    if len(sets) == 1 and profile.cpu.usable is not None:
        yield "usable", profile.cpu.usable, parse_cpulist(sets.pop())


def _upstream(stated: dict[str, Any], profile: hardware.Profile) -> Iterator[tuple[str, Any, Any]]:
    cpu = profile.cpu
    if "processors" in stated:
        yield "processors", len(cpu.present or cpu.online or ()), stated["processors"]
    for name, count in stated.get("cores", {}).items():
        yield f"named {name}", sum(len(c.cpus) for c in cpu.clusters if c.name == name), count
    for key, name in (("has_neon_dot", "dotprod"), ("has_neon_fp16_arith", "fp16")):
        if key in stated:
            yield f"upstream {name}", cpu.features[name], stated[key]


@pytest.mark.parametrize("root", _dumps(), ids=lambda root: root.name)
def test_every_stated_fact_agrees(root: Path) -> None:
    """Each stated fact is in the profile, or is an exception with a reason."""
    expected = json.loads((root / "EXPECTED.json").read_text())
    profile = hardware.profile(root)
    wrong = {name: (got, want) for name, got, want in facts(root, expected, profile) if got != want}
    excepted = {fact for capture, fact in EXCEPTIONS if capture == root.name}
    assert {name: pair for name, pair in wrong.items() if name not in excepted} == {}
    assert excepted - set(wrong) == set(), "these agree now: take them out of EXCEPTIONS"


@pytest.mark.parametrize("root", _dumps(), ids=lambda root: root.name)
def test_nulls_have_reasons_and_no_probe_fails(root: Path) -> None:
    """No probe breaks on a real machine, and what the CPU part leaves open it explains."""
    profile = hardware.profile(root)
    assert not {path: why for path, why in profile.unknown.items() if "probe failed" in why}
    assert all(why and len(why) < 400 for why in profile.unknown.values())
    json.dumps(profile.to_dict(), allow_nan=False)
    nulls = [path for path in ("isa", "kernel_release") if getattr(profile, path) is None]
    lists = ("online", "offline", "usable", "present", "cores")
    nulls += [f"cpu.{name}" for name in lists if getattr(profile.cpu, name) is None]
    nulls += [f"cpu.features.{name}" for name, value in profile.cpu.features.items() if value is None]
    for index, cluster in enumerate(profile.cpu.clusters):
        nulls += [
            f"cpu.clusters.{index}.{name}"
            for name in ("name", "vendor", "max_khz", "capacity", "big")
            if getattr(cluster, name) is None
        ]
    assert [path for path in nulls if path not in profile.unknown] == []


def damage(path: Path, rng: random.Random) -> None:
    """Make of one file what a broken card or a hostile hand makes of it."""
    data = path.read_bytes()
    path.chmod(0o644)
    change = rng.choice(("cut", "dos", "noise", "flip", "repeat", "folder", "fifo", "loop", "root"))
    if change in {"cut", "dos", "noise", "flip", "repeat"}:
        flipped = bytes(byte ^ (rng.random() < 0.02 and rng.randrange(256)) for byte in data[:4096]) + data[4096:]
        path.write_bytes(
            {
                "cut": data[: rng.randint(0, len(data))],
                "dos": data.replace(b"\n", b"\r\n"),
                "noise": rng.randbytes(rng.randint(0, 300)),
                "flip": flipped,
                "repeat": data * rng.randint(2, 20),
            }[change]
        )
        return
    path.unlink()
    if change == "folder":
        path.mkdir()
    elif change == "fifo":
        os.mkfifo(path)
    else:
        path.symlink_to(path.name if change == "loop" else "/")


@pytest.mark.parametrize("root", _dumps()[::3], ids=lambda root: root.name)
def test_damaged_captures_keep_the_rest(root: Path, tmp_path: Path) -> None:
    """Whatever becomes of up to 40 of a capture's files, there is a profile, and no probe breaks."""
    rng = random.Random(root.name)
    tree = tmp_path / "tree"
    shutil.copytree(root, tree, symlinks=True)
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    for path in rng.sample(files, min(len(files), rng.randint(1, 40))):
        damage(path, rng)
    profile = hardware.profile(tree)
    assert not {path: why for path, why in profile.unknown.items() if "probe failed" in why}
    json.dumps(profile.to_dict(), allow_nan=False)


def test_there_are_113_captures() -> None:
    """The proof covers all captures that were handed over."""
    needs.reference_data()
    assert len(_dumps()) == 113


def test_a_capture_reads_in_200_milliseconds() -> None:
    """The slowest capture, read twice, needs less than 200 ms at its best."""
    root = needs.reference_data() / "hardware" / "dumps" / "laptop-i7-1370p-hybrid-6p8e"
    best = 1.0
    for _ in range(3):
        begin = time.perf_counter()
        hardware.profile(root)
        best = min(best, time.perf_counter() - begin)
    assert best < 0.2


@pytest.mark.parametrize(
    ("capture", "big", "threads"),
    [
        ("rockchip-rk3588-rock5b", (4, 5, 6, 7), 4),
        ("khadas-vim4-a311d2", (0, 1, 2, 3), 4),
        ("radxa-orion-o6-cd8180", (0, 5, 6, 7, 8, 9, 10, 11), 8),
        ("laptop-i7-1370p-hybrid-6p8e", tuple(range(12)), 6),
        ("laptop-i7-1270p-zram", tuple(range(8)), 4),
        ("phone-snapdragon-8-gen2-util-linux", (3, 4, 5, 6, 7), 5),
        ("exynos-9820", (4, 5, 6, 7), 4),
        ("dimensity-9300", tuple(range(8)), 8),
        ("snapdragon-8-elite", tuple(range(8)), 8),
        ("nanopc-t3-s5p6818", tuple(range(8)), 8),
        ("oneplus3t-snapdragon821", (0, 1, 2, 3), 4),
        ("phytium-e2000q", (2, 3), 2),
        ("apple-m1-max-asahi", tuple(range(2, 10)), 8),
        ("odroid-xu3-exynos5422", (4, 5, 6, 7), 4),
    ],
)
def test_big_cores(capture: str, big: tuple[int, ...], threads: int) -> None:
    """Big cores are found first, last and in two blocks; where all are of one kind, all are big."""
    profile = hardware.profile(needs.reference_data() / "hardware" / "dumps" / capture)
    assert tuple(sorted(c for cluster in profile.cpu.clusters if cluster.big for c in cluster.cpus)) == big
    assert profile.usable_threads == threads


@pytest.mark.parametrize(
    ("capture", "path"),
    [
        ("raspberry-pi-5b", "aarch64+dotprod"),
        ("raspberry-pi-4-64bit", "aarch64"),
        ("apple-m2-asahi", "aarch64+dotprod+i8mm"),
        ("aws-graviton3", "aarch64+dotprod+i8mm+sve"),
        ("raspberry-pi-2b-armv7", "aarch32"),
        ("desktop-ryzen5-1600", "x86_64+avx2"),
        ("laptop-i7-1370p-hybrid-6p8e", "x86_64+avx_vnni"),
        ("milkv-jupiter-spacemit-x60", "riscv64+rvv"),
        ("lichee-pi-4a-th1520", "riscv64"),
        ("loongson-3a5000-hv", "loongarch64+lsx+lasx"),
        ("thinkpad-x250-hwmon", "unknown"),
    ],
)
def test_isa_path(capture: str, path: str) -> None:
    """The path names what decides the kernels, and nothing that the machine lacks."""
    assert hardware.profile(needs.reference_data() / "hardware" / "dumps" / capture).isa_path == path


def test_part_of_one_cpu_is_not_given_to_others() -> None:
    """One part field for two clusters names neither, and nobody is called big without evidence."""
    root = needs.reference_data() / "hardware" / "dumps" / "redmi-note3-snapdragon650"
    profile = hardware.profile(root)
    found = [(cluster.name, cluster.cpus, cluster.big) for cluster in profile.cpu.clusters]
    assert found == [(None, (0, 1, 2, 3), None), (None, (4, 5), None)]
    assert re.search("Cortex-A53.*only", profile.unknown["cpu.clusters.1.name"])
    assert profile.usable_threads == 6
