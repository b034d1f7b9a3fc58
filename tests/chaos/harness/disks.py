"""Disks that fill up or can no longer be written, below a process's state directory. Needs root.

A full disk is a small tmpfs with a ballast file in it. A read-only disk is an ext4 image behind a loop device: the
kernel is told that it found an error there, and with `errors=remount-ro` does what it does to a dying SD card: files
that are open for writing stay open, and every write to them fails with EROFS.
"""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Self

TMPFS_MIB = 24
IMAGE_MIB = 32
MARK = "ea-chaos"


class SmallDisk:
    """A tmpfs that can be filled.

    Args:
        folder: made; where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        _run("mount", "-t", "tmpfs", "-o", f"size={TMPFS_MIB}m,mode=700", f"{MARK}-{os.getpid()}", str(self.folder))
        return self

    def __exit__(self, *_: object) -> None:
        unmount(self.folder)

    def fill(self) -> None:
        """Leave no byte free."""
        with self._ballast.open("ab", buffering=0) as file:
            for size in (1 << 20, 4096, 1):
                block = bytes(size)
                with suppress(OSError):
                    while file.write(block) == size:
                        pass

    def free(self) -> None:
        """Take the ballast away."""
        self._ballast.unlink(missing_ok=True)


class FragileDisk:
    """An ext4 file system that can be made read-only while files are open for writing.

    Args:
        folder: made; where it is mounted.
        image: made; the file that holds it.
    """

    def __init__(self, folder: Path, image: Path) -> None:
        self.folder = folder
        self._image = image

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        with self._image.open("wb") as file:
            file.truncate(IMAGE_MIB << 20)
        _run("mkfs.ext4", "-q", "-F", "-m", "0", str(self._image))
        self._mount()
        return self

    def __exit__(self, *_: object) -> None:
        unmount(self.folder)
        self._image.unlink(missing_ok=True)

    def _mount(self) -> None:
        _run("mount", "-o", "loop,errors=remount-ro", str(self._image), str(self.folder))

    def fail(self, *, synchronised: bool = True) -> None:
        """Have the kernel find an error: everything is read-only from now on, at once.

        Args:
            synchronised: whether what was written before is on the disk; otherwise it is lost, as in a power cut.
        """
        if synchronised:
            self.synchronise()
        device = os.stat(self.folder).st_dev  # noqa: PTH116 as in os.major
        name = Path(f"/sys/dev/block/{os.major(device)}:{os.minor(device)}").resolve().name
        Path(f"/sys/fs/ext4/{name}/trigger_fs_error").write_text("1\n")

    def synchronise(self) -> None:
        """Have everything on the disk."""
        _run("sync", "--file-system", str(self.folder))

    def repair(self) -> None:
        """Check it, as after a reboot, and mount it again. Nobody may have a file open on it."""
        unmount(self.folder)
        done = subprocess.run(
            ["fsck.ext4", "-y", "-f", str(self._image)], check=False, capture_output=True, env=_environment()
        )
        if done.returncode > 1:  # 1: errors were found and corrected
            raise subprocess.CalledProcessError(done.returncode, "fsck.ext4", done.stdout, done.stderr)
        self._mount()


def unmount(folder: Path) -> None:
    """Unmount what is mounted there; lazily, if something still has a file open."""
    if os.path.ismount(folder):
        done = subprocess.run(["umount", str(folder)], check=False, capture_output=True, env=_environment())
        if done.returncode:
            _run("umount", "--lazy", str(folder))


def _environment() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"}


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=_environment())
    if done.returncode:
        raise subprocess.CalledProcessError(done.returncode, command, done.stdout, done.stderr)
