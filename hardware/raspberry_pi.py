"""What the revision code in a Raspberry Pi's /proc/cpuinfo says.

Facts from the Raspberry Pi documentation, "Raspberry Pi revision codes" (raspberrypi/documentation,
computers/raspberry-pi/revision-codes.adoc).
"""

from __future__ import annotations

from dataclasses import dataclass

from hardware.sysfs import parse_hex

HARDWARE = frozenset(("BCM2708", "BCM2709", "BCM2710", "BCM2711", "BCM2712", "BCM2835"))
"""What Raspberry Pis write as `Hardware`, often not the chip they have."""
_NEW_STYLE = 1 << 23
_CODE_BITS = 0xFFFFFF  # above are flags: warranty void by overvolting, one-time-programming switched off
_MODELS = {
    0x00: "A",
    0x01: "B",
    0x02: "A+",
    0x03: "B+",
    0x04: "2B",
    0x06: "CM1",
    0x08: "3B",
    0x09: "Zero",
    0x0A: "CM3",
    0x0C: "Zero W",
    0x0D: "3B+",
    0x0E: "3A+",
    0x10: "CM3+",
    0x11: "4B",
    0x12: "Zero 2 W",
    0x13: "400",
    0x14: "CM4",
    0x15: "CM4S",
    0x17: "5",
    0x18: "CM5",
    0x19: "500",
    0x1A: "CM5 Lite",
}
_NAMES = {
    "A": "Model A",
    "B": "Model B",
    "A+": "Model A Plus",
    "B+": "Model B Plus",
    "2B": "2 Model B",
    "3B": "3 Model B",
    "3B+": "3 Model B Plus",
    "3A+": "3 Model A Plus",
    "4B": "4 Model B",
    "5": "5 Model B",
    "CM1": "Compute Module",
    "CM3": "Compute Module 3",
    "CM3+": "Compute Module 3 Plus",
    "CM4": "Compute Module 4",
    "CM4S": "Compute Module 4S",
    "CM5": "Compute Module 5",
    "CM5 Lite": "Compute Module 5 Lite",
}
_SOCS = {0: "BCM2835", 1: "BCM2836", 2: "BCM2837", 3: "BCM2711", 4: "BCM2712"}
# Before the code had fields it was a serial number of designs.
_OLD = dict.fromkeys((2, 3, 4, 5, 6, 0xD, 0xE, 0xF), "B") | dict.fromkeys((7, 8, 9), "A")
_OLD |= {0x10: "B+", 0x11: "CM1", 0x12: "A+", 0x13: "B+", 0x14: "CM1", 0x15: "A+"}


@dataclass(frozen=True)
class Revision:
    """A decoded revision code."""

    model: str
    """The name as device trees write it, without the revision: `Raspberry Pi 2 Model B`."""
    soc: str
    memory_mib: int | None


def decode(code: str | None, hardware: str | None, model: str | None) -> Revision | None:
    """Return what the code says, or None if the machine is no Raspberry Pi or the code is not in the table.

    The same field of /proc/cpuinfo holds other things on other machines, so that something has to name a Pi.
    """
    named = (model or "").startswith("Raspberry Pi")
    if not named and hardware not in HARDWARE:
        return None
    value = parse_hex(code)
    if not value:
        return None
    value &= _CODE_BITS
    if not value & _NEW_STYLE:
        short = _OLD.get(value & 0xFFFF)
        return Revision(f"Raspberry Pi {_NAMES[short]}", _SOCS[0], None) if short else None
    short = _MODELS.get(value >> 4 & 0xFF)
    soc = _SOCS.get(value >> 12 & 0xF)
    if short is None or soc is None:
        return None
    return Revision(f"Raspberry Pi {_NAMES.get(short, short)}", soc, 256 << (value >> 20 & 0x7))
