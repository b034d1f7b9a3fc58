"""Read a root file system without trusting it: bounded, inside the root, never blocking.

Every probe reads through `Root`. What it promises, whatever the tree holds: symbolic links (absolute ones
too) are followed inside the root and never out of it; loops end; only regular files are opened, so that a
FIFO or a device never blocks or wakes anything; at most `limit` bytes are read; nothing raises. What could
not be read is `None`, and `reason` says why.
"""
# ruff: noqa: PTH115, PTH116
# Plain os calls: a profile is a thousand small reads, and pathlib doubles their cost.

from __future__ import annotations

import errno
import os
import re
import stat
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MAX_FILE_BYTES = 4 * 1024 * 1024
MAX_VALUE_BYTES = 16 * 1024  # sysfs attributes are at most a page, CPU lists of big machines are longer
MAX_DIRECTORY_ENTRIES = 65_536
MAX_CPU_NUMBER = 8_191  # where Linux ends; a longer range is not a CPU list
MAX_SYMLINKS = 40  # as the kernel does
_O_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_INTEGER = re.compile(r"[+-]?[0-9]{1,19}")
_RANGE = re.compile(r"([0-9]{1,6})(?:-([0-9]{1,6}))?")
_LINE_END = re.compile(r"\r+\n?")
_DIGITS = re.compile(r"([0-9]+)")


def parse_int(text: str | None) -> int | None:
    """Return the decimal number that `text` is (blanks around it allowed), or None."""
    if text is None:
        return None
    text = text.strip(" \t\r\n\0")
    return int(text) if _INTEGER.fullmatch(text) else None


def parse_hex(text: str | None) -> int | None:
    """Return the hexadecimal number that `text` is, with or without `0x`, at most 64 bits, or None."""
    if text is None:
        return None
    text = text.strip(" \t\r\n\0").lower().removeprefix("0x")
    return int(text, 16) if re.fullmatch(r"[0-9a-f]{1,16}", text) else None


def parse_cpulist(text: str | None) -> tuple[int, ...] | None:
    """Return the CPU numbers of a kernel list ("0-3,8", or "0 1 2" as cpufreq writes), or None if it is none.

    An empty list is a list: the kernel writes one for "no CPU is offline".
    """
    if text is None:
        return None
    cpus: set[int] = set()
    for part in text.replace(",", " ").strip(" \t\r\n\0").split():
        match = _RANGE.fullmatch(part)
        if match is None:
            return None
        first = int(match[1])
        last = int(match[2]) if match[2] else first
        if last < first or last > MAX_CPU_NUMBER:
            return None
        cpus.update(range(first, last + 1))
    return tuple(sorted(cpus))


def parse_cpumask(text: str | None) -> tuple[int, ...] | None:
    """Return the CPU numbers of a kernel mask ("ff,00000003": 32-bit words, highest first), or None."""
    if text is None:
        return None
    words = text.strip(" \t\r\n\0").lower().removeprefix("0x").split(",")
    if len(words) > (MAX_CPU_NUMBER + 1) // 32 or not all(re.fullmatch(r"[0-9a-f]{1,8}", word) for word in words):
        return None
    mask = int("".join(word.zfill(8) for word in words), 16)
    return tuple(bit for bit in range(mask.bit_length()) if mask >> bit & 1)


def natural_key(name: str) -> list[tuple[int, str]]:
    """Sort key that puts cpu2 before cpu10."""
    # Splitting on a group leaves the digits at the odd places.
    return [(int(part), "") if i % 2 else (-1, part) for i, part in enumerate(_DIGITS.split(name))]


def printable(text: str, limit: int = 256) -> str:
    """Return at most `limit` characters without any that would disturb a terminal or a log."""
    text = text[:limit]
    if not text.isprintable():
        text = "".join(c if c.isprintable() else " " for c in text)
    return text.strip()


def clean(text: str, limit: int = 256) -> str:
    """Return one printable line of at most `limit` characters: for names that are shown to people."""
    return " ".join(printable(text, 4 * limit).split())[:limit]


