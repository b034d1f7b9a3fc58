"""Where a process stands in the control groups, in either version of them, on any mount.

Three things decide that, and none is assumed: `/proc/<pid>/cgroup` says which hierarchy owns a controller (a
`0::` line alone doesn't make it version 2) and under which name, `mountinfo` says where that hierarchy is
mounted and which part of it. See cgroups(7), cgroup_namespaces(7).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from hardware.sysfs import clean

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hardware.sysfs import Root

MAX_LEVELS = 64
"""Deeper trees are read from their leaf up to here; systemd nests about ten."""
MAX_MOUNTS = 32
"""Of one hierarchy; the last ones, which cover earlier ones, are looked at."""
MAX_LINES = 4096
MAX_PROCESSES = 256
_TEXT_LIMIT = 64 * 1024
_OCTAL = re.compile(r"\\([0-7]{3})")
_CGROUP_TYPES = frozenset({"cgroup", "cgroup2"})


class Mount(NamedTuple):
    """One mounted hierarchy: which part of it (`root`) is seen where (`point`)."""

    root: str | None
    """The cgroup at the mount point, as the hierarchy names it; None where the list of mounts doesn't say."""
    point: str
    version: int
    controllers: frozenset[str]


class Place(NamedTuple):
    """Where a process stands in the hierarchy of one controller."""

    version: int
    levels: tuple[str, ...]
    """Folders relative to the root file system, the process's own cgroup first, the mount point last."""
    why: str | None = None
    """What keeps the first level from being the process's own cgroup; None if it is."""


def parse_mountinfo(text: str) -> tuple[Mount, ...]:
    """Return the cgroup mounts in a `/proc/<pid>/mountinfo` (proc_pid_mountinfo(5))."""
    mounts = []
    for line in [line for line in text.split("\n") if " - cgroup" in line][-MAX_LINES:]:
        before, separator, after = line.partition(" - ")
        left, right = before.split(" "), after.split(" ")
        if not separator or len(left) < 6 or right[0] not in _CGROUP_TYPES:
            continue
        mounts.append(_mount(unescape(left[3]), left[4], right[0], right[2] if len(right) > 2 else ""))
    return tuple(mounts)


def parse_mounts(text: str) -> tuple[Mount, ...]:
    """Return the cgroup mounts in a `/proc/mounts`, which doesn't tell what part of the hierarchy is seen."""
    mounts = []
    for line in [line for line in text.split("\n") if " cgroup" in line][-MAX_LINES:]:
        parts = line.split(" ")
        if len(parts) >= 4 and parts[2] in _CGROUP_TYPES:
            mounts.append(_mount(None, parts[1], parts[2], parts[3]))
    return tuple(mounts)


def parse_cgroup(text: str) -> dict[str, str]:
    """Return controller → cgroup name from a `/proc/<pid>/cgroup`; version 2 has the empty string as key."""
    names: dict[str, str] = {}
    for line in text.split("\n"):
        number, _, rest = line.partition(":")
        controllers, separator, name = rest.partition(":")
        if not separator or not number.isdecimal() or not name.startswith("/"):
            continue
        # The kernel marks a cgroup that was removed under its last processes.
        name = name.removesuffix(" (deleted)")
        for controller in controllers.split(","):
            names.setdefault(controller, name)
    return names


def unescape(text: str) -> str:
    """Return a field of a mount list with its octal escapes (040 is a blank) undone."""
    return _OCTAL.sub(lambda match: chr(int(match[1], 8) & 0xFF), text) if "\\" in text else text


def locate(root: Root, controller: str, pid: str = "self") -> Place | str:
    """Return where `pid` stands for `controller`, or in words why that can't be known.

    A controller that no mounted hierarchy owns gives a place without levels: nothing limits the process.
    """
    pid = _whose(root, pid)
    text = root.read_text(f"proc/{pid}/cgroup", _TEXT_LIMIT)
    if text is None:
        return root.reason(f"proc/{pid}/cgroup")
    names = parse_cgroup(text)
    if not names:
        return f"/proc/{pid}/cgroup names no cgroup"
    mounts = _mounts(root, pid)
    if isinstance(mounts, str):
        return mounts
    # A controller belongs to one hierarchy only, and version 1 lists by name what it owns.
    version = 1 if controller in names else 2
    name = names.get(controller, names.get(""))
    if name is None:
        return Place(version, ())
    fitting = [m for m in mounts if m.version == version and (version == 2 or controller in m.controllers)]
    fitting = list(dict.fromkeys(fitting))[-MAX_MOUNTS:]
    if not fitting:
        absent = f"the cgroup hierarchy of the {controller} controller is not mounted here"
        return Place(version, ()) if _is_off(root, controller) else absent
    places = [_place(root, mount, name) for mount in reversed(fitting)]
    # The same hierarchy may be mounted often (containers): the mount that shows our own cgroup tells most.
    return next((place for place in places if place.why is None), places[0])


