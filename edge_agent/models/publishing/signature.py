"""What a model takes and gives, as a family describes it."""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterable, Mapping, Sequence

import onnx
from onnx import helper
from pydantic import ValidationError

from edge_agent.errors import InputError
from edge_agent.models.entries import Port, Usual
from edge_agent.models.publishing import samples
from edge_agent.models.publishing.runs import Array, Feed, Runner
from edge_agent.wire.tensors import DataType

MAX_INNER = 16
"""More symbols than a family may have are left alone."""
MAX_FEEDS = 32
_SYMBOL = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,31}")
_ONNX_TYPES: dict[int, DataType] = {
    onnx.TensorProto.BOOL: DataType.BOOL,
    onnx.TensorProto.UINT8: DataType.UINT8,
    onnx.TensorProto.UINT16: DataType.UINT16,
    onnx.TensorProto.UINT32: DataType.UINT32,
    onnx.TensorProto.UINT64: DataType.UINT64,
    onnx.TensorProto.INT8: DataType.INT8,
    onnx.TensorProto.INT16: DataType.INT16,
    onnx.TensorProto.INT32: DataType.INT32,
    onnx.TensorProto.INT64: DataType.INT64,
    onnx.TensorProto.FLOAT16: DataType.FP16,
    onnx.TensorProto.BFLOAT16: DataType.BF16,
    onnx.TensorProto.FLOAT: DataType.FP32,
    onnx.TensorProto.DOUBLE: DataType.FP64,
    onnx.TensorProto.STRING: DataType.BYTES,
}


def ports(model: onnx.ModelProto) -> tuple[tuple[Port, ...], tuple[Port, ...]]:
    """Return the inputs and the outputs; extents that are free get a symbol, the model's own where it can be one.

    Raises:
        InputError: an input or output is no tensor of a type that the protocol carries.
    """
    names = _Symbols()
    return tuple(_ports(model.graph.input, names)), tuple(_ports(model.graph.output, names))


class _Symbols:
    """Symbols for the names of free extents: equal ones for equal names, and never one for two."""

    def __init__(self) -> None:
        self._given: dict[str, str] = {}

    def of(self, name: str) -> str:
        if name and name in self._given:
            return self._given[name]
        plain = re.sub(r"[^A-Za-z0-9_]", "_", name)[:32]
        symbol = plain if _SYMBOL.fullmatch(plain) else f"N{len(self._given)}"
        while symbol in self._given.values():
            symbol = f"N{len(self._given)}_{len(symbol)}"
        self._given[name or f"\0{len(self._given)}"] = symbol
        return symbol


def _ports(values: Iterable[onnx.ValueInfoProto], names: _Symbols) -> Iterable[Port]:
    for value in values:
        tensor = value.type.tensor_type
        datatype = _ONNX_TYPES.get(tensor.elem_type)
        if datatype is None:
            kind = value.type.WhichOneof("value") or "nothing"
            what = helper.tensor_dtype_to_string(tensor.elem_type) if kind == "tensor_type" else kind
            raise InputError(
                f"{value.name!r} is {what}, which the protocol does not carry.", hint="Export the model with tensors."
            )
        shape = tuple(
            size.dim_value if size.HasField("dim_value") and size.dim_value > 0 else names.of(size.dim_param)
            for size in tensor.shape.dim
        )
        try:
            yield Port(name=value.name, datatype=datatype.value, shape=shape)
        except ValidationError as error:
            raise InputError(f"{value.name!r} cannot be described: {error.errors()[0]['msg']}.") from error


def wanted(inputs: Sequence[Port]) -> tuple[samples.Port, ...]:
    """Return the inputs as samples are checked against them."""
    return tuple(
        samples.Port(
            port.name, DataType[port.datatype], tuple(size if isinstance(size, int) else None for size in port.shape)
        )
        for port in inputs
    )


def usual(inputs: Sequence[Port], feeds: Sequence[Feed]) -> tuple[Usual, ...]:
    """Return the median extent of each symbol of the inputs in the samples; those that are 1 are left out."""
    seen: dict[str, list[int]] = {}
    for feed in feeds:
        for port in inputs:
            for size, extent in zip(port.shape, feed[port.name].shape, strict=True):
                if isinstance(size, str):
                    seen.setdefault(size, []).append(int(extent))
    medians = {symbol: int(statistics.median_high(extents)) for symbol, extents in seen.items()}
    return tuple(Usual(symbol=symbol, extent=extent) for symbol, extent in sorted(medians.items()) if extent != 1)


def inner_extents(model: onnx.ModelProto, feeds: Sequence[Feed], *, library: bool) -> tuple[Usual, ...]:
    """Return the median extents of symbols that only tensors inside the graph have, such as the tokens of a text.

    They depend on what is in the inputs, so the graph is run with one tensor of each such symbol as an output.
    """
    outside = {size.dim_param for value in model.graph.input for size in value.type.tensor_type.shape.dim}
    places: dict[str, tuple[onnx.ValueInfoProto, int]] = {}
    made = {name for node in model.graph.node for name in node.output}
    for value in model.graph.value_info:
        for axis, size in enumerate(value.type.tensor_type.shape.dim):
            symbol = size.dim_param
            if _SYMBOL.fullmatch(symbol) and symbol not in outside and value.name in made:
                places.setdefault(symbol, (value, axis))
    if not places or len(places) > MAX_INNER:
        return ()
    graph = onnx.ModelProto()
    graph.CopyFrom(model)
    known = {value.name for value in model.graph.output}
    graph.graph.output.extend(
        value for value, _ in {v.name: (v, a) for v, a in places.values()}.values() if value.name not in known
    )
    runner = Runner(graph, library=library)
    names = sorted({value.name for value, _ in places.values()})
    seen: dict[str, list[int]] = {symbol: [] for symbol in places}
    for feed in feeds[:MAX_FEEDS]:
        found = runner.run(feed, names)
        for symbol, (value, axis) in places.items():
            seen[symbol].append(int(found[value.name].shape[axis]))
    medians = {symbol: int(statistics.median_high(extents)) for symbol, extents in seen.items()}
    return tuple(Usual(symbol=symbol, extent=extent) for symbol, extent in sorted(medians.items()) if extent != 1)


def float_outputs(answer: Mapping[str, Array]) -> tuple[str, ...]:
    """Return the names of the outputs that are floats."""
    return tuple(name for name, array in answer.items() if array.dtype.kind == "f")
