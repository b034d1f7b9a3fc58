"""Rewrite a graph of floats as onnxruntime does at its full level, so that what is counted is what runs.

Constants are folded; batch normalisations, activations and residual sums go into the convolution before them;
GELU, layer normalisation and their sums become one operator. Only rewritings that change memory or time by something
worth counting are here. From onnxruntime's documentation of its graph optimizations, and from what its profiler shows.
"""

from __future__ import annotations

from edge_agent.models.counting.graph import FLOAT, HALF, Graph, Node, Tensor, alone

NOTHING = frozenset({"Identity", "Dropout"})
VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
"""What only says otherwise how the same bytes are read."""
ACTIVATIONS = frozenset({"Relu", "Clip", "Sigmoid", "Tanh", "LeakyRelu", "HardSigmoid"})
_MAX_FOLDED_BYTES = 1 << 32
_NOT_FOLDED = frozenset({"DequantizeLinear", "RandomNormal", "RandomUniform", "If", "Loop", "Scan"})


def widen(graph: Graph) -> None:
    """Turn 16-bit floats into 32-bit ones, as the CPU provider does; what is only looked up in stays as it is."""
    readers = graph.consumers()
    for name, tensor in graph.tensors.items():
        if tensor.kind != HALF:
            continue
        users = readers.get(name, [])
        if name in graph.constants and users and all(node.op in _LOOKED_UP for node in users):
            continue
        graph.halves.add(name)
        graph.tensors[name] = Tensor(FLOAT, tensor.shape)
    for node in graph.nodes:
        for inner in node.inside:
            widen(inner)


_LOOKED_UP = frozenset({"Gather", "GatherND"})


def cast_halves(graph: Graph) -> None:
    """Put casts around what has a kernel of 16-bit floats: what surrounds it has none."""
    nodes: list[Node] = []
    for node in graph.nodes:
        if node.op not in _HALF_KERNELS or not node.inputs or node.outputs[0] not in graph.halves:
            nodes.append(node)
            continue
        place = f"half {len(nodes)}"
        for name in dict.fromkeys(name for name in node.inputs if name and name not in graph.constants):
            half = f"{name}:{place}"
            graph.tensors[half] = Tensor(HALF, graph.tensor(name).shape)
            nodes.append(Node("Cast", [name], [half]))
            node.inputs = [half if other == name else other for other in node.inputs]
        out = node.outputs[0]
        graph.tensors[f"{out}:half"] = Tensor(HALF, graph.tensor(out).shape)
        node.outputs = [f"{out}:half", *node.outputs[1:]]
        nodes += [node, Node("Cast", [f"{out}:half"], [out])]
    graph.nodes = nodes


_HALF_KERNELS = frozenset({"LayerNormalization", "SkipLayerNormalization", "Clip"})


def simplify(graph: Graph) -> None:
    """Fold what is constant and drop what does nothing."""
    for node in list(graph.nodes):
        if node.inside:
            for inner in node.inside:
                # What is constant around a graph is constant inside of it.
                inner.constants |= {name: 0 for name in graph.constants if name not in inner.constants}
                simplify(inner)
        if node.op in NOTHING and not node.domain:
            graph.reroute(node.outputs[0], node.inputs[0])
            graph.drop([node])
        elif _is_constant(graph, node):
            for name in node.outputs:
                graph.constants[name] = graph.size(name)
            graph.drop([node])
    _forget_unused(graph)


def _is_constant(graph: Graph, node: Node) -> bool:
    if node.op in _NOT_FOLDED or not node.outputs:
        return False
    if all(name in graph.values for name in node.outputs if name) and node.op in {"Shape", "Size"}:
        return True
    inputs = [name for name in node.inputs if name]
    if not inputs and node.op not in {"ConstantOfShape", "Range"}:
        return False
    known = all(name in graph.constants for name in inputs)
    return known and sum(graph.size(name) for name in node.outputs) < _MAX_FOLDED_BYTES


def _forget_unused(graph: Graph) -> None:
    used = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
    for node in graph.nodes:
        used.update(_all_names(node))
    graph.constants = {name: size for name, size in graph.constants.items() if name in used}


def _all_names(node: Node) -> set[str]:
    names: set[str] = set()
    for inner in node.inside:
        names.update(name for inside in inner.nodes for name in inside.inputs)
        names.update(inner.outputs)
        for inside in inner.nodes:
            names.update(_all_names(inside))
    return names


def fuse(graph: Graph) -> None:
    """Apply all rewritings of float operators."""
    for node in graph.nodes:
        for inner in node.inside:
            fuse(inner)
    for rewrite in (_gelu, _quick_gelu, _layer_norm, _skip_layer_norm, _conv, _scaled_matmul, _gemm):
        rewrite(graph)
    cast_halves(graph)
    _forget_unused(graph)


