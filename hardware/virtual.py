"""Container and virtual machine, in the words of systemd-detect-virt(1)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hardware.devices import devices, read_hex
from hardware.schema import Virtual
from hardware.sysfs import clean

if TYPE_CHECKING:
    from hardware.sysfs import Root

_CONTAINERS = frozenset(
    {"systemd-nspawn", "lxc-libvirt", "lxc", "openvz", "docker", "podman", "rkt", "wsl", "proot", "pouch"}
)
# The cgroup of process 1, where the host's own init has "/" or "/init.scope".
_CONTAINER_CGROUPS = (
    (re.compile(r"/libpod-|/libpod_parent"), "podman"),
    (re.compile(r"/lxc/|/lxc\.payload"), "lxc"),
    (re.compile(r"/machine\.slice/systemd-nspawn|/machine\.slice/machine-"), "systemd-nspawn"),
    (re.compile(r"/docker/|/docker-[0-9a-f]{12,}"), "docker"),
    (re.compile(r"/kubepods|/cri-containerd|/crio-|/garden/|/ecs/|/actions_job/"), "container-other"),
)
# First match wins. What a maker writes into DMI for its hypervisor.
_DMI_FILES = ("product_name", "sys_vendor", "board_vendor", "bios_vendor", "product_version")
_DMI = (
    ("KVM", "kvm"),
    ("OpenStack", "kvm"),
    ("KubeVirt", "kvm"),
    ("Amazon EC2", "amazon"),
    ("QEMU", "qemu"),
    ("VMware", "vmware"),
    ("VMW", "vmware"),
    ("innotek GmbH", "oracle"),
    ("VirtualBox", "oracle"),
    ("Oracle Corporation", "oracle"),
    ("Xen", "xen"),
    ("Bochs", "bochs"),
    ("Parallels", "parallels"),
    ("BHYVE", "bhyve"),
    ("Hyper-V", "microsoft"),
    ("Apple Virtualization", "apple"),
    ("Google Compute Engine", "google"),
)
_BARE_DMI = re.compile(r"Oracle Corporation")  # a server maker too: only with the hypervisor flag
_CLOCKS = (("kvm-clock", "kvm"), ("hyperv_clocksource", "microsoft"), ("xen", "xen"))
_TREE_HYPERVISORS = (("linux,kvm", "kvm"), ("xen", "xen"), ("vmware", "vmware"))
_VIRTIO = 0x1AF4
# The machine's own namespaces have fixed numbers (Linux, include/linux/proc_ns.h).
_FIRST_NAMESPACES = (("pid", 4026531836), ("cgroup", 4026531835))


def probe(root: Root, pid: str = "1") -> tuple[Virtual, dict[str, str]]:
    """Return what stands between us and the metal, and the reasons for what nothing could tell.

    None is "none". `pid` is the first process, whose environment tells of a container.
    """
    unknown: dict[str, str] = {}
    container = _container(root, pid)
    if container is None and not (root.is_dir("run") or root.is_dir(f"proc/{pid}")):
        unknown["container"] = f"neither /run nor /proc/{pid} is there to tell of a container"
    machine, why = _virtual_machine(root)
    if why is not None:
        unknown["virtual_machine"] = why
    return Virtual(container, machine), unknown


def _container(root: Root, pid: str) -> str | None:
    if root.is_dir("proc/vz") and not root.is_dir("proc/bc"):
        return "openvz"
    release = root.read_value("proc/sys/kernel/osrelease") or ""
    if "microsoft" in release.lower() or "WSL" in release:
        return "wsl"
    name = _manager(root, pid)
    if name is not None and name != "oci":
        return name if name in _CONTAINERS else "container-other"
    for file, kind in (("run/.containerenv", "podman"), (".dockerenv", "docker")):
        if root.exists(file):
            return kind
    if name is not None:
        return "container-other"
    cgroup = root.read_text(f"proc/{pid}/cgroup", 64 * 1024) or ""
    named = next((kind for pattern, kind in _CONTAINER_CGROUPS if pattern.search(cgroup)), None)
    return named or ("container-other" if _is_fenced(root, pid) else None)


def _is_fenced(root: Root, pid: str) -> bool:
    """Whether something shows a container that no manager left a name for, as in a Kubernetes pod."""
    if root.is_dir("run/secrets/kubernetes.io") or root.is_dir("var/run/secrets/kubernetes.io"):
        return True
    for kind, first in _FIRST_NAMESPACES:
        namespace = root.readlink(f"proc/{pid}/ns/{kind}") or ""
        if namespace.startswith(f"{kind}:[") and namespace != f"{kind}:[{first}]":
            return True
    return False


def _manager(root: Root, pid: str) -> str | None:
    """Return the name that a container's manager left for those inside."""
    name = root.read_value("run/host/container-manager") or root.read_value("run/systemd/container")
    if name is None:
        for pair in (root.read_text(f"proc/{pid}/environ", 128 * 1024) or "").split("\0"):
            if pair.startswith("container="):
                name = pair.removeprefix("container=")
                break
    return clean(name, 64) or None if name else None


