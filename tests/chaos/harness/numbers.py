"""The sequence number in each job's input: put into the pixels, found again, and what must come out of it.

A job's input is a scan of a handwritten digit whose left edge carries the number in base 17, one digit a pixel: pixels
of the family `digits` go from 0 to 16. So the number travels with the input wherever that goes, also into the
coordinator's database and under the agent's signature.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from functools import cache

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import onnxruntime as ort

from edge_agent.local.demo import FAMILY, input_of
from edge_agent.models.catalogue import builtin
from edge_agent.models.scans import PIXELS, Scan, load_scans
from edge_agent.models.store import Store
from edge_agent.wire.tensors import Tensor

BASE = 17
PLACES = (0, 8, 16, 24)
MOST = BASE ** len(PLACES)
_FLOATS = struct.Struct(f"<{PIXELS}f")

TOLERANCE = 1e-4
"""Between our own session and the worker's, on the same machine; a wrong input changes the logits by whole units."""


@cache
def _scans() -> tuple[Scan, ...]:
    return tuple(load_scans())


def input_with(number: int) -> Tensor:
    """Make the input that carries this number."""
    if not 0 <= number < MOST:
        raise ValueError(f"numbers go from 0 to {MOST - 1}, not {number}")
    scans = _scans()
    pixels = list(_FLOATS.unpack(scans[number % len(scans)].image))
    rest = number
    for place in PLACES:
        rest, digit = divmod(rest, BASE)
        pixels[place] = float(digit)
    return input_of(Scan(_FLOATS.pack(*pixels), scans[number % len(scans)].label))


def number_in(data: bytes | memoryview) -> int:
    """Read the number out of an input's bytes."""
    pixels = _FLOATS.unpack(data)
    return sum(int(pixels[place]) * BASE**power for power, place in enumerate(PLACES))


@cache
def _session(variant: str) -> ort.InferenceSession:
    found = builtin().family(FAMILY).variant_named(variant)
    assert found is not None, variant
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return ort.InferenceSession(Store().path_of(found), options, providers=["CPUExecutionProvider"])


def is_right(number: int, variant: str, outputs: Sequence[Tensor]) -> bool:
    """Whether these are the outputs of this variant for this number, computed here once more."""
    session = _session(variant)
    tensor = input_with(number)
    feed = {tensor.spec.name: np.frombuffer(tensor.data, "<f4").reshape(tensor.spec.shape)}
    names = [output.name for output in session.get_outputs()]
    given = {output.spec.name: output for output in outputs}
    if set(given) != set(names):
        return False
    for name, expected in zip(names, session.run(names, feed), strict=True):
        array = np.frombuffer(given[name].data, expected.dtype)
        if array.size != expected.size or not np.allclose(array, expected.ravel(), atol=TOLERANCE):
            return False
    return True