class Root:
    """A root file system: the machine's own (`/`) or a tree laid out like one. Paths are relative to it."""

    def __init__(self, path: Path | str = "/") -> None:
        self.path = os.path.realpath(path)
        self.live = self.path == "/"
        """Whether this is the machine that we run on, so that the process itself may be asked too."""
        self._why: dict[str, str] = {}
        self._directories: dict[str, str] = {}  # what a folder resolves to; most reads share their folders

    def reason(self, rel: str) -> str:
        """Return why `rel` gave None at its last read."""
        return self._why.get(_normal(rel), "was not read")

    def _fail(self, rel: str, error: OSError | ValueError | str) -> None:
        if isinstance(error, str):
            why = error
        elif isinstance(error, OSError):
            why = _ERRORS.get(error.errno or 0, (error.strerror or "cannot be read").lower())
        else:
            why = "is not a possible file name"
        rel = _normal(rel)
        self._why[rel] = f"/{clean(rel)} {why}"

    def _walk(self, rel: str) -> str:
        """Return the real path of `rel`, every link on the way followed inside the root; raises OSError."""
        parts = [part for part in rel.split("/") if part not in {"", "."}]
        parent = "/".join(parts[:-1])
        known = self._directories.get(parent) if parts and parts[-1] != ".." else None
        todo = [parts[-1]] if known is not None else parts[::-1]
        done = known if known is not None else ""
        links = 0
        while todo:
            part = todo.pop()
            if part in {"", "."}:
                continue
            if part == "..":
                done = done.rpartition("/")[0]  # above the root is the root, as in a chroot
                continue
            here = f"{done}/{part}"
            full = self._full(here)
            if not stat.S_ISLNK(os.lstat(full).st_mode):
                done = here
                if len(todo) == 1 and links == 0 and ".." not in parts:
                    self._directories[parent] = done
                continue
            links += 1
            if links > MAX_SYMLINKS:
                raise OSError(errno.ELOOP, "too many symbolic links")
            target = os.readlink(full)
            if target.startswith("/"):
                done = ""
            todo.extend(target.split("/")[::-1])
        return done

    def _full(self, inside: str) -> str:
        return inside if self.live else self.path + inside

    def _locate(self, rel: str) -> str:
        """Return the path to open for `rel`; raises OSError or ValueError."""
        if self.live:
            return "/" + rel.lstrip("/")  # here the kernel itself is the one that resolves
        return self._full(self._walk(rel)) or "/"

    def real(self, rel: str) -> str | None:
        """Return where `rel` lies after all links, relative to the root, or None if it does not exist."""
        try:
            return self._walk(rel).lstrip("/")
        except (OSError, ValueError) as error:
            self._fail(rel, error)
            return None

    def stat(self, rel: str) -> os.stat_result | None:
        """Return the status of what `rel` leads to, or None. Opens nothing."""
        try:
            return os.lstat(self._locate(rel)) if not self.live else os.stat(self._locate(rel))
        except (OSError, ValueError) as error:
            self._fail(rel, error)
            return None

    def exists(self, rel: str) -> bool:
        """Whether there is anything at `rel` (a link that leads nowhere is nothing)."""
        return self.stat(rel) is not None

    def is_dir(self, rel: str) -> bool:
        """Whether `rel` is a folder."""
        status = self.stat(rel)
        return status is not None and stat.S_ISDIR(status.st_mode)

    def is_char_device(self, rel: str) -> bool:
        """Whether `rel` is a character device."""
        status = self.stat(rel)
        return status is not None and stat.S_ISCHR(status.st_mode)

    def readlink(self, rel: str) -> str | None:
        """Return the target of the link `rel` as it is written, or None if it is no link."""
        try:
            parent, _, name = _normal(rel).rpartition("/")
            folder = self._locate(parent)
            return os.readlink(f"{folder}/{name}")
        except (OSError, ValueError) as error:
            self._fail(rel, error)
            return None

    def read_bytes(self, rel: str, limit: int = MAX_FILE_BYTES) -> bytes | None:
        """Return at most `limit` bytes of the regular file `rel`, or None; `reason(rel)` then says why."""
        try:
            path = self._locate(rel)
            # Asked before it is opened: opening a device may already do something (a watchdog starts).
            if not stat.S_ISREG(os.stat(path).st_mode):
                self._fail(rel, "is not a regular file")
                return None
            fd = os.open(path, _O_FLAGS)
        except (OSError, ValueError) as error:
            self._fail(rel, error)
            return None
        try:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                self._fail(rel, "is not a regular file")
                return None
            return _read_up_to(fd, limit)
        except OSError as error:
            self._fail(rel, error)
            return None
        finally:
            os.close(fd)

    def read_text(self, rel: str, limit: int = MAX_FILE_BYTES) -> str | None:
        """Return the text of `rel` with Unix line ends, or None. Junk becomes U+FFFD.

        A longer file is cut at its last whole line, so that no number is read in half.
        """
        data = self.read_bytes(rel, limit + 1)
        if data is None:
            return None
        if len(data) > limit:
            data = data[: data.rfind(b"\n", 0, limit) + 1]
        text = data.decode("utf-8", "replace")
        if "\r" in text:  # the usual pair first: the pattern takes ten times as long
            text = text.replace("\r\n", "\n")
        return _LINE_END.sub("\n", text) if "\r" in text else text

    def read_value(self, rel: str) -> str | None:
        """Return the value in `rel` without blanks and the NUL of device trees; None if absent or empty."""
        text = self.read_text(rel, MAX_VALUE_BYTES)
        if text is None:
            return None
        text = text.strip(" \t\n\0")
        if not text:
            self._fail(rel, "is empty")
            return None
        return text

    def read_int(self, rel: str) -> int | None:
        """Return the decimal number in `rel`, or None."""
        text = self.read_text(rel, MAX_VALUE_BYTES)
        number = parse_int(text)
        if text is not None and number is None:
            self._fail(rel, "does not hold a number")
        return number

    def read_cpulist(self, rel: str) -> tuple[int, ...] | None:
        """Return the CPU list in `rel` (see `parse_cpulist`), or None."""
        text = self.read_text(rel, MAX_VALUE_BYTES)
        cpus = parse_cpulist(text)
        if text is not None and cpus is None:
            self._fail(rel, "does not hold a list of CPUs")
        return cpus

    def read_strings(self, rel: str) -> tuple[str, ...] | None:
        """Return the NUL-separated strings of a device-tree property, or None."""
        text = self.read_text(rel, MAX_VALUE_BYTES)
        if text is None:
            return None
        return tuple(part for part in (clean(part) for part in text.split("\0")) if part)

    def listdir(self, rel: str) -> tuple[str, ...]:
        """Return the names in the folder `rel`, cpu2 before cpu10; none if it cannot be listed."""
        names: list[str] = []
        try:
            with os.scandir(self._locate(rel)) as entries:
                for entry in entries:
                    if len(names) >= MAX_DIRECTORY_ENTRIES:
                        break
                    names.append(entry.name)
        except (OSError, ValueError) as error:
            self._fail(rel, error)
            return ()
        return tuple(sorted(names, key=natural_key))

    def glob(self, pattern: str) -> tuple[str, ...]:
        """Return the existing paths that match, relative to the root; `*`, `?`, `[…]` stay in one level."""
        found = [""]
        for part in pattern.strip("/").split("/"):
            if not any(c in part for c in "*?["):
                found = [f"{base}/{part}".lstrip("/") for base in found]
                continue
            found = [
                f"{base}/{name}".lstrip("/") for base in found for name in self.listdir(base) if fnmatchcase(name, part)
            ][:MAX_DIRECTORY_ENTRIES]
        return tuple(path for path in found if self.exists(path))


_ERRORS = {
    errno.ENOENT: "does not exist",
    errno.ENOTDIR: "does not exist",
    errno.EACCES: "may not be read by this user",
    errno.EPERM: "may not be read by this user",
    errno.ELOOP: "is a loop of symbolic links",
    errno.EISDIR: "is not a regular file",
    errno.ENXIO: "is not a regular file",
    errno.ENODEV: "has no device behind it",
    errno.EAGAIN: "has nothing to read now",
}


def _normal(rel: str) -> str:
    return "/".join(part for part in rel.split("/") if part not in {"", "."})


def _read_up_to(fd: int, limit: int) -> bytes:
    # sysfs and proc give a page at a time and lie about their size.
    chunks: list[bytes] = []
    left = limit
    while left > 0:
        chunk = os.read(fd, min(left, 1 << 18))
        if not chunk:
            break
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)
