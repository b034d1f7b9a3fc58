"""Rules about processors, on machines made up to be stranger than the captured ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hardware
from hardware import cpu_riscv, isa
from hardware.cpu_topology import parse_size_kib
from hardware.cpuinfo import CpuInfo, parse_cpuinfo
from hardware.midr import Midr, from_compatible

if TYPE_CHECKING:
    from pathlib import Path

CPU = "sys/devices/system/cpu"
A64 = "fp asimd evtstrm aes pmull sha1 sha2 crc32"
ELF_ARM = b"\x7fELF\x01\x01\x01" + bytes(9) + b"\x02\x00\x28\x00"
ELF_ARM64 = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x03\x00\xb7\x00"


def tree(root: Path, files: dict[str, str | bytes]) -> Path:
    """Write files below `root`."""
    for rel, data in files.items():
        path = root / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return root


def arm(cpu: int, part: int, features: str = A64, implementer: int = 0x41, variant: int = 0) -> str:
    """Return a paragraph of an arm64 kernel's /proc/cpuinfo."""
    return (
        f"processor\t: {cpu}\nBogoMIPS\t: 48.00\nFeatures\t: {features}\nCPU implementer\t: {implementer:#x}\n"
        f"CPU architecture: 8\nCPU variant\t: {variant:#x}\nCPU part\t: {part:#x}\nCPU revision\t: 1\n\n"
    )


def intel(cpu: int, flags: str = "fpu lm avx2 fma", model: int = 151) -> str:
    """Return a paragraph of an x86 kernel's /proc/cpuinfo."""
    return (
        f"processor\t: {cpu}\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: {model}\n"
        f"model name\t: Made-up CPU\nfpu\t\t: yes\nfpu_exception\t: yes\nwp\t\t: yes\nflags\t\t: {flags}\n\n"
    )


def shape(profile: hardware.Profile) -> list[tuple[str | None, tuple[int, ...], bool | None]]:
    """Return the name, CPUs and bigness of each cluster."""
    return [(cluster.name, cluster.cpus, cluster.big) for cluster in profile.cpu.clusters]


def clocks(cpus: range | tuple[int, ...], khz: int) -> dict[str, str | bytes]:
    """Return the clock policy that these CPUs share."""
    folder = f"{CPU}/cpufreq/policy{cpus[0]}"
    return {
        f"{folder}/cpuinfo_max_freq": f"{khz}\n",
        f"{folder}/related_cpus": " ".join(map(str, cpus)),
        f"{folder}/scaling_governor": "schedutil\n",
    }


def folders(cpus: range) -> dict[str, str | bytes]:
    """Return what makes these CPUs known to sysfs, online and with a folder."""
    return {f"{CPU}/online": f"{cpus[0]}-{cpus[-1]}\n"} | {f"{CPU}/cpu{c}/topology/core_id": f"{c}\n" for c in cpus}


def test_two_clocks_of_one_design_are_one_kind(tmp_path: Path) -> None:
    """Eight Cortex-A53, four of them slow and with less capacity: one kind, and all are big."""
    files = folders(range(8)) | clocks(range(4), 1_000_000) | clocks(range(4, 8), 1_500_000)
    files |= {f"{CPU}/cpu{c}/cpu_capacity": "680\n" if c < 4 else "1024\n" for c in range(8)}
    files["proc/cpuinfo"] = "".join(arm(c, 0xD03) for c in range(8))
    profile = hardware.profile(tree(tmp_path, files))
    assert shape(profile) == [("Cortex-A53", tuple(range(8)), True)]
    assert (profile.cpu.clusters[0].max_khz, profile.cpu.clusters[0].capacity) == (1_500_000, 1024)
    assert profile.usable_threads == 8


