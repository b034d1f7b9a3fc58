"""The classes of faults: each draws its next fault from a seed, injects it and mends it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from harness import clocks, memory
from harness.cluster import BROKER, COORDINATOR, Cluster, in_thread
from harness.processes import wait_until

PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, drawn but not yet injected.

    Attributes:
        kind: what it is, in words.
        victim: a process, or a party's network.
        seconds: how long it lasts; 0 for what is over at once, like a kill.
        inject: begins it.
        mend: ends it; must not fail when the victim was hit by something else meanwhile.
    """

    kind: str
    victim: str
    seconds: float
    inject: Callable[[], None]
    mend: Callable[[], None]


@dataclass(frozen=True, slots=True)
class FaultClass:
    """A class of faults.

    Attributes:
        name: for `--class`.
        summary: one line for people.
        parts: what the cluster must have been built with.
        tools: programs that it needs.
        root: whether it needs root.
        submissions_only: whether only asynchronous jobs are promised to survive it.
        draw: makes the next fault; the number stretches its duration.
    """

    name: str
    summary: str
    draw: Callable[[Cluster, random.Random, float], Fault]
    parts: frozenset[str] = frozenset()
    tools: tuple[str, ...] = ()
    root: bool = False
    submissions_only: bool = False

    def missing(self) -> str | None:
        """Say why this class cannot be run here, or None."""
        path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin"
        for tool in ("mosquitto", *self.tools):
            if shutil.which(tool, path=path) is None:
                return f"the program {tool} is not installed"
        if self.root and os.geteuid() != 0:
            return "it needs root"
        if "memory" in self.parts and memory.hierarchy() is None:
            return "no control group hierarchy limits memory here"
        if "clocks" in self.parts and clocks.library() is None:
            return "libfaketime is not installed"
        return None


def _nothing() -> None:
    pass


def _services(cluster: Cluster) -> list[str]:
    return [BROKER, COORDINATOR, *cluster.agents]


def _processes(cluster: Cluster) -> list[str]:
    return [*_services(cluster), *(f"{name}/worker" for name in cluster.agents)]


def _signal(cluster: Cluster, victim: str, number: signal.Signals) -> int | None:
    pid = cluster.pid(victim)
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return pid


# -- signals ----------------------------------------------------------------------------------------------------------


def _draw_kill(cluster: Cluster, rng: random.Random, _stretch: float) -> Fault:
    victim = cluster.draw(rng, "kill", _processes(cluster))

    def inject() -> None:
        pid = _signal(cluster, victim, signal.SIGKILL)
        wait_until(lambda: cluster.pid(victim) not in {pid, None}, PATIENCE_SECONDS)

    return Fault("SIGKILL", victim, 0.0, inject, _nothing)


def _draw_stop(cluster: Cluster, rng: random.Random, stretch: float) -> Fault:
    victim = cluster.draw(rng, "stop", _processes(cluster))
    stopped: list[int] = []

    def inject() -> None:
        pid = _signal(cluster, victim, signal.SIGSTOP)
        stopped.extend([pid] if pid is not None else [])

    def mend() -> None:
        for pid in stopped:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    return Fault("SIGSTOP", victim, rng.uniform(0.5, 12.0) * stretch, inject, mend)


BROKER_KINDS = ("restart with its state", "killed, comes back with its state", "killed, comes back empty")


def _draw_broker(cluster: Cluster, rng: random.Random, stretch: float) -> Fault:
    kind = cluster.draw(rng, "broker", BROKER_KINDS)
    number = signal.SIGTERM if kind.startswith("restart") else signal.SIGKILL

    def inject() -> None:
        cluster.keeper.hold(BROKER, number)
        if kind.endswith("empty"):
            for path in (cluster.folder / BROKER).iterdir():
                path.unlink()

    def mend() -> None:
        cluster.keeper.release(BROKER)
        wait_until(cluster.broker_listens, PATIENCE_SECONDS)

    return Fault(kind, BROKER, rng.uniform(0.1, 8.0) * stretch, inject, mend)


