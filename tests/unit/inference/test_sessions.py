from __future__ import annotations

import os
import struct
import sys
from collections.abc import Sequence

import needs
import onnx
import onnx_models
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from edge_agent.errors import EdgeAgentError, InputError, TooLargeError, WorkerError
from edge_agent.inference.events import Port
from edge_agent.inference.sessions import Session
from edge_agent.models import custom_ops
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, pack_strings

pytestmark = pytest.mark.skipif(sys.byteorder == "big", reason="onnxruntime runs on little-endian machines")

PLENTY = 1 << 30
_OPEN: dict[bytes, Session] = {}


def opened(content: bytes) -> Session:
    """Return a session of a model, made once."""
    if content not in _OPEN:
        fd = onnx_models.file_of(content)
        try:
            _OPEN[content] = Session(fd, 1)
        finally:
            os.close(fd)
    return _OPEN[content]


def refused(content: bytes) -> EdgeAgentError:
    """Return the error with which loading fails."""
    with pytest.raises(EdgeAgentError) as caught:
        opened(content)
    return caught.value


def run(session: Session, inputs: Sequence[Tensor], *wanted: str, most: int = PLENTY) -> list[Tensor]:
    """Run, and return outputs whose bytes are their own."""
    return [Tensor(output.spec, bytes(output.data)) for output in session.run(inputs, wanted, most)]


def tensor(name: str, datatype: str, shape: Sequence[int], data: bytes) -> Tensor:
    """Return a tensor."""
    return Tensor(TensorSpec(name, DataType(datatype), tuple(shape)), data)


def floats(name: str, *values: float) -> Tensor:
    """Return a row of FP32."""
    return tensor(name, "FP32", (len(values),), struct.pack(f"<{len(values)}f", *values))


@st.composite
def any_tensor(draw: st.DrawFn, datatype: DataType, shape: tuple[int, ...] | None = None) -> Tensor:
    """Draw a tensor named in0 with any bytes that its type allows."""
    if shape is None:
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
    spec = TensorSpec("in0", datatype, shape)
    count = spec.element_count
    if datatype is DataType.BYTES:
        texts = draw(st.lists(st.text(max_size=6), min_size=count, max_size=count))
        return Tensor(spec, pack_strings(text.encode() for text in texts))
    if datatype is DataType.BOOL:
        return Tensor(spec, bytes(draw(st.lists(st.integers(0, 1), min_size=count, max_size=count))))
    size = spec.byte_count or 0
    return Tensor(spec, draw(st.binary(min_size=size, max_size=size)))


@pytest.mark.parametrize("datatype", list(DataType), ids=str)
@settings(max_examples=40)
@given(data=st.data())
def test_every_type_and_shape_comes_back_unchanged(datatype: DataType, data: st.DataObject) -> None:
    """Any bits of any type, scalars and empty tensors and NaN payloads too, pass through a model untouched."""
    given_tensor = data.draw(any_tensor(datatype))
    shape = tuple(f"d{axis}" for axis in range(len(given_tensor.spec.shape)))
    session = opened(onnx_models.identity(datatype.value, shape=shape))
    assert session.inputs == (Port("in0", datatype, shape),)
    (output,) = run(session, [given_tensor])
    assert (output.spec.name, output.spec.datatype, output.spec.shape) == ("out0", datatype, given_tensor.spec.shape)
    assert output.data == given_tensor.data


@pytest.mark.parametrize(
    ("datatype", "bits"),
    [
        ("FP16", ["007c", "00fc", "017e", "01fe", "0080", "0100"]),
        ("BF16", ["807f", "80ff", "c17f", "c1ff", "0080", "0100"]),
        ("FP32", ["0000807f", "000080ff", "0100c07f", "dec0c0ff", "00000080", "01000000"]),
        ("FP64", ["000000000000f07f", "000000000000f0ff", "010000000000f87f", "0000000000000080"]),
    ],
)
def test_special_numbers_keep_their_bits(datatype: str, bits: list[str]) -> None:
    """Infinities, quiet NaNs with a payload and a sign, negative zero and denormals are the same bits after."""
    data = bytes.fromhex("".join(bits))
    session = opened(onnx_models.identity(datatype))
    (output,) = run(session, [tensor("in0", datatype, (len(bits),), data)])
    assert output.data == data


def test_all_numbers_at_once() -> None:
    """A model with an input of every type, bfloat16 among them, gives all of them back."""
    kinds = [kind for kind in DataType if kind is not DataType.BYTES]
    session = opened(onnx_models.identity(*(kind.value for kind in kinds), shape=(2, 1)))
    inputs = [
        tensor(f"in{i}", kind.value, (2, 1), bytes([1] * 2 * (kind.item_bytes or 0))) for i, kind in enumerate(kinds)
    ]
    outputs = run(session, inputs)
    assert [(output.name, output.data) for output in outputs] == [
        (f"out{i}", given_tensor.data) for i, given_tensor in enumerate(inputs)
    ]


