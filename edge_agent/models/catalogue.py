"""The catalogue: which families there are, and everything known about each of their variants.

Frozen, strict pydantic models of one JSON document. Nothing here opens a model file: `store` does, and
holds it against the digest and the size that stand here. Sizes are bytes, times milliseconds, digests
SHA-256 in lowercase hexadecimal.
"""

from __future__ import annotations

import difflib
import functools
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from edge_agent.errors import StateError, UnknownFamilyError

BUILTIN_DIR = Path(__file__).parent / "builtin"
"""The folder with the built-in catalogue, its models, golden files and test scans."""

MAX_CATALOGUE_BYTES = 4 * 1024 * 1024
MAX_MODEL_BYTES = 16 * 1024**3
MAX_GOLDEN_BYTES = 1024 * 1024

# Patterns are matched by Rust's regex crate, whose `$` is the very end of the text, unlike Python's.
# A file name is plain, without separator or leading dot: it cannot lead out of the folder it is looked up in.
FileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$")]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1, max_length=500)]
TensorName = Annotated[str, Field(min_length=1, max_length=256)]
Symbol = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,31}$")]
Extent = Annotated[int, Field(ge=0, le=2**40)]
ByteCount = Annotated[int, Field(ge=0, le=MAX_MODEL_BYTES)]
Tolerance = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

DataTypeName = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "BF16",
    "FP32",
    "FP64",
    "BYTES",
]
"""The names of the Open Inference Protocol, as in `wire.tensors.DataType`."""

Format = Literal["fp32", "fp16", "qdq", "qoperator", "dynamic", "matmulnbits"]
"""How a variant keeps its numbers: floats, quantized around float operators, or in operators of its own."""


