"""Containers and virtual machines."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import needs
import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from hardware import virtual
from hardware.sysfs import Root

X86 = "flags\t\t: fpu sse2\n"
GUEST = "flags\t\t: fpu sse2 hypervisor\n"
DMI = "sys/class/dmi/id"
TREE = "sys/firmware/devicetree/base"
CLOCK = "sys/devices/system/clocksource/clocksource0/available_clocksource"


@pytest.mark.parametrize(
    ("files", "container"),
    [
        ({"run/x": ""}, None),
        ({".dockerenv": "", "run/x": ""}, "docker"),
        ({"run/.containerenv": ""}, "podman"),
        ({"run/systemd/container": "lxc\n"}, "lxc"),
        ({"run/host/container-manager": "oci\n", ".dockerenv": ""}, "docker"),
        ({"run/host/container-manager": "oci\n"}, "container-other"),
        ({"run/systemd/container": "my own\n"}, "container-other"),
        ({"proc/1/environ": "A=b\0container=podman\0"}, "podman"),
        ({"proc/vz/veinfo": ""}, "openvz"),
        ({"proc/vz/veinfo": "", "proc/bc/x": "", "run/x": ""}, None),
        ({"proc/sys/kernel/osrelease": "5.15.90.1-microsoft-standard-WSL2\n"}, "wsl"),
        ({"proc/1/cgroup": "5:memory:/docker/0123456789abcdef\n"}, "docker"),
        ({"proc/1/cgroup": "0::/init.scope\n"}, None),
        ({"proc/1/cgroup": "4:cpu:/kubepods/burstable/pod1\n"}, "container-other"),
    ],
)
def test_container(tmp_path: Path, files: dict[str, str], container: str | None) -> None:
    """What a manager leaves behind names it; a host has none of it."""
    found, unknown = virtual.probe(trees.make(tmp_path, files))
    assert found.container == container
    assert "container" not in unknown


@pytest.mark.parametrize(
    ("files", "machine"),
    [
        ({"proc/cpuinfo": X86}, None),
        ({"proc/cpuinfo": GUEST}, "vm-other"),
        ({"proc/cpuinfo": GUEST, CLOCK: "tsc kvm-clock\n"}, "kvm"),
        ({"proc/cpuinfo": GUEST, f"{DMI}/sys_vendor": "QEMU\n", CLOCK: "kvm-clock\n"}, "kvm"),
        ({"proc/cpuinfo": GUEST, f"{DMI}/sys_vendor": "QEMU\n"}, "qemu"),
        ({"proc/cpuinfo": GUEST, f"{DMI}/sys_vendor": "VMware, Inc.\n"}, "vmware"),
        ({"proc/cpuinfo": GUEST, f"{DMI}/bios_vendor": "innotek GmbH\n"}, "oracle"),
        ({"proc/cpuinfo": X86, f"{DMI}/sys_vendor": "Oracle Corporation\n"}, None),
        ({f"{DMI}/product_name": "Virtual Machine\n", f"{DMI}/sys_vendor": "Microsoft Corporation\n"}, "microsoft"),
        ({f"{DMI}/product_name": "Surface\n", f"{DMI}/sys_vendor": "Microsoft Corporation\n"}, None),
        ({f"{DMI}/product_name": "c7g.metal\n", f"{DMI}/sys_vendor": "Amazon EC2\n"}, None),
        ({f"{DMI}/product_name": "c7g.large\n", f"{DMI}/sys_vendor": "Amazon EC2\n"}, "amazon"),
        ({"proc/cpuinfo": GUEST, "sys/hypervisor/type": "xen\n"}, "xen"),
        ({"proc/cpuinfo": GUEST, "proc/xen/capabilities": "control_d\n"}, None),
        ({f"{TREE}/hypervisor/compatible": "linux,kvm\0"}, "kvm"),
        ({f"{TREE}/hypervisor/compatible": "gunyah-hypervisor-1.0\0gunyah-hypervisor\0"}, None),
        ({f"{TREE}/fw-cfg@9020000/reg": ""}, "qemu"),
        ({f"{TREE}/compatible": "linux,dummy-virt\0"}, "qemu"),
        ({f"{TREE}/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0"}, None),
        ({"proc/sysinfo": "VM00 Control Program: z/VM 6.4.0\n"}, "zvm"),
    ],
)
def test_virtual_machine(tmp_path: Path, files: dict[str, str], machine: str | None) -> None:
    """Flags, DMI, Xen's files and the device tree tell; a machine of metal is known to be one."""
    found, unknown = virtual.probe(trees.make(tmp_path, files))
    assert found.virtual_machine == machine
    assert "virtual_machine" not in unknown


def test_virtio_on_arm_is_a_virtual_machine(tmp_path: Path) -> None:
    """Arm has no flag; a virtio device (through a link of sysfs that became a file) tells all the same."""
    root = trees.make(
        tmp_path,
        {"sys/bus/pci/devices/0000:00:01.0": "../../../devices/pci0/1", "sys/devices/pci0/1/vendor": "0x1af4\n"},
    )
    assert virtual.probe(root)[0].virtual_machine == "vm-other"


def test_nothing_to_tell_is_unknown(tmp_path: Path) -> None:
    """An Arm cpuinfo alone proves neither."""
    found, unknown = virtual.probe(trees.make(tmp_path, {"proc/cpuinfo": "Features : asimd\n"}))
    assert (found.container, found.virtual_machine) == (None, None)
    assert set(unknown) == {"container", "virtual_machine"}


@pytest.mark.parametrize("question", ["--container", "--vm"])
def test_agrees_with_systemd(question: str) -> None:
    """systemd-detect-virt says the same of the machine that the test runs on."""
    tool = needs.tool("systemd-detect-virt")
    said = subprocess.run([tool, question], capture_output=True, text=True, check=False).stdout.strip()
    found, unknown = virtual.probe(Root("/"))
    answer = found.container if question == "--container" else found.virtual_machine
    key = "container" if question == "--container" else "virtual_machine"
    assert key in unknown or (answer or "none") == said


@given(st.binary(max_size=200))
def test_no_bytes_raise(data: bytes) -> None:
    """Any bytes in the files that tell."""
    names = ("proc/cpuinfo", "proc/1/environ", "proc/1/cgroup", "run/systemd/container", f"{DMI}/sys_vendor")
    with tempfile.TemporaryDirectory() as folder:
        virtual.probe(trees.make(Path(folder), dict.fromkeys(names, data)))
