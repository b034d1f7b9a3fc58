from __future__ import annotations

import enum
import math
import tracemalloc
from typing import Any

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import MalformedError, PeerError, TooLargeError
from edge_agent.wire import cbor_items, strict_cbor

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
KEYS = TEXT | st.integers(strict_cbor.MIN_INTEGER, strict_cbor.MAX_INTEGER)
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(strict_cbor.MIN_INTEGER, strict_cbor.MAX_INTEGER)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.binary(max_size=300)
    | TEXT
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=20,
)

# From RFC 8949, appendix A, and the order of section 4.2.1.
ENCODINGS: list[tuple[Any, str]] = [
    (0, "00"),
    (23, "17"),
    (24, "1818"),
    (255, "18ff"),
    (1000, "1903e8"),
    (1000000, "1a000f4240"),
    (1000000000000, "1b000000e8d4a51000"),
    (18446744073709551615, "1bffffffffffffffff"),
    (-1, "20"),
    (-1000, "3903e7"),
    (-(2**63), "3b7fffffffffffffff"),
    (1.1, "fb3ff199999999999a"),
    (-4.1, "fbc010666666666666"),
    (1.5, "fb3ff8000000000000"),
    (-0.0, "fb8000000000000000"),
    (False, "f4"),
    (True, "f5"),
    (None, "f6"),
    (b"", "40"),
    (b"\x01\x02\x03\x04", "4401020304"),
    ("", "60"),
    ("IETF", "6449455446"),
    ("\u00fc", "62c3bc"),
    ([], "80"),
    ([1, [2, 3], [4, 5]], "8301820203820405"),
    (list(range(1, 26)), "98190102030405060708090a0b0c0d0e0f101112131415161718181819"),
    ({}, "a0"),
    ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    ({"aa": 4, "z": 3, -1: 2, 100: 1, 10: 0}, "a50a00186401200261 7a03 626161 04".replace(" ", "")),
]


@pytest.mark.parametrize(("value", "expected"), ENCODINGS)
def test_the_rfc_examples_are_encoded_as_printed(value: object, expected: str) -> None:
    """RFC 8949 appendix A is the judge of our encoding, in both directions."""
    assert strict_cbor.encode(value).hex() == expected
    decoded = strict_cbor.decode(bytes.fromhex(expected), max_bytes=100)
    assert decoded == value
    assert type(decoded) is type(value)


@given(VALUES)
def test_a_value_comes_back_as_it_went(value: strict_cbor.Value) -> None:
    """Encoding and decoding are inverse, and decoding takes views as well as bytes."""
    data = strict_cbor.encode(value)
    assert strict_cbor.decode(memoryview(data), max_bytes=len(data), max_depth=30) == value


@given(st.dictionaries(KEYS, st.integers(0, 9), max_size=8), st.randoms())
def test_the_order_in_which_a_map_was_built_does_not_show(entries: dict[Any, int], shuffle: Any) -> None:  # noqa: ANN401
    """Equal maps have equal bytes."""
    items = list(entries.items())
    shuffle.shuffle(items)
    assert strict_cbor.encode(dict(items)) == strict_cbor.encode(entries)


@given(st.binary(max_size=64))
def test_any_bytes_are_refused_or_are_the_encoding_of_what_they_decode_to(data: bytes) -> None:
    """No two byte strings decode to the same value, and nothing but a PeerError leaves the decoder."""
    try:
        value = strict_cbor.decode(data, max_bytes=64)
    except PeerError:
        return
    assert strict_cbor.encode(value) == data


@given(VALUES, st.data())
def test_a_changed_byte_is_refused_or_means_something_else(value: strict_cbor.Value, data: st.DataObject) -> None:
    """A mutation of a valid encoding never decodes to the same value."""
    original = strict_cbor.encode(value)
    at = data.draw(st.integers(0, len(original) - 1))
    changed = bytearray(original)
    changed[at] ^= data.draw(st.integers(1, 255))
    try:
        decoded = strict_cbor.decode(changed, max_bytes=len(changed), max_depth=30)
    except PeerError:
        return
    assert strict_cbor.encode(decoded) == changed


@given(VALUES, st.integers(0, 400))
def test_a_cut_value_is_refused(value: strict_cbor.Value, keep: int) -> None:
    """A prefix of an encoding is never an encoding."""
    data = strict_cbor.encode(value)
    cut = data[: min(keep, len(data) - 1)]
    with pytest.raises(PeerError):
        strict_cbor.decode(cut, max_bytes=1000, max_depth=30)


def judged(data: bytes, max_depth: int = 8, max_items: int = 10_000) -> tuple[object, object]:
    """Return what each of the two judges says of bytes."""
    try:
        slow: object = strict_cbor._slowly(data, max_depth, max_items)
    except PeerError as error:
        slow = type(error)
    return strict_cbor._quickly(data, max_depth, max_items), slow


def agree(quick: object, slow: object) -> bool:
    """Whether the quick judge accepts nothing that the slow one refuses, and reads the same where both accept."""
    return quick is strict_cbor._UNSURE or (
        not isinstance(slow, type) and strict_cbor.encode(quick) == strict_cbor.encode(slow)
    )


