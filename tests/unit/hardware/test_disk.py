"""The disk under a folder."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
import trees
from hypothesis import given
from hypothesis import strategies as st

from hardware import disk
from hardware.sysfs import Root


def mounted(source: str, filesystem: str, number: str = "8:1", options: str = "rw") -> str:
    """Return a mountinfo with a root file system."""
    return f"26 0 {number} / / {options},relatime shared:1 - {filesystem} {source} rw\n"


@pytest.mark.parametrize(
    ("mounts", "files", "device", "kind"),
    [
        (mounted("/dev/nvme0n1p2", "ext4"), {}, None, "nvme"),
        (
            mounted("/dev/mmcblk0p2", "ext4"),
            {"sys/block/mmcblk0/queue/rotational": "0\n", "sys/block/mmcblk0/device/type": "SD\n"},
            "mmcblk0",
            "sd-card",
        ),
        (mounted("/dev/sda1", "ext4"), {"sys/block/sda/queue/rotational": "1\n"}, "sda", "hdd"),
        (mounted("/dev/sda1", "ext4"), {"sys/block/sda/queue/rotational": "0\n"}, "sda", "ssd"),
        (
            mounted("/dev/sda1", "ext4", "8:1"),
            {
                "sys/dev/block/8:1": "../../devices/pci0/usb2/2-1/block/sda/sda1",
                "sys/devices/pci0/usb2/2-1/block/sda/queue/rotational": "0\n",
                "sys/devices/pci0/usb2/2-1/block/sda/sda1/size": "5\n",
            },
            "sda",
            "usb",
        ),
        (
            mounted("/dev/mapper/root", "btrfs", "0:25"),
            {
                "sys/class/block/root/slaves/nvme0n1p3": "",
                "sys/class/block/root/queue/rotational": "0",
                "sys/class/block/nvme0n1p3": "../../devices/nvme/nvme0n1/nvme0n1p3",
                "sys/devices/nvme/nvme0n1/queue/rotational": "0",
                "sys/devices/nvme/nvme0n1/nvme0n1p3/size": "1",
            },
            "nvme0n1",
            "nvme",
        ),
        (mounted("server:/export", "nfs4", "0:50"), {}, None, "network"),
        (mounted("tmpfs", "tmpfs", "0:20"), {}, None, "memory"),
        (mounted("overlay", "overlay", "0:20"), {}, None, "overlay"),
    ],
)
def test_kind(tmp_path: Path, mounts: str, files: dict[str, str], device: str | None, kind: str) -> None:
    """Partitions, device mappers and USB lead to the disk that holds the bytes."""
    found, unknown = disk.probe(trees.make(tmp_path, {"proc/self/mountinfo": mounts, **files}))
    assert (found.device, found.kind) == (device, kind)
    assert "disk.kind" not in unknown


def test_longest_mount_wins_and_missing_folders_count_for_their_parents(tmp_path: Path) -> None:
    """A folder that is yet to be made lies where its parent lies."""
    mounts = mounted("/dev/sda1", "ext4") + "30 26 0:30 / /var/lib ro - xfs /dev/sdb1 ro\n"
    root = trees.make(tmp_path, {"proc/self/mountinfo": mounts, "var/lib/x": ""})
    found, _ = disk.probe(root, "/var/lib/agent/models")
    assert (found.path, found.filesystem, found.read_only) == ("/var/lib", "xfs", True)


def test_a_tree_has_no_free_space(tmp_path: Path) -> None:
    """The disk of the machine that reads the tree is not the tree's."""
    found, unknown = disk.probe(trees.make(tmp_path, {"proc/self/mountinfo": mounted("/dev/sda1", "ext4")}))
    assert (found.total_bytes, found.free_bytes) == (None, None)
    assert {"disk.total_bytes", "disk.free_bytes"} <= set(unknown)


def test_agrees_with_statvfs() -> None:
    """The size of the running machine's file system is the kernel's."""
    status = os.statvfs("/")
    assert disk.probe(Root("/"))[0].total_bytes == status.f_blocks * status.f_frsize


@given(st.binary(max_size=300))
def test_no_bytes_raise(data: bytes) -> None:
    """Any bytes in the lists of mounts."""
    with tempfile.TemporaryDirectory() as folder:
        disk.probe(trees.make(Path(folder), {"proc/self/mountinfo": data}), "/a/b")
        disk.probe(trees.make(Path(folder) / "2", {"proc/mounts": b"/dev/sda1 / ext4 rw 0 0\n" + data}), "/")
