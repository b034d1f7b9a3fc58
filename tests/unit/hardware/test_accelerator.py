"""Accelerators: there, offered by the kernel, usable: three facts."""

from __future__ import annotations

import tempfile
from pathlib import Path

import needs
import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from hardware import accelerator, boards
from hardware.sysfs import Root

PCI = "sys/bus/pci/devices/0000:01:00.0"
TREE = "sys/firmware/devicetree/base"


def pci(vendor: str, device: str, pci_class: str, bound: str | None = None, **more: str) -> dict[str, str]:
    """Return the files of one PCI device."""
    files = {f"{PCI}/vendor": vendor, f"{PCI}/device": device, f"{PCI}/class": pci_class}
    if bound is not None:
        files[f"{PCI}/driver"] = f"link:../../../../bus/pci/drivers/{bound}"
        files[f"sys/bus/pci/drivers/{bound}/bind"] = ""
    return files | {f"{PCI}/{rel}": text for rel, text in more.items()}


@pytest.mark.parametrize(
    ("files", "kind", "name", "driver", "node", "provider"),
    [
        (
            {**pci("0x10de", "0x2684", "0x030000", "nvidia"), "dev/nvidia0": ""},
            "gpu", "NVIDIA GPU 10de:2684", "nvidia", "/dev/nvidia0", "CUDAExecutionProvider",
        ),
        (
            pci("0x8086", "0x46a6", "0x030000", "i915", **{"drm/renderD128/uevent": ""}),
            "gpu", "Intel GPU 8086:46a6", "i915", "/dev/dri/renderD128", "OpenVINOExecutionProvider",
        ),
        (
            pci("0x1002", "0x1586", "0x038000", "amdgpu", **{"drm/renderD129/uevent": ""}),
            "gpu", "AMD GPU 1002:1586", "amdgpu", "/dev/dri/renderD129", "MIGraphXExecutionProvider",
        ),
        (
            pci("0x8086", "0x643e", "0x120000", "intel_vpu", **{"accel/accel0/uevent": ""}),
            "npu", "Intel NPU", "intel_vpu", "/dev/accel/accel0", "OpenVINOExecutionProvider",
        ),
        (
            pci("0x1022", "0x17f0", "0x118000", "amdxdna", **{"accel/accel0/uevent": ""}),
            "npu", "AMD XDNA NPU", "amdxdna", "/dev/accel/accel0", "VitisAIExecutionProvider",
        ),
        (
            {**pci("0x1e60", "0x2864", "0x120000", "hailo"), "dev/hailo0": ""},
            "npu", "Hailo-8 or Hailo-8L", "hailo", "/dev/hailo0", "HailoExecutionProvider",
        ),
        (
            {**pci("0x1e60", "0x45c4", "0x120000", "hailo1x"), "dev/h1x-0": ""},
            "npu", "Hailo-10H", "hailo1x", "/dev/h1x-0", "HailoExecutionProvider",
        ),
        (
            {"sys/class/drm/renderD129/device/uevent": "DRIVER=RKNPU\nOF_COMPATIBLE_0=rockchip,rk3576-rknpu\n"},
            "npu", "Rockchip NPU", "RKNPU", "/dev/dri/renderD129", "RknpuExecutionProvider",
        ),
        ({"dev/rknpu": ""}, "npu", "Rockchip NPU", "RKNPU", "/dev/rknpu", "RknpuExecutionProvider"),
        (
            {f"{TREE}/compatible": "nvidia,p3768-0000+p3767-0005\0nvidia,tegra234\0", "dev/nvhost-gpu": ""},
            "gpu", "NVIDIA Tegra GPU", None, "/dev/nvhost-gpu", "TensorrtExecutionProvider",
        ),
        (
            {"sys/class/remoteproc/remoteproc1/name": "cdsp\n", "dev/fastrpc-cdsp": ""},
            "npu", "Qualcomm Hexagon", "fastrpc", "/dev/fastrpc-cdsp", "QNNExecutionProvider",
        ),
    ],
)  # fmt: skip
def test_usable_only_with_its_provider(  # noqa: PLR0917 - the columns of the table
    tmp_path: Path, files: dict[str, str], kind: str, name: str, driver: str | None, node: str, provider: str
) -> None:
    """Each make is found; it is usable if, and only if, the installed onnxruntime has a provider for it."""
    root = trees.make(tmp_path, files)
    found, _ = accelerator.probe(root, providers=["CPUExecutionProvider", provider])
    assert [(a.kind, a.name, a.driver, a.node, a.usable) for a in found] == [(kind, name, driver, node, True)]
    without, _ = accelerator.probe(root, providers=["CPUExecutionProvider"])
    assert [a.usable for a in without] == [False]
    assert provider in (without[0].why or "")
    unasked, _ = accelerator.probe(root)
    assert [a.usable for a in unasked] == [False]
    assert "not asked" in (unasked[0].why or "")


