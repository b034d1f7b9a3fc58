"""What this machine has for inference, found without importing any of it."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec
from typing import TYPE_CHECKING

from edge_agent.inference import containment
from edge_agent.models.catalogue import builtin
from edge_agent.models.obstacles import Here

if TYPE_CHECKING:
    from edge_agent.models.store import Store

_EXTRAS = {"onnxruntime-extensions": "onnxruntime_extensions"}


def runtime_name() -> str:
    """Return the runtime as a class names it, for example `onnxruntime 1.32.0`; empty if it cannot be told."""
    try:
        return f"onnxruntime {metadata.version('onnxruntime')}"
    except metadata.PackageNotFoundError:
        return ""


def installed() -> frozenset[str]:
    """Return what is there of all that a variant may require beside onnxruntime."""
    return frozenset(name for name, module in _EXTRAS.items() if find_spec(module) is not None)


def here(store: Store, *, uncontained: bool) -> Here:
    """Return what decides which variants can run here.

    Args:
        store: where files of models are.
        uncontained: whether the owner lets models of strangers run where the worker cannot be contained.

    Raises:
        StateError: the program's own files are damaged.
    """
    return Here(
        runtime=runtime_name(),
        installed=installed(),
        present=store.has,
        uncontained="" if uncontained else containment.offered().lack,
        own=frozenset(variant.digest for family in builtin().families for variant in family.variants),
    )
