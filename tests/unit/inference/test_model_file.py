from __future__ import annotations

import math
import os
from collections.abc import Callable

import onnx
import onnx_models
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge_agent.errors import WorkerError
from edge_agent.inference import model_file
from edge_agent.models import custom_ops
from edge_agent.models.catalogue import BUILTIN_DIR, builtin


def check(content: bytes) -> None:
    """Look through a file with this content."""
    fd = onnx_models.file_of(content)
    try:
        model_file.check(fd)
    finally:
        os.close(fd)


def base() -> onnx.ModelProto:
    """Return a small, honest model."""
    return onnx.ModelProto.FromString(onnx_models.identity("UINT8"))


def in_initializer(model: onnx.ModelProto, tensor: TensorProto) -> None:
    """Put the tensor where weights are."""
    model.graph.initializer.append(tensor)


def in_attribute(model: onnx.ModelProto, tensor: TensorProto) -> None:
    """Put the tensor into a Constant."""
    model.graph.node.append(helper.make_node("Constant", [], ["c"], value=tensor))


def in_attribute_list(model: onnx.ModelProto, tensor: TensorProto) -> None:
    """Put the tensor into a list of tensors."""
    attribute = onnx.AttributeProto(name="many", type=onnx.AttributeProto.TENSORS, tensors=[tensor])
    model.graph.node[0].attribute.append(attribute)


def in_sparse_initializer(model: onnx.ModelProto, tensor: TensorProto) -> None:
    """Make the tensor the values of a sparse weight."""
    model.graph.sparse_initializer.append(onnx.SparseTensorProto(values=tensor, dims=[16]))


def in_sparse_indices(model: onnx.ModelProto, tensor: TensorProto) -> None:
    """Make the tensor the indices of a sparse constant."""
    sparse = onnx.SparseTensorProto(indices=tensor, dims=[16])
    attribute = onnx.AttributeProto(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR, sparse_tensor=sparse)
    model.graph.node[0].attribute.append(attribute)


def in_sparse_list(model: onnx.ModelProto, tensor: TensorProto) -> None:
    """Put the tensor into a list of sparse tensors."""
    sparse = onnx.SparseTensorProto(values=tensor, dims=[16])
    kind = onnx.AttributeProto.SPARSE_TENSORS
    model.graph.node[0].attribute.append(onnx.AttributeProto(name="many", type=kind, sparse_tensors=[sparse]))


def in_subgraph(model: onnx.ModelProto, tensor: TensorProto) -> None:
    """Put the tensor into the branch of an If."""
    branch = helper.make_graph([], "branch", [], [], [tensor])
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branch))


def in_subgraph_list(model: onnx.ModelProto, tensor: TensorProto) -> None:
    """Put the tensor into one of several graphs of an attribute."""
    branch = helper.make_graph([], "branch", [], [], [tensor])
    attribute = onnx.AttributeProto(name="many", type=onnx.AttributeProto.GRAPHS, graphs=[branch])
    model.graph.node[0].attribute.append(attribute)


def in_function(model: onnx.ModelProto, tensor: TensorProto) -> None:
    """Put the tensor into the body of a function."""
    node = helper.make_node("Constant", [], ["c"], value=tensor)
    model.functions.append(helper.make_function("mine", "f", [], ["c"], [node], [helper.make_opsetid("", 21)]))


def in_function_default(model: onnx.ModelProto, tensor: TensorProto) -> None:
    """Make the tensor the default of a function's attribute."""
    function = helper.make_function("mine", "f", [], [], [], [helper.make_opsetid("", 21)])
    function.attribute_proto.append(helper.make_attribute("value", tensor))
    model.functions.append(function)


def in_training(model: onnx.ModelProto, tensor: TensorProto) -> None:
    """Put the tensor where training starts from."""
    graph = helper.make_graph([], "start", [], [], [tensor])
    model.training_info.append(onnx.TrainingInfoProto(initialization=graph))