def test_text_beside_numbers() -> None:
    """Strings with NUL, astral characters and nothing in them, in two dimensions, beside bfloat16 as an input."""
    texts = ["", "a\0b", "größer", "\U0001f600"]
    model = onnx_models.model(
        [helper.make_node("Identity", ["in0"], ["out0"]), helper.make_node("Cast", ["in1"], ["out1"], to=1)],
        [onnx_models.value("in0", "BYTES", (2, 2)), onnx_models.value("in1", "BF16", (1,))],
        [onnx_models.value("out0", "BYTES", (2, 2)), onnx_models.value("out1", "FP32", (1,))],
    ).SerializeToString()
    data = pack_strings(text.encode() for text in texts)
    inputs = [tensor("in0", "BYTES", (2, 2), data), tensor("in1", "BF16", (1,), b"\x80\x3f")]
    text, number = run(opened(model), inputs)
    assert (text.spec.shape, text.data) == ((2, 2), data)
    assert number.data == struct.pack("<f", 1.0)


def test_outputs_are_chosen_by_name_and_order() -> None:
    """Only the outputs asked for come, in the order asked for."""
    session = opened(onnx_models.identity("INT8", "INT8", "INT8"))
    inputs = [tensor(f"in{i}", "INT8", (1,), bytes([i])) for i in range(3)]
    assert [output.name for output in run(session, inputs, "out2", "out0")] == ["out2", "out0"]
    assert [output.name for output in run(session, inputs)] == ["out0", "out1", "out2"]


def test_inputs_may_be_views_and_in_any_order() -> None:
    """A tensor that is a piece of a longer message is used as it lies."""
    session = opened(onnx_models.identity("FP32", "INT8"))
    message = memoryview(b"\x07\x00\x00\x80\x3f\x00\x00\x00\x40")
    inputs = [
        Tensor(TensorSpec("in1", DataType.INT8, (1,)), message[:1]),
        Tensor(TensorSpec("in0", DataType.FP32, (2,)), message[1:]),
    ]
    assert [bytes(output.data) for output in run(session, inputs)] == [bytes(message[1:]), b"\x07"]


@pytest.mark.parametrize(
    ("inputs", "wanted", "words"),
    [
        ([], (), ["'a' (FP32, shape [n, 2]) is missing", "'b' (FP32, shape [n])"]),
        (["a", "b", "c"], (), ["no input 'c'", "'a' (FP32, shape [n, 2])"]),
        (["a", "b", "b"], (), ["twice"]),
        (["a:INT32", "b"], (), ["'a' (FP32, shape [n, 2]) was given as INT32"]),
        (["a:FP32:4", "b"], (), ["shape [4]", "1 dimensions"]),
        (["a:FP32:2,3", "b"], (), ["'a' (FP32, shape [n, 2])", "shape [2, 3]"]),
        (["a", "b:FP32:3"], (), ["'b' (FP32, shape [n])", "[3]", "'n' is 2 in 'a'"]),
        (["a", "b"], ("x",), ["no output 'x'", "it has 'sum' (FP32, shape [n, 2])"]),
        (["a", "b"], ("sum", "sum"), ["twice"]),
    ],
)
def test_wrong_inputs_are_the_requesters(inputs: list[str], wanted: tuple[str, ...], words: list[str]) -> None:
    """Every way to call a model wrongly is found before it runs, and the message says what was expected."""
    model = onnx_models.model(
        [
            helper.make_node("Identity", ["a"], ["sum"]),
            helper.make_node("Identity", ["b"], ["rest"]),
        ],
        [onnx_models.value("a", "FP32", ("n", 2)), onnx_models.value("b", "FP32", ("n",))],
        [onnx_models.value("sum", "FP32", ("n", 2)), onnx_models.value("rest", "FP32", ("n",))],
    ).SerializeToString()
    default = {"a": "FP32:2,2", "b": "FP32:2", "c": "FP32:1"}
    tensors = []
    for text in inputs:
        name, _, described = text.partition(":")
        datatype, _, sizes = f"{described or default[name]}".partition(":")
        shape = [int(size) for size in sizes.split(",") if size] or [2, 2]
        spec = TensorSpec(name, DataType(datatype), tuple(shape))
        tensors.append(Tensor(spec, bytes(spec.byte_count or 0)))
    with pytest.raises(InputError) as caught:
        opened(model).run(tensors, wanted, PLENTY)
    for word in words:
        assert word in caught.value.message


def test_text_that_is_not_utf8_is_the_requesters() -> None:
    """The message names the element."""
    data = pack_strings([b"fine", b"\xff\xfe"])
    with pytest.raises(InputError, match=r"Element 1 of the input 'in0' is not UTF-8"):
        opened(onnx_models.identity("BYTES")).run([tensor("in0", "BYTES", (2,), data)], (), PLENTY)


def test_a_failure_inside_the_model_is_the_models() -> None:
    """What goes wrong after the checks is not blamed on the input."""
    session = opened(onnx_models.failing())
    assert run(session, [floats("in0", 1, 2, 3)])[0].spec.shape == (3,)
    with pytest.raises(WorkerError, match="Reshape") as caught:
        session.run([floats("in0", 1, 2)], (), PLENTY)
    assert caught.value.error_code == "model-run"
    assert "ONNXRuntimeError" not in caught.value.message


