"""Accelerators: what is there, what the kernel offers of it, and what an installed onnxruntime can use.

These are three facts, and only the third makes an accelerator `usable`. A device is known by the identity on
its bus, by the driver that holds it, or by its node in the device tree; never by its PCI class alone (QEMU's
test device has that of an accelerator) nor by the name of the board alone: what only the board file knows is
listed as not offered by this kernel.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from hardware.devices import compatibles, devices, driver, follow, read_hex, uevent
from hardware.schema import Accelerator
from hardware.sysfs import clean

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hardware.boards import BoardFacts
    from hardware.sysfs import Root

_TREES = ("sys/firmware/devicetree/base", "proc/device-tree")
_DISPLAY = 0x03  # PCI base class


class Family(NamedTuple):
    """What all devices of one make have in common."""

    kind: str
    drivers: tuple[str, ...]
    """The kernel drivers through which the device computes; another one bound to it only shows pictures."""
    nodes: tuple[str, ...]
    """Patterns of the nodes in /dev, the best first."""
    providers: tuple[str, ...]
    """The onnxruntime execution providers that can use it."""


FAMILIES = {
    "nvidia": Family(
        "gpu",
        ("nvidia",),
        ("nvidia[0-9]*",),
        ("TensorrtExecutionProvider", "NvTensorRTRTXExecutionProvider", "CUDAExecutionProvider"),
    ),
    "tegra-gpu": Family(
        "gpu",
        ("nvgpu", "gk20a", "gv11b", "gp10b", "ga10b", "nvidia"),
        ("nvgpu/igpu0/ctrl", "nvhost-gpu", "nvidia[0-9]*", "nvhost-ctrl-gpu"),
        ("TensorrtExecutionProvider", "CUDAExecutionProvider"),
    ),
    "intel-gpu": Family("gpu", ("i915", "xe"), (), ("OpenVINOExecutionProvider",)),
    "amd-gpu": Family("gpu", ("amdgpu",), (), ("MIGraphXExecutionProvider", "ROCMExecutionProvider")),
    "intel-npu": Family("npu", ("intel_vpu",), (), ("OpenVINOExecutionProvider",)),
    "xdna": Family("npu", ("amdxdna",), (), ("VitisAIExecutionProvider",)),
    "rknpu": Family("npu", ("RKNPU", "rocket"), ("rknpu",), ("RknpuExecutionProvider",)),
    "hailo": Family("npu", ("hailo", "hailo1x"), ("hailo[0-9]*", "h1x-[0-9]*"), ("HailoExecutionProvider",)),
    "coral": Family("tpu", ("apex",), ("apex_[0-9]*",), ()),
    "coral-usb": Family("tpu", (), (), ()),
    "myriad": Family("npu", (), (), ()),
    "hexagon": Family(
        "npu",
        ("qcom,fastrpc", "fastrpc"),
        ("fastrpc-cdsp", "fastrpc-cdsp-secure", "adsprpc-smd", "fastrpc-adsp"),
        ("QNNExecutionProvider",),
    ),
    "vip": Family("npu", ("galcore", "vipcore", "etnaviv"), ("vipcore", "galcore"), ("VSINPUExecutionProvider",)),
    "zhouyi": Family("npu", ("armchina-npu", "aipu"), ("aipu",), ()),
    "ethos-u": Family("npu", ("ethosu",), ("ethosu[0-9]*",), ()),
    "c7x": Family("npu", (), (), ()),
    "ascend": Family("npu", ("devdrv_device_driver",), ("davinci[0-9]*",), ("CANNExecutionProvider",)),
    "sophon": Family("tpu", ("bmsophon",), ("bm-sophon[0-9]*",), ()),
    "axcl": Family("npu", ("axcl_host",), ("axcl_host",), ()),
    "memryx": Family("npu", ("memx",), ("memx[0-9]*",), ()),
    "wsl-gpu": Family("gpu", ("dxgkrnl",), ("dxg",), ("TensorrtExecutionProvider", "CUDAExecutionProvider")),
    "accel": Family("npu", (), (), ()),
}
# Vendor and device on the PCI bus; display controllers of three makers are taken by their class as well.
_PCI = {
    (0x1E60, 0x2864): ("hailo", "Hailo-8 or Hailo-8L"),  # one number for both
    (0x1E60, 0x45C4): ("hailo", "Hailo-10H"),
    (0x1E60, 0x43A2): ("hailo", "Hailo-15L"),
    (0x1E60, 0x26A2): ("hailo", "Hailo Mars"),
    (0x1AC1, 0x089A): ("coral", "Coral Edge TPU"),
    (0x1022, 0x1502): ("xdna", "AMD XDNA NPU"),
    (0x1022, 0x17F0): ("xdna", "AMD XDNA NPU"),
    (0x8086, 0x7D1D): ("intel-npu", "Intel NPU"),
    (0x8086, 0xAD1D): ("intel-npu", "Intel NPU"),
    (0x8086, 0x643E): ("intel-npu", "Intel NPU"),
    (0x8086, 0xB03E): ("intel-npu", "Intel NPU"),
}
_PCI_DISPLAYS = {
    0x10DE: ("nvidia", "NVIDIA GPU"),
    0x8086: ("intel-gpu", "Intel GPU"),
    0x1002: ("amd-gpu", "AMD GPU"),
}
_PCI_DRIVERS = {
    "intel_vpu": ("intel-npu", "Intel NPU"),
    "amdxdna": ("xdna", "AMD XDNA NPU"),
    "hailo": ("hailo", "Hailo"),
    "hailo1x": ("hailo", "Hailo"),
    "apex": ("coral", "Coral Edge TPU"),
}
_USB = {
    (0x1A6E, 0x089A): ("coral-usb", "Coral USB Accelerator"),  # before its firmware is loaded
    (0x18D1, 0x9302): ("coral-usb", "Coral USB Accelerator"),
    (0x03E7, 0x2485): ("myriad", "Intel Movidius Myriad X"),
}
# Device-tree strings of the accelerator itself.
_TREE_STRINGS = (
    (
        re.compile(r"rockchip,(?:rk|rv)[0-9]+[a-z]*-(?:rknpu|rknn-core|npu)|rockchip,(?:rknpu|npu)"),
        "rknpu",
        "Rockchip NPU",
    ),
    (re.compile(r"arm,ethos-?u[0-9]*|fsl,imx9[0-9]-npu"), "ethos-u", "Arm Ethos-U"),
    (re.compile(r"armchina,zhouyi.*"), "zhouyi", "Arm China Zhouyi NPU"),
    (
        re.compile(r"qcom,[a-z0-9]+-cdsp-pas|qcom,fastrpc|qcom,msm-fastrpc-compute"),
        "hexagon",
        "Qualcomm Hexagon",
    ),
    (re.compile(r"nvidia,(?:gk20a|gm20b|gp10b|gv11b|ga10b)"), "tegra-gpu", "NVIDIA Tegra GPU"),
    (re.compile(r"amlogic, ?npu|verisilicon,npu|allwinner,npu|vivante,vip|fsl,imx8-vipsi"), "vip", "VeriSilicon VIP"),
)
_TREE_NAMES = re.compile(
    r"(?:npu|rknn|gpu|ethosu?|vipsi|cdsp|remoteproc|dsp|fastrpc)[^/]*(?:@[0-9a-f]+)?", re.IGNORECASE
)
# Chips that all have the part; a chip sold with parts switched off (RK3588 as RK3582) is not among them.
_SOCS = (
    (re.compile(r"rockchip,rk35(?:62|66|68|76)"), "rknpu", "Rockchip NPU"),
    (re.compile(r"nvidia,tegra(?:124|132|210|186|194|234|264)"), "tegra-gpu", "NVIDIA Tegra GPU"),
)
_FAMILY_NAMES = {
    "ascend": "Huawei Ascend",
    "sophon": "Sophgo TPU",
    "axcl": "AXERA NPU",
    "memryx": "MemryX MX3",
}


class _Found(NamedTuple):
    family: str
    name: str
    path: str | None = None
    """Its sysfs folder, if it has one."""
    driver: str | None = None
    node: str | None = None
    absent: str | None = None
    """Why it can't even be reached, where nothing but this is known."""


