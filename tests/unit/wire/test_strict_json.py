"""JSON text: the quick reader and the standard library's say the same, and what is wrong is said in words."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import InputError
from edge_agent.wire import strict_json

FINITE = st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | FINITE | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=10,
)


@given(VALUES, st.sampled_from([{}, {"indent": 1}, {"ensure_ascii": False}]))
def test_text_is_read_as_the_standard_library_reads_it(value: object, form: dict[str, Any]) -> None:
    """The same values of the same types, negative zero and large integers included."""
    text = json.dumps(value, **form)
    assert repr(strict_json.read(text.encode())) == repr(json.loads(text))


@given(VALUES)
def test_what_is_written_is_read_back(value: object) -> None:
    """By both readers, in UTF-8 and without spaces."""
    text = strict_json.written(value)
    assert repr(strict_json.read(text)) == repr(json.loads(text)) == repr(value)


@given(
    st.binary(max_size=40)
    | st.text(max_size=40).map(str.encode)
    | st.text('[]{}0123456789.eE+-,:" \\untrflsa').map(str.encode)
)
def test_any_bytes_are_read_as_the_standard_library_reads_them_or_refused(text: bytes) -> None:
    """Never anything but a value or an InputError; NaN and infinity are no values."""
    try:
        expected = json.loads(text)
    except (ValueError, RecursionError):
        expected = InputError
    try:
        found = strict_json.read(text)
    except InputError as error:
        assert expected is InputError or "no NaN and no infinity" in error.message  # noqa: PT017 either of the two
    else:
        assert repr(found) == repr(expected)


@pytest.mark.parametrize("text", [b"[NaN]", b"[1, -Infinity]", b'{"a": Infinity}'])
def test_nan_and_infinity_are_refused(text: bytes) -> None:
    """JSON has none."""
    with pytest.raises(InputError, match="no NaN and no infinity"):
        strict_json.read(text)


def test_a_number_beyond_all_floats_is_infinite_to_both() -> None:
    """So that whoever takes numbers has to look."""
    assert strict_json.read(b"[1e999]") == [math.inf] == json.loads("[1e999]")
