"""The disk that models will lie on: its kind, its file system, and how much is free."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from hardware.cgroup_place import unescape
from hardware.devices import follow
from hardware.schema import Disk
from hardware.sysfs import clean

if TYPE_CHECKING:
    from hardware.sysfs import Root

_NETWORK = re.compile(r"nfs4?|cifs|smb3|9p|ceph|glusterfs|lustre|beegfs|afs|fuse\.sshfs|virtiofs")
_PARTITION = re.compile(r"((?:nvme[0-9]+n|mmcblk)[0-9]+)p[0-9]+|((?:[shv]|xv)d[a-z]+)[0-9]+")
_IN_MEMORY = frozenset({"tmpfs", "ramfs", "rootfs"})
_KINDS = (("nvme", "nvme"), ("mmcblk", "mmc"), ("zram", "memory"), ("loop", "loop"), ("vd", "virtual"))


class _Mount(NamedTuple):
    number: str | None
    point: str
    filesystem: str
    source: str
    read_only: bool


def probe(root: Root, path: str = "/") -> tuple[Disk, dict[str, str]]:
    """Return the disk under `path` (absolute, in the root), and why fields are unknown.

    A path that doesn't exist yet is answered for the closest folder above it. How full a file system is can
    only be asked of the running machine, not of a tree.
    """
    unknown: dict[str, str] = {}
    while path not in {"/", ""} and not root.exists(path):
        path = path.rpartition("/")[0] or "/"
    mount = _mount_of(root, path)
    if mount is None:
        unknown["disk.filesystem"] = "no list of mounts in /proc tells where the folder lies"
        for name in ("kind", "device", "read_only"):
            unknown[f"disk.{name}"] = unknown["disk.filesystem"]
    device, kind = _device(root, mount) if mount is not None else (None, None)
    if mount is not None and kind is None:
        unknown["disk.kind"] = f"/sys/block doesn't tell what {clean(mount.source)} is"
    total, free = None, None
    if root.live and kind != "network":  # a server that is gone would make us wait for it
        try:
            status = os.statvfs(path)
            total, free = status.f_blocks * status.f_frsize, status.f_bavail * status.f_frsize
        except OSError as error:
            unknown["disk.free_bytes"] = unknown["disk.total_bytes"] = f"{clean(path)}: {error.strerror}"
    else:
        unknown["disk.free_bytes"] = unknown["disk.total_bytes"] = (
            "only the running machine can tell, and of no network folder"
        )
    disk = Disk(
        path=clean(path),
        device=device,
        kind=kind,
        filesystem=mount.filesystem if mount is not None else None,
        total_bytes=total,
        free_bytes=free,
        read_only=mount.read_only if mount is not None else None,
    )
    return disk, unknown


def _covers(point: str, path: str) -> bool:
    point = point.rstrip("/")
    return path == point or path.startswith(point + "/")


def _mounts(root: Root, path: str) -> list[_Mount]:
    """Return the mounts that `path` lies below, in the order they were made."""
    text = root.read_text("proc/self/mountinfo")
    if text is not None:
        mounts = []
        for line in text.split("\n"):
            before, separator, after = line.partition(" - ")
            left, right = before.split(" "), after.split(" ")
            if len(left) < 5 or not _covers(unescape(left[4]), path):
                continue
            if separator and len(left) >= 6 and len(right) >= 2:
                read_only = "ro" in left[5].split(",") or (len(right) > 2 and "ro" in right[2].split(","))
                mounts.append(_Mount(left[2], unescape(left[4]), clean(right[0]), unescape(right[1]), read_only))
        return mounts
    text = root.read_text("proc/self/mounts") or root.read_text("proc/mounts") or ""
    rows = [line.split(" ") for line in text.split("\n")]
    return [
        _Mount(None, unescape(row[1]), clean(row[2]), unescape(row[0]), "ro" in row[3].split(","))
        for row in rows
        if len(row) >= 4 and _covers(unescape(row[1]), path)
    ]


def _mount_of(root: Root, path: str) -> _Mount | None:
    best = None
    for mount in _mounts(root, path):
        # Of two mounts at one point the later covers the earlier.
        if best is None or len(mount.point.rstrip("/")) >= len(best.point.rstrip("/")):
            best = mount
    return best


def _device(root: Root, mount: _Mount) -> tuple[str | None, str | None]:
    """Return the name of the disk (not the partition) and its kind."""
    if _NETWORK.fullmatch(mount.filesystem):
        return None, "network"
    if mount.filesystem in _IN_MEMORY:
        return None, "memory"
    if mount.filesystem == "overlay":
        return None, "overlay"
    folder = _block_folder(root, mount)
    if folder is None:
        name = _disk_name(mount.source)
        return None, next((kind for prefix, kind in _KINDS if re.match(rf"{prefix}[0-9a-z]", name)), None)
    # A device mapper or RAID stands on others: follow the first of each.
    for _ in range(8):
        below = root.listdir(f"{folder}/slaves")
        if not below:
            break
        folder = follow(root, f"sys/class/block/{below[0]}")
    if not root.is_dir(f"{folder}/queue"):  # a partition: its disk is the folder above
        folder = folder.rpartition("/")[0]
    name = folder.rpartition("/")[2]
    return clean(name), _kind(root, folder, name)


def _disk_name(source: str) -> str:
    name = source.rpartition("/")[2] if source.startswith("/dev/") or "/" not in source else ""
    match = _PARTITION.fullmatch(name)
    return (match[1] or match[2]) if match else name


def _block_folder(root: Root, mount: _Mount) -> str | None:
    name = mount.source.rpartition("/")[2]
    candidates = [f"sys/class/block/{name}", f"sys/block/{name}", f"sys/block/{_disk_name(name)}"]
    if mount.number is not None:
        candidates.insert(0, f"sys/dev/block/{mount.number}")
    for candidate in candidates:
        path = follow(root, candidate)
        if name and root.is_dir(path):
            return root.real(path) or path
    return None


def _kind(root: Root, folder: str, name: str) -> str | None:
    kind = next((kind for prefix, kind in _KINDS if re.fullmatch(rf"{prefix}[a-z0-9]*", name)), None)
    if kind == "mmc":
        return {"SD": "sd-card", "MMC": "emmc"}.get(root.read_value(f"{folder}/device/type") or "", "mmc")
    if kind is not None:
        return kind
    if "/usb" in folder:
        return "usb"
    rotational = root.read_int(f"{folder}/queue/rotational")
    return None if rotational is None else ("hdd" if rotational else "ssd")