PLACES = [
    in_initializer,
    in_attribute,
    in_attribute_list,
    in_sparse_initializer,
    in_sparse_indices,
    in_sparse_list,
    in_subgraph,
    in_subgraph_list,
    in_function,
    in_function_default,
    in_training,
]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("sign", ["location and data", "only the location", "only the data"])
def test_external_data_is_found_everywhere(place: Callable[[onnx.ModelProto, TensorProto], None], sign: str) -> None:
    """A tensor whose bytes are in another file is refused wherever it hides; the same with its own bytes is not."""
    model = base()
    place(model, TensorProto(name="t", data_type=TensorProto.UINT8, dims=[1], raw_data=b"\x01"))
    check(model.SerializeToString())

    model = base()
    tensor = onnx_models.external_tensor()
    if sign == "only the location":
        del tensor.external_data[:]
    if sign == "only the data":
        tensor.ClearField("data_location")
    place(model, tensor)
    with pytest.raises(WorkerError, match="outside its own file") as caught:
        check(model.SerializeToString())
    assert caught.value.error_code == "model-load"


def test_external_data_in_a_second_graph_field_is_found() -> None:
    """Protobuf merges fields that come twice: a second graph in the same file is looked through too."""
    extra = onnx.ModelProto()
    in_initializer(extra, onnx_models.external_tensor())
    with pytest.raises(WorkerError, match="outside its own file"):
        check(base().SerializeToString() + extra.SerializeToString())


def test_the_built_in_models_pass() -> None:
    """Nothing is found in honest models."""
    for family in builtin().families:
        for variant in family.variants:
            check((BUILTIN_DIR / variant.file).read_bytes())


def nested(depth: int) -> bytes:
    """Return a model with this many graphs inside each other."""
    graph = base().graph
    for _ in range(depth - 1):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["y"], then_branch=graph)], "outer", [], [])
    return onnx.ModelProto(graph=graph).SerializeToString()


def test_graphs_nested_too_deep_are_refused() -> None:
    """The deepest accepted nesting passes, one level more does not."""
    check(nested(model_file.MAX_GRAPH_DEPTH))
    with pytest.raises(WorkerError, match="deeper than"):
        check(nested(model_file.MAX_GRAPH_DEPTH + 1))


def test_graphs_nested_without_end_are_refused() -> None:
    """A nesting that would exhaust the stack of a recursive reader is refused like any other."""
    content = b""
    for _ in range(3_000):  # graph.node.attribute.g, from the inside out
        for key in (b"\x32", b"\x2a", b"\x0a"):
            content = key + onnx_models.varint(len(content)) + content
    with pytest.raises(WorkerError, match="deeper than"):
        check(b"\x3a" + onnx_models.varint(len(content)) + content)


