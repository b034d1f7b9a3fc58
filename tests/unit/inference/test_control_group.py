"""Control groups for workers, on a made-up hierarchy; a booted machine has the real one (tests/machines)."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from edge_agent.inference import control_group
from edge_agent.inference.control_group import Delegated

SERVICE = "system.slice/edge-agent.service"
MIB = 1024 * 1024


class Hierarchy:
    """Folders and files as the kernel shows them, in which writing is taken down."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.own = root / "own"
        self.written: list[tuple[str, str]] = []
        self.refused: set[str] = set()
        monkeypatch.setattr(control_group, "_write", self._write)

    def _write(self, path: Path, value: str) -> None:
        if path.name in self.refused:
            raise OSError(errno.EACCES, "Permission denied")
        self.written.append((str(path.relative_to(self.root)), value))

    def group(self, path: str, controllers: str = "cpu memory pids", processes: str | None = None) -> Path:
        """Make a group that we are in."""
        folder = self.root / path
        folder.mkdir(parents=True)
        for name, content in (
            ("cgroup.controllers", controllers),
            ("cgroup.procs", str(os.getpid()) if processes is None else processes),
            ("cgroup.subtree_control", ""),
            ("memory.max", "max"),
        ):
            (folder / name).write_text(f"{content}\n")
        self.own.write_text(f"3:memory:/elsewhere\n0::/{path}\n")
        return folder

    def enter(self) -> tuple[Delegated | None, str]:
        """Do what is tested."""
        return control_group.enter(self.root, self.own)


@pytest.fixture
def hierarchy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hierarchy:
    """Give an empty hierarchy."""
    return Hierarchy(tmp_path, monkeypatch)


def test_a_delegated_group_is_left_and_handed_on(hierarchy: Hierarchy) -> None:
    """The daemon moves into a group of its own first: the kernel wants it so."""
    folder = hierarchy.group(SERVICE)
    delegated, why = hierarchy.enter()
    assert (delegated, why) == (Delegated(folder), "")
    assert hierarchy.written == [
        (f"{SERVICE}/agent/cgroup.procs", str(os.getpid())),
        (f"{SERVICE}/cgroup.subtree_control", "+memory +pids +cpu"),
    ]


def test_a_daemon_that_systemd_put_aside_stays_where_it_is(hierarchy: Hierarchy) -> None:
    """DelegateSubgroup=, and a second call."""
    folder = hierarchy.group(SERVICE, processes="")
    hierarchy.group(f"{SERVICE}/agent")
    delegated, _ = hierarchy.enter()
    assert delegated == Delegated(folder)
    assert hierarchy.written == [(f"{SERVICE}/cgroup.subtree_control", "+memory +pids +cpu")]


def test_where_there_is_none_the_reason_is_told(hierarchy: Hierarchy) -> None:
    """And nothing is changed: no v2, no controller, the root of all, others in it."""
    hierarchy.own.write_text("3:memory:/elsewhere\n")
    assert "no unified hierarchy" in hierarchy.enter()[1]
    hierarchy.group("a.service", controllers="cpu pids")
    assert "no controllers for memory to /a.service" in hierarchy.enter()[1]
    (hierarchy.group("b.service") / "memory.max").unlink()
    assert "/b.service is not delegated to us" in hierarchy.enter()[1]
    hierarchy.group("c.scope", processes=f"{os.getpid()}\n1")
    assert "other programs run in the control group /c.scope" in hierarchy.enter()[1]
    assert hierarchy.written == []
    hierarchy.group("d.service")
    hierarchy.refused = {"cgroup.subtree_control"}
    assert hierarchy.enter() == (None, "control groups cannot be made in /d.service: Permission denied")


def test_a_worker_gets_its_limits(hierarchy: Hierarchy) -> None:
    """Memory, all of it at once when it runs out, tasks, share of the CPU; none of it swapped."""
    folder = hierarchy.group(SERVICE)
    group = Delegated(folder).make(300 * MIB, 4)
    group.take(77)
    name = group.folder.relative_to(hierarchy.root)
    assert hierarchy.written == [
        (f"{name}/memory.max", str(300 * MIB)),
        (f"{name}/memory.oom.group", "1"),
        (f"{name}/pids.max", "128"),
        (f"{name}/memory.swap.max", "0"),
        (f"{name}/cpu.weight", "20"),
        (f"{name}/cgroup.procs", "77"),
    ]
    group.remove()
    assert not group.folder.exists()


def test_the_kernel_holds_a_worker_to_its_share_of_the_cpus(hierarchy: Hierarchy) -> None:
    """Also to a share below one CPU, which threads cannot make; never to less than the kernel takes."""
    delegated = Delegated(hierarchy.group(SERVICE))
    for cpus in (1.5, 0.4, 0.001):
        delegated.make(None, 1, cpus)
    caps = [value for path, value in hierarchy.written if path.endswith("/cpu.max")]
    assert caps == ["150000 100000", "40000 100000", "1000 100000"]


def test_a_worker_without_its_cap_has_no_group(hierarchy: Hierarchy) -> None:
    """What the status would say of it would not hold."""
    folder = hierarchy.group(SERVICE)
    hierarchy.refused = {"cpu.max"}
    with pytest.raises(OSError, match="denied"):
        Delegated(folder).make(None, 1, 0.5)
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []


def test_without_the_cpu_controller_there_is_no_cap(hierarchy: Hierarchy) -> None:
    """Memory and tasks are bounded all the same."""
    hierarchy.group(SERVICE, controllers="memory pids")
    delegated, _ = hierarchy.enter()
    assert delegated is not None
    assert not delegated.caps_cpu
    delegated.make(1, 1, 0.5)
    names = [Path(path).name for path, _ in hierarchy.written]
    assert "pids.max" in names
    assert "cpu.max" not in names


def test_kernel_without_swap_bounds_the_rest(hierarchy: Hierarchy) -> None:
    """What is missing is no reason to have no group."""
    hierarchy.refused = {"memory.swap.max", "cpu.weight"}
    group = Delegated(hierarchy.group(SERVICE)).make(None, 1)
    assert [Path(path).name for path, _ in hierarchy.written] == ["memory.oom.group", "pids.max"]
    assert group.folder.exists()


def test_a_group_without_its_limit_is_none(hierarchy: Hierarchy) -> None:
    """Half bounded looks whole and is not: it is taken back."""
    folder = hierarchy.group(SERVICE)
    hierarchy.refused = {"memory.max"}
    with pytest.raises(OSError, match="denied"):
        Delegated(folder).make(1, 1)
    assert [path.name for path in folder.iterdir() if path.is_dir()] == []


def test_deaths_for_memory_are_counted(hierarchy: Hierarchy) -> None:
    """Those of this group, and of no other."""
    group = Delegated(hierarchy.group(SERVICE)).make(1, 1)
    assert group.oom_kills() == 0
    (group.folder / "memory.events").write_text("low 0\nhigh 3\nmax 9\noom 2\noom_kill 1\noom_group_kill 1\n")
    assert group.oom_kills() == 1
