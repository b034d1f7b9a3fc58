"""Devices of a bus or class in sysfs: where each lies, and which driver holds it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hardware.sysfs import clean, parse_hex

if TYPE_CHECKING:
    from hardware.sysfs import Root

_LINK = re.compile(r"(?:\.\./)+[^\n\0]{1,4000}")


class Device(NamedTuple):
    """One entry of `/sys/bus/*/devices` or `/sys/class/*`."""

    name: str
    path: str
    """Its folder, relative to the root file system."""


def devices(root: Root, folder: str, prefix: str = "") -> tuple[Device, ...]:
    """Return the devices listed in `folder` whose names start with `prefix`, in natural order."""
    return tuple(
        Device(name, follow(root, f"{folder}/{name}")) for name in root.listdir(folder) if name.startswith(prefix)
    )


def follow(root: Root, path: str) -> str:
    """Return the folder that the entry `path` means.

    Symbolic links need no help; but archives and captures often turn those of sysfs into files that hold the
    link's target.
    """
    if root.is_dir(path):
        return path
    target = root.read_text(path, 4096)
    if target is None or not _LINK.fullmatch(target.strip("\n\0 ")):
        return path
    parts = path.split("/")[:-1]
    for part in target.strip("\n\0 ").split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/".join(parts)


def uevent(root: Root, path: str) -> dict[str, str]:
    """Return the keys of a device's `uevent` file."""
    values = {}
    for line in (root.read_text(f"{path}/uevent", 16 * 1024) or "").split("\n"):
        key, separator, value = line.partition("=")
        if separator:
            values[key] = clean(value)
    return values


def driver(root: Root, path: str) -> str | None:
    """Return the name of the kernel driver bound to the device, or None if none is."""
    target = root.readlink(f"{path}/driver")
    if target is None:
        text = root.read_text(f"{path}/driver", 4096)
        target = text.strip("\n\0 ") if text and _LINK.fullmatch(text.strip("\n\0 ")) else None
    if target:
        return clean(target.rpartition("/")[2]) or None
    return uevent(root, path).get("DRIVER") or None


def read_hex(root: Root, path: str) -> int | None:
    """Return the hexadecimal number (`0x10de`) in a sysfs attribute, or None."""
    return parse_hex(root.read_text(path, 4096))


def compatibles(root: Root, path: str) -> tuple[str, ...]:
    """Return the device-tree strings of a platform device, from its node or its uevent."""
    strings = root.read_strings(f"{path}/of_node/compatible")
    if strings:
        return strings
    return tuple(value for key, value in uevent(root, path).items() if key.startswith("OF_COMPATIBLE_"))
