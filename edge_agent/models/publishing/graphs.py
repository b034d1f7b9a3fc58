"""Prepare a graph: one self-contained file, initialisers that nobody overrides, a recent opset, known shapes.

What is published as the original is `read`'s: the file's own bytes where that is possible. What the other
forms are made from is `prepare`'s: constants folded, batch normalisation folded into convolutions, shapes
inferred.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from onnx import TensorProto, shape_inference, version_converter

from edge_agent.errors import InputError
from edge_agent.models import custom_ops
from edge_agent.models.publishing.runs import BASIC, Runner, needs_library, reason

MIN_OPSET = 13
"""Scales per channel need the `axis` of DequantizeLinear, which came with this opset."""
TARGET_OPSET = 17
MAX_BYTES = 2**31 - 1
"""What one protobuf message can have; a model above it keeps its weights outside its file, which we don't serve."""


# No name, or one that ONNX's shape inference made up.
_VAGUE = re.compile(r"(unk__\d+)?")


@dataclass(frozen=True)
class Original:
    """A model as it came.

    Attributes:
        model: the graph with everything in it.
        data: the bytes to publish.
        changes: in words, what makes these bytes differ from the file's; empty if they are the file's.
        library: whether it needs onnxruntime-extensions.
    """

    model: onnx.ModelProto
    data: bytes
    changes: tuple[str, ...]
    library: bool

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators that it uses."""
        return opset_of(self.model)


def opset_of(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators; 1 if the model names none."""
    return max((item.version for item in model.opset_import if item.domain in {"", "ai.onnx"}), default=1)


def read(path: Path) -> Original:
    """Return the model in `path`.

    Raises:
        InputError: it is no valid ONNX model, is too large for one file, or needs operators of a domain that
            neither onnxruntime nor onnxruntime-extensions has.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
        outside = any(item.data_location == TensorProto.EXTERNAL for item in tensors(model.graph))
        if outside:
            model = onnx.load(str(path))
    except (OSError, DecodeError, ValueError, onnx.checker.ValidationError) as error:
        raise InputError(
            f"{path} cannot be read as an ONNX model: {reason(error)}", hint="Give an .onnx file."
        ) from error
    if not model.graph.node:
        raise InputError(f"{path} is no ONNX model: it has no nodes.", hint="Give an .onnx file.")
    if model.ByteSize() > MAX_BYTES:
        raise InputError(
            f"{path} has {model.ByteSize()} bytes with its weights; one ONNX file can have {MAX_BYTES}.",
            hint="Publish a smaller model, or one whose weights are 8 bits already.",
        )
    _refuse_unknown_domains(path, model)
    changes = []
    if outside:
        changes.append("its weights were brought into the file")
    if hidden := _strip_overridable(model):
        changes.append(f"{hidden} weights that callers could have overridden are constants now")
    data = model.SerializeToString(deterministic=True) if changes else path.read_bytes()
    return Original(model, data, tuple(changes), needs_library(model))


def _refuse_unknown_domains(path: Path, model: onnx.ModelProto) -> None:
    known = custom_ops.BUILT_IN_DOMAINS | custom_ops.DOMAINS | {item.domain for item in model.functions}
    used = {node.domain for graph in graphs(model.graph) for node in graph.node}
    if unknown := sorted(used - known):
        raise InputError(
            f"{path} needs operators of the domain {unknown[0]!r}, which agents do not have.",
            hint="Export the model with operators of ONNX, onnxruntime or onnxruntime-extensions only.",
        )


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """Yield `graph` and all graphs inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from graphs(attribute.g)
            for inner in attribute.graphs:
                yield from graphs(inner)


def tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """Yield all constants: initialisers, and those in attributes."""
    for inner in graphs(graph):
        yield from inner.initializer
        for node in inner.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def _strip_overridable(model: onnx.ModelProto) -> int:
    """Take initialisers off the list of inputs, where they could be overridden and hence not be folded."""
    constants = {item.name for item in model.graph.initializer}
    kept = [value for value in model.graph.input if value.name not in constants]
    count = len(model.graph.input) - len(kept)
    if count:
        del model.graph.input[:]
        model.graph.input.extend(kept)
        # Before version 4 every initialiser had to be an input.
        model.ir_version = max(model.ir_version, 4)
    return count


@dataclass(frozen=True)
class Prepared:
    """A graph that forms can be made from; `notes` say what could not be done and what follows from it."""

    model: onnx.ModelProto
    library: bool
    notes: tuple[str, ...]

    @property
    def opset(self) -> int:
        """The version of ONNX's own operators that it uses."""
        return opset_of(self.model)


