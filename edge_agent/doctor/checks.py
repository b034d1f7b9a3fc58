"""The list of checks, in the order in which they are made and shown. To add one, write its function and add a line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from edge_agent.doctor import files, machine, network, worker
from edge_agent.doctor.findings import Check, Finding

if TYPE_CHECKING:
    from edge_agent.doctor.context import Context

CHECKS: tuple[Check, ...] = (
    Check("settings", "the settings can be read", files.settings),
    Check("python", "Python and architecture are tested ones", machine.python),
    Check("keys", "keys are there, whole and private", files.keys),
    Check("state", "the state directory can be written and has room", files.state),
    Check("spool", "unsettled results on disk can be read", files.spool),
    Check("memory", "there is memory for models", machine.memory),
    Check("runtime", "onnxruntime starts, with telemetry off", worker.runtime),
    Check("containment", "what a model could reach from its worker", worker.containment),
    Check("bounds", "what bounds the running agent's workers from outside", worker.bounds),
    Check("models", "model files are what the catalogue says", files.models),
    Check("broker", "the broker lets us in", network.broker),
    Check("coordinator", "the coordinator's hello is signed by the pinned key", network.coordinator),
    Check("admission", "the coordinator answers this agent", network.admission),
    Check("clock", "the clocks agree", network.clock),
)


def examine(context: Context) -> Iterator[tuple[Check, Finding]]:
    """Make every check, one after the other."""
    for check in CHECKS:
        yield check, check.run(context)