# -- the network ------------------------------------------------------------------------------------------------------


PARTITION_KINDS = ("drop", "drop input", "drop output", "reject", "link down", "flapping")


def _draw_partition(cluster: Cluster, rng: random.Random, stretch: float) -> Fault:
    namespaces = cluster.namespaces
    assert namespaces is not None
    victim = cluster.draw(rng, "partition", _services(cluster))
    kind = cluster.draw(rng, "partition kind", PARTITION_KINDS)
    seconds = rng.uniform(1.0, 15.0) * stretch
    moments = [rng.uniform(0.1, 1.0) for _ in range(200)]
    if kind == "link down":
        return Fault(
            kind, victim, seconds, lambda: namespaces.link(victim, up=False), lambda: namespaces.link(victim, up=True)
        )
    if kind == "flapping":
        flap = _Flapping(lambda up: namespaces.link(victim, up=up), moments)
        return Fault(kind, victim, seconds, flap.begin, flap.end)
    how = "reject with tcp reset" if kind == "reject" else "drop"
    directions = [kind.removeprefix("drop ")] if kind.startswith("drop ") else ["input", "output"]
    return Fault(
        kind,
        victim,
        seconds,
        lambda: namespaces.block(victim, how, *directions),
        lambda: namespaces.unblock(victim),
    )


