"""What others would pick: rules of thumb, and the published formulas of two tools, in our own words.

The tools are for language models; what they know of a model is its parameters and its quantization, and that is what
they are given here. Each says of a variant whether it fits; of those that fit the highest quality is taken, and of
equal ones the larger file, which is how these tools rank.

- llmfit (github.com/AlexsJones/llmfit, docs/how-it-works.md and `estimate_memory_gb` in its model source): parameters
  × bytes a parameter of the quantization + 0.000008 GB × milliards of parameters × context + 0.5 GB; it fits up to 98 %
  of the memory.
- whichllm (github.com/Andyyyy64/whichllm, `engine/vram.py` and `engine/compatibility.py`): the file + the key-value
  cache (0.5 MB a milliard of parameters and 1024 tokens) + 0.5 GB + 0.08 bytes a parameter for activations + 0.5 GB for
  the framework; 80 % of the memory may be used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from edge_agent.models.entries import Family, Variant

CONTEXT = 512
"""Tokens; these models have no more."""
_BYTES_A_PARAMETER = {"fp32": 4.0, "fp16": 2.0, "qdq": 1.05, "qoperator": 1.05, "dynamic": 1.05, "matmulnbits": 0.58}
_GB = 1e9


class Rule(NamedTuple):
    """One way to pick without measuring."""

    name: str
    fits: Callable[[Variant, float, int], bool]
    """(variant, parameters, bytes of memory) → whether it says that it fits."""
    order: Callable[[Variant], tuple[float, ...]]
    """The variant with the least of these is taken."""


def _best_first(variant: Variant) -> tuple[float, ...]:
    quality = variant.quality.value if variant.quality is not None else 0.0
    return (-round(quality, 3), -variant.size_bytes)


def _int8_first(variant: Variant) -> tuple[float, ...]:
    return (variant.format not in {"qdq", "dynamic"}, variant.format != "qdq", variant.size_bytes)


def _llmfit(variant: Variant, parameters: float, memory_bytes: int) -> bool:
    milliards = parameters / 1e9
    per_parameter = 1.05 if variant.name == "int8-weights" else _BYTES_A_PARAMETER[variant.format]
    needed = milliards * per_parameter + 0.000008 * milliards * CONTEXT + 0.5
    return needed * _GB <= 0.98 * memory_bytes


def _whichllm(variant: Variant, parameters: float, memory_bytes: int) -> bool:
    cache = parameters / 1e9 * CONTEXT / 1024 * 0.5 * 1024 * 1024
    needed = variant.size_bytes + cache + 500e6 + 0.08 * parameters + 500e6
    return needed <= 0.8 * memory_bytes


RULES = (
    Rule("largest that fits", lambda v, _, memory: v.size_bytes <= memory, lambda v: (-v.size_bytes,)),
    Rule("always int8", lambda *_: True, _int8_first),
    Rule("file × 2", lambda v, _, memory: 2 * v.size_bytes <= memory, _best_first),
    Rule("llmfit's formula", _llmfit, _best_first),
    Rule("whichllm's formula", _whichllm, _best_first),
)


def parameters_of(family: Family) -> float:
    """Return how many parameters a family's model has, from its floats."""
    floats = family.variant_named("fp32") or family.variants[0]
    return floats.size_bytes / 4


def picks(family: Family, memory_bytes: int) -> dict[str, Variant | None]:
    """Return what each rule picks on a machine with so much memory."""
    parameters = parameters_of(family)
    found: dict[str, Variant | None] = {}
    for rule in RULES:
        fitting = [variant for variant in family.variants if rule.fits(variant, parameters, memory_bytes)]
        found[rule.name] = min(fitting, key=lambda v: (*rule.order(v), v.digest)) if fitting else None
    return found
