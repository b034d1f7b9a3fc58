"""Machines stranger than the captured ones: each test is named after the rule it holds up."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import trees

import hardware

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

CPU = "sys/devices/system/cpu"
TREE = "sys/firmware/devicetree/base"
V2 = "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
MEMORY = "MemTotal: 8000000 kB\nMemAvailable: 6000000 kB\nSwapTotal: 0 kB\nSwapFree: 0 kB\n"


def profile(base: Path, files: Mapping[str, str | bytes], providers: tuple[str, ...] | None = None) -> hardware.Profile:
    """Return the profile of a tree of these files."""
    return hardware.profile(trees.make(base, files).path, providers=providers)


def arm(*parts: int, implementer: int = 0x41, features: str = "fp asimd asimddp asimdhp") -> str:
    """Return the /proc/cpuinfo of these cores."""
    return "".join(
        f"processor\t: {number}\nFeatures\t: {features}\nCPU implementer\t: {implementer:#x}\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {part:#05x}\nCPU revision\t: 1\n\n"
        for number, part in enumerate(parts)
    )


def intel(cpus: tuple[int, ...]) -> dict[str, str]:
    """Return an Intel hybrid: CPUs 0 to 3 are two performance cores, 4 to 7 and 8 to 9 two groups of the others."""
    files = {
        "proc/cpuinfo": "".join(
            f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t: 170\nmodel name\t: Ultra\n"
            "wp\t: yes\nflags\t: fpu lm avx2 fma avx_vnni\n\n"
            for cpu in cpus
        ),
        f"{CPU}/online": ",".join(map(str, cpus)),
        f"{CPU}/present": "0-9\n",
    }
    shared = {0: (0, 1), 1: (0, 1), 2: (2, 3), 3: (2, 3), 8: (8, 9), 9: (8, 9)}
    for cpu in cpus:
        fast = cpu < 4
        together = ",".join(str(one) for one in shared.get(cpu, (4, 5, 6, 7)) if one in cpus)
        alone = together if fast else str(cpu)
        files[f"{CPU}/cpu{cpu}/topology/core_cpus_list"] = alone
        rows = (
            (1, "Data", "48K" if fast else "32K", alone),
            (1, "Instruction", "64K", alone),
            (2, "Unified", "2M", together),
        )
        for index, row in enumerate(rows):
            for name, value in zip(("level", "type", "size", "shared_cpu_list"), row, strict=True):
                files[f"{CPU}/cpu{cpu}/cache/index{index}/{name}"] = f"{value}\n"
    return files


@pytest.mark.parametrize("cpus", [tuple(range(10)), (0, 2, 4, 5), (1, 3, 9), (0, 1, 8, 9)])
def test_low_power_island_and_offline_cpus_are_no_third_kind(tmp_path: Path, cpus: tuple[int, ...]) -> None:
    """Efficiency cores are little wherever they lie and whoever of them is off."""
    found = profile(tmp_path, intel(cpus)).cpu.clusters
    assert {cpu for cluster in found if cluster.big for cpu in cluster.cpus} == {cpu for cpu in cpus if cpu < 4}
    assert {cpu for cluster in found if cluster.big is False for cpu in cluster.cpus} == {
        cpu for cpu in cpus if cpu > 3
    }


@pytest.mark.parametrize(
    ("parts", "implementer", "big"),
    [
        ((0xD46, 0xD46, 0xD46, 0xD4D, 0xD4D, 0xD47, 0xD47, 0xD4E), 0x41, (3, 4, 5, 6, 7)),
        ((0xD81, 0xD82, 0xD80, 0xD80, 0xD81), 0x41, (0, 1, 4)),
        ((0xD05,) * 4, 0x41, (0, 1, 2, 3)),
        ((0x022, 0x022, 0x023, 0x023), 0x61, (2, 3)),
        ((0xD03, 0xD08, 0xD03, 0xD08), 0x41, (1, 3)),
    ],
)
def test_big_by_design_with_many_kinds(tmp_path: Path, parts: tuple[int, ...], implementer: int, big: object) -> None:
    """Prime and middle cores are big, little ones are not, whatever the order; alone, little ones are all there is."""
    found = profile(tmp_path, {"proc/cpuinfo": arm(*parts, implementer=implementer)})
    assert tuple(sorted(cpu for c in found.cpu.clusters if c.big for cpu in c.cpus)) == big


def test_no_cpu_has_no_cores(tmp_path: Path) -> None:
    """A tree that lists no CPU has unknown cores, not none."""
    found = profile(tmp_path, {"etc/x": ""})
    assert found.cpu.cores is None
    assert "cpu.cores" in found.unknown


def test_capture_of_one_process_by_its_number(tmp_path: Path) -> None:
    """Without /proc/self a tree is about its one process; the first process's limits are not ours."""
    files = {
        "proc/meminfo": MEMORY,
        "proc/1/cgroup": "0::/init.scope\n",
        "proc/4711/cgroup": "0::/a\n",
        "proc/self/mountinfo": V2,
        "sys/fs/cgroup/a/memory.max": "1000000000\n",
        "sys/fs/cgroup/a/memory.current": "400000000\n",
        "sys/fs/cgroup/a/memory.stat": "inactive_file 100000000\n",
        "sys/fs/cgroup/a/cpu.max": "150000 100000\n",
    }
    memory = profile(tmp_path, files).memory
    assert (memory.limit_bytes, memory.budget_bytes) == (1_000_000_000, 700_000_000)
    assert hardware.profile(tmp_path).cpu.quota_cpus == 1.5
    both = profile(tmp_path, {"proc/4712/cgroup": "0::/b\n"})
    assert both.memory.limit_bytes is None
    assert "memory.limit_bytes" in both.unknown
    (tmp_path / "proc/4712/cgroup").unlink()
    (tmp_path / "proc/4711/cgroup").unlink()
    assert "memory.limit_bytes" in hardware.profile(tmp_path).unknown