def _constant(graph: Graph, name: str) -> bool:
    return name in graph.constants


def _split(graph: Graph, node: Node) -> tuple[str, str] | None:
    """Return (what flows, the constant) of a node with one of each."""
    if len(node.inputs) != 2:
        return None
    first, second = node.inputs
    if _constant(graph, second) and not _constant(graph, first):
        return first, second
    if _constant(graph, first) and not _constant(graph, second):
        return second, first
    return None


# -- convolutions ------------------------------------------------------------------------------------------------


def _conv(graph: Graph) -> None:
    for conv in [node for node in graph.nodes if node.op in {"Conv", "ConvTranspose"}]:
        if not _constant(graph, conv.inputs[1]):
            continue
        readers, makers = graph.consumers(), graph.producers()
        while (after := alone(readers, graph, conv.outputs[0])) is not None and _goes_into(graph, conv, after):
            _swallow(graph, conv, after)
        if conv.op != "Conv" or conv.fused:
            continue
        if after is not None and after.op == "Add" and conv.outputs[0] in after.inputs:
            other = next((name for name in after.inputs if name != conv.outputs[0]), None)
            maker = makers.get(other or "")
            same = other is not None and graph.tensor(other).shape == graph.tensor(conv.outputs[0]).shape
            if same and maker is not None and len(graph.tensor(conv.outputs[0]).shape) == 4:
                # The other side of the sum must be there before: then the convolution adds onto it.
                if graph.nodes.index(maker) > graph.nodes.index(conv):
                    _move_behind(graph, conv, maker)
                conv.inputs.append(other or "")
                _swallow(graph, conv, after)
                relu = alone(readers, graph, conv.outputs[0])
                if relu is not None and relu.op == "Relu":
                    _swallow(graph, conv, relu)


def _goes_into(graph: Graph, conv: Node, after: Node) -> bool:
    if conv.fused:
        return False
    if after.op in ACTIVATIONS and conv.op == "Conv":
        return after.op != "Clip" or conv.outputs[0] not in graph.halves
    if after.op == "BatchNormalization":
        return all(_constant(graph, name) for name in after.inputs[1:])
    if after.op in {"Mul", "Add"} and conv.op == "Conv":
        sides = _split(graph, after)
        channels = graph.tensor(conv.outputs[0]).shape[1] if len(graph.tensor(conv.outputs[0]).shape) > 1 else 0
        return sides is not None and graph.tensor(sides[1]).count in {1, channels}
    return False


def _swallow(graph: Graph, node: Node, after: Node) -> None:
    if after.op in ACTIVATIONS:
        node.fused = (*node.fused, after.op)
    node.outputs = [after.outputs[0], *node.outputs[1:]]
    graph.drop([after])


def _move_behind(graph: Graph, node: Node, other: Node) -> None:
    graph.nodes.remove(node)
    graph.nodes.insert(graph.nodes.index(other) + 1, node)


# -- what transformers are made of -------------------------------------------------------------------------------


def _chain(graph: Graph, readers: dict[str, list[Node]], start: str, ops: tuple[str, ...]) -> list[Node] | None:
    """Return the nodes after `start` that have these operators in turn, each the only reader of the one before."""
    found: list[Node] = []
    name = start
    for op in ops:
        node = alone(readers, graph, name)
        if node is None or node.op != op:
            return None
        found.append(node)
        name = node.outputs[0]
    return found


def _gelu(graph: Graph) -> None:
    readers = graph.consumers()
    makers = graph.producers()
    for erf in [node for node in graph.nodes if node.op == "Erf"]:
        scale = makers.get(erf.inputs[0])
        if scale is None or scale.op not in {"Div", "Mul"} or (sides := _split(graph, scale)) is None:
            continue
        source = sides[0]
        if source in graph.halves:
            continue
        rest = _chain(graph, readers, erf.outputs[0], ("Add", "Mul"))
        if rest is None:
            continue
        last = alone(readers, graph, rest[1].outputs[0])
        gone = [scale, erf, *rest]
        if source in rest[1].inputs and last is not None and last.op == "Mul" and _split(graph, last):
            gone.append(last)
        elif source not in rest[1].inputs:
            half = next((makers.get(name) for name in rest[1].inputs if name != rest[0].outputs[0]), None)
            if half is None or half.op != "Mul" or source not in half.inputs:
                continue
            gone.append(half)
        out = (last if last in gone else rest[1]).outputs[0] if last is not None else rest[1].outputs[0]
        bias = makers.get(source)
        node = Node("Gelu", [source], [out], domain="com.microsoft")
        if (
            bias is not None
            and bias.op == "Add"
            and _split(graph, bias)
            and set(map(id, readers[source])) <= {id(item) for item in gone}
        ):
            node.op, node.inputs = "BiasGelu", list(bias.inputs)
            gone.append(bias)
        _replace(graph, gone, node)
        readers, makers = graph.consumers(), graph.producers()