def test_one_clock_of_two_designs_is_two_kinds(tmp_path: Path) -> None:
    """Cortex-A715 and A710 at one clock with one capacity stay two kinds, both big beside the A510."""
    files = folders(range(5)) | clocks(range(1), 2_000_000) | clocks(range(1, 5), 2_800_000)
    files |= {f"{CPU}/cpu{c}/cpu_capacity": "280\n" if c == 0 else "855\n" for c in range(5)}
    parts = (0xD46, 0xD4D, 0xD4D, 0xD47, 0xD47)
    files |= {f"{CPU}/cpu{c}/regs/identification/midr_el1": f"0x41{1:x}f{p:03x}0" for c, p in enumerate(parts)}
    profile = hardware.profile(tree(tmp_path, files))
    assert shape(profile) == [
        ("Cortex-A510", (0,), False),
        ("Cortex-A715", (1, 2), True),
        ("Cortex-A710", (3, 4), True),
    ]


def test_the_register_wins_over_cpuinfo(tmp_path: Path) -> None:
    """midr_el1 is what the CPU says of itself; the text may be that of another."""
    files = folders(range(2)) | {"proc/cpuinfo": arm(0, 0xD03) + arm(1, 0xD03)}
    files[f"{CPU}/cpu1/regs/identification/midr_el1"] = "0x00000000410fd083\n"
    assert shape(hardware.profile(tree(tmp_path, files))) == [
        ("Cortex-A53", (0,), False),
        ("Cortex-A72", (1,), True),
    ]


def test_an_unknown_design_beside_a_little_one_is_big(tmp_path: Path) -> None:
    """A core newer than our table is unnamed with a reason, and not mistaken for little."""
    text = "".join(arm(c, 0xD05) for c in range(4)) + "".join(arm(c, 0xFFE) for c in (4, 5))
    profile = hardware.profile(tree(tmp_path, {"proc/cpuinfo": text}))
    assert shape(profile) == [("Cortex-A55", (0, 1, 2, 3), False), (None, (4, 5), True)]
    assert "part 0xffe is not a known design" in profile.unknown["cpu.clusters.1.name"]


def test_two_unknown_designs_are_told_apart_by_capacity_only(tmp_path: Path) -> None:
    """Without names, capacity decides; without capacity nothing does, whatever the clocks."""
    text = "".join(arm(c, 0x111 if c < 2 else 0x222, implementer=0x99) for c in range(4))
    files = folders(range(4)) | clocks((0, 1), 1_000_000) | clocks((2, 3), 3_000_000) | {"proc/cpuinfo": text}
    profile = hardware.profile(tree(tmp_path, files))
    assert [cluster.big for cluster in profile.cpu.clusters] == [None, None]
    assert "neither design nor capacity" in profile.unknown["cpu.clusters.0.big"]
    assert profile.usable_threads == 4
    tree(tmp_path, {f"{CPU}/cpu{c}/cpu_capacity": "300" if c < 2 else "1024" for c in range(4)})
    assert [cluster.big for cluster in hardware.profile(tmp_path).cpu.clusters] == [False, True]


GLOBAL = "Processor : ARMv7 rev 3\n{}Features : half thumb neon\nCPU implementer : 0x41\nCPU part : {}\n"


@pytest.mark.parametrize(
    ("part", "extra", "named"),
    [
        ("0xc09", {}, True),  # the Cortex-A9 was never mixed
        ("0xc07", {}, False),  # the Cortex-A7 was
        ("0xc07", clocks(range(4), 1_000_000), True),
        ("0xc07", clocks(range(2), 1_000_000) | clocks((2, 3), 2_000_000), False),
        ("0xd05", clocks(range(4), 1_000_000), False),  # since DynamIQ one clock proves nothing
        ("0xc07", {f"{CPU}/cpu{c}/cpu_capacity": "1024" for c in range(4)}, True),
        ("0xc07", {f"{CPU}/cpu{c}/cpu_capacity": f"{512 + c // 2}" for c in range(4)}, False),
        ("0xc07", {f"{CPU}/cpu{c}/topology/physical_package_id": "0" for c in range(4)}, True),
        ("0xc07", {f"{CPU}/cpu{c}/topology/physical_package_id": "-1" for c in range(4)}, False),
    ],
)
def test_a_part_stated_once(tmp_path: Path, part: str, extra: dict[str, str | bytes], named: bool) -> None:  # noqa: FBT001
    """It is that of all CPUs only where something proves that they are of one kind."""
    text = GLOBAL.format("".join(f"processor : {c}\n" for c in range(4)), part)
    profile = hardware.profile(tree(tmp_path, folders(range(4)) | {"proc/cpuinfo": text} | extra))
    names = {cluster.name for cluster in profile.cpu.clusters}
    assert (None not in names) == named
    if not named:
        assert "states one part" in profile.unknown["cpu.clusters.0.name"]
    assert profile.cpu.features["neon"] is True