def probe(
    root: Root, board: BoardFacts | None = None, providers: Sequence[str] | None = None
) -> tuple[tuple[Accelerator, ...], dict[str, str]]:
    """Return the accelerators of the machine.

    `providers` are those of the installed onnxruntime (`onnxruntime.get_available_providers()`); None means
    that nobody asked it, and then nothing counts as usable. `board` adds what the board file knows of.
    """
    found = [*_pci(root), *_usb(root), *_rockchip(root), *_hexagon(root)]
    seen = {item.family for item in found}
    for item in (*_accel_class(root), *_device_tree(root), *_nodes(root), *_wsl(root)):
        if item.family not in seen:
            seen.add(item.family)
            found.append(item)
    for extra in board.accelerators if board is not None else ():
        if extra.family not in seen and extra.family in FAMILIES and not extra.optional:
            seen.add(extra.family)
            found.append(
                _Found(extra.family, extra.name, absent="the board has it, but this kernel offers nothing of it")
            )
    return tuple(_judge(root, item, providers) for item in found), {}


def _judge(root: Root, item: _Found, providers: Sequence[str] | None) -> Accelerator:
    """Return the finding with its verdict: driver, node, permission and provider must all be there."""
    family = FAMILIES[item.family]
    usable, why = False, item.absent
    if why is None and family.drivers and item.driver is None and item.node is None:
        why = f"no kernel driver holds it (needs {' or '.join(family.drivers)})"
    if why is None and family.drivers and item.driver is not None and item.driver not in family.drivers:
        why = f"the driver {item.driver} doesn't compute with it (needs {' or '.join(family.drivers)})"
    if why is None and item.node is None:
        why = "its driver offers no device node"
    if why is None and root.live and item.node is not None and not os.access(item.node, os.R_OK | os.W_OK):
        why = f"{item.node} may not be opened by this user"
    if why is None and not family.providers:
        why = "no onnxruntime provider exists for it"
    if why is None and providers is None:
        why = "not known to be usable: onnxruntime was not asked for its providers"
    if why is None:
        installed = [name for name in family.providers if name in (providers or ())]
        usable = bool(installed)
        why = (
            f"the installed onnxruntime has {installed[0]}"
            if usable
            else f"the installed onnxruntime has no {' or '.join(family.providers)}"
        )
    return Accelerator(family.kind, item.name, item.driver, item.node, usable, why)