TEXT_KEYED = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5), max_leaves=20
)


@given(TEXT_KEYED)
def test_the_quick_judge_accepts_what_the_protocol_is_made_of(value: strict_cbor.Value) -> None:
    """Maps with text keys, lists and scalars need no walk."""
    quick, slow = judged(strict_cbor.encode(value), max_depth=30)
    assert quick == slow == value


@given(VALUES, st.data())
def test_both_judges_say_the_same_of_changed_bytes(value: strict_cbor.Value, data: st.DataObject) -> None:
    """One byte changed, one taken out, or one more."""
    encoded = bytearray(strict_cbor.encode(value))
    at = data.draw(st.integers(0, len(encoded) - 1))
    how = data.draw(st.sampled_from(["change", "remove", "insert"]))
    if how == "change":
        encoded[at] ^= data.draw(st.integers(1, 255))
    elif how == "remove":
        del encoded[at]
    else:
        encoded.insert(at, data.draw(st.integers(0, 255)))
    assert agree(*judged(bytes(encoded), data.draw(st.integers(0, 6)), data.draw(st.integers(1, 30))))


@given(st.binary(max_size=64), st.integers(0, 4), st.integers(0, 12))
def test_both_judges_say_the_same_of_any_bytes(data: bytes, max_depth: int, max_items: int) -> None:
    """Nothing gets past the walk because it is short."""
    assert agree(*judged(data, max_depth, max_items))


@pytest.mark.parametrize("max_items", [5, 6])
@pytest.mark.parametrize("max_depth", [1, 2])
def test_both_judges_have_the_same_limits(max_depth: int, max_items: int) -> None:
    """A map, its key, a list and what is in it are six items and two levels."""
    quick, slow = judged(strict_cbor.encode({"a": [1, 2, 3]}), max_depth, max_items)
    if max_depth == 2 and max_items == 6:
        assert quick == slow == {"a": [1, 2, 3]}
    else:
        assert (quick, slow) == (strict_cbor._UNSURE, TooLargeError)


def test_no_tag_is_decoded_before_it_is_refused() -> None:
    """Some tags repeat what stands elsewhere: a short message would become a huge value."""
    for tag in (*range(1_024), 43_000, 55_799, 2**32, 2**64 - 1):
        width = 1 if tag < 256 else 2 if tag < 2**16 else 4 if tag < 2**32 else 8
        head = (
            bytes((0xC0 + tag,))
            if tag < 24
            else bytes((0xD8 + (1, 2, 4, 8).index(width),)) + tag.to_bytes(width, "big")
        )
        for content in (b"\x00", b"\x60", b"\x80", b"\x82\x00\x00"):
            assert strict_cbor._quickly(head + content, 8, 100) is strict_cbor._UNSURE
            with pytest.raises(cbor2.CBORError, match="semantic tag"):
                cbor2.loads(head + content, semantic_decoders=strict_cbor._NO_TAGS)


def test_repeated_strings_become_no_huge_value() -> None:
    """Forty references to forty references to one long text: refused, and nobody wrote them out."""
    bomb = b"\xd9\x01\x00\x9a\x00\x00\x08\x00" + b"\x79\x10\x00" + b"x" * 4096 + b"\xd8\x19\x00" * 2047
    tracemalloc.start()
    with pytest.raises(MalformedError, match="tag"):
        strict_cbor.decode(bomb, max_bytes=len(bomb))
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
    tracemalloc.stop()