def test_too_many_nodes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes are counted over all graphs."""
    monkeypatch.setattr(model_file, "MAX_NODES", 3)
    model = base()
    branch = helper.make_graph([helper.make_node("Neg", ["a"], ["b"])], "branch", [], [])
    model.graph.node.append(helper.make_node("If", ["c"], ["y"], then_branch=branch))
    check(model.SerializeToString())
    model.graph.node.append(helper.make_node("Neg", ["a"], ["d"]))
    with pytest.raises(WorkerError, match="more than 3 nodes"):
        check(model.SerializeToString())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"root:x:0:0:root:/root:/bin/bash\n",
        b"\x08\x0a",
        b"\x3a",
        b"\x3a\x05ab",
        b"\x0b",
        b"\x80" * 12,
        b"\x3d\x00",
    ],
    ids=["empty", "text", "no graph", "cut length", "cut graph", "group", "endless number", "cut number"],
)
def test_what_is_no_model_is_refused(content: bytes) -> None:
    """Files of any other kind get a clear error."""
    with pytest.raises(WorkerError, match="model file is") as caught:
        check(content)
    assert caught.value.error_code == "model-load"


@given(st.data())
def test_damaged_models_never_break_the_reader(data: st.DataObject) -> None:
    """Bytes of a real model with some of them changed or cut off are accepted or refused, nothing else."""
    content = bytearray(nested(4))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        check(bytes(content[: data.draw(st.integers(0, len(content)))]))
    except WorkerError as error:
        assert error.error_code == "model-load"  # noqa: PT017 - not every damage is found


def test_the_domains_of_operators_are_told() -> None:
    """Whoever loads the file learns which libraries it asks for."""
    model = base()
    model.opset_import.append(helper.make_opsetid("ai.onnx.contrib", 1))
    fd = onnx_models.file_of(model.SerializeToString())
    try:
        assert model_file.check(fd) == {"", "ai.onnx.contrib"}
    finally:
        os.close(fd)


@pytest.mark.parametrize("domains", [["x" * 129], [f"d{number}" for number in range(100)]])
def test_too_many_or_too_long_domains_are_refused(domains: list[str]) -> None:
    """A file does not decide how much is kept of it."""
    model = base()
    model.opset_import.extend(helper.make_opsetid(domain, 1) for domain in domains)
    with pytest.raises(WorkerError, match="sets of operators"):
        check(model.SerializeToString())


# -- what tensors claim, and what operators ask for -------------------------------------------------------------------


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("packed", [False, True], ids=["one by one", "packed"])
@given(dims=st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=6))
def test_tensors_that_claim_more_than_the_file_holds_are_refused(
    dims: list[int],
    *,
    packed: bool,
    sparse: bool,
) -> None:
    """Whatever the dimensions, in both forms that protobuf allows; an empty tensor claims nothing."""
    content = onnx_models.claiming([] if packed else dims, sparse=sparse)
    if packed:
        content = with_packed_dims(content, dims, sparse=sparse)
    count = math.prod(dims)
    if count > (model_file.MAX_DENSE_ELEMENTS if sparse else 10_000):
        with pytest.raises(WorkerError, match="claims far more elements"):
            check(content)
    elif sparse or count <= 4 * model_file.MAX_ELEMENTS_A_BYTE:
        check(content)


def with_packed_dims(content: bytes, dims: list[int], *, sparse: bool) -> bytes:
    """Return a model with the dimensions of its weight added as one packed field."""
    model = onnx.ModelProto.FromString(content)
    numbers = b"".join(onnx_models.varint(number) for number in dims)
    if sparse:
        field, holder = b"\x1a", b"\x7a"
        tensor = model.graph.sparse_initializer[0].SerializeToString()
        model.graph.ClearField("sparse_initializer")
    else:
        field, holder = b"\x0a", b"\x2a"
        tensor = model.graph.initializer[0].SerializeToString()
        model.graph.ClearField("initializer")
    tensor += field + onnx_models.varint(len(numbers)) + numbers
    graph = model.graph.SerializeToString() + holder + onnx_models.varint(len(tensor)) + tensor
    model.ClearField("graph")
    return model.SerializeToString() + b"\x3a" + onnx_models.varint(len(graph)) + graph


def test_operators_of_functions_in_the_file_are_its_own() -> None:
    """A domain that the model's own functions define needs nothing that is installed."""
    model = base()
    node = helper.make_node("Identity", ["a"], ["b"])
    model.functions.append(helper.make_function("mine", "f", ["a"], ["b"], [node], [helper.make_opsetid("", 21)]))
    model.graph.node.append(helper.make_node("f", ["x"], ["y"], domain="mine"))
    check(model.SerializeToString())
    model.graph.node.append(helper.make_node("f", ["x"], ["y"], domain="theirs"))
    with pytest.raises(WorkerError, match="needs operators of 'theirs'"):
        check(model.SerializeToString())


@pytest.mark.parametrize("domain", sorted(custom_ops.BUILT_IN_DOMAINS | custom_ops.DOMAINS))
def test_operators_that_are_here_pass(domain: str) -> None:
    """Those of onnxruntime, and those of the extensions, whose absence another message tells."""
    check(onnx_models.foreign(domain))
