"""The hardware profile as values: what `profile()` returns and what `edge-agent profile --json` prints.

Every class is frozen and has `to_dict()`, whose keys are the field names. `None` means one of two things:
there is none of it (no quota, no limit, not a container), or it cannot be known; then `Profile.unknown` holds
the field's path and the reason. Units are in the names. docs/profile.md says where each field comes from.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any

from hardware.isa import path

SCHEMA_VERSION = 1


def _plain(value: object) -> Any:  # noqa: ANN401 - JSON is what it is
    if isinstance(value, Record):
        return value.to_dict()
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


@dataclass(frozen=True)
class Record:
    """What all parts of a profile share."""

    def to_dict(self) -> dict[str, Any]:
        """Return this part as plain JSON values, lists instead of tuples."""
        return {item.name: _plain(getattr(self, item.name)) for item in fields(self)}


@dataclass(frozen=True)
class Board(Record):
    """What the machine is called, by itself and by the board files."""

    id: str | None = None
    """Our name for it (`raspberry-pi-5b`): the board file's name, only if one matches."""
    model: str | None = None
    vendor: str | None = None
    soc: str | None = None
    compatible: tuple[str, ...] = ()
    """The device tree's strings, most specific first."""
    hardware: str | None = None
    """The `Hardware` line of /proc/cpuinfo as it is: a board, a chip, or the wrong chip."""


@dataclass(frozen=True)
class Cache(Record):
    """One cache of the CPU: one entry for each piece of silicon, not for each CPU."""

    level: int | None = None
    kind: str | None = None
    """`data`, `instruction` or `unified`."""
    size_kib: int | None = None
    cpus: tuple[int, ...] | None = None
    """The CPUs that share it."""


@dataclass(frozen=True)
class Cluster(Record):
    """All CPUs of one kind (the same core design), wherever their numbers lie."""

    name: str | None = None
    vendor: str | None = None
    cpus: tuple[int, ...] = ()
    max_khz: int | None = None
    """The highest clock any CPU of the cluster announces; some vendors' firmware exaggerates it."""
    capacity: int | None = None
    """The highest relative capacity (0 to 1024) the kernel gives to a CPU of the cluster."""
    big: bool | None = None
    """Whether work should be put here; on a machine with one kind of CPU all are."""
    implementer: int | None = None
    part: int | None = None
    variant: int | None = None
    revision: int | None = None


@dataclass(frozen=True)
class Cpu(Record):
    """The processors: which there are, which we may use, what they are and what they can do."""

    online: tuple[int, ...] | None = None
    offline: tuple[int, ...] | None = None
    """As the kernel says: CPUs that may be plugged in one day are among them, see `present`."""
    usable: tuple[int, ...] | None = None
    """Online, and allowed to this process by its affinity and cpuset."""
    clusters: tuple[Cluster, ...] = ()
    features: dict[str, bool | None] = field(default_factory=dict)
    """What all usable CPUs have, by the kernel's word; the names are those of this instruction set."""
    quota_cpus: float | None = None
    caches: tuple[Cache, ...] = ()
    quota_source: str | None = None
    present: tuple[int, ...] | None = None
    cores: tuple[tuple[int, ...], ...] | None = None
    """The online CPUs of each physical core: several where a core runs several threads."""
    model: str | None = None
    """The processor's trade name, where it has one to tell (x86, LoongArch, …)."""
    vendor_id: str | None = None
    governor: str | None = None
    """The clock governor; several are joined by commas."""


@dataclass(frozen=True)
class Zram(Record):
    """One compressed swap device in memory."""

    name: str | None = None
    size_bytes: int | None = None
    algorithm: str | None = None


@dataclass(frozen=True)
class Memory(Record):
    """How much memory there is, how much we may take, and who says so."""

    total_kib: int | None = None
    available_kib: int | None = None
    limit_bytes: int | None = None
    limit_source: str | None = None
    swap_total_kib: int | None = None
    zram: tuple[Zram, ...] = ()
    budget_bytes: int | None = None
    swap_free_kib: int | None = None


@dataclass(frozen=True)
class Accelerator(Record):
    """One device besides the CPU that could compute, and whether it can here."""

    kind: str = "npu"
    """`npu`, `gpu` or `tpu`."""
    name: str | None = None
    driver: str | None = None
    node: str | None = None
    usable: bool = False
    why: str | None = None


@dataclass(frozen=True)
class Thermal(Record):
    """How hot the CPU is and whether it holds back."""

    cpu_celsius: float | None = None
    zone: str | None = None
    throttled: bool | None = None
    limit_celsius: float | None = None
    under_voltage: bool | None = None


@dataclass(frozen=True)
class Power(Record):
    """Where the current comes from and how much flows."""

    source: str = "unknown"
    """`mains`, `battery` or `unknown`."""
    battery_percent: float | None = None
    watts: float | None = None
    watts_source: str | None = None
    """`rapl`, `hwmon` or `board`."""
    idle_watts: float | None = None
    max_watts: float | None = None


@dataclass(frozen=True)
class Disk(Record):
    """Where models will lie."""

    path: str | None = None
    device: str | None = None
    kind: str | None = None
    filesystem: str | None = None
    total_bytes: int | None = None
    free_bytes: int | None = None
    read_only: bool | None = None


@dataclass(frozen=True)
class Virtual(Record):
    """What stands between us and the metal; None is nothing."""

    container: str | None = None
    virtual_machine: str | None = None


@dataclass(frozen=True)
class Profile(Record):
    """What this machine is, and what it can carry right now."""

    schema: int = SCHEMA_VERSION
    isa: str | None = None
    """What programs here are made of: `aarch64`, `aarch32`, `x86_64`, `x86`, `riscv64`, …"""
    board: Board = field(default_factory=Board)
    cpu: Cpu = field(default_factory=Cpu)
    memory: Memory = field(default_factory=Memory)
    accelerators: tuple[Accelerator, ...] = ()
    thermal: Thermal = field(default_factory=Thermal)
    power: Power = field(default_factory=Power)
    disk: Disk = field(default_factory=Disk)
    container: str | None = None
    virtual_machine: str | None = None
    kernel_release: str | None = None
    unknown: dict[str, str] = field(default_factory=dict)
    """Field path (`memory.limit_bytes`, `cpu.clusters.0.name`) to the reason why it is None."""

    @property
    def isa_path(self) -> str:
        """The instruction sets that decide which of onnxruntime's kernels run, as in `aarch64+dotprod+i8mm`.

        Results are expected to be bit-identical only between machines with the same path. `unknown` where
        even the base is not known.
        """
        return path(self.isa, self.cpu.features)

    @property
    def usable_threads(self) -> int:
        """How many threads inference should use: one a usable big core, within the CPU quota; at least 1.

        CPUs of which it is not known whether they are big count as big.
        """
        cpus = set(self.cpu.usable or self.cpu.online or (0,))
        big = {cpu for cluster in self.cpu.clusters if cluster.big is not False for cpu in cluster.cpus} & cpus
        chosen = big or cpus
        cores = sum(1 for core in self.cpu.cores if chosen & set(core)) if self.cpu.cores else 0
        threads = cores or len(chosen)
        if self.cpu.quota_cpus is not None:
            threads = min(threads, int(self.cpu.quota_cpus))
        return max(1, threads)