def _pci(root: Root) -> Iterator[_Found]:
    used: dict[str, int] = {}
    for device in devices(root, "sys/bus/pci/devices"):
        vendor, number = read_hex(root, f"{device.path}/vendor"), read_hex(root, f"{device.path}/device")
        if vendor is None or number is None:
            continue
        bound = driver(root, device.path)
        known = _PCI.get((vendor, number)) or _PCI_DRIVERS.get(bound or "")
        if known is None:
            pci_class = read_hex(root, f"{device.path}/class")
            if vendor not in _PCI_DISPLAYS or pci_class is None or pci_class >> 16 != _DISPLAY:
                continue
            known = _PCI_DISPLAYS[vendor]
        family, name = known
        node = _own_node(root, device.path)
        model = None
        if family == "nvidia":
            model, node = _nvidia(root, device.name, used.get(family, 0), bound)
        elif FAMILIES[family].nodes:
            node = node or _nth_node(root, family, used.get(family, 0))
        used[family] = used.get(family, 0) + 1
        label = model or (name if (vendor, number) in _PCI else f"{name} {vendor:04x}:{number:04x}")
        yield _Found(family, label, device.path, bound, node)


def _nvidia(root: Root, address: str, nth: int, bound: str | None) -> tuple[str | None, str | None]:
    """Return the model and node of an NVIDIA card, from what its own driver tells."""
    text = root.read_text(f"proc/driver/nvidia/gpus/{address}/information", 16 * 1024) or ""
    fields = dict(re.findall(r"^([A-Za-z ]+):\s*(.*?)\s*$", text, re.MULTILINE))
    minor = fields.get("Device Minor")
    if minor is not None and re.fullmatch(r"[0-9]{1,3}", minor) and root.exists(f"dev/nvidia{minor}"):
        node: str | None = f"/dev/nvidia{minor}"
    else:
        node = _nth_node(root, "nvidia", nth) if bound in {None, "nvidia"} else None
    model = clean(fields.get("Model", ""), 128)
    return (model or None), node


def _own_node(root: Root, path: str) -> str | None:
    """Return the node that a device's driver made below it (/dev/accel/accel0, /dev/dri/renderD128)."""
    for folder, prefix, base in (
        ("accel", "accel", "accel/"),
        ("drm", "renderD", "dri/"),
        ("apex", "apex_", ""),
        ("hailo_chardev", "hailo", ""),
        ("hailo1x", "h1x-", ""),
    ):
        for name in root.listdir(f"{path}/{folder}"):
            if name.startswith(prefix):
                return f"/dev/{base}{clean(name)}"
    return None


def _nth_node(root: Root, family: str, nth: int) -> str | None:
    nodes = [path for pattern in FAMILIES[family].nodes for path in root.glob(f"dev/{pattern}")]
    return f"/{nodes[nth]}" if nth < len(nodes) else None


def _usb(root: Root) -> Iterator[_Found]:
    for device in devices(root, "sys/bus/usb/devices"):
        ids = read_hex(root, f"{device.path}/idVendor"), read_hex(root, f"{device.path}/idProduct")
        known = _USB.get(ids) if None not in ids else None  # type: ignore[arg-type]
        if known is None:
            continue
        bus, number = root.read_int(f"{device.path}/busnum"), root.read_int(f"{device.path}/devnum")
        node = None if bus is None or number is None else f"/dev/bus/usb/{bus:03d}/{number:03d}"
        yield _Found(known[0], known[1], device.path, driver(root, device.path), node)


