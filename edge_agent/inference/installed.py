"""What is installed for inference, found without importing any of it."""

from __future__ import annotations

from importlib import metadata
from importlib.util import find_spec

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
