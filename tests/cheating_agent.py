"""`edge-agent run` with a worker whose outputs are falsified: a real agent in all else, its key, its signatures.

    python tests/cheating_agent.py run --state DIR

What it measures for itself is honest, so that it comes to offer something; what it answers to jobs is not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from edge_agent.agent import workers
from edge_agent.cli import main
from edge_agent.inference.events import RunDone, WorkerEvent
from edge_agent.inference.handle import Worker


class FalsifyingWorker(Worker):
    """Computes as it should, and answers with other bytes."""

    def __init__(self, put: Callable[[WorkerEvent], None], **options: Any) -> None:  # noqa: ANN401 passed on
        super().__init__(lambda event: put(_falsified(event)), **options)


def _falsified(event: WorkerEvent) -> WorkerEvent:
    """Turn every tensor of a result around: finite numbers of the right type and shape, and wrong."""
    if not isinstance(event, RunDone):
        return event
    return replace(event, outputs=tuple(replace(tensor, data=tensor.data[::-1]) for tensor in event.outputs))


if __name__ == "__main__":
    workers.Worker = FalsifyingWorker  # type: ignore[misc] # the seam: this process alone
    sys.exit(main(sys.argv[1:]))