def test_the_device_tree_names_cpus(tmp_path: Path) -> None:
    """Where neither register nor text does, the CPU's own node in the device tree tells its design."""
    base = "sys/firmware/devicetree/base/cpus"
    files = folders(range(3)) | {
        f"{base}/cpu@0/compatible": b"arm,cortex-a53\0",
        f"{base}/cpu@100/compatible": b"arm,cortex-a72\0",
    }
    tree(tmp_path, files)
    for cpu, node in enumerate(("cpu@0", "cpu@100", "cpu@100")):
        (tmp_path / f"{CPU}/cpu{cpu}/of_node").symlink_to(f"/{base}/{node}")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text(f"processor : 0\nFeatures : {A64}\n")
    assert shape(hardware.profile(tmp_path)) == [("Cortex-A53", (0,), False), ("Cortex-A72", (1, 2), True)]


def test_a_32_bit_system_on_64_bit_cores(tmp_path: Path) -> None:
    """The programs decide what the machine is, not the words its 64-bit kernel uses."""
    files: dict[str, str | bytes] = {"proc/cpuinfo": arm(0, 0xD0B, f"{A64} asimddp"), "bin/sh": ELF_ARM}
    profile = hardware.profile(tree(tmp_path, files))
    assert profile.isa == "aarch32"
    assert profile.cpu.features["neon"] is profile.cpu.features["vfpv4"] is profile.cpu.features["dotprod"] is True
    assert profile.cpu.features["sve"] is False
    assert profile.isa_path == "aarch32"
    assert hardware.profile(tree(tmp_path, {"bin/sh": ELF_ARM64})).isa == "aarch64"


@pytest.mark.parametrize(
    ("machine", "bits", "name"),
    [
        ("aarch64", 64, "aarch64"),
        ("aarch64", 32, "aarch32"),
        ("armv7l", 32, "aarch32"),
        ("armv8l", 32, "aarch32"),
        ("arm64", 64, "aarch64"),
        ("x86_64", 64, "x86_64"),
        ("x86_64", 32, "x86"),
        ("i686", 32, "x86"),
        ("riscv64", 64, "riscv64"),
        ("vax", 32, None),
    ],
)
def test_machine_names(machine: str, bits: int, name: str | None) -> None:
    """`uname -m` is the kernel's; the size of pointers is that of the programs."""
    assert isa.from_machine(machine, bits) == name


@pytest.mark.parametrize(
    ("version", "name"),
    [
        ("Linux version 4.4.0-21-generic (buildd@bos01-ppc64el-017) (gcc version 5.3.1)", "ppc64le"),
        ("Linux version 6.1.0 (builder@x86_64-host) (gcc)", None),
        ("", None),
    ],
)
def test_the_byte_order_of_power(tmp_path: Path, version: str, name: str | None) -> None:
    """/proc/cpuinfo leaves it open; the kernel's version may tell, but not by the machine it was built on."""
    files: dict[str, str | bytes] = {"proc/version": version, "proc/cpuinfo": "processor : 0\ncpu : POWER8E (raw)\n"}
    assert hardware.profile(tree(tmp_path, files)).isa == name


@given(st.binary(max_size=64))
def test_any_program_header(header: bytes) -> None:
    """Bytes that are no ELF header are no instruction set."""
    found = isa.from_elf(header)
    assert found is None or header.startswith(b"\x7fELF")


