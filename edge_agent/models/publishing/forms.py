"""The forms in which a model may be offered, as data: `variants` makes each of them, or says why it can't."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

FormatName: TypeAlias = Literal["fp32", "fp16", "qdq", "dynamic", "matmulnbits"]
Signedness: TypeAlias = Literal["u8s8", "u8u8"]


@dataclass(frozen=True, slots=True)
class Form:
    """One form. `bits` is of the weights; `static` says that it needs calibration data."""

    name: str
    format: FormatName
    bits: int
    why: str
    signedness: Signedness | None = None
    per_channel: bool = False
    reduce_range: bool = False

    @property
    def static(self) -> bool:
        """Whether the ranges of activations are fixed beforehand, from calibration data."""
        return self.format == "qdq"

    @property
    def saturates(self) -> bool:
        """Whether sums of its products saturate on x86 without VNNI."""
        return self.static and not self.reduce_range


ORIGINAL = Form("fp32", "fp32", 32, "the original, 32-bit floats")
REPRODUCIBLE = Form(
    "int8-reproducible",
    "qdq",
    8,
    "static 8 bits with 7-bit weights per channel: sums do not saturate on any machine",
    "u8s8",
    per_channel=True,
    reduce_range=True,
)
FULL_RANGE = Form("int8-u8s8-channel", "qdq", 8, "static 8 bits, signed weights per channel", "u8s8", per_channel=True)

FORMS: tuple[Form, ...] = (
    ORIGINAL,
    Form("fp16", "fp16", 16, "16-bit floats: half the download"),
    REPRODUCIBLE,
    FULL_RANGE,
    Form("int8-u8s8-tensor", "qdq", 8, "static 8 bits, signed weights, one scale a tensor", "u8s8"),
    Form("int8-u8u8-channel", "qdq", 8, "static 8 bits, unsigned weights per channel", "u8u8", per_channel=True),
    Form("int8-u8u8-tensor", "qdq", 8, "static 8 bits, unsigned weights, one scale a tensor", "u8u8"),
    Form(
        "int8-dynamic-s8",
        "dynamic",
        8,
        "7-bit weights per channel, signed; ranges of activations found in each run",
        "u8s8",
        per_channel=True,
        reduce_range=True,
    ),
    Form(
        "int8-dynamic-u8",
        "dynamic",
        8,
        "8-bit weights per channel, unsigned; ranges of activations found in each run",
        "u8u8",
        per_channel=True,
    ),
    Form("int8-weights", "matmulnbits", 8, "8-bit weights in blocks of 32, floats elsewhere"),
    Form("int4-weights", "matmulnbits", 4, "4-bit weights in blocks of 32, floats elsewhere"),
)
"""All of them, the original first."""

NAMES: tuple[str, ...] = tuple(form.name for form in FORMS)


def form_named(name: str) -> Form:
    """Return the form with this name.

    Raises:
        KeyError: there is none.
    """
    return next(form for form in FORMS if form.name == name) if name in NAMES else _missing(name)


def _missing(name: str) -> Form:
    raise KeyError(name)
