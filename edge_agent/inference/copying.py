"""Makes an optimised copy of a model, and compares both: the bits of their outputs, times to load, memory."""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping, Sequence
from typing import Any

from edge_agent.errors import MalformedError
from edge_agent.inference import limits, samples
from edge_agent.inference.sessions import Session, Weights, save_optimised
from edge_agent.models.golden import Case, decode_cases
from edge_agent.wire import strict_cbor

MAX_ASKED_BYTES = 65 * 1024 * 1024
MAX_OUTPUT_BYTES = 2**31
THREADS = 1
"""The copy is the same whatever number it is made with."""
MODEL = "model"


def copy(model: int, into: int, asked: bytes) -> dict[str, dict[str, Any]]:
    """Fill the file `into`, and return what was found of the model, and of the copy with its weights used either way.

    Args:
        model: the model's file.
        into: the copy's.
        asked: the content of a golden file (`golden`, maybe empty), and extents for made-up inputs (`extents`).

    Raises:
        MalformedError: `asked` is nothing of the kind.
        WorkerError: the model cannot be loaded, run, or written in the other format.
        InputError, TooLargeError, ResourceError: as `Session.run`.
    """
    golden, extents = _asked(asked)
    # A first session, for what every first one costs: pages of the library, and of the file.
    session = Session(model, THREADS)
    cases = decode_cases(golden) if golden else [Case(samples.make(session.inputs, extents), ())]
    expected = _answers(session, cases)
    del session
    gc.collect()
    save_optimised(model, into, THREADS)

    def look(file: int, weights: Weights | None = None) -> dict[str, Any]:
        gc.collect()
        limits.trim()
        before = limits.status_bytes("VmRSS")
        # Processor time: others may have the machine meanwhile.
        began = time.process_time_ns()
        session = Session(file, THREADS, optimised=weights)
        load_us = (time.process_time_ns() - began) // 1000
        same = _answers(session, cases) == expected
        limits.trim()
        held = max(0, limits.status_bytes("VmRSS") - before)
        return {"load_us": load_us, "held_bytes": held, "same": same}

    return {MODEL: look(model)} | {weights.value: look(into, weights) for weights in Weights}


def _asked(asked: bytes) -> tuple[bytes, Mapping[str, int]]:
    match strict_cbor.decode(asked, max_bytes=MAX_ASKED_BYTES):
        case {"golden": bytes() as golden, "extents": dict() as extents}:
            return golden, extents
    raise MalformedError("What the process is asked is no request.")


def _answers(session: Session, cases: Sequence[Case]) -> list[object]:
    found: list[object] = []
    for case in cases:
        wanted = [tensor.name for tensor in case.outputs]
        found += [(output.spec, bytes(output.data)) for output in session.run(case.inputs, wanted, MAX_OUTPUT_BYTES)]
    return found