def test_output_that_is_not_text_is_the_models() -> None:
    """A string output that is no UTF-8 cannot be carried."""
    with pytest.raises(WorkerError) as caught:
        opened(onnx_models.constant_text(b"\xff")).run([], (), PLENTY)
    assert caught.value.error_code == "model-run"
    assert run(opened(onnx_models.constant_text(b"fine")), [])[0].data == pack_strings([b"fine"])


def test_outputs_above_the_limit_are_refused() -> None:
    """The limit holds for all outputs together, to the byte."""
    session = opened(onnx_models.identity("FP32", "BYTES"))
    inputs = [floats("in0", 1, 2, 3), tensor("in1", "BYTES", (1,), pack_strings([b"abc"]))]
    assert len(run(session, inputs, most=19)) == 2
    with pytest.raises(TooLargeError, match="19 bytes"):
        session.run(inputs, (), 18)
    assert len(run(session, inputs, "out0", most=12)) == 1


def sequence_output() -> bytes:
    """Return a model whose output is a sequence of tensors."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, ("n",)))
    output = helper.make_value_info("out0", kind)
    node = helper.make_node("SequenceConstruct", ["in0"], ["out0"])
    return onnx_models.model([node], [onnx_models.value("in0", "FP32", ("n",))], [output]).SerializeToString()


def external() -> bytes:
    """Return a model with a weight in another file."""
    node = helper.make_node("Identity", ["weights"], ["out0"])
    output = onnx_models.value("out0", "UINT8", (16,))
    return onnx_models.model([node], [], [output], [onnx_models.external_tensor()]).SerializeToString()


def control_character_name() -> bytes:
    """Return a model whose input's name would write to a terminal."""
    node = helper.make_node("Identity", ["\x1b[2J"], ["out0"])
    names = [onnx_models.value("\x1b[2J", "FP32", ("n",))]
    return onnx_models.model([node], names, [onnx_models.value("out0", "FP32", ("n",))]).SerializeToString()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"root:x:0:0:root:/root:/bin/bash\n", "no ONNX file"),
        (onnx_models.identity("FP32")[:-40], "model"),
        (onnx.ModelProto(graph=onnx.GraphProto()).SerializeToString(), "onnxruntime refuses the model"),
        (external(), "outside its own file"),
        (sequence_output(), "output 'out0' cannot be served"),
        (control_character_name(), "cannot be served"),
        (onnx_models.identity("BYTES", "BF16"), "strings and bfloat16"),
    ],
    ids=["text", "cut", "empty graph", "external data", "sequence", "name", "strings and bfloat16"],
)
def test_models_that_cannot_be_served_are_refused(content: bytes, words: str) -> None:
    """Loading fails with one kind of error, and a message that says why."""
    error = refused(content)
    assert error.error_code == "model-load"
    assert words in error.message
    assert "\x1b" not in error.message


def test_nothing_is_printed_for_models_that_fail(capfd: pytest.CaptureFixture[str]) -> None:
    """Onnxruntime's Python layer tries again and prints about it, unless told not to."""
    refused(onnx_models.identity("FP32")[:-40])
    assert "EP Error" not in capfd.readouterr().out


def test_dynamic_sizes_may_change_from_run_to_run() -> None:
    """The same session takes one size after the other."""
    session = opened(onnx_models.identity("FP32"))
    for count in (3, 0, 1, 1000, 2):
        assert run(session, [floats("in0", *range(count))])[0].spec.shape == (count,)


def test_a_model_that_asks_for_the_extensions_gets_them() -> None:
    """Its opset imports say so; the operator works on text."""
    needs.module("onnxruntime_extensions")
    text = tensor("in0", "BYTES", (2,), pack_strings([b"abc", b"x y"]))
    (answer,) = run(opened(onnx_models.upper_case()), [text])
    assert answer.data == pack_strings([b"ABC", b"X Y"])


def test_the_extensions_are_loaded_for_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not loaded cannot be attacked: a model that does not name them does not reach them."""
    monkeypatch.setattr(custom_ops, "library", lambda: pytest.fail("the library was asked for"))
    content = onnx_models.identity("FP32", shape=("unused", 3))
    assert opened(content).inputs[0].shape == ("unused", 3)
    # Nor does one that uses the operator without saying so.
    model = onnx.load_from_string(onnx_models.upper_case())
    del model.opset_import[1:]
    assert refused(model.SerializeToString()).error_code == "model-load"


def test_without_the_extensions_the_hint_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variant that cannot run here fails alone, and tells why."""
    monkeypatch.setattr(custom_ops, "library", lambda: None)
    model = onnx.load_from_string(onnx_models.upper_case())
    model.doc_string = "not loaded before"
    error = refused(model.SerializeToString())
    assert error.error_code == "model-load"
    assert "edge-agent[text]" in (error.hint or "")