@pytest.mark.parametrize(
    "files",
    [
        pci("0x1234", "0x11e8", "0x120000"),  # QEMU's test device
        pci("0x1af4", "0x1050", "0x030000"),  # a virtual display
        pci("0x1a03", "0x2000", "0x030000"),  # a server's management console
        pci("0x10de", "0x22ba", "0x040300"),  # the sound of an NVIDIA card
        pci("0x8086", "0x1533", "0x020000"),  # a network card
        {PCI + "/vendor": "junk", PCI + "/device": "0x1"},
        {f"{TREE}/compatible": "raspberrypi,5-model-b\0brcm,bcm2712\0", f"{TREE}/soc/gpu@1/compatible": "brcm,v3d\0"},
    ],
)
def test_a_class_alone_is_no_accelerator(tmp_path: Path, files: dict[str, str]) -> None:
    """Neither a PCI class nor a display makes an accelerator."""
    assert accelerator.probe(trees.make(tmp_path, files), providers=["CUDAExecutionProvider"])[0] == ()


@pytest.mark.parametrize(
    ("files", "why"),
    [
        (pci("0x10de", "0x15f8", "0x030200"), "no kernel driver"),
        (pci("0x10de", "0x15f8", "0x030200", "nouveau"), "nouveau doesn't compute"),
        (pci("0x10de", "0x15f8", "0x030200", "nvidia"), "no device node"),
        ({**pci("0x1ac1", "0x089a", "0x00ff00", "apex"), "dev/apex_0": ""}, "no onnxruntime provider exists"),
        ({f"{TREE}/npu@fdab0000/compatible": "rockchip,rk3588-rknpu\0"}, "device tree has it"),
        ({f"{TREE}/compatible": "some,board\0rockchip,rk3568\0"}, "device tree has it"),
    ],
)
def test_what_is_missing_is_said(tmp_path: Path, files: dict[str, str], why: str) -> None:
    """A device that can't be used says what it lacks, before anything about onnxruntime."""
    found, _ = accelerator.probe(trees.make(tmp_path, files), providers=["CUDAExecutionProvider"])
    assert [a.usable for a in found] == [False]
    assert why in (found[0].why or "")


def test_disabled_in_the_device_tree_is_not_there(tmp_path: Path) -> None:
    """A node whose status is not okay is silicon that this machine doesn't use."""
    node = f"{TREE}/npu@fdab0000"
    root = trees.make(tmp_path, {f"{node}/compatible": "rockchip,rk3588-rknpu\0", f"{node}/status": "disabled\0"})
    assert accelerator.probe(root)[0] == ()


def test_board_has_it_but_the_kernel_offers_nothing(tmp_path: Path) -> None:
    """The board file adds what is soldered on, not what is sold apart."""
    rock, _ = accelerator.probe(Root(tmp_path), boards.get("radxa-rock-5b"))
    assert [(a.kind, a.usable, a.node) for a in rock] == [("npu", False, None)]
    assert "this kernel offers nothing" in (rock[0].why or "")
    assert accelerator.probe(Root(tmp_path), boards.get("raspberry-pi-5"))[0] == ()


