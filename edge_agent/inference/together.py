"""Waiting runs of one model as one: whether it pays here, and whether each is answered as if it were alone.

What has to be fetched from memory for one run, its weights above all, is then fetched once for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from edge_agent.errors import EdgeAgentError
from edge_agent.inference import limits, model_file
from edge_agent.inference.events import Port
from edge_agent.inference.sessions import NUMPY, Output, Session
from edge_agent.wire.tensors import DataType, Tensor

MOST: Final = 8
"""So many runs are made one, at most."""
MOST_RUN_US: Final = 50_000
"""A run that takes longer fills the machine by itself, and whoever comes next would wait for all of them."""
MORE_MEMORY: Final = 1.1
MORE_MEMORY_BYTES: Final = 8 * 1024 * 1024
"""They may take so much more together than one run took: memory was planned for one."""


LEAST_KNOWN: Final = 2
_SCALABLE: Final = frozenset({DataType.FP16, DataType.FP32, DataType.FP64, DataType.UINT8})
MIXING: Final = (b"DynamicQuantize", *(bytes([0x22, len(name)]) + name for name in (b"If", b"Loop", b"Scan")))
"""As they stand in a file, operators that look at all rows at once for one number, or one way to go (onnx.proto: a
node's type is its field 4). No test with a few inputs would be sure to show it."""


class AsOne(NamedTuple):
    """What runs do as one: so many together, and how many a second."""

    runs: int = 1
    per_second: float = 0.0


def measured(session: Session, fd: int, inputs: Sequence[tuple[Tensor, ...]], seconds: float, run_bytes: int) -> AsOne:
    """Time `MOST` runs as one; nothing to speak of unless every number of them gives each what it gives it alone.

    Args:
        session: of the model.
        fd: its file.
        inputs: of known runs.
        seconds: how long to repeat it.
        run_bytes: what a single run took in memory.
    """
    if not take_several(session.inputs + session.outputs) or model_file.mentions(fd, MIXING):
        return AsOne()
    places = _places(inputs)
    if len({tuple(bytes(tensor.data) for tensor in given) for given in places}) < MOST:
        return AsOne()
    limits.reset_peak()
    before = limits.status_bytes("VmRSS")
    try:
        alone = [_bytes(session.run(given, (), 2**63)) for given in places]
        for count in range(2, MOST + 1):
            answers = session.run_several(places[-count:], (), 2**63)
            if list(map(_bytes, answers)) != alone[-count:]:
                return AsOne()
        done, began = 0, time.perf_counter()
        while not done or time.perf_counter() - began < seconds:
            session.run_several(places, (), 2**63)
            done += MOST
        took = time.perf_counter() - began
    except (EdgeAgentError, MemoryError):
        return AsOne()
    more = max(0, limits.status_bytes("VmHWM") - before)
    return AsOne(MOST, done / took) if more <= run_bytes * MORE_MEMORY + MORE_MEMORY_BYTES else AsOne()


def take_several(ports: Sequence[Port]) -> bool:
    """Whether runs can be joined: the first extent of all inputs and outputs has one name, which is nowhere else."""
    names = {port.shape[0] if port.shape else 0 for port in ports}
    free = next(iter(names))
    plain_types = all(port.datatype not in {DataType.BYTES, DataType.BF16} for port in ports)
    apart = not any(free in port.shape[1:] or "?" in port.shape[1:] for port in ports)
    return len(names) == 1 and isinstance(free, str) and free != "?" and plain_types and apart


def _bytes(outputs: Sequence[Output]) -> list[bytes]:
    return [bytes(output.data) for output in outputs]


def _places(inputs: Sequence[tuple[Tensor, ...]]) -> list[tuple[Tensor, ...]]:
    """Return so many different inputs of one shape that an answer which depends on its neighbours shows it.

    Those that are known, and the same numbers in other orders, each time smaller: what a model makes of the smallest
    and the largest of all rows differs between them. Whole numbers that may be names of things stay what they are, so
    that of these two must be known.
    """
    same = [given for given in inputs if [t.spec for t in given] == [t.spec for t in inputs[0]]]
    scalable = all(tensor.spec.datatype in _SCALABLE for tensor in inputs[0])
    if not scalable and len({tuple(bytes(tensor.data) for tensor in given) for given in same}) < LEAST_KNOWN:
        return []
    turns = range(1 + MOST // len(same))
    return [tuple(_other(tensor, turn) for tensor in given) for turn in turns for given in same][:MOST]


def _other(tensor: Tensor, turn: int) -> Tensor:
    if not turn:
        return tensor
    datatype = tensor.spec.datatype
    numbers: npt.NDArray[Any] = np.roll(np.frombuffer(tensor.data, NUMPY[datatype])[::-1], turn)
    if datatype in _SCALABLE:
        numbers = (numbers / (1 + turn)).astype(NUMPY[datatype])
    return Tensor(tensor.spec, numbers.tobytes())
