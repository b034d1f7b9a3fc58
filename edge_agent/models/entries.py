"""The parts of the catalogue: families, their variants, and everything known about each.

Frozen, strict pydantic models. Sizes are bytes, times milliseconds, digests SHA-256 in lowercase hexadecimal.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

MAX_MODEL_BYTES = 16 * 1024**3
MAX_GOLDEN_BYTES = 8 * 1024 * 1024
MAX_URLS = 16

# Patterns are matched by Rust's regex crate, whose `$` is the very end of the text, unlike Python's.
# A file name is plain, without separator or leading dot: it cannot lead out of the folder it is looked up in.
FileName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,127}$")]
NAME_PATTERN = r"^[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?$"
Name = Annotated[str, Field(pattern=NAME_PATTERN)]
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1, max_length=500)]
TensorName = Annotated[str, Field(min_length=1, max_length=256)]
Symbol = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]{0,31}$")]
Extent = Annotated[int, Field(ge=0, le=2**40)]
ByteCount = Annotated[int, Field(ge=0, le=MAX_MODEL_BYTES)]
Tolerance = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]

_URL = re.compile(r"(?:https|http|file)://[!-~]+")
_RELATIVE = re.compile(r"[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*")


def _url(text: str) -> str:
    """Take an absolute URL or a path below the catalogue's own address.

    `http` is for the loopback address and networks at home; the digest, not the transport, vouches for the bytes.
    """
    if _URL.fullmatch(text) or (_RELATIVE.fullmatch(text) and not {".", ".."} & set(text.split("/"))):
        return text
    raise ValueError("must be an https, http or file URL, or a path below the catalogue without `..`")


Url = Annotated[str, Field(min_length=1, max_length=2000), AfterValidator(_url)]

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


class Entry(BaseModel):
    """What every part of the catalogue is: strict, frozen, and without unknown fields."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid")


class Port(Entry):
    """One input or output; a word in the shape is a symbol for an extent that the caller chooses."""

    name: TensorName
    datatype: DataTypeName
    shape: tuple[Extent | Symbol, ...] = Field(max_length=32)


METRICS: dict[str, Literal["higher", "lower"]] = {
    "top1": "higher",
    "top5": "higher",
    "accuracy": "higher",
    "map": "higher",
    "map50": "higher",
    "iou": "higher",
    "f1": "higher",
    "exact-match": "higher",
    "auc": "higher",
    "psnr": "higher",
    "ssim": "higher",
    "cosine": "higher",
    "agreement": "higher",
    "top1-error": "lower",
    "top5-error": "lower",
    "error-rate": "lower",
    "word-error-rate": "lower",
    "mae": "lower",
    "perplexity": "lower",
}
"""What quality is measured in, and which way is better. Fractions are 0 to 1; `psnr` is in decibels."""


_UNBOUNDED = frozenset({"psnr", "mae", "perplexity"})


def _metric(text: str) -> str:
    if text not in METRICS:
        raise ValueError(f"must be one of {', '.join(METRICS)}")
    return text


Metric = Annotated[str, AfterValidator(_metric)]


class Quality(Entry):
    """What was measured, on what, and on how many samples.

    `value` is in the metric's own unit (`METRICS`); an error rate stays an error rate.
    """

    metric: Metric
    value: float = Field(ge=0.0, le=1e6, allow_inf_nan=False)
    dataset: Text
    n: int | None = Field(default=None, ge=1)
    """Samples; None where the source does not say."""
    reported: bool = False
    """Said by the model's source and not measured by who made this catalogue."""

    @model_validator(mode="after")
    def _fractions_are_at_most_one(self) -> Self:
        if self.value > 1 and self.metric not in _UNBOUNDED:
            raise ValueError(f"the value of {self.metric} is a fraction from 0 to 1")
        return self

    @property
    def fraction(self) -> bool:
        """Whether the value is a fraction from 0 to 1."""
        return self.metric not in _UNBOUNDED

    @property
    def higher_is_better(self) -> bool:
        """Which way the metric goes."""
        return METRICS[self.metric] == "higher"


