"""What a graph costs, counted from the graph: constants, the peak of living intermediate tensors, and work.

Any ONNX file can be counted. What its graph does not say (a shape that depends on data, which branch runs) is
guessed, and the costs say so in words. Nothing is loaded into onnxruntime and nothing runs.

Imports onnx: for who publishes models or looks at a file, not for the daemon.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from edge_agent.errors import WorkerError
from edge_agent.models.counting import fusion, layout, memory, quantized, shapes, work
from edge_agent.models.counting.graph import walk
from edge_agent.models.entries import MAX_MODEL_BYTES, Costs, Work

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edge_agent.models.counting.graph import Graph

_MAX_WORK = 200
_MAX_GUESS_CHARACTERS = 500


def count_file(path: Path | str, extents: Mapping[str, int] | None = None) -> Costs:
    """Return the costs of the ONNX file at `path` for one sample.

    Args:
        path: of any size; it is read, not loaded into onnxruntime.
        extents: the usual extent of each symbol in the shapes; a symbol that is not given is 1.

    Raises:
        WorkerError: "model-load": the file is no ONNX model.
        OSError: it cannot be read.
    """
    try:
        model = onnx.load(str(path), load_external_data=False)
    except (DecodeError, ValueError, RecursionError) as error:
        raise WorkerError(
            f"{path} is no ONNX model: {error or 'it cannot be decoded'}.",
            code="model-load",
            hint="Give a file in the ONNX format (protobuf).",
        ) from error
    if not model.graph.node and not model.graph.output:
        raise WorkerError(
            f"{path} is no ONNX model: it has no graph.", code="model-load", hint="Give a whole .onnx file."
        )
    return count(model, extents)


def count(model: onnx.ModelProto, extents: Mapping[str, int] | None = None) -> Costs:
    """Return the costs of `model` for one sample; `extents` as for `count_file`."""
    graph = shapes.read(model, extents)
    in_file = [size for place in _graphs(graph) for size in (*place.constants.values(), *place.overridable.values())]
    file_nodes = sum(1 for _ in walk(graph))
    inputs, outputs = (sum(graph.size(name) for name in names) for names in (graph.inputs, graph.outputs))
    fusion.widen(graph)
    fusion.simplify(graph)
    quantized.fuse(graph)
    fusion.fuse(graph)
    _, macs = work.count(graph)
    layout.block(graph)
    held, alive = memory.weights(graph), memory.living(graph)
    loads, _ = work.count(graph)  # with the channels that fill up blocks
    return Costs(
        initializer_bytes=_capped(sum(in_file)),
        largest_initializer_bytes=_capped(max(in_file, default=0)),
        conv_fp32_initializer_bytes=_capped(held.repacked),
        activation_peak_bytes=_capped(alive.peak),
        macs=macs,
        nodes=sum(1 for _ in walk(graph)),
        held_bytes=_capped(held.held),
        packed_initializer_bytes=_capped(held.packed),
        largest_packed_bytes=_capped(held.largest_packed),
        widened_bytes=_capped(held.widened),
        turned_bytes=_capped(held.turned),
        arena_bytes=_capped(alive.arena),
        input_bytes=_capped(inputs),
        output_bytes=_capped(outputs),
        file_nodes=file_nodes,
        work=tuple(
            Work(
                kind=load.kind,
                nodes=max(1, round(load.nodes)),
                amount=round(load.amount),
                moved_bytes=round(load.moved_bytes),
            )
            for load in loads[:_MAX_WORK]
        ),
        guesses=tuple(f"{note[:_MAX_GUESS_CHARACTERS]}" for note in graph.notes),
    )


def _graphs(graph: Graph) -> list[Graph]:
    return [graph, *[place for node in graph.nodes for inner in node.inside for place in _graphs(inner)]]


def _capped(size: int) -> int:
    return min(size, MAX_MODEL_BYTES)
