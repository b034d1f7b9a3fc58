"""What the owner's rules are judged by: readings of the machine, each known or said why not. Pure values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from hardware.power import Supply


@dataclass(frozen=True, slots=True)
class Reading:
    """One number, or why there is none.

    Attributes:
        value: in the unit of the field that it is in; None where it cannot be known.
        why: it cannot be known.
        pending: nothing was read since the start, but may be in a moment.
    """

    value: float | None
    why: str = ""
    pending: bool = False


NOT_READ = Reading(None, "it was not read")


@dataclass(frozen=True, slots=True)
class Readings:
    """The machine at one moment.

    Attributes:
        idle_seconds: since anybody used the machine.
        other_cpu_share: of all CPUs, taken by programs that are not ours, 0 to 1.
        memory_pressure_share: of the time that programs waited for memory, 0 to 1.
        cpu_celsius: temperature.
        network_bytes: that went over the network this month.
        written_bytes: that were written to disks today.
        metered: 1 while somebody pays for each byte of the network, 0 while nobody does.
        supply: mains or battery, and its charge.
        gates: the reading of each gate, by its text.
    """

    idle_seconds: Reading = NOT_READ
    other_cpu_share: Reading = NOT_READ
    memory_pressure_share: Reading = NOT_READ
    cpu_celsius: Reading = NOT_READ
    network_bytes: Reading = NOT_READ
    written_bytes: Reading = NOT_READ
    metered: Reading = NOT_READ
    supply: Supply = field(default_factory=Supply)
    gates: Mapping[str, Reading] = field(default_factory=dict)