def _rockchip(root: Root) -> Iterator[_Found]:
    """Yield Rockchip's NPU by its vendor driver: a render node or /dev/rknpu, as configured."""
    for device in devices(root, "sys/class/drm", "renderD"):
        parent = follow(root, f"{device.path}/device")
        strings = compatibles(root, parent)
        if driver(root, parent) == "RKNPU" or any("rknpu" in string for string in strings):
            yield _Found("rknpu", "Rockchip NPU", parent, driver(root, parent) or "RKNPU", f"/dev/dri/{device.name}")
            return
    if root.exists("dev/rknpu"):
        yield _Found("rknpu", "Rockchip NPU", None, "RKNPU", "/dev/rknpu")


def _accel_class(root: Root) -> Iterator[_Found]:
    """Yield the devices of the kernel's own accel subsystem, where only devices that compute are."""
    known = {"rocket": ("rknpu", "Rockchip NPU"), "ethosu": ("ethos-u", "Arm Ethos-U"), **_PCI_DRIVERS}
    for device in devices(root, "sys/class/accel", "accel"):
        bound = driver(root, follow(root, f"{device.path}/device"))
        if bound is not None:
            family, name = known.get(bound, ("accel", f"compute accelerator of the driver {bound}"))
            yield _Found(family, name, device.path, bound, f"/dev/accel/{clean(device.name)}")


def _wsl(root: Root) -> Iterator[_Found]:
    """Yield the GPU that Windows lends to its Linux: no PCI device of a known maker, but a node of its own."""
    if root.exists("dev/dxg"):
        absent = None if root.glob("usr/lib/wsl/lib/libcuda.so*") else "Windows offers no NVIDIA GPU here, only others"
        yield _Found("wsl-gpu", "GPU of the Windows host", None, "dxgkrnl", "/dev/dxg", absent)


def _hexagon(root: Root) -> Iterator[_Found]:
    """Yield Qualcomm's compute DSP: a remote processor that the kernel offers through FastRPC."""
    names = {root.read_value(f"{device.path}/name") for device in devices(root, "sys/class/remoteproc")}
    node = _nth_node(root, "hexagon", 0)
    if node is not None or "cdsp" in names:
        yield _Found("hexagon", "Qualcomm Hexagon", None, "fastrpc" if node is not None else None, node)


def _device_tree(root: Root) -> Iterator[_Found]:
    """Yield what the device tree describes: at its top, or one level down on the SoC's bus."""
    base = next((path for path in _TREES if root.is_dir(path)), None)
    if base is None:
        return
    top = root.listdir(base)
    folders = [
        base,
        *(f"{base}/{name}" for name in top if name.split("@")[0] in {"soc", "axi", "bus", "soc0"}),
    ]
    for folder in folders:
        for name in top if folder == base else root.listdir(folder):
            if not _TREE_NAMES.fullmatch(name):
                continue
            if (root.read_value(f"{folder}/{name}/status") or "okay") not in {"okay", "ok"}:
                continue
            yield from _described(root, root.read_strings(f"{folder}/{name}/compatible") or ())
    for pattern, family, name in _SOCS:
        for string in root.read_strings(f"{base}/compatible") or ():
            if pattern.fullmatch(string):
                yield _in_tree(root, family, name)
                break


def _described(root: Root, strings: Sequence[str]) -> Iterator[_Found]:
    for pattern, family, name in _TREE_STRINGS:
        if any(pattern.fullmatch(string) for string in strings):
            yield _in_tree(root, family, name)


def _in_tree(root: Root, family: str, name: str) -> _Found:
    node = _nth_node(root, family, 0)
    bound = _platform_driver(root, family)
    absent = None
    if node is None and bound is None:
        drivers = " or ".join(FAMILIES[family].drivers)
        absent = f"the device tree has it, but this kernel has no driver for it ({drivers})"
    return _Found(family, name, None, bound, node, absent)


def _platform_driver(root: Root, family: str) -> str | None:
    for name in FAMILIES[family].drivers:
        folder = f"sys/bus/platform/drivers/{name}"
        if any(entry not in {"bind", "unbind", "uevent", "module"} for entry in root.listdir(folder)):
            return name
    # Without the vendor's driver the GPU of a Tegra may belong to nouveau, which shows pictures.
    if family == "tegra-gpu":
        for device in devices(root, "sys/class/drm", "renderD"):
            values = uevent(root, follow(root, f"{device.path}/device"))
            if values.get("DRIVER") == "nouveau":
                return "nouveau"
    return None


def _nodes(root: Root) -> Iterator[_Found]:
    """Yield cards that only their own node gives away."""
    for family, name in _FAMILY_NAMES.items():
        node = _nth_node(root, family, 0)
        if node is not None:
            yield _Found(family, name, None, None, node)
