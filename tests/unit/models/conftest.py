"""Catalogue entries as the tests of this folder want them, without files behind them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import pytest

from edge_agent.models.catalogue import Costs, Family, Golden, Port, Quality, Variant
from edge_agent.models.entries import BIT_IDENTICAL

if TYPE_CHECKING:
    from collections.abc import Callable


def _variant(name: str = "fp32", *, quality: float = 0.99, n: int = 364, **changes: Any) -> Variant:  # noqa: ANN401
    costs = {
        "initializer_bytes": 20_000,
        "largest_initializer_bytes": 15_000,
        "conv_fp32_initializer_bytes": 7_000,
        "activation_peak_bytes": 4_000,
        "macs": 36_000,
        "nodes": 8,
    }
    costs.update({key: changes.pop(key) for key in tuple(changes) if key in Costs.model_fields})
    entry: dict[str, Any] = {
        "name": name,
        "file": f"{name}.onnx",
        "digest": hashlib.sha256(name.encode()).hexdigest(),
        "size_bytes": 20_000,
        "format": "fp32",
        "opset": 21,
        "min_runtime": "1.27",
        "quality": Quality(metric="top1", value=quality, dataset="made up", n=n),
        "costs": Costs(**costs),
        "golden": Golden(file=f"{name}.cbor", digest="0" * 64, size_bytes=1, atol=0.01, rtol=0.0),
    }
    if changes.pop("reproducible", False):
        entry["reproducibility"] = BIT_IDENTICAL
    if changes.get("format") in {"qdq", "qoperator", "dynamic"}:
        entry["signedness"] = "u8s8"
    return Variant(**{**entry, **changes})


def _family(*variants: Variant, target_ms: float = 20.0) -> Family:
    return Family(
        name="toy",
        title="A toy",
        task="Nothing.",
        licence="CC0-1.0",
        source="made up",
        inputs=(Port(name="x", datatype="FP32", shape=("N", 4)),),
        outputs=(Port(name="y", datatype="FP32", shape=("N", 2)),),
        metric="top1",
        latency_target_ms=target_ms,
        variants=variants,
    )


@pytest.fixture(scope="session")
def make_variant() -> Callable[..., Variant]:
    """Return a function that makes a small valid variant; arguments change single fields."""
    return _variant


@pytest.fixture(scope="session")
def make_family() -> Callable[..., Family]:
    """Return a function that makes a family of the given variants."""
    return _family