class _Entry(BaseModel):
    """What every part of the catalogue is: strict, frozen, and without unknown fields."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Port(_Entry):
    """One input or output; a word in the shape is a symbol for an extent that the caller chooses."""

    name: TensorName
    datatype: DataTypeName
    shape: tuple[Extent | Symbol, ...] = Field(max_length=32)


class Quality(_Entry):
    """What was measured, on what, and on how many samples; `value` is the fraction of right answers."""

    metric: Literal["top1"]
    value: float = Field(ge=0.0, le=1.0)
    dataset: Text
    n: int = Field(ge=1)


class Costs(_Entry):
    """What the graph says about memory and work, for one sample (a batch of one)."""

    initializer_bytes: ByteCount
    """All constants of the graph, as they lie in the file."""
    largest_initializer_bytes: ByteCount
    conv_fp32_initializer_bytes: ByteCount
    """Weights of float convolutions: onnxruntime packs them again while loading."""
    activation_peak_bytes: ByteCount
    """The most that intermediate tensors take at once, Q/DQ nodes left out: onnxruntime fuses them away."""
    macs: int = Field(ge=0)
    """Multiply-accumulates of convolutions and matrix products."""
    nodes: int = Field(ge=0)
    """Operators that run, Q/DQ nodes left out."""


class Golden(_Entry):
    """A file of inputs and right outputs; an output passes if |output - golden| ≤ atol + rtol·|golden|."""

    file: FileName
    digest: Digest
    size_bytes: int = Field(ge=1, le=MAX_GOLDEN_BYTES)
    atol: Tolerance
    rtol: Tolerance


class Variant(_Entry):
    """One concrete file of a family."""

    name: Name
    file: FileName
    digest: Digest
    size_bytes: int = Field(ge=1, le=MAX_MODEL_BYTES)
    format: Format
    signedness: Literal["u8s8", "u8u8", "s8s8"] | None = None
    """Activations and weights of an 8-bit variant."""
    per_channel: bool = False
    reduce_range: bool = False
    opset: int = Field(ge=1, le=1000)
    min_runtime: str = Field(pattern=r"^\d{1,4}\.\d{1,4}$")
    """The lowest onnxruntime version that may run it."""
    reproducible: bool
    """Whether outputs are bit-identical across instruction sets, so that strangers can check each other."""
    quality: Quality
    costs: Costs
    golden: Golden

    @model_validator(mode="after")
    def _signedness_belongs_to_eight_bits(self) -> Self:
        if (self.signedness is None) != (self.format in {"fp32", "fp16", "matmulnbits"}):
            raise ValueError("signedness must be given for 8-bit formats, and for no others")
        return self

    @property
    def digest_bytes(self) -> bytes:
        """The 32 bytes of the digest, as messages carry it."""
        return bytes.fromhex(self.digest)


class Family(_Entry):
    """A model as clients name it, with all the forms in which it can be served."""

    name: Name
    title: Text
    task: Text
    licence: Text
    source: Text
    inputs: tuple[Port, ...] = Field(min_length=1, max_length=64)
    outputs: tuple[Port, ...] = Field(min_length=1, max_length=64)
    metric: Literal["top1"]
    latency_target_ms: float = Field(gt=0.0, allow_inf_nan=False)
    """How long one sample may take for the family to be useful; a variant above it is only a last resort."""
    variants: tuple[Variant, ...] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _entries_are_distinct(self) -> Self:
        _refuse_twins("input", [port.name for port in self.inputs])
        _refuse_twins("output", [port.name for port in self.outputs])
        _refuse_twins("variant name", [variant.name for variant in self.variants])
        _refuse_twins("variant digest", [variant.digest for variant in self.variants])
        for variant in self.variants:
            if variant.quality.metric != self.metric:
                raise ValueError(f"variant {variant.name} is not measured in the family's metric {self.metric}")
        return self

    def variant(self, digest: str | bytes) -> Variant | None:
        """Return the variant with this digest (32 bytes or hexadecimal), or None."""
        wanted = digest if isinstance(digest, str) else digest.hex()
        return next((variant for variant in self.variants if variant.digest == wanted), None)

    def variant_named(self, name: str) -> Variant | None:
        """Return the variant with this name, or None."""
        return next((variant for variant in self.variants if variant.name == name), None)


class Catalogue(_Entry):
    """All families; `version` grows with every change of content."""

    version: int = Field(ge=1)
    families: tuple[Family, ...] = Field(max_length=10_000)

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        _refuse_twins("family", [family.name for family in self.families])
        return self

    def family(self, name: str) -> Family:
        """Return the family `name`.

        Raises:
            UnknownFamilyError: there is none; the hint names the closest one.
        """
        for family in self.families:
            if family.name == name:
                return family
        names = [family.name for family in self.families]
        close = difflib.get_close_matches(name.lower(), names, n=1, cutoff=0.5)
        listed = ", ".join(names[:10]) or "none"
        hint = f"Did you mean {close[0]!r}?" if close else f"The families are: {listed}."
        raise UnknownFamilyError(
            f"There is no family {name[:64]!r} in the catalogue.",
            hint=f"{hint} `edge-agent models` shows them all.",
        )


def _refuse_twins(what: str, values: list[str]) -> None:
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} {value!r} occurs twice")
        seen.add(value)


def parse(text: str | bytes) -> Catalogue:
    """Return the catalogue in `text`, a JSON document.

    Raises:
        StateError: it is too large or not a valid catalogue; the message names the first wrong place.
    """
    if len(text) > MAX_CATALOGUE_BYTES:
        raise StateError(
            f"The catalogue has {len(text)} bytes; the limit is {MAX_CATALOGUE_BYTES}.",
            hint="Use a catalogue made for this version.",
        )
    try:
        return Catalogue.model_validate_json(text)
    except ValidationError as error:
        first: Any = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the document"
        raise StateError(
            f"The catalogue is not valid: {where}: {first['msg']}.",
            hint="Use a catalogue made for this version, or install this program again.",
        ) from error


@functools.cache
def builtin() -> Catalogue:
    """Return the catalogue that comes with the program.

    Raises:
        StateError: its file is missing or damaged, so the installation is.
    """
    path = BUILTIN_DIR / "catalogue.json"
    try:
        # One byte more than the limit is enough to see that it is above it.
        with path.open("rb") as stream:
            text = stream.read(MAX_CATALOGUE_BYTES + 1)
    except OSError as error:
        raise StateError(
            f"The built-in catalogue cannot be read: {error}.", hint="Install this program again."
        ) from error
    return parse(text)