def test_hybrid_by_the_kernels_own_lists(tmp_path: Path) -> None:
    """Two PMUs with CPU lists mean two kinds, even if all else is alike; the low-power island is not big."""
    files = folders(range(6)) | {"proc/cpuinfo": "".join(intel(c) for c in range(6))}
    files |= {
        "sys/devices/cpu_core/cpus": "0-1",
        "sys/devices/cpu_atom/cpus": "2-3",
        "sys/devices/cpu_lowpower/cpus": "4-5",
    }
    assert shape(hardware.profile(tree(tmp_path, files))) == [
        ("Made-up CPU", (0, 1), True),
        ("Made-up CPU", (2, 3, 4, 5), False),
    ]


def caches(cpu: int, data: str, instruction: str, second: str) -> dict[str, str | bytes]:
    """Return the cache folders of a CPU; `second` are the CPUs that share its level 2."""
    rows = (
        ("1", "Data", data, str(cpu)),
        ("1", "Instruction", instruction, str(cpu)),
        ("2", "Unified", "2048K", second),
    )
    return {
        f"{CPU}/cpu{cpu}/cache/index{i}/{name}": value
        for i, row in enumerate(rows)
        for name, value in zip(("level", "type", "size", "shared_cpu_list"), row, strict=True)
    }


def test_hybrid_by_first_level_caches(tmp_path: Path) -> None:
    """Hyper-threading off, no PMU lists: the sizes of the level 1 caches tell the kinds."""
    files = folders(range(4)) | {"proc/cpuinfo": "".join(intel(c) for c in range(4))}
    files |= caches(0, "32K", "64K", "0-2") | caches(1, "32K", "64K", "0-2") | caches(2, "32K", "64K", "0-2")
    files |= caches(3, "48K", "32K", "3")
    assert [c for _, c, big in shape(hardware.profile(tree(tmp_path, files))) if big] == [(3,)]


def test_a_half_switched_off_module_is_no_hybrid(tmp_path: Path) -> None:
    """A core left alone with a cache that others shared before is not another kind of core."""
    files = folders(range(4)) | {"proc/cpuinfo": "".join(intel(c) for c in range(3)), f"{CPU}/online": "0-2"}
    files |= {f"{CPU}/present": "0-3"}
    files |= caches(0, "32K", "32K", "0-1") | caches(1, "32K", "32K", "0-1") | caches(2, "32K", "32K", "2")
    assert shape(hardware.profile(tree(tmp_path, files))) == [("Made-up CPU", (0, 1, 2), True)]


def test_features_are_those_of_all_usable_cpus(tmp_path: Path) -> None:
    """What one usable CPU lacks none has; what only an unusable CPU lacks does not matter."""
    files = {"proc/cpuinfo": intel(0) + intel(1, "fpu lm avx2 fma avx512f") + intel(2, "fpu lm")}
    assert hardware.profile(tree(tmp_path, files)).cpu.features["avx2"] is False
    profile = hardware.profile(tree(tmp_path, {"proc/self/status": "Name:\tx\nCpus_allowed_list:\t0-1\n"}))
    assert profile.cpu.usable == (0, 1)
    assert (profile.cpu.features["avx2"], profile.cpu.features["avx512f"]) == (True, False)


def test_a_cpu_without_flags_leaves_features_unknown(tmp_path: Path) -> None:
    """A cut /proc/cpuinfo proves what is lacking, never what all have."""
    files = folders(range(2)) | {"proc/cpuinfo": intel(0)}
    profile = hardware.profile(tree(tmp_path, files))
    assert profile.cpu.features["avx2"] is None
    assert profile.cpu.features["avx512f"] is False
    assert "every usable CPU" in profile.unknown["cpu.features.avx2"]


def test_usable_obeys_cpusets(tmp_path: Path) -> None:
    """A cpuset of any level narrows what may be used, and so the number of threads."""
    files = {
        "proc/cpuinfo": "".join(arm(c, 0xD08) for c in range(4)),
        "proc/self/cgroup": "0::/a/b\n",
        "proc/self/mountinfo": "30 1 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        "sys/fs/cgroup/a/cpuset.cpus": "1-2\n",
        "sys/fs/cgroup/a/b/cpu.max": "150000 100000\n",
    }
    profile = hardware.profile(tree(tmp_path, files))
    assert profile.cpu.online == (0, 1, 2, 3)
    assert profile.cpu.usable == (1, 2)
    assert profile.cpu.quota_cpus == pytest.approx(1.5)
    assert profile.usable_threads == 1


