"""From single CPUs to kinds of CPU, and which kind is big.

Two CPUs are of one kind if they are of one design, wherever their numbers lie and however fast each is
clocked: neither the clock nor the capacity makes a kind. Where the design cannot be known, CPUs that differ
in clock domain or capacity are kept apart, since they may differ, and are not called big or little without
evidence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardware.cpu_topology import group_by
from hardware.schema import Cluster

if TYPE_CHECKING:
    from hardware.cpu_topology import Cpus, Topology
    from hardware.midr import Midr


@dataclass(frozen=True)
class Kind:
    """One design of CPU. Two CPUs are of one kind if these are equal."""

    name: str | None = None
    vendor: str | None = None
    efficiency: bool | None = None
    """Whether it is the little one wherever it is mixed with others; None if that is not known of it."""
    midr: Midr | None = None
    key: tuple[object, ...] = ()
    """What else tells it apart."""


@dataclass(frozen=True)
class _Group:
    cpus: Cpus
    kind: Kind | None
    capacity: int | None


def build(
    kinds: dict[int, Kind], online: Cpus, topology: Topology, reason: str
) -> tuple[tuple[Cluster, ...], dict[str, str]]:
    """Return the clusters in the order of their first CPU, and what is unknown of them and why.

    `kinds` has no entry for a CPU whose design is not known; `reason` says why.
    """
    groups = [
        _Group(cpus, kinds.get(cpus[0]), max((topology.capacity.get(cpu, 0) for cpu in cpus), default=0) or None)
        for cpus in group_by(online, lambda cpu: _apart(cpu, kinds, topology))
    ]
    clusters: list[Cluster] = []
    unknown: dict[str, str] = {}
    for index, group in enumerate(groups):
        path = f"cpu.clusters.{index}"
        big, why = _big(group, groups, topology)
        kind = group.kind or Kind()
        khz = max((topology.max_khz.get(cpu, 0) for cpu in group.cpus), default=0) or None
        if kind.name is None:
            unknown[f"{path}.name"] = reason if group.kind is None else f"{_numbers(kind)} is not a known design"
        if kind.vendor is None:
            unknown[f"{path}.vendor"] = reason if group.kind is None else "the vendor is not stated, or not known"
        if khz is None:
            unknown[f"{path}.max_khz"] = "the kernel announces no highest clock (no cpufreq driver)"
        if group.capacity is None:
            unknown[f"{path}.capacity"] = "this kernel gives its CPUs no capacities"
        if big is None:
            unknown[f"{path}.big"] = why
        midr = kind.midr
        clusters.append(
            Cluster(
                name=kind.name,
                vendor=kind.vendor,
                cpus=group.cpus,
                max_khz=khz,
                capacity=group.capacity,
                big=big,
                implementer=midr.implementer if midr else None,
                part=midr.part if midr else None,
                variant=midr.variant if midr else None,
                revision=midr.revision if midr else None,
            )
        )
    return tuple(clusters), unknown


def _apart(cpu: int, kinds: dict[int, Kind], topology: Topology) -> object:
    kind = kinds.get(cpu)
    if kind is not None:
        return kind
    return (topology.clock_domain.get(cpu), topology.capacity.get(cpu), topology.max_khz.get(cpu))


def _numbers(kind: Kind) -> str:
    if kind.midr is not None:
        return f"implementer {kind.midr.implementer:#04x}, part {kind.midr.part:#05x}"
    return "this CPU"


def _big(  # noqa: PLR0911 - a ladder of evidence
    group: _Group, groups: list[_Group], topology: Topology
) -> tuple[bool | None, str]:
    """Return whether work belongs here, or None and the reason."""
    if len(groups) == 1:
        if group.kind is not None or len(group.cpus) == 1 or _seen_alike(group.cpus, topology):
            return True, ""
        return None, "nothing shows whether these CPUs are all of one kind"
    efficiencies = {other.kind.efficiency for other in groups if other.kind}
    unidentified = any(other.kind is None for other in groups)
    mine = group.kind.efficiency if group.kind else None
    if mine is False:
        return True, ""
    if mine and efficiencies == {True} and not unidentified:
        return True, ""  # little designs only: there is nothing better to leave them for
    if mine and efficiencies != {True}:
        return False, ""
    if group.capacity is not None:
        return group.capacity * 2 >= max(other.capacity or 0 for other in groups), ""
    if group.kind is not None and not mine and True in efficiencies:
        return True, ""  # an unknown design beside one that is always the little one
    return None, "CPUs differ here, and neither design nor capacity says which are the stronger"


def _seen_alike(cpus: Cpus, topology: Topology) -> bool:
    """Whether there was something to tell different CPUs apart by, and it told none apart."""
    return all(cpu in topology.capacity for cpu in cpus) or all(cpu in topology.clock_domain for cpu in cpus)
