"""The worker process: `python -m edge_agent.inference.worker --fd N --parent PID --threads N`.

It first protects the machine, then imports onnxruntime, then contains itself for good, then serves the socket `N`
until the daemon closes its end or is gone. It decides nothing, and it is killed rather than asked when it takes too
long.
"""

from __future__ import annotations

import argparse
import gc
import os
import socket
import sys

from edge_agent.errors import EdgeAgentError
from edge_agent.inference import containment, limits, shared


def main(arguments: list[str] | None = None) -> int:
    """Serve until the daemon ends the conversation; return the exit status."""
    parser = argparse.ArgumentParser(description="Runs models for the agent; started by the agent, not by people.")
    parser.add_argument("--fd", type=int, required=True, help="the connected socket to the daemon")
    parser.add_argument("--parent", type=int, required=True, help="the process id of the daemon")
    parser.add_argument("--threads", type=int, required=True, help="threads inside an operator")
    parser.add_argument("--memory-limit-bytes", type=int, help="memory for models, above that of the idle worker")
    parser.add_argument("--read", action="append", default=[], help="a folder or file of models, to be read")
    parser.add_argument("--inputs", type=int, help="memory that the daemon writes inputs of runs to")
    options = parser.parse_args(arguments)

    limits.begin(options.parent)
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"

    # Nothing that importing makes is garbage, so looking for garbage meanwhile is wasted time.
    gc.disable()
    from edge_agent.inference.service import Service  # noqa: PLC0415 - imports onnxruntime, under the limits above

    gc.freeze()
    gc.enable()
    limits.trim()
    inputs = None if options.inputs is None else shared.Inputs(options.inputs)
    contained = containment.enter(options.read)
    if options.memory_limit_bytes is not None:  # for models alone: what containment itself takes is there by now
        limits.limit_memory(options.memory_limit_bytes)
    with socket.socket(fileno=options.fd) as connection:
        service = Service(connection, options.threads, contained, inputs)
        try:
            service.ready()
            service.serve()
        except (BrokenPipeError, ConnectionResetError):
            return 0  # the daemon went away while an answer was on its way
        except EdgeAgentError as error:
            sys.stderr.write(f"The daemon sent something that is not a command: {error}\n")
            return error.exit_status
    return 0


if __name__ == "__main__":
    sys.exit(main())
