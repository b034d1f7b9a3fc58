"""What the daemon hears about its worker: one frozen value an event, and nothing native behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from edge_agent.wire.tensors import DataType, Tensor

Blame: TypeAlias = Literal["requester", "model", "agent"]


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
    """The worker has imported onnxruntime and waits for commands, `start_ms` after it was asked for."""

    pid: int
    runtime: str
    providers: tuple[str, ...]
    start_ms: float


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
    """A model was measured, alone, on its golden inputs.

    Times are of single runs after a first, unmeasured one. `peak_bytes` is the highest resident memory above
    the idle worker's, loading included. `why` says in words where the outputs left the golden ones; empty if
    they did not.
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


@dataclass(frozen=True, slots=True)
class CanaryFailed:
    """A model could not be measured: it does not load or run here, or the worker ended over it."""

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


WorkerEvent: TypeAlias = (
    WorkerStarted | ModelLoaded | LoadFailed | RunDone | RunFailed | CanaryDone | CanaryFailed | WorkerDied
)