class Reproducibility(Entry):
    """How far machines of different kinds agree on this variant's outputs, and so whether they can check each other.

    `bit-identical`: on every instruction set. `tolerance`: within `atol` + `rtol`·|output|, calibrated on machines of
    several kinds; `gap` is how many times that tolerance the nearest cheaper variant lies away. `none`: not checkable
    between kinds of machines; inside one class outputs are still expected to be bit-identical.
    """

    kind: Literal["bit-identical", "tolerance", "none"]
    atol: Tolerance | None = None
    rtol: Tolerance | None = None
    gap: float | None = Field(default=None, ge=0.0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _tolerance_is_calibrated(self) -> Self:
        numbers = (self.atol, self.rtol, self.gap)
        if self.kind == "tolerance" and None in numbers:
            raise ValueError("a tolerance needs atol, rtol and the gap to the next cheaper variant")
        if self.kind != "tolerance" and any(number is not None for number in numbers):
            raise ValueError("atol, rtol and gap go with the kind tolerance, and only with it")
        return self


NOT_CHECKABLE = Reproducibility(kind="none")
BIT_IDENTICAL = Reproducibility(kind="bit-identical")


class Usual(Entry):
    """A symbol of the family's shapes, and the extent that callers usually choose; costs are counted with it."""

    symbol: Symbol
    extent: Extent


class Work(Entry):
    """What nodes of one kind and about one size have to do in one run, added up over those nodes."""

    kind: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}(\.[a-z][a-z0-9_]{0,31})?$")
    """What kernels differ in, such as `conv1x1.u8s8` or `softmax` (see `models.counting.work`)."""
    nodes: int = Field(ge=0)
    amount: int = Field(ge=0)
    """Multiply-accumulates of products, elements of everything else."""
    moved_bytes: int = Field(ge=0)
    """Tensors read and written, constants included."""


class Costs(Entry):
    """What the graph says about memory and work, for one sample: symbols at their usual extents, others 1.

    Counted on the graph as onnxruntime rewrites it: constants folded, Q/DQ nodes fused where it fuses them.
    """

    initializer_bytes: ByteCount
    """All constants of the graph, as they lie in the file."""
    largest_initializer_bytes: ByteCount
    conv_fp32_initializer_bytes: ByteCount
    """What repacking the weights of float convolutions takes at its worst moment, besides the old weights, which are
    freed only when all are repacked."""
    activation_peak_bytes: ByteCount
    """The most that intermediate tensors take at once, and what operators take for themselves meanwhile."""
    macs: int = Field(ge=0)
    """Multiply-accumulates of products."""
    nodes: int = Field(ge=0)
    """Operators that run."""
    held_bytes: ByteCount = 0
    """Constants as a session keeps them: folded, and 16-bit floats widened to 32 bits."""
    packed_initializer_bytes: ByteCount = 0
    """Weights that are packed again one after the other."""
    largest_packed_bytes: ByteCount = 0
    widened_bytes: ByteCount = 0
    """What 16-bit floats grow by."""
    turned_bytes: ByteCount = 0
    """The largest weight that is transposed while loading; the arena keeps the room."""
    arena_bytes: ByteCount = 0
    """What onnxruntime's arena has touched after a few runs, followed allocation by allocation."""
    input_bytes: ByteCount = 0
    output_bytes: ByteCount = 0
    file_nodes: int = Field(default=0, ge=0)
    """Operators as they stand in the file, those in sub-graphs included."""
    work: tuple[Work, ...] = Field(default=(), max_length=200)
    guesses: tuple[Text, ...] = Field(default=(), max_length=20)
    """What the graph does not say and was guessed; predictions from it are less sure."""


class Golden(Entry):
    """A file of inputs and right outputs; an output passes if |output - golden| ≤ atol + rtol·|golden|."""

    file: FileName
    digest: Digest
    size_bytes: int = Field(ge=1, le=MAX_GOLDEN_BYTES)
    atol: Tolerance
    rtol: Tolerance