@pytest.mark.parametrize(
    ("line", "more", "expected"),
    [
        ("rv64imafdcv_zicbom_zve64d_zvfh", "", True),
        ("rv64imafdcvsu", "", False),
        ("rv64imafdcvsu", "cpu-vector\t: 0.7.1", False),
        ("rv64imafdcv", "uarch\t: thead,c910", False),
        ("rv64imafdcv_zve32f_zvl128b", "uarch\t: thead,c920", True),
        ("rv64imafdcv", "mvendorid\t: 0x5b7\nmarchid\t: 0x0", False),
        ("rv64imafdcv", "mvendorid\t: 0x5b7\nmarchid\t: 0x8d143000", True),
        ("rv64imafdcv", "uarch\t: spacemit,x60", True),
        ("rv64gcv", "", True),
        ("RV64IMAFDCV", "", True),
        ("rv64i2p1m2p0a2p1f2p2d2p2c2p0v1p0", "", True),
        ("rv64i2p1m2p0a2p1f2p2d2p2c2p0v0p7", "", False),
        ("rv64imafdc_zve32x", "", False),
        ("rv64imafdc_zicsr_xtheadvector", "", False),
        ("rv64imafdcsu", "", False),
        ("rv64imafdch_zvkt", "", False),
        ("rv64imafdc_svinval", "", False),
        ("nonsense", "", None),
    ],
)
def test_risc_v_vectors(line: str, more: str, expected: bool | None) -> None:  # noqa: FBT001
    """Only the ratified vector extension counts: a `v` may be the draft, and other letters may hold one."""
    info = parse_cpuinfo(f"processor\t: 0\nisa\t: {line}\n{more}\n")
    assert cpu_riscv.has_vectors(info, 0) is expected


def test_one_hart_without_vectors(tmp_path: Path) -> None:
    """`isa` is what all have, `hart isa` what one has; kinds and features go by the latter."""
    text = "processor : 0\nisa : rv64imafdc\nhart isa : rv64imafdcv_zve64d\n\n"
    text += "processor : 1\nisa : rv64imafdc\nhart isa : rv64imafdc\n\n"
    profile = hardware.profile(tree(tmp_path, {"proc/cpuinfo": text}))
    assert profile.isa == "riscv64"
    assert profile.cpu.features == {"rvv": False}
    assert len(profile.cpu.clusters) == 2


@pytest.mark.parametrize(
    ("text", "name", "isa_name"),
    [
        (
            "vendor_id : IBM/S390\nfeatures : esan3 vx\nprocessor 0: version = FF,  machine = 8561\n",
            "machine type 8561",
            "s390x",
        ),
        (
            "processor : 0\ncpu : POWER9 (architected), altivec supported\nrevision : 2.2\n",
            "POWER9 (architected)",
            None,
        ),
        ("system type : MT7621\nprocessor : 0\ncpu model : MIPS 1004Kc V2.15\n", "MIPS 1004Kc V2.15", None),
        (
            "processor : 0\nvendor_id :   Shanghai  \nmodel name : ZHAOXIN\nflags : fpu lm\nwp : yes\n",
            "ZHAOXIN",
            "x86_64",
        ),
    ],
)
def test_other_architectures(tmp_path: Path, text: str, name: str, isa_name: str | None) -> None:
    """Processors we know little of have a name; where the text leaves the byte order open, so do we."""
    profile = hardware.profile(tree(tmp_path, {"proc/cpuinfo": text}))
    assert [cluster.name for cluster in profile.cpu.clusters] == [name]
    assert profile.isa == isa_name
    assert ("isa" in profile.unknown) == (isa_name is None)