def _whose(root: Root, pid: str) -> str:
    """Return the process to ask about.

    A tree may be the capture of one process that names it by its number only. Process 1 is not it: the limits
    of others are not its own, nor are several whose cgroups differ.
    """
    if pid != "self" or root.live or root.exists("proc/self/cgroup"):
        return pid
    numbers = [name for name in root.listdir("proc") if name.isdecimal() and name != "1"][: MAX_PROCESSES + 1]
    numbers = [name for name in numbers if root.exists(f"proc/{name}/cgroup")]
    places = {root.read_text(f"proc/{name}/cgroup", _TEXT_LIMIT) for name in numbers}
    return numbers[0] if len(places) == 1 and len(numbers) <= MAX_PROCESSES else pid


def _is_off(root: Root, controller: str) -> bool:
    """Whether the kernel runs without the controller (`cgroup_disable=memory`, usual on a Raspberry Pi)."""
    for line in (root.read_text("proc/cgroups", _TEXT_LIMIT) or "").split("\n"):
        fields = line.split()
        if len(fields) == 4 and fields[0] == controller:
            return fields[3] == "0"
    return False


def _mount(seen: str | None, point: str, kind: str, options: str) -> Mount:
    return Mount(seen, unescape(point), 2 if kind == "cgroup2" else 1, frozenset(options.split(",")))


def _mounts(root: Root, pid: str) -> tuple[Mount, ...] | str:
    """Return the cgroup mounts that `pid` sees, from the best list there is."""
    first = None
    for rel, parse in (
        (f"proc/{pid}/mountinfo", parse_mountinfo),
        ("proc/self/mountinfo", parse_mountinfo),
        (f"proc/{pid}/mounts", parse_mounts),
        ("proc/mounts", parse_mounts),
    ):
        text = root.read_text(rel)
        if text is not None:
            return parse(text)
        first = first or root.reason(rel)
    return first or "the mounts are not known"


def _place(root: Root, mount: Mount, name: str) -> Place:
    """Return the levels between the cgroup `name` and the mount point, for one mount of its hierarchy."""
    point = _point(mount.point)
    if not root.is_dir(point):
        return Place(mount.version, (), f"the cgroup mount {root.reason(point)}")
    for parts in _below(mount.root, name):
        if len(parts) > MAX_LEVELS:
            return Place(mount.version, (point,), f"the cgroup lies more than {MAX_LEVELS} levels deep")
        if root.is_dir("/".join([point, *parts])):
            # A mount from outside of our namespace starts above what we have names for.
            lost = (mount.root or "").startswith("/..") and not name.startswith(mount.root or "")
            why = f"the cgroup {clean(name)} lies below /{point} under a name that is not told" if lost else None
            return Place(mount.version, _upward(point, parts), why)
    # Not visible here (another namespace, a part of the tree): what is visible above it still holds.
    parts = next(_below(mount.root, name), ())[:MAX_LEVELS]
    while parts and not root.is_dir("/".join([point, *parts])):
        parts = parts[:-1]
    why = f"the cgroup {clean(name)} is not visible below /{point}"
    return Place(mount.version, _upward(point, parts), why)


def _below(seen: str | None, name: str) -> Iterator[tuple[str, ...]]:
    """Yield the paths below the mount point where the cgroup `name` may be, the surest first.

    In a container the mount often shows just the container's own cgroup while the process is told its full
    name (`/docker/1234`): the part that the mount starts at is taken off. From inside a cgroup namespace a
    name outside of it starts with `/..`, which ends at the mount as `..` ends at the root of a file system.
    """
    if seen is not None and seen != "/" and (name == seen or name.startswith(seen.rstrip("/") + "/")):
        yield _components(name[len(seen.rstrip("/")) :])
        return
    whole = _components(name)
    if seen in {None, "/"} or whole:
        yield whole
    if seen != "/":
        yield ()


def _components(name: str) -> tuple[str, ...]:
    parts: list[str] = []
    for part in name.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return tuple(parts)


def _upward(point: str, parts: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("/".join([point, *parts[:depth]]) for depth in range(len(parts), -1, -1))


def _point(point: str) -> str:
    # The kernel writes absolute paths. Captures made under a prefix ("testdata/sys/fs/cgroup") are read from
    # the system folder on.
    if not point.startswith("/"):
        _, found, rest = f"/{point}".partition("/sys/")
        point = f"sys/{rest}" if found else point
    return point.strip("/")