def _quick_gelu(graph: Graph) -> None:
    """Take x · sigmoid(x) as one operator, unless the convolution before takes the sigmoid."""
    readers = graph.consumers()
    for gate in [node for node in graph.nodes if node.op == "Sigmoid"]:
        product = alone(readers, graph, gate.outputs[0])
        if product is not None and product.op == "Mul" and gate.inputs[0] in product.inputs:
            _replace(graph, [gate, product], Node("QuickGelu", [gate.inputs[0]], [product.outputs[0]]))


def _layer_norm(graph: Graph) -> None:
    readers = graph.consumers()
    makers = graph.producers()
    for root in [node for node in graph.nodes if node.op == "Sqrt"]:
        before = makers.get(root.inputs[0])
        variance = makers.get(before.inputs[0]) if before is not None and before.op == "Add" else None
        if before is None or variance is None or variance.op != "ReduceMean":
            continue
        square = makers.get(variance.inputs[0])
        centred = makers.get(square.inputs[0]) if square is not None else None
        mean = makers.get(centred.inputs[1]) if centred is not None and centred.op == "Sub" else None
        rest = _chain(graph, readers, root.outputs[0], ("Div", "Mul", "Add"))
        if rest is None or square is None or centred is None or mean is None or mean.op != "ReduceMean":
            continue
        source = centred.inputs[0]
        scale, shift = (_split(graph, node) for node in rest[1:])
        inputs = [source, *(sides[1] for sides in (scale, shift) if sides)]
        _replace(
            graph,
            [mean, centred, square, variance, before, root, *rest],
            Node("LayerNormalization", inputs, [rest[-1].outputs[0]]),
        )
        readers, makers = graph.consumers(), graph.producers()


def _skip_layer_norm(graph: Graph) -> None:
    readers = graph.consumers()
    makers = graph.producers()
    for norm in [node for node in graph.nodes if node.op == "LayerNormalization"]:
        total = makers.get(norm.inputs[0])
        if total is None or total.op != "Add" or len(graph.tensor(norm.inputs[0]).shape) != 3:
            continue
        shapes = {graph.tensor(name).shape for name in total.inputs}
        if len(shapes) != 1 or any(_constant(graph, name) for name in total.inputs):
            continue
        gone = [norm, total]
        inputs = [*total.inputs, *norm.inputs[1:]]
        outputs = list(norm.outputs[:1])
        if len(readers[norm.inputs[0]]) > 1 or norm.inputs[0] in graph.outputs:
            outputs.append(norm.inputs[0])  # the sum is an output of its own
        for name in total.inputs:
            bias = makers.get(name)
            if bias is not None and bias.op == "Add" and (sides := _split(graph, bias)) and len(readers[name]) == 1:
                gone.append(bias)
                inputs = [sides[0] if item == name else item for item in inputs] + [sides[1]]
                break
        _replace(graph, gone, Node("SkipLayerNormalization", inputs, outputs, domain="com.microsoft"))
        readers, makers = graph.consumers(), graph.producers()


def _scaled_matmul(graph: Graph) -> None:
    """A product divided or multiplied by a constant number is one operator."""
    readers = graph.consumers()
    for product in [node for node in graph.nodes if node.op in {"MatMul", "FusedMatMul"} and not node.fused]:
        if any(_constant(graph, name) for name in product.inputs) or product.outputs[0] in graph.halves:
            continue
        after = alone(readers, graph, product.outputs[0])
        if after is not None and after.op in {"Div", "Mul"}:
            sides = _split(graph, after)
            if sides is not None and graph.tensor(sides[1]).count == 1:
                product.op = "FusedMatMul"
                _swallow(graph, product, after)


def _gemm(graph: Graph) -> None:
    """A product of two matrices and its bias are one operator; so is that and what activates it."""
    readers = graph.consumers()
    for product in [node for node in graph.nodes if node.op in {"MatMul", "Gemm"}]:
        after = alone(readers, graph, product.outputs[0])
        flat = len(graph.tensor(product.inputs[0]).shape) == 2
        if after is not None and product.op == "MatMul" and after.op == "Add" and flat and _split(graph, after):
            product.op = "Gemm"
            _swallow(graph, product, after)
            after = alone(readers, graph, product.outputs[0])
        if after is not None and product.op == "Gemm" and after.op in ACTIVATIONS:
            _swallow(graph, product, after)


def _replace(graph: Graph, gone: list[Node], node: Node) -> None:
    """Put `node` in the place of the last of `gone`."""
    places = {id(item): index for index, item in enumerate(graph.nodes)}
    last = max(gone, key=lambda item: places.get(id(item), -1))
    graph.nodes[graph.nodes.index(last)] = node
    graph.drop(item for item in gone if item is not last)