def test_paragraphs_and_lists() -> None:
    """Both forms of /proc/cpuinfo, `Processor` beside `processor`, and Windows line ends."""
    info = parse_cpuinfo(
        "Processor : ARMv7\nprocessor : 0\nBogoMIPS : 1\n\nprocessor : 1\nBogoMIPS : 2\n\nFeatures : neon\n"
    )
    assert list(info.cpus) == [0, 1]
    assert (info.of(1, "BogoMIPS"), info.of(1, "Features")) == ("2", "neon")
    info = parse_cpuinfo("processor : 0\nprocessor : 1\nprocessor : 2\nCPU part : 0xd03\n")
    assert info.common == {"CPU part": "0xd03"}
    info = parse_cpuinfo("processor : 0\nProcessor : x\nmodel name : y\nprocessor : 0\nmodel name : z\n")
    assert info.of(0, "model name") == "y"


def test_a_single_cpu_without_number() -> None:
    """Kernels for one CPU give it no number; it is CPU 0, and the one part is its own."""
    info = parse_cpuinfo("Processor : ARMv6\nFeatures : half\nCPU implementer : 0x41\nCPU part : 0xb76\n")
    assert info.cpus == {}
    assert info.anywhere("CPU part") == "0xb76"


def test_sysfs_knows_what_cpuinfo_leaves_out(tmp_path: Path) -> None:
    """Offline CPUs are not in cpuinfo; an online list that is no list leaves it to cpuinfo."""
    files = {"proc/cpuinfo": arm(0, 0xD03) + arm(3, 0xD03), f"{CPU}/online": "junk", f"{CPU}/present": "0-3"}
    profile = hardware.profile(tree(tmp_path, files))
    assert (profile.cpu.online, profile.cpu.offline) == ((0, 3), (1, 2))


def test_nothing_to_read(tmp_path: Path) -> None:
    """An empty tree knows nothing, says why, and one thread is always possible."""
    profile = hardware.profile(tmp_path)
    assert (profile.isa, profile.cpu.online, profile.cpu.usable, profile.cpu.clusters) == (
        None,
        None,
        None,
        (),
    )
    assert {"isa", "cpu.online", "cpu.usable", "cpu.features", "cpu.clusters"} <= set(profile.unknown)
    assert (profile.isa_path, profile.usable_threads) == ("unknown", 1)


@pytest.mark.parametrize(
    ("text", "kib"),
    [
        ("32K", 32),
        ("24576K", 24576),
        ("12M", 12288),
        ("1G", 1048576),
        ("65536", 64),
        ("", None),
        ("0K", None),
        ("xK", None),
    ],
)
def test_cache_sizes(text: str, kib: int | None) -> None:
    """Sizes in the kernel's units become KiB."""
    assert parse_size_kib(text) == kib


def test_register_fields() -> None:
    """MIDR_EL1 splits into implementer, variant, part and revision; the revision makes no other design."""
    midr = Midr.from_register(0x410FD083)
    assert (midr.implementer, midr.part, midr.variant, midr.revision) == (0x41, 0xD08, 0, 3)
    assert (midr.vendor, midr.name, midr.efficiency) == ("ARM", "Cortex-A72", False)
    assert midr == Midr(0x41, 0xD08, 0, 1)
    assert Midr(0x99, 1).efficiency is None
    assert from_compatible("arm,cortex-a53") == Midr(0x41, 0xD03)
    assert from_compatible("arm,armv8") is None


LINES = st.sampled_from(
    [
        "processor",
        "Processor",
        "Features",
        "CPU part",
        "CPU implementer",
        "flags",
        "isa",
        "model name",
        "vendor_id",
        "",
        "Hardware",
    ]
)
VALUES = st.one_of(
    st.text(max_size=20), st.integers(-3, 20).map(str), st.sampled_from(["0x41", "0xd03", "rv64imafdcv", A64])
)


@given(st.lists(st.tuples(LINES, st.sampled_from([":", "\t: ", "", " "]), VALUES), max_size=30))
def test_any_cpuinfo(rows: list[tuple[str, str, str]]) -> None:
    """No text makes the reader raise, and CPU numbers stay possible ones."""
    info = parse_cpuinfo("\n".join("".join(row) for row in rows))
    assert isinstance(info, CpuInfo)
    assert all(0 <= cpu < 16_384 for cpu in info.cpus)
    isa.from_cpuinfo(info)
    for cpu in info.cpus:
        assert cpu_riscv.has_vectors(info, cpu) in {True, False, None}
