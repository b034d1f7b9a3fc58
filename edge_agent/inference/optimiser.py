"""The process that makes an optimised copy of one model: `python -m edge_agent.inference.optimiser …`.

It is contained as a worker is, but for one file that it may write, and lives for one model. It loads the model and runs
it, has onnxruntime write what it made of it, loads and runs that, and says how the two compare: whether every bit of
the outputs is the same, how long each took to load, and how much memory each held.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys

from edge_agent.errors import EdgeAgentError, ResourceError
from edge_agent.inference import containment, limits

NICE = 10
"""Whoever has a job to do comes first, but a busy machine gets it done, too."""


def main(arguments: list[str] | None = None) -> int:
    """Make the copy, say what came of it, and return the exit status."""
    parser = argparse.ArgumentParser(
        description="Optimises a model for the agent; started by the agent, not by people."
    )
    parser.add_argument("--parent", type=int, required=True, help="the process id of the daemon")
    parser.add_argument("--model", type=int, required=True, help="the descriptor of the model's file")
    parser.add_argument("--into", type=int, required=True, help="the descriptor of the file to be filled")
    parser.add_argument("--most-bytes", type=int, required=True, help="that this file may have")
    parser.add_argument("--memory-limit-bytes", type=int, help="memory for the model, above that of the idle process")
    parser.add_argument("--read", action="append", default=[], help="a folder or file of models, to be read")
    options = parser.parse_args(arguments)

    limits.begin(options.parent)
    with contextlib.suppress(OSError):  # a container may forbid even that
        os.nice(NICE)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"

    from edge_agent.inference.copying import MAX_ASKED_BYTES, copy  # noqa: PLC0415 - imports onnxruntime, as above

    limits.trim()
    containment.enter(options.read, (options.into, options.most_bytes))
    if options.memory_limit_bytes is not None:
        limits.limit_memory(options.memory_limit_bytes)

    answer: object
    try:
        answer = copy(options.model, options.into, sys.stdin.buffer.read(MAX_ASKED_BYTES + 1))
    except (EdgeAgentError, MemoryError) as error:
        why = (str(error) or "There is not enough memory.")[:500]
        answer = {"why": why, "passing": isinstance(error, ResourceError | MemoryError)}
    sys.stdout.write(json.dumps(answer))
    sys.stdout.flush()
    os._exit(0)  # nothing is left to be done, least of all by a library that has seen foreign bytes


if __name__ == "__main__":
    sys.exit(main())
