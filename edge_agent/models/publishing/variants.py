"""Make the variants of a model that are worth having: each form of `forms`, or the reason why it is not there.

The quantizing itself is done by `onnxruntime.quantization`. A variant is only kept if something in it became
smaller, if onnxruntime loads it, and if it runs.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx
from onnx import TensorProto

from edge_agent.errors import EdgeAgentError, InputError
from edge_agent.models.publishing import graphs, quantizers, ranges, tables
from edge_agent.models.publishing.forms import FORMS, ORIGINAL, Form
from edge_agent.models.publishing.graphs import MIN_OPSET, Original, prepare
from edge_agent.models.publishing.runs import Runner, needs_library, reason
from edge_agent.models.publishing.samples import Samples

WORTH = 0.9
"""A variant whose file is not below this fraction of the original's is not worth having."""

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_PRODUCTS = ("Gemm", "MatMul")
# Operators between convolutions that onnxruntime runs on 8-bit tensors without going back to floats.
_AROUND_CONV = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "Gather", "GlobalAveragePool", "LeakyRelu", "MaxPool", "Mul",
    "Pad", "Relu", "Reshape", "Resize", "Split", "Squeeze", "Transpose", "Unsqueeze",
)  # fmt: skip


@dataclass(frozen=True)
class MadeVariant:
    """A variant's file; `sha256` in hexadecimal."""

    form: Form
    path: Path
    size_bytes: int
    sha256: str
    opset: int
    library: bool

    @property
    def name(self) -> str:
        """The form's name."""
        return self.form.name

    @property
    def format(self) -> str:
        """The form's format, as the catalogue has it."""
        return self.form.format


@dataclass(frozen=True)
class NotMade:
    """A form that the model does not have, and why."""

    form: Form
    why: str


@dataclass(frozen=True)
class Making:
    """All that came of a model: the variants, the original first, and what could not be made."""

    variants: tuple[MadeVariant, ...]
    not_made: tuple[NotMade, ...]
    notes: tuple[str, ...]

    def named(self, name: str) -> MadeVariant | None:
        """Return the variant with this name, or None."""
        return next((variant for variant in self.variants if variant.name == name), None)


def make_variants(
    model: Path,
    calibration: Samples | None,
    folder: Path,
    forms: Sequence[Form] = FORMS,
    *,
    keep_all: bool = False,
) -> Making:
    """Make the `forms` of `model` as files in `folder`.

    Args:
        model: an ONNX file with floats.
        calibration: samples that set the ranges of the static forms; without them none are made, because
            random inputs would set ranges that real ones do not have.
        folder: where the files go, `NAME.onnx`.
        forms: which to make; the original is always made.
        keep_all: also keep variants that are not smaller than the original.

    Raises:
        InputError: the model cannot be read or does not run, so that there is nothing to offer.
    """
    original = graphs.read(model)
    maker = _Maker(original, calibration, folder, keep_all)
    made = [maker.original()]
    missing = []
    for form in forms:
        if form == ORIGINAL:
            continue
        try:
            made.append(maker.make(form, {variant.sha256: variant for variant in made}))
        except EdgeAgentError as error:
            missing.append(NotMade(form, error.message.rstrip(".")))
        except Exception as error:  # noqa: BLE001 - quantizers raise anything; one that fails must not stop the others
            missing.append(NotMade(form, f"the quantizer fails on this graph: {reason(error)}"))
    return Making(tuple(made), tuple(missing), (*original.changes, *maker.prepared.notes))