def _virtual_machine(root: Root) -> tuple[str | None, str | None]:
    """Return the hypervisor (None: none), and the reason if it can't be known."""
    cpuinfo = root.read_text("proc/cpuinfo", 256 * 1024) or ""  # the first CPUs tell
    flagged = re.search(r"^flags\s*:.*\bhypervisor\b", cpuinfo, re.MULTILINE) is not None
    kind = _named(root, cpuinfo, flagged=flagged)
    if kind == "dom0":
        return None, None
    if kind is None and (flagged or _has_virtio(root)):
        kind = "vm-other"
    # x86 processors carry the flag in every hypervisor; elsewhere firmware tells.
    if kind is not None or re.search(r"^flags\s*:", cpuinfo, re.MULTILINE):
        return kind, None
    if any(root.is_dir(path) for path in ("sys/class/dmi/id", "proc/device-tree", _TREE)):
        return None, None
    return None, "no flag of the processor, no DMI and no device tree is there to tell of a hypervisor"


def _named(root: Root, cpuinfo: str, *, flagged: bool) -> str | None:
    """Return the hypervisor that something names, "dom0" for the machine's owner under Xen, or None."""
    dmi = _dmi(root, flagged=flagged)
    # These makers' machines look like Xen or KVM from the inside, and their DMI names them.
    if dmi in {"oracle", "amazon", "parallels", "google", "apple"}:
        return dmi
    kind = _xen(root)
    if kind is None and re.search(r"^vendor_id\s*:\s*User Mode Linux", cpuinfo, re.MULTILINE):
        kind = "uml"
    kind = kind or _zvm(root) or _device_tree(root)
    if kind is None and dmi in {"qemu", None} and flagged:
        kind = _clock(root)  # QEMU with the kernel's help is KVM
    return kind or dmi


_TREE = "sys/firmware/devicetree/base"


def _dmi(root: Root, *, flagged: bool) -> str | None:
    base = "sys/class/dmi/id" if root.is_dir("sys/class/dmi/id") else "sys/devices/virtual/dmi/id"
    values = [root.read_value(f"{base}/{name}") or "" for name in _DMI_FILES]
    if values[0] == "Virtual Machine" and values[1] == "Microsoft Corporation":
        return "microsoft"
    for value in values:
        for prefix, kind in _DMI:
            if not value.startswith(prefix):
                continue
            if (_BARE_DMI.match(value) and not flagged) or (kind == "amazon" and _is_metal(values)):
                continue
            return kind
    return None


def _is_metal(values: list[str]) -> bool:
    return values[0].endswith((".metal",)) or ".metal-" in values[0]


def _xen(root: Root) -> str | None:
    capabilities = root.read_text("proc/xen/capabilities", 4096)
    if capabilities is not None and "control_d" in capabilities:
        return "dom0"
    if root.read_value("sys/hypervisor/type") == "xen":
        features = read_hex(root, "sys/hypervisor/properties/features")
        return "dom0" if features is not None and features >> 11 & 1 else "xen"
    return "xen" if root.is_dir("proc/xen") and capabilities is not None else None


def _zvm(root: Root) -> str | None:
    match = re.search(r"^VM00 Control Program:\s*(.*)", root.read_text("proc/sysinfo", 65536) or "", re.MULTILINE)
    if match is None:
        return None
    return "zvm" if match[1].startswith("z/VM") else "kvm"


def _device_tree(root: Root) -> str | None:
    base = "proc/device-tree" if root.is_dir("proc/device-tree") else _TREE
    for string in root.read_strings(f"{base}/hypervisor/compatible") or ():
        for prefix, kind in _TREE_HYPERVISORS:
            if string.startswith(prefix):
                return kind
        # Gunyah is firmware of Qualcomm's SoCs: the first system under it is the machine's owner.
        if "gunyah" not in string:
            return "vm-other"
    if root.exists(f"{base}/ibm,partition-name") and root.exists(f"{base}/hmc-managed?"):
        return "powervm"
    if any("fw-cfg" in name for name in root.listdir(base)):
        return "qemu"
    compatible = root.read_strings(f"{base}/compatible") or ()
    return "qemu" if {"qemu,pseries", "linux,dummy-virt", "riscv-virtio"} & set(compatible) else None


def _clock(root: Root) -> str | None:
    text = root.read_text("sys/devices/system/clocksource/clocksource0/available_clocksource", 4096) or ""
    return next((kind for clock, kind in _CLOCKS if clock in text), None)


def _has_virtio(root: Root) -> bool:
    return any(read_hex(root, f"{device.path}/vendor") == _VIRTIO for device in devices(root, "sys/bus/pci/devices"))