class _Flapping:
    """A link that goes down and up again and again, on a thread of its own."""

    def __init__(self, switch: Callable[[bool], None], seconds: list[float]) -> None:
        self._switch = switch
        self._seconds = seconds
        self._stop = threading.Event()

    def begin(self) -> None:
        self._thread = in_thread(self._run, "flapping")

    def end(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            for number, wait in enumerate(self._seconds):
                self._switch(bool(number % 2))
                if self._stop.wait(wait):
                    break
        finally:
            self._switch(True)


_BAD_WEATHER: dict[str, dict[str, object]] = {
    "600 ms delay": {"delay_seconds": 0.6},
    "64 kbit/s": {"bytes_per_second": 8000.0},
    "fragments": {"jitter_seconds": 0.05},
    "black hole": {"swallow_up": True, "swallow_down": True},
    "nothing comes back": {"swallow_down": True},
    "refuses": {"refuse": True},
    "flipped bits": {"flip_one_in": 10},
    "cut inside a packet": {"cut_publish": True},
}


def _draw_proxy(cluster: Cluster, rng: random.Random, stretch: float) -> Fault:
    proxies = cluster.proxies
    assert proxies is not None
    victim = cluster.draw(rng, "proxy", [COORDINATOR, *cluster.agents])
    kind = cluster.draw(rng, "proxy kind", [*_BAD_WEATHER, "reset", "half-open"])
    seconds = rng.uniform(1.0, 15.0) * stretch

    def clear() -> None:
        proxies.change(victim)

    if kind == "reset":
        return Fault(kind, victim, 0.0, lambda: proxies.reset(victim), _nothing)
    if kind == "half-open":
        return Fault(kind, victim, seconds, lambda: proxies.half_open(victim), clear)
    return Fault(kind, victim, seconds, lambda: proxies.change(victim, **_BAD_WEATHER[kind]), clear)


# -- the machine ------------------------------------------------------------------------------------------------------


def _draw_disk_full(cluster: Cluster, rng: random.Random, stretch: float) -> Fault:
    victim = cluster.draw(rng, "disk full", cluster.small_disks)
    disk = cluster.small_disks[victim]
    return Fault("disk full", victim, rng.uniform(1.0, 12.0) * stretch, disk.fill, disk.free)


def _draw_read_only(cluster: Cluster, rng: random.Random, stretch: float) -> Fault:
    victim = cluster.draw(rng, "read-only", cluster.fragile_disks)
    disk = cluster.fragile_disks[victim]

    def inject() -> None:
        pid = _signal(cluster, victim, signal.SIGSTOP)  # between the last write and the error there is no other one
        disk.fail()
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def mend() -> None:
        # Such a file system is checked and mounted anew: a reboot, for whoever has files open there.
        cluster.keeper.hold(victim, signal.SIGKILL)
        disk.repair()
        cluster.keeper.release(victim)

    return Fault("read-only disk", victim, rng.uniform(1.0, 12.0) * stretch, inject, mend)


def _draw_power(cluster: Cluster, rng: random.Random, stretch: float) -> Fault:
    victim = cluster.draw(rng, "power", cluster.fragile_disks)
    disk = cluster.fragile_disks[victim]

    def inject() -> None:
        pid = _signal(cluster, victim, signal.SIGSTOP)
        disk.fail(synchronised=False)
        if pid is not None:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        cluster.keeper.hold(victim, signal.SIGKILL)

    def mend() -> None:
        disk.repair()
        cluster.keeper.release(victim)

    return Fault("power cut", victim, rng.uniform(0.5, 6.0) * stretch, inject, mend)


def _draw_memory(cluster: Cluster, rng: random.Random, stretch: float) -> Fault:
    victim = cluster.draw(rng, "memory", cluster.groups)
    group = cluster.groups[victim]
    return Fault("no memory left", victim, rng.uniform(2.0, 10.0) * stretch, group.squeeze, group.relax)


JUMPS_SECONDS = (5, 40, 90, 3600, 20 * 3600)
"""The smallest are inside a lease and a deadline, the others beyond; all are inside the skew that signatures allow."""


def _draw_clock(cluster: Cluster, rng: random.Random, stretch: float) -> Fault:
    victim = cluster.draw(rng, "clock", cluster.clocks)
    clock = cluster.clocks[victim]
    jump = int(cluster.draw(rng, "clock jump", [f"{sign}{size}" for size in JUMPS_SECONDS for sign in "+-"]))
    seconds = rng.uniform(2.0, 12.0) * stretch
    return Fault(f"clock {jump:+d} s", victim, seconds, lambda: clock.jump(jump), lambda: clock.jump(0))


CLASSES: dict[str, FaultClass] = {
    found.name: found
    for found in (
        FaultClass("kill", "SIGKILL of agents, workers, the coordinator, the broker", _draw_kill),
        FaultClass("stop", "SIGSTOP and SIGCONT of the same", _draw_stop),
        FaultClass("broker", "the broker restarts, with and without its state", _draw_broker),
        FaultClass(
            "proxy",
            "slow, narrow, resetting, half-open, black-holed connections; cuts inside a packet; flipped bits",
            _draw_proxy,
            parts=frozenset({"proxies"}),
        ),
        FaultClass(
            "partition",
            "packets dropped and rejected, in both directions and in one; links down and flapping",
            _draw_partition,
            parts=frozenset({"namespaces"}),
            tools=("ip", "nft"),
            root=True,
        ),
        FaultClass(
            "disk-full",
            "no space left for the coordinator or an agent",
            _draw_disk_full,
            parts=frozenset({"small-disks"}),
            tools=("mount",),
            root=True,
        ),
        FaultClass(
            "read-only",
            "the disk of the coordinator or an agent becomes read-only",
            _draw_read_only,
            parts=frozenset({"fragile-disks"}),
            tools=("mount", "mkfs.ext4", "fsck.ext4"),
            root=True,
        ),
        FaultClass(
            "power",
            "the coordinator's or an agent's machine loses power: what was not synchronised to its disk is gone",
            _draw_power,
            parts=frozenset({"fragile-disks"}),
            tools=("mount", "mkfs.ext4", "fsck.ext4"),
            root=True,
            submissions_only=True,
        ),
        FaultClass(
            "memory",
            "the kernel kills what an agent runs for want of memory",
            _draw_memory,
            parts=frozenset({"memory"}),
            root=True,
        ),
        FaultClass(
            "clock",
            "the wall clock of the coordinator or an agent jumps, in either direction",
            _draw_clock,
            parts=frozenset({"clocks"}),
        ),
    )
}
