"""What the daemon hears about its worker: one frozen value an event, and nothing native behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_agent.inference.containment import NOTHING, Containment
from edge_agent.wire.tensors import DataType, Tensor

Blame: TypeAlias = Literal["requester", "model", "agent"]

CANCELLED = "cancelled"
"""The code of a canary run that was called off; it says nothing about the model."""


@dataclass(frozen=True, slots=True)
class Port:
    """An input or output of a model as its file declares it.

    A dimension is a size, the name of a size that is free (equal names stand for equal sizes), or `?` for a
    free size without a name. The shape `()` is a scalar or, since onnxruntime does not tell these apart, of
    any rank.
    """

    name: str
    datatype: DataType
    shape: tuple[int | str, ...]

    def __str__(self) -> str:
        return f"{self.name!r} ({self.datatype.value}, shape [{', '.join(str(size) for size in self.shape)}])"


@dataclass(frozen=True, slots=True)
class WorkerStarted:
    """The worker has imported onnxruntime, is contained, and waits for commands, `start_ms` after it was asked for."""

    pid: int
    runtime: str
    providers: tuple[str, ...]
    start_ms: float
    containment: Containment = NOTHING


@dataclass(frozen=True, slots=True)
class ModelLoaded:
    """A model can be run now. `memory_bytes` is the anonymous memory that loading it added to the worker."""

    digest: bytes
    load_ms: float
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class LoadFailed:
    """A model could not be loaded, or the worker ended while loading it."""

    digest: bytes
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class RunDone:
    """A run has its outputs. `run_us` is the time in the worker, without the way there and back."""

    token: int
    outputs: tuple[Tensor, ...]
    run_us: int


@dataclass(frozen=True, slots=True)
class RunFailed:
    """A run gave no outputs; `blame` says whether the input, the model or this machine was the cause."""

    token: int
    code: str
    message: str
    blame: Blame


@dataclass(frozen=True, slots=True)
class CanaryDone:
    """A model was measured, alone in a worker of its own, on its golden inputs or on made-up ones.

    Times are of single runs after a warm-up, with the number of `threads` that was fastest. Memory is resident
    memory above the idle worker's. `why` says in words where the outputs left the golden ones, or that they are not
    finite; empty if all is well.

    Attributes:
        peak_bytes: the most at any time.
        checked: whether there were golden outputs; if not, it is only known to run.
        cpu_us: CPU time of one run over all threads.
        tried: every number of threads that was tried, with its median time in microseconds.
        runtime: that it ran in.
        lanes: how many runs side by side do the most here; with more than one, each has one thread.
        together: how many waiting runs are best made one here.
    """

    digest: bytes
    p50_us: int
    p95_us: int
    runs: int
    load_ms: float
    peak_bytes: int
    golden_ok: bool
    why: str
    threads: int
    load_peak_bytes: int = 0
    steady_bytes: int = 0
    run_peak_bytes: int = 0
    cpu_us: int = 0
    checked: bool = True
    tried: tuple[tuple[int, int], ...] = ()
    runtime: str = ""
    lanes: int = 1
    together: int = 1


@dataclass(frozen=True, slots=True)
class CanaryFailed:
    """A model could not be measured: it does not load or run here, its worker ended over it, or it was `CANCELLED`."""

    digest: bytes
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class WorkerDied:
    """The worker ended without being asked to. `tokens` are the runs that it still held, oldest first."""

    pid: int
    code: Literal["worker-died", "worker-hung"]
    message: str
    tokens: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CopyWanted:
    """A model was loaded from its own file, and an optimised copy of it may be made when there is time."""

    digest: bytes


@dataclass(frozen=True, slots=True)
class CopyMade:
    """A copy was made, or could not be; `why_not` is empty if it will be loaded the next time."""

    digest: bytes
    why_not: str


WorkerEvent: TypeAlias = (
    WorkerStarted
    | ModelLoaded
    | LoadFailed
    | RunDone
    | RunFailed
    | CanaryDone
    | CanaryFailed
    | WorkerDied
    | CopyWanted
    | CopyMade
)