def test_board_and_driver_are_one_accelerator(tmp_path: Path) -> None:
    """The NPU of the board file is the one that the driver offers."""
    root = trees.make(tmp_path, {"dev/rknpu": "", f"{TREE}/compatible": "radxa,rock-5b\0rockchip,rk3588\0"})
    found, _ = accelerator.probe(root, boards.get("radxa-rock-5b"))
    assert [a.node for a in found] == ["/dev/rknpu"]


def test_coral_on_usb(tmp_path: Path) -> None:
    """A USB stick needs no driver, and has no provider."""
    base = "sys/bus/usb/devices/2-1"
    files = {"idVendor": "18d1\n", "idProduct": "9302\n", "busnum": "2\n", "devnum": "7\n"}
    found, _ = accelerator.probe(trees.make(tmp_path, {f"{base}/{name}": text for name, text in files.items()}))
    assert [(a.kind, a.node, a.usable) for a in found] == [("tpu", "/dev/bus/usb/002/007", False)]


def test_nvidia_model_from_its_driver(tmp_path: Path) -> None:
    """The driver's own file names the card and its node."""
    info = "Model: \t\t NVIDIA GeForce RTX 4090\nDevice Minor: \t 3\n"
    files = {**pci("0x10de", "0x2684", "0x030000", "nvidia"), "dev/nvidia0": "", "dev/nvidia3": ""}
    files["proc/driver/nvidia/gpus/0000:01:00.0/information"] = info
    found, _ = accelerator.probe(trees.make(tmp_path, files))
    assert [(a.name, a.node) for a in found] == [("NVIDIA GeForce RTX 4090", "/dev/nvidia3")]


def test_data_centre_gpu_as_a_real_machine_shows_it(tmp_path: Path) -> None:
    """An H200 in a microVM, without DMI: a 3D controller, whose other nodes are no devices of their own."""
    info = "Model: \t\t NVIDIA H200\nIRQ:   \t\t 41\nDevice Minor: \t 0\nGPU Excluded:\t No\n"
    files = pci("0x10de", "0x2335", "0x030200", "nvidia")
    files |= dict.fromkeys(("dev/nvidia0", "dev/nvidiactl", "dev/nvidia-uvm", "dev/nvidia-caps/nvidia-cap1"), "")
    files["proc/driver/nvidia/gpus/0000:01:00.0/information"] = info
    tree = trees.make(tmp_path, files)
    found, _ = accelerator.probe(tree, providers=["AzureExecutionProvider", "CPUExecutionProvider"])
    assert [(a.kind, a.name, a.node, a.usable) for a in found] == [("gpu", "NVIDIA H200", "/dev/nvidia0", False)]
    assert "CUDAExecutionProvider" in (found[0].why or "")
    found, _ = accelerator.probe(tree, providers=["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert [a.usable for a in found] == [True]


def test_captures_of_real_machines() -> None:
    """Cards of three makers, seen through sysfs links that became files."""
    dumps = needs.reference_data() / "hardware" / "dumps"
    for name, label in (
        ("vm-xeon-nvidia-gpu", "NVIDIA GPU 10de:15f8"),
        ("laptop-i7-1270p-zram", "Intel GPU 8086:46a6"),
        ("desktop-ryzen5-1600", "AMD GPU 1002:6758"),
    ):
        found, _ = accelerator.probe(Root(dumps / name), providers=["CUDAExecutionProvider"])
        assert [(a.name, a.usable) for a in found] == [(label, False)]


@given(st.binary(max_size=80))
def test_no_bytes_raise(data: bytes) -> None:
    """Any bytes in the files of devices, drivers and trees."""
    names: tuple[str, ...] = (
        f"{PCI}/vendor",
        f"{PCI}/device",
        f"{PCI}/uevent",
        f"{TREE}/compatible",
        f"{TREE}/npu@1/compatible",
    )
    names += ("sys/class/drm/renderD128/device/uevent", "sys/bus/usb/devices/1-1/idVendor", "sys/class/accel/accel0")
    with tempfile.TemporaryDirectory() as folder:
        accelerator.probe(trees.make(Path(folder), dict.fromkeys(names, data)), providers=[])