class _Maker:
    def __init__(self, original: Original, calibration: Samples | None, folder: Path, keep_all: bool) -> None:  # noqa: FBT001
        self._source = original
        self._calibration = calibration
        self._folder = folder
        self._keep_all = keep_all
        self.prepared = prepare(original)
        self._static: tuple[onnx.ModelProto, ranges.Ranges] | None = None
        self._op_types = _static_op_types(self.prepared.model)

    def original(self) -> MadeVariant:
        path = self._folder / f"{ORIGINAL.name}.onnx"
        path.write_bytes(self._source.data)
        self._try(path, library=self._source.library)
        return self._made(ORIGINAL, path)

    def make(self, form: Form, others: dict[str, MadeVariant]) -> MadeVariant:
        path = self._folder / f"{form.name}.onnx"
        model = _MAKERS[form.format](self, form)
        graphs.drop_vague_shapes(model)
        data = model.SerializeToString(deterministic=True)
        worth = WORTH * len(self._source.data)
        if len(data) > worth and not self._keep_all:
            raise InputError(f"its file is not smaller: {len(data)} bytes, the original has {len(self._source.data)}")
        twin = others.get(hashlib.sha256(data).hexdigest())
        if twin is not None:
            raise InputError(f"it is the same file as {twin.name}")
        path.write_bytes(data)
        try:
            self._try(path, library=needs_library(model))
        except InputError:
            path.unlink()
            raise
        return self._made(form, path)

    def _try(self, path: Path, *, library: bool) -> None:
        runner = Runner(path, library=library)
        if self._calibration is not None:
            runner.run(self._calibration.feeds[0])

    def _made(self, form: Form, path: Path) -> MadeVariant:
        data = path.read_bytes()
        model = onnx.load_from_string(data)
        return MadeVariant(
            form, path, len(data), hashlib.sha256(data).hexdigest(), graphs.opset_of(model), needs_library(model)
        )

    # -- one method a format; each returns a new model ---------------------------------------------------------

    def static(self, form: Form) -> onnx.ModelProto:
        if self._calibration is None:
            raise InputError("it needs calibration samples, and random ones would set false ranges")
        if not self._op_types:
            raise InputError("no convolution or matrix product with constant weights outside of sub-graphs")
        if form.per_channel and self.prepared.opset < MIN_OPSET:
            raise InputError(f"scales per channel need opset {MIN_OPSET}, and the model stays at {self.prepared.opset}")
        if self._static is None:
            self._static = self._static_source()
        source, found = self._static
        convolutions = _has(source, _CONVOLUTIONS)
        result = quantizers.static(_copy(source), form, found, self._op_types, float_outputs=not convolutions)
        _refuse_unchanged(result, ("QuantizeLinear",))
        return result

    def _static_source(self) -> tuple[onnx.ModelProto, ranges.Ranges]:
        """Return the graph that the static forms are made from, and the ranges of its activations."""
        assert self._calibration is not None  # noqa: S101 - asked before
        prepared = self.prepared
        if not _has(prepared.model, _CONVOLUTIONS):
            # Language models: a scale for each row of the word table keeps what one for all rows would lose.
            model = _copy(prepared.model)
            if tables.compress(model):
                prepared = graphs.with_shapes(model, library=prepared.library)
        return prepared.model, ranges.measure(prepared, self._calibration.feeds, self._op_types)

    def dynamic(self, form: Form) -> onnx.ModelProto:
        # onnxruntime's ConvInteger takes no signed weights on a CPU.
        op_types = ["MatMul", "LSTM", "Attention", *(["Conv"] if form.signedness == "u8u8" else [])]
        if not _has(self.prepared.model, (*op_types, "Gemm")):
            raise InputError(f"none of its operators has this form ({', '.join(op_types)})")
        model = _copy(self.prepared.model)
        tables.compress(model)
        result = quantizers.dynamic(model, form, op_types)
        _refuse_unchanged(result, ("MatMulInteger", "ConvInteger", "DynamicQuantizeLSTM", "QAttention"))
        return result

    def weights(self, form: Form) -> onnx.ModelProto:
        if not _has(self.prepared.model, ("MatMul", "Gemm")):
            raise InputError("it has no matrix product")
        model = _copy(self.prepared.model)
        tables.compress(model)
        result = quantizers.weight_only(model, form)
        _refuse_unchanged(result, ("MatMulNBits",))
        return result

    def half(self, _form: Form) -> onnx.ModelProto:
        if not any(item.data_type == TensorProto.FLOAT for item in graphs.tensors(self.prepared.model.graph)):
            raise InputError("it has no float weights")
        return quantizers.half(_copy(self.prepared.model))


_MAKERS: dict[str, Callable[[_Maker, Form], onnx.ModelProto]] = {
    "qdq": _Maker.static,
    "dynamic": _Maker.dynamic,
    "matmulnbits": _Maker.weights,
    "fp16": _Maker.half,
}


def _static_op_types(model: onnx.ModelProto) -> tuple[str, ...]:
    """Return which operators become 8 bits: with convolutions also what stands between them."""
    present = {node.op_type for node in model.graph.node}
    if present & set(_CONVOLUTIONS):
        return tuple(kind for kind in (*_CONVOLUTIONS, *_PRODUCTS, *_AROUND_CONV) if kind in present)
    return tuple(kind for kind in _PRODUCTS if kind in present)


def _has(model: onnx.ModelProto, op_types: Sequence[str]) -> bool:
    return any(node.op_type in op_types for graph in graphs.graphs(model.graph) for node in graph.node)


def _refuse_unchanged(model: onnx.ModelProto, op_types: Sequence[str]) -> None:
    if not _has(model, op_types):
        raise InputError("the quantizer found nothing to quantize: none of the weights is a constant that it takes")


def _copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return copy.deepcopy(model)