REFUSED = {
    "nothing at all": "",
    "text in pieces": "7f61616162ff",
    "bytes in pieces": "5f4101ff",
    "endless array": "9f01ff",
    "endless map": "bf616101ff",
    "lonely break": "ff",
    "reserved length 28": "1c",
    "reserved length 30": "5e",
    "integer in two bytes that fits into one": "1817",
    "integer in three bytes that fits into two": "1900ff",
    "integer in five bytes that fits into three": "1a0000ffff",
    "integer in nine bytes that fits into five": "1b00000000ffffffff",
    "negative integer longer than needed": "3800",
    "length longer than needed": "580161",
    "array length longer than needed": "980101",
    "map length longer than needed": "b801616101",
    "integer below -2**63": "3b8000000000000000",
    "undefined": "f7",
    "simple value 16": "f0",
    "simple value in two bytes": "f8ff",
    "false in two bytes": "f814",
    "half float": "f93c00",
    "single float": "fa3f800000",
    "NaN": "fb7ff8000000000000",
    "NaN with a payload": "fbfff0000000000001",
    "infinity": "fb7ff0000000000000",
    "minus infinity": "fbfff0000000000000",
    "date": "c074323031332d30332d32315432303a30343a30305a",
    "bignum": "c249010000000000000000",
    "shared reference": "d81c80",
    "tag inside an array": "81c101",
    "tag inside a map": "a16161c101",
    "duplicate key": "a2616101616102",
    "duplicate integer key": "a201010102",
    "keys out of order": "a2616201616101",
    "shorter text key after a longer one": "a262616101616102",
    "text key before an integer key": "a26161010102",
    "bytes as key": "a1410101",
    "array as key": "a1810101",
    "map as key": "a1a001",
    "null as key": "a1f601",
    "bool as key": "a1f501",
    "float as key": "a1fb3ff800000000000001",
    "invalid UTF-8": "61ff",
    "overlong UTF-8": "62c080",
    "surrogate in UTF-8": "63eda080",
    "invalid UTF-8 as key": "a161ff01",
    "trailing byte": "0000",
    "huge byte string": "5b7fffffffffffffff",
    "huge text": "7b7fffffffffffffff61",
    "huge array": "9b7fffffffffffffff01",
    "huge map": "bb7fffffffffffffff0101",
    "map with a key and no value": "a16161",
    "array of two with one": "8201",
    "cut length": "19ff",
    "cut float": "fb3ff8",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_a_form_that_is_not_the_one_encoding_is_refused(data: str) -> None:
    """Each of these is either not CBOR or a second way to write a value."""
    with pytest.raises(MalformedError):
        strict_cbor.decode(bytes.fromhex(data), max_bytes=1000)


def test_limits_are_exact() -> None:
    """What is at the limit passes; one more of anything is too large."""
    nested = bytes.fromhex("81" * 3 + "80")
    assert strict_cbor.decode(nested, max_bytes=4, max_depth=4, max_items=4) == [[[[]]]]
    for limits in (
        {"max_bytes": 3},
        {"max_bytes": 4, "max_depth": 3},
        {"max_bytes": 4, "max_items": 3},
    ):
        with pytest.raises(TooLargeError):
            strict_cbor.decode(nested, **limits)


def test_the_default_depth_can_be_reached() -> None:
    """cbor2's own depth limit never comes before ours."""
    nested = b"\x81" * (cbor_items.DEFAULT_MAX_DEPTH - 1) + b"\x80"
    assert strict_cbor.decode(nested, max_bytes=100) is not None


@pytest.mark.parametrize(
    "value", [2**64, -(2**63) - 1, math.nan, math.inf, "\ud800", {"a": math.nan}, [2**64], {2**64: 1}]
)
def test_values_without_an_encoding_are_a_value_error(value: object) -> None:
    """Numbers out of range and text that is no Unicode are the caller's mistake."""
    with pytest.raises(ValueError, match=r".+"):
        strict_cbor.encode(value)


@pytest.mark.parametrize("value", [object(), {1, 2}, 1 + 2j, {True: 1}, {None: 1}, {(1,): 1}, {b"a": 1}])
def test_types_without_an_encoding_are_a_type_error(value: object) -> None:
    """Nothing is guessed about other types."""
    with pytest.raises(TypeError, match=r"no place|map key"):
        strict_cbor.encode(value)


def test_subclasses_are_encoded_as_what_they_are_made_of() -> None:
    """Enum members, tuples, views and bytearrays leave no trace on the wire."""

    class Colour(enum.StrEnum):
        RED = "red"

    class Size(enum.IntEnum):
        BIG = 5

    value = {Colour.RED: (Size.BIG, memoryview(b"ab"), bytearray(b"c"))}
    assert strict_cbor.encode(value) == strict_cbor.encode({"red": [5, b"ab", b"c"]})


@pytest.mark.parametrize("size", [0, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32])
def test_a_byte_string_head_is_the_shortest(size: int) -> None:
    """Heads that are written by hand pass the strict reader."""
    head = cbor_items.byte_string_head(size)
    if size <= 65_536:
        assert strict_cbor.decode(head + bytes(size), max_bytes=size + 9) == bytes(size)
    assert int.from_bytes(head[1:] or bytes((head[0] & 0x1F,)), "big") == size


@pytest.mark.parametrize("size", [0, 23, 24, 255, 256, 65_535, 65_536])
def test_a_byte_string_is_found_where_it_is_and_nowhere_else(size: int) -> None:
    """Of each length of length; cut short, or with its length written longer than necessary, it is refused."""
    head = cbor_items.byte_string_head(size)
    data = b"\x01" + head + bytes(size)
    assert cbor_items.byte_string_at(data, 1, "This") == (1 + len(head), len(data))
    assert cbor_items.byte_string_at(data + b"more", 1, "This") == (1 + len(head), len(data))
    for cut in range(len(data) - 1, max(0, len(data) - 5), -1):
        with pytest.raises(MalformedError):
            cbor_items.byte_string_at(data[:cut], 1, "This")
    for first, width in ((0x58, 1), (0x59, 2), (0x5A, 4), (0x5B, 8)):
        if width > len(head) - 1 and size < 1 << 8 * width:
            longer = bytes([first]) + size.to_bytes(width, "big") + bytes(size)
            with pytest.raises(MalformedError):
                cbor_items.byte_string_at(longer, 0, "This")
    with pytest.raises(MalformedError):
        cbor_items.byte_string_at(bytes([head[0] | 0x20]) + head[1:] + bytes(size), 0, "This text")


def test_a_byte_string_that_cbor_cannot_announce_is_refused() -> None:
    """The last length is 2**64-1."""
    with pytest.raises(ValueError, match="more than CBOR can announce"):
        cbor_items.byte_string_head(2**64)