@pytest.mark.parametrize(
    ("files", "container"),
    [
        ({"run/secrets/kubernetes.io/serviceaccount/namespace": "default"}, "container-other"),
        ({"proc/1/ns/pid": "link:pid:[4026532211]"}, "container-other"),
        ({"proc/1/ns/pid": "link:pid:[4026531836]", "proc/1/ns/cgroup": "link:cgroup:[4026531835]"}, None),
        ({"proc/1/ns/pid": "link:pid:[4026531836]", "proc/1/ns/cgroup": "link:cgroup:[4026532300]"}, "container-other"),
        ({".dockerenv": "", "proc/1/ns/pid": "link:pid:[4026532211]"}, "docker"),
    ],
)
def test_container_without_a_name_of_its_manager(tmp_path: Path, files: dict[str, str], container: str | None) -> None:
    """A pod's secrets and namespaces that are not the machine's own show a container."""
    assert profile(tmp_path, {"proc/1/cgroup": "0::/\n", **files}).container == container


ACCEL = "sys/devices/platform/npu"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({f"{TREE}/ethosu/compatible": "arm,ethosu\0", "dev/ethosu0": ""}, ("npu", None, "/dev/ethosu0", False)),
        (
            {f"{TREE}/vipsi@38500000/compatible": "fsl,imx8-vipsi\0", "dev/galcore": ""},
            ("npu", None, "/dev/galcore", False),
        ),
        ({"dev/dxg": "", "usr/lib/wsl/lib/libcuda.so.1": ""}, ("gpu", "dxgkrnl", "/dev/dxg", True)),
        ({"dev/dxg": ""}, ("gpu", "dxgkrnl", "/dev/dxg", False)),
        (
            {"sys/class/accel/accel0/device": f"link:/{ACCEL}", f"{ACCEL}/uevent": "DRIVER=habanalabs\n"},
            ("npu", "habanalabs", "/dev/accel/accel0", False),
        ),
        (
            {"sys/class/accel/accel0/device": f"link:/{ACCEL}", f"{ACCEL}/uevent": "DRIVER=intel_vpu\n"},
            ("npu", "intel_vpu", "/dev/accel/accel0", False),
        ),
    ],
)
def test_accelerators_beside_the_usual_buses(
    tmp_path: Path, files: dict[str, str], expected: tuple[str, str | None, str, bool]
) -> None:
    """What only a device tree, Windows or the kernel's accel subsystem offers is found, once."""
    found = profile(tmp_path, files, providers=("CUDAExecutionProvider",)).accelerators
    assert [(one.kind, one.driver, one.node, one.usable) for one in found] == [expected]


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("mpu-thermal", True),
        ("main0-thermal", True),
        ("bcm2835_thermal", True),
        ("wkup-thermal", False),
        ("TZ00", False),
    ],
)
def test_zones_of_other_makers(tmp_path: Path, kind: str, found: bool) -> None:  # noqa: FBT001 - a parameter of the test
    """Texas Instruments and old Raspberry Pi kernels have words of their own for the CPU's zone."""
    zone = "sys/class/thermal/thermal_zone7"
    thermal = profile(tmp_path, {f"{zone}/type": f"{kind}\n", f"{zone}/temp": "51000\n"}).thermal
    assert (thermal.cpu_celsius, thermal.zone) == ((51.0, kind) if found else (None, None))


