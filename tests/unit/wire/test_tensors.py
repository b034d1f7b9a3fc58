from __future__ import annotations

import hashlib
import math
import struct
from dataclasses import FrozenInstanceError

import pytest
import wire_samples
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import MalformedError
from edge_agent.wire.envelope import attach, open_envelope, seal
from edge_agent.wire.messages import Job, TensorDigest
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec, digest, pack_strings, unpack_strings

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf", "Zl", "Zp"]), min_size=1, max_size=256)
SHAPES = st.lists(st.integers(0, 4), max_size=5).map(tuple)
FIXED = [datatype for datatype in DataType if datatype.item_bytes is not None]


@st.composite
def tensors(draw: st.DrawFn) -> Tensor:
    """A tensor of any type with any bits in it: NaNs, infinities, denormals, -0.0."""
    spec = TensorSpec(draw(NAMES), draw(st.sampled_from(DataType)), draw(SHAPES))
    count = spec.element_count
    if spec.datatype is DataType.BYTES:
        items = draw(st.lists(st.binary(max_size=9), min_size=count, max_size=count)) if count <= 64 else [b"x"] * count
        return Tensor(spec, pack_strings(items))
    if spec.datatype is DataType.BOOL:
        return Tensor(spec, bytes(draw(st.integers(0, 1)) for _ in range(min(count, 64))).ljust(count, b"\x01"))
    size = spec.byte_count or 0
    seed = draw(st.binary(min_size=min(size, 64), max_size=min(size, 64)))
    return Tensor(spec, (seed * (size // 64 + 1))[:size])


@given(tensors())
def test_every_tensor_travels_unchanged(tensor: Tensor) -> None:
    """Sealed by the coordinator, opened and attached by the agent: every bit is the same."""
    statement = wire_samples.job().model_copy(update={"inputs": (TensorDigest.of(tensor, wire_samples.SALT),)})
    data = seal(wire_samples.COORDINATOR, statement, [tensor.data])
    opened = open_envelope(
        data, wire_samples.COORDINATOR.public, Job, network=wire_samples.NETWORK, max_bytes=len(data)
    )
    assert opened.statement == statement
    assert attach(opened.statement.inputs, opened.attachments, opened.statement.salt) == [tensor]


@pytest.mark.parametrize(
    ("datatype", "bits"),
    [
        (DataType.FP16, "007c 00fc 017c 01fe 0080 0100"),
        (DataType.BF16, "807f 80ff 817f c1ff 0080 0100"),
        (DataType.FP32, "0000807f 000080ff 0100807f 0100c0ff 00000080 01000000"),
        (
            DataType.FP64,
            ("000000000000f07f 000000000000f0ff 010000000000f07f 010000000000f8ff 0000000000000080 0100000000000000"),
        ),
    ],
)
def test_special_floats_keep_every_bit(datatype: DataType, bits: str) -> None:
    """Infinities, signalling and quiet NaNs with payloads, -0.0 and the smallest denormal."""
    data = bytes.fromhex(bits)
    tensor = Tensor(TensorSpec("x", datatype, (6,)), data)
    [attached] = attach([TensorDigest.of(tensor)], [memoryview(data)])
    assert attached.data == data
    assert type(attached.data) is bytes


def test_a_scalar_has_one_element_and_an_empty_tensor_none() -> None:
    """Shape () is not shape (0,)."""
    assert Tensor(TensorSpec("s", DataType.FP64, ()), bytes(8)).spec.element_count == 1
    assert Tensor(TensorSpec("e", DataType.FP64, (3, 0, 2)), b"").spec.byte_count == 0
    assert Tensor(TensorSpec("e", DataType.BYTES, (0,)), b"").spec.byte_count is None
    assert Tensor(TensorSpec("s", DataType.BYTES, ()), b"\x01\x00\x00\x00a").name == "s"


@pytest.mark.parametrize("datatype", FIXED)
def test_a_length_that_the_shape_does_not_ask_for_is_refused(datatype: DataType) -> None:
    """One byte more or less, and none at all."""
    spec = TensorSpec("x", datatype, (2, 3))
    size = spec.byte_count
    assert size is not None
    assert size == 6 * (datatype.item_bytes or 0)
    for wrong in (0, size - 1, size + 1):
        with pytest.raises(MalformedError):
            Tensor(spec, bytes(wrong))


@pytest.mark.parametrize("data", [b"\x02", b"\xff"])
def test_a_bool_that_is_neither_0_nor_1_is_refused(data: bytes) -> None:
    """Such a bool would be undefined behaviour in the runtime."""
    with pytest.raises(MalformedError, match="BOOL"):
        Tensor(TensorSpec("x", DataType.BOOL, (3,)), b"\x00" + data + b"\x01")


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("", (1,)),
        ("a" * 257, (1,)),
        ("a\n", (1,)),
        ("a\x00b", (1,)),
        ("a\x1b[2J", (1,)),
        ("\x85", (1,)),
        ("a\u202eb", (1,)),
        ("a\u2028b", (1,)),
        ("x", (-1,)),
        ("x", (1,) * 33),
        ("x", (2**40 + 1,)),
        ("x", (2**21, 2**20)),
        ("x", (0, 2**41)),
        ("x", (2**41, 0)),
    ],
)
def test_a_spec_out_of_bounds_is_refused(name: str, shape: tuple[int, ...]) -> None:
    """Names that would confuse a log's reader and shapes that would overflow arithmetic."""
    with pytest.raises(MalformedError):
        TensorSpec(name, DataType.UINT8, shape)


def test_a_spec_at_its_bounds_is_accepted() -> None:
    """256 characters, 32 dimensions, 2**40 elements."""
    assert TensorSpec("é" * 256, DataType.FP64, (1,) * 32).element_count == 1
    assert TensorSpec("x", DataType.FP64, (2**20, 2**20)).byte_count == 2**43


def test_a_spec_and_a_tensor_do_not_change() -> None:
    """What was checked stays what was checked."""
    tensor = Tensor(TensorSpec("x", DataType.UINT8, (1,)), b"a")
    with pytest.raises(FrozenInstanceError):
        tensor.data = b"bb"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        tensor.spec.shape = (2,)  # type: ignore[misc]


@given(st.lists(st.binary(max_size=300), max_size=20))
def test_strings_come_back_as_they_went(items: list[bytes]) -> None:
    """Empty ones, NUL bytes and bytes that are not UTF-8 included."""
    assert unpack_strings(pack_strings(items), len(items)) == items


@given(st.binary(max_size=60), st.integers(0, 20))
def test_random_bytes_are_strings_in_one_way_or_refused(data: bytes, count: int) -> None:
    """Nothing but MalformedError, and no two ways to write the same strings."""
    try:
        items = unpack_strings(data, count)
    except MalformedError:
        with pytest.raises(MalformedError):
            Tensor(TensorSpec("x", DataType.BYTES, (count,)), data)
        return
    assert pack_strings(items) == data
    assert Tensor(TensorSpec("x", DataType.BYTES, (count,)), data).data == data


@pytest.mark.parametrize(
    ("data", "count"),
    [
        (b"", 1),
        (b"\x01\x00\x00", 1),
        (b"\x05\x00\x00\x00abc", 1),
        (b"\xff\xff\xff\xffabc", 1),
        (b"\x01\x00\x00\x00a", 2),
        (b"\x01\x00\x00\x00a\x00", 1),
        (b"\x01\x00\x00\x00a", 0),
        (b"\x00\x00\x00\x00", 2**40),
        (b"\x04\x00\x00\x00abcd\x00\x00", 2),
    ],
)
def test_strings_that_are_cut_or_miscounted_are_refused(data: bytes, count: int) -> None:
    """A count of 2**40 elements costs no time."""
    with pytest.raises(MalformedError):
        unpack_strings(data, count)


def test_a_string_too_long_for_its_length_is_refused() -> None:
    """Lengths have four bytes."""

    class Long(bytes):
        def __len__(self) -> int:
            return 2**32

    with pytest.raises(ValueError, match="4 GiB"):
        pack_strings([Long()])


def test_the_digest_is_sha_256_over_salt_and_data() -> None:
    """Anybody can compute it with standard tools."""
    assert digest(memoryview(b"data"), b"salt") == hashlib.sha256(b"saltdata").digest()
    assert digest(b"") == hashlib.sha256(b"").digest()


def test_the_onnx_names_of_all_types_map_back() -> None:
    """Every type of the protocol is one of onnxruntime's, and the sizes are those of C."""
    for datatype in DataType:
        assert DataType.from_onnx(datatype.onnx) is datatype
    assert DataType.from_onnx("tensor(float)") is DataType.FP32
    assert DataType.from_onnx("tensor(string)") is DataType.BYTES
    assert DataType.BF16.onnx == "tensor(bfloat16)"
    sizes = {
        "INT8": "b",
        "UINT16": "H",
        "INT32": "i",
        "UINT64": "Q",
        "FP16": "e",
        "FP32": "f",
        "FP64": "d",
        "BOOL": "?",
    }
    for name, code in sizes.items():
        assert DataType(name).item_bytes == struct.calcsize(code)


@pytest.mark.parametrize("onnx_type", ["tensor(complex64)", "tensor(int4)", "seq(tensor(float))", "", "float"])
def test_types_that_are_not_carried_are_a_value_error(onnx_type: str) -> None:
    """Sequences, maps and what onnxruntime cannot feed from Python."""
    with pytest.raises(ValueError, match="carries no"):
        DataType.from_onnx(onnx_type)


def test_numbers_are_little_endian() -> None:
    """The sample's bytes read as the numbers they stand for."""
    assert struct.unpack("<q", wire_samples.OUTPUT.data) == (7,)
    one, not_a_number = struct.unpack("<2f", wire_samples.INPUT.data)
    assert one == 1.0
    assert math.isnan(not_a_number)