class Variant(Entry):
    """One concrete file of a family."""

    name: Name
    file: FileName
    digest: Digest
    size_bytes: int = Field(ge=1, le=MAX_MODEL_BYTES)
    format: Format
    signedness: Literal["u8s8", "u8u8", "s8s8"] | None = None
    """Activations and weights of an 8-bit variant; None also where the source does not say."""
    per_channel: bool = False
    reduce_range: bool = False
    opset: int | None = Field(ge=1, le=1000)
    """None where the source does not say."""
    min_runtime: str = Field(pattern=r"^\d{1,4}\.\d{1,4}$")
    """The lowest onnxruntime version that may run it."""
    reproducibility: Reproducibility = NOT_CHECKABLE
    quality: Quality | None
    costs: Costs | None
    """None where nobody who made this catalogue has seen the graph: then only the file's size is known."""
    golden: Golden | None
    """None where there are no known answers: the outputs of such a variant cannot be checked on the device."""
    urls: tuple[Url, ...] = Field(default=(), max_length=MAX_URLS)
    """Where the file can be had, best first; a path without a scheme is below the catalogue's own address."""
    requires: tuple[Literal["onnxruntime-extensions"], ...] = Field(default=(), max_length=8)
    """What must be installed beside onnxruntime for its operators."""
    licence: Text | None = None
    """Where it is another than the family's."""
    source: Text | None = None
    """Where it is another than the family's."""

    @model_validator(mode="after")
    def _signedness_belongs_to_eight_bits(self) -> Self:
        if self.signedness is not None and self.format in {"fp32", "fp16", "matmulnbits"}:
            raise ValueError("signedness is for 8-bit formats, and for no others")
        return self

    @property
    def digest_bytes(self) -> bytes:
        """The 32 bytes of the digest, as messages carry it."""
        return bytes.fromhex(self.digest)

    @property
    def reproducible(self) -> bool:
        """Whether outputs are bit-identical across instruction sets, so that strangers can check each other."""
        return self.reproducibility.kind == "bit-identical"


class Family(Entry):
    """A model as clients name it, with all the forms in which it can be served."""

    name: Name
    title: Text
    task: Text
    licence: Text
    source: Text
    inputs: tuple[Port, ...] = Field(max_length=64)
    """Empty, as are the outputs, where who made this catalogue does not know them: it can be fetched, not served."""
    outputs: tuple[Port, ...] = Field(max_length=64)
    metric: Metric | None
    """What the quality of all its variants is measured in; None where nobody has measured it."""
    usual: tuple[Usual, ...] = Field(default=(), max_length=32)
    latency_target_ms: float = Field(gt=0.0, allow_inf_nan=False)
    """How long one sample may take for the family to be useful; a variant above it is only a last resort."""
    variants: tuple[Variant, ...] = Field(min_length=1, max_length=64)

    @model_validator(mode="after")
    def _entries_are_distinct(self) -> Self:
        if bool(self.inputs) != bool(self.outputs):
            raise ValueError("inputs and outputs are both known, or neither is")
        refuse_twins("input", [port.name for port in self.inputs])
        refuse_twins("output", [port.name for port in self.outputs])
        refuse_twins("variant name", [variant.name for variant in self.variants])
        refuse_twins("variant digest", [variant.digest for variant in self.variants])
        refuse_twins("symbol", [usual.symbol for usual in self.usual])
        for variant in self.variants:
            if variant.quality is not None and variant.quality.metric != self.metric:
                raise ValueError(f"variant {variant.name} is not measured in the family's metric {self.metric}")
        return self

    @property
    def servable(self) -> bool:
        """Whether enough is known to take jobs for it."""
        return bool(self.inputs and self.outputs)

    @property
    def extents(self) -> dict[str, int]:
        """The usual extent of each symbol in the shapes; a symbol that is not listed is usually 1."""
        return {usual.symbol: usual.extent for usual in self.usual}

    def variant(self, digest: str | bytes) -> Variant | None:
        """Return the variant with this digest (32 bytes or hexadecimal), or None."""
        wanted = digest if isinstance(digest, str) else digest.hex()
        return next((variant for variant in self.variants if variant.digest == wanted), None)

    def variant_named(self, name: str) -> Variant | None:
        """Return the variant with this name, or None."""
        return next((variant for variant in self.variants if variant.name == name), None)


def first_problem(error: ValidationError) -> str:
    """Return in words where the first wrong place of a document is, and what is wrong there."""
    first: Any = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"]) or "the document"
    return f"{where}: {first['msg']}"


def refuse_twins(what: str, values: list[str]) -> None:
    """Raise ValueError if a value is there twice."""
    seen: set[str] = set()
    for value in values:
        if value in seen:
            raise ValueError(f"{what} {value!r} occurs twice")
        seen.add(value)
