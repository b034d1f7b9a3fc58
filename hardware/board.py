"""What the machine is called: by its device tree, its firmware (DMI) or /proc/cpuinfo, and by us."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hardware import raspberry_pi
from hardware.schema import Board
from hardware.sysfs import clean

if TYPE_CHECKING:
    from hardware.boards import BoardFacts
    from hardware.cpuinfo import CpuInfo
    from hardware.sysfs import Root

DEVICE_TREES = ("sys/firmware/devicetree/base", "proc/device-tree")
DMI = ("sys/class/dmi/id", "sys/devices/virtual/dmi/id")
# What makers leave in the firmware's fields when they fill in nothing.
_PLACEHOLDER = re.compile(
    r"|to be filled.*|default string|not (applicable|available|specified)|system (product name|manufacturer"
    r"|version)|o\.?e\.?m\.?|n/?a|none|unknown|undefined|empty|type1.*|x+|0+|123456789",
    re.IGNORECASE,
)
# Whole platforms, which stand behind the chip's name.
_NO_CHIPS = frozenset(("apple,arm-platform", "linux,dummy-virt"))
_VENDORS = {
    "raspberrypi": "Raspberry Pi",
    "radxa": "Radxa",
    "pine64": "Pine64",
    "hardkernel": "Hardkernel",
    "khadas": "Khadas",
    "xunlong": "Xunlong",
    "friendlyarm": "FriendlyElec",
    "nvidia": "NVIDIA",
    "beagle": "BeagleBoard.org",
    "starfive": "StarFive",
    "sipeed": "Sipeed",
    "milkv": "Milk-V",
    "apple": "Apple",
    "google": "Google",
    "libretech": "Libre Computer",
    "olimex": "Olimex",
    "asus": "ASUS",
    "purism": "Purism",
    "samsung": "Samsung",
    "qcom": "Qualcomm",
    "fsl": "NXP",
    "rockchip": "Rockchip",
    "amlogic": "Amlogic",
    "mediatek": "MediaTek",
    "ti": "Texas Instruments",
    "xlnx": "Xilinx",
}


def probe(root: Root, info: CpuInfo, cpus: int | None = None) -> tuple[tuple[Board, BoardFacts | None], dict[str, str]]:
    """Return the board with what its file says, and the path and reason of each field that is unknown.

    `cpus` is how many CPUs are present: by it boards are told apart that have the same name.
    """
    compatible = _first_strings(root, "compatible")
    model = _first_value(root, DEVICE_TREES, "model") or _said(info.anywhere("Model")) or _dmi_model(root)
    hardware = _said(info.anywhere("Hardware", "machine"))
    pi = raspberry_pi.decode(info.anywhere("Revision"), hardware, model)
    model = model or (pi.model if pi else None)
    if model is None and hardware not in raspberry_pi.HARDWARE:
        model = hardware  # on many boards that line holds the board's name
    facts, trouble = _match(compatible, model, cpus)
    board = Board(
        id=facts.id if facts else None,
        model=model,
        vendor=_vendor(root, facts, compatible, model),
        soc=(pi.soc if pi else None) or (facts.soc if facts else None) or _soc(root, compatible),
        compatible=compatible,
        hardware=hardware,
    )
    nobody = "neither a device tree nor DMI nor /proc/cpuinfo names the machine"
    unknown = {}
    if board.id is None:
        unknown["board.id"] = trouble or ("no board file describes this machine" if board.model else nobody)
    for name, reason in (
        ("model", nobody),
        ("vendor", nobody),
        ("soc", "nothing states the system on chip; the Hardware line of /proc/cpuinfo is no proof of it"),
    ):
        if getattr(board, name) is None:
            unknown[f"board.{name}"] = reason
    return (board, facts), unknown


def _match(compatible: tuple[str, ...], model: str | None, cpus: int | None) -> tuple[BoardFacts | None, str | None]:
    if not compatible and model is None:
        return None, None
    from hardware.boards import match  # noqa: PLC0415 - reads board files: not before they are wanted

    try:
        return match(compatible, model, cpus), None
    except (OSError, ValueError, KeyError, TypeError) as error:
        return None, f"the board files cannot be read: {clean(str(error))}"


def _said(text: str | None) -> str | None:
    """Return the text as a name, or None if it only fills a field."""
    text = clean(text) if text else ""
    return text if text and not _PLACEHOLDER.fullmatch(text) else None


def _first_value(root: Root, folders: tuple[str, ...], name: str) -> str | None:
    return next((value for folder in folders if (value := _said(root.read_value(f"{folder}/{name}")))), None)


def _first_strings(root: Root, name: str) -> tuple[str, ...]:
    return next((words for folder in DEVICE_TREES if (words := root.read_strings(f"{folder}/{name}"))), ())


def _dmi_model(root: Root) -> str | None:
    # Lenovo keeps the name people use in product_version and a number in product_name.
    vendor = (_first_value(root, DMI, "sys_vendor") or "").lower()
    names = ["product_name", "product_version", "board_name"]
    if vendor == "lenovo":
        names.insert(0, "product_version")
    return next((value for name in names if (value := _first_value(root, DMI, name))), None)


def _vendor(root: Root, facts: BoardFacts | None, compatible: tuple[str, ...], model: str | None) -> str | None:
    named = getattr(facts, "vendor", None) or _first_value(root, DMI, "sys_vendor")
    named = named or _first_value(root, DMI, "board_vendor")
    if named:
        return str(named)
    prefix = compatible[0].partition(",")[0] if compatible and "," in compatible[0] else None
    if prefix:
        return _VENDORS.get(prefix, prefix)
    return "Raspberry Pi" if model and model.startswith("Raspberry Pi ") else None


def _soc(root: Root, compatible: tuple[str, ...]) -> str | None:
    # A device tree ends with the most general name, that of the chip; a lone name is the board's.
    chips = [word for word in compatible if word not in _NO_CHIPS]
    if len(chips) > 1 and "," in chips[-1]:
        return chips[-1].partition(",")[2] or None
    machine, family = (_first_value(root, ("sys/devices/soc0",), name) for name in ("machine", "family"))
    # Qualcomm writes the chip into `machine`, with "Snapdragon" for a family; others write the board there.
    if family == "Snapdragon":
        return machine
    soc = _first_value(root, ("sys/devices/soc0",), "soc_id")
    return soc if soc and not soc.isdigit() and not soc.startswith("jep106") else None