def prepare(original: Original) -> Prepared:
    """Return the graph with a recent opset, folded constants and inferred shapes, as far as each is possible."""
    notes: list[str] = []
    model = onnx.ModelProto()
    model.CopyFrom(original.model)
    if opset_of(model) < MIN_OPSET:
        try:
            model = version_converter.convert_version(model, TARGET_OPSET)
        except Exception as error:  # noqa: BLE001 - a native library raises what it likes
            notes.append(f"the opset stays {opset_of(model)}, so no scales per channel: {reason(error)}")
    model = _folded(model, original.library, notes)
    _drop_unused_domains(model)
    _flatten_biases(model.graph)
    _keep_known_shapes(original.model, model)
    model = _with_shapes(model, notes)
    _name_nodes(model)
    return Prepared(model, original.library, tuple(notes))


def with_shapes(model: onnx.ModelProto, *, library: bool) -> Prepared:
    """Return a graph that was changed after it was prepared, ready again."""
    notes: list[str] = []
    return Prepared(_with_shapes(model, notes), library, tuple(notes))


def _folded(model: onnx.ModelProto, library: bool, notes: list[str]) -> onnx.ModelProto:  # noqa: FBT001
    with tempfile.TemporaryDirectory(prefix="edge-agent-publish-") as folder:
        path = Path(folder) / "folded.onnx"
        try:
            Runner(model, library=library, level=BASIC, save_to=path)
            folded = onnx.load(str(path))
        except (InputError, OSError) as error:
            notes.append(f"constants could not be folded: {reason(error)}")
            return model
    # The same graph for callers: folding may drop what a function or a sub-graph still names.
    if [value.name for value in folded.graph.input] != [value.name for value in model.graph.input]:
        notes.append("constants were not folded: an input would have disappeared")
        return model
    return folded


def _keep_known_shapes(before: onnx.ModelProto, model: onnx.ModelProto) -> None:
    """Take over what the author says of tensors that are still there: folding forgets the names of extents."""
    made = {name for node in model.graph.node for name in node.output}
    said = {value.name: value for value in before.graph.value_info if value.name in made}
    kept = [value for value in model.graph.value_info if value.name not in said]
    del model.graph.value_info[:]
    model.graph.value_info.extend((*kept, *said.values()))


def drop_vague_shapes(model: onnx.ModelProto) -> None:
    """Forget shapes with extents that are neither known nor named: they say less than what can be inferred."""
    kept = [
        value
        for value in model.graph.value_info
        if not any(_VAGUE.fullmatch(size.dim_param) for size in value.type.tensor_type.shape.dim if _is_free(size))
    ]
    del model.graph.value_info[:]
    model.graph.value_info.extend(kept)


def _is_free(size: onnx.TensorShapeProto.Dimension) -> bool:
    return not size.HasField("dim_value")


def _drop_unused_domains(model: onnx.ModelProto) -> None:
    """Forget operator sets that no node uses: onnxruntime writes down all that it knows."""
    used = {"", "ai.onnx", *(node.domain for graph in graphs(model.graph) for node in graph.node)}
    used |= {node.domain for function in model.functions for node in function.node}
    kept = [item for item in model.opset_import if item.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _flatten_biases(graph: onnx.GraphProto) -> None:
    """Give constant biases of Gemm the shape [N] instead of [1, N]: the quantizer counts channels along the first."""
    constants = {item.name: item for item in graph.initializer}
    for node in graph.node:
        bias = constants.get(node.input[2]) if node.op_type == "Gemm" and len(node.input) > 2 else None
        if bias is not None and len(bias.dims) == 2 and bias.dims[0] == 1 and bias.dims[1] > 1:
            width = bias.dims[1]
            if sum(bias.name in other.input for other in graph.node) == 1:
                del bias.dims[:]
                bias.dims.append(width)


def _with_shapes(model: onnx.ModelProto, notes: list[str]) -> onnx.ModelProto:
    try:
        return shape_inference.infer_shapes(model, data_prop=True)
    except Exception as error:  # noqa: BLE001 - a native library raises what it likes
        notes.append(f"shapes could not be inferred: {reason(error)}")
        return model


def _name_nodes(model: onnx.ModelProto) -> None:
    """Give every node a name of its own: the quantizer derives names of new nodes from them."""
    seen: set[str] = set()
    for graph in graphs(model.graph):
        for node in graph.node:
            stem = node.name or f"{node.op_type}_{node.output[0] if node.output else 'none'}"
            name, number = stem, 1
            while name in seen:
                number += 1
                name = f"{stem}_{number}"
            seen.add(name)
            node.name = name