def test_the_platform_is_not_the_chip(tmp_path: Path) -> None:
    """Apple's device trees end with a word for all of its machines."""
    files = {f"{TREE}/compatible": "apple,j274\0apple,t8103\0apple,arm-platform\0", f"{TREE}/model": "Apple Mac mini\0"}
    assert profile(tmp_path, files).board.soc == "t8103"


def test_what_nothing_measures_says_why(tmp_path: Path) -> None:
    """Each null of heat, power and disk that is not "there is none" has its reason."""
    found = profile(tmp_path, {"etc/x": ""}).unknown
    wanted = {"thermal.zone", "power.watts", "power.watts_source", "power.idle_watts", "power.max_watts"}
    assert wanted | {"disk.read_only", "disk.device"} <= set(found)


MANY = 70_000
MAX_CPU_SECONDS = 1.0


@pytest.mark.parametrize(
    "files",
    [
        {f"{CPU}/online": "0-8191\n", f"{CPU}/present": "0-8191\n"},
        {f"{CPU}/present": "0-8191\n", "proc/cpuinfo": "".join(f"processor : {n}\n" for n in range(8192))},
        {"proc/cpuinfo": "flags : " + "a " * 2_000_000},
        {"proc/cpuinfo": "flags\n" * MANY * 9},
        {"proc/cpuinfo": "flags" + "\n" * 4_000_000},
        {"proc/cpuinfo": b"\xff\r\n" * 1_300_000},
        {"proc/self/mountinfo": "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n" * MANY},
        {"proc/self/mountinfo": "".join(f"30 1 0:26 / /c{n} rw - cgroup2 cgroup2 rw\n" for n in range(MANY))},
        {f"sys/class/thermal/thermal_zone{n}/type": "cpu\n" for n in range(1000)},
        {"proc/1/environ": b"a=b\0" * 1_000_000, "proc/swaps": b"a b 1\n" * 700_000},
    ],
    ids=lambda files: next(iter(files)).rpartition("/")[2],
)
def test_no_text_is_slow(tmp_path: Path, files: dict[str, str | bytes]) -> None:
    """Long files of the right or the wrong lines take no more CPU than lines do: what was quadratic took 2 to 3 s.

    A quiet machine needs under 200 ms; the bound here leaves room for branch coverage on a slow one.
    """
    root = trees.make(tmp_path, {"proc/self/cgroup": "0::/a\n", **files}).path
    best = MAX_CPU_SECONDS
    for _ in range(4):
        begin = time.process_time()
        found = hardware.profile(root)
        best = min(best, time.process_time() - begin)
        if best < MAX_CPU_SECONDS:
            break
    assert best < MAX_CPU_SECONDS
    assert not [why for why in found.unknown.values() if "probe failed" in why]
