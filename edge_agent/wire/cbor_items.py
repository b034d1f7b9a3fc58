"""Where CBOR items begin and end in foreign bytes, found without building anything of them; and what stands in front.

Everything that `strict_cbor` promises is checked here, except that text is UTF-8.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from edge_agent.errors import MalformedError, TooLargeError

DEFAULT_MAX_DEPTH = 8
DEFAULT_MAX_ITEMS = 10_000

# Major types, RFC 8949 section 3.1.
UNSIGNED, NEGATIVE, BYTES, TEXT, ARRAY, MAP, TAG, SIMPLE = range(8)
_FALSE_TRUE_NULL = (20, 21, 22)
_SIMPLE_FLOAT64 = 27
_WIDTHS = {24: 1, 25: 2, 26: 4, 27: 8}
# The smallest argument that may be written in so many bytes; a smaller one has a shorter form.
_LEAST = {24: 24, 25: 2**8, 26: 2**16, 27: 2**32}


class Head(NamedTuple):
    """The start of one data item: major type, argument (value or length), and where its content starts."""

    major: int
    argument: int
    content: int


def byte_string_head(size: int) -> bytes:
    """Return what stands in front of the `size` bytes of a byte string."""
    if size < 256:
        return _SHORT_HEADS[size]
    if size < 65_536:
        return b"\x59" + size.to_bytes(2, "big")
    for info, width in _WIDTHS.items():
        if size < 1 << (8 * width):
            return bytes((0x40 + info,)) + size.to_bytes(width, "big")
    raise ValueError(f"{size} bytes are more than CBOR can announce.")


_SHORT_HEADS: Final = tuple(bytes((0x40 + size,)) if size < 24 else bytes((0x58, size)) for size in range(256))


def byte_string_at(data: bytes | bytearray | memoryview, at: int, what: str) -> tuple[int, int]:
    """Return where the content of the byte string at offset `at` begins and ends.

    Args:
        data: the bytes as they came.
        at: an offset.
        what: it is, for the error.

    Raises:
        MalformedError: it is none, or as `read_head`.
    """
    size = len(data)
    first = data[at] if at < size else 0
    length = first - 0x40
    if 0 <= length < 24:
        if at + 1 + length <= size:
            return at + 1, at + 1 + length
    elif first == 0x58:
        if at + 1 < size and (length := data[at + 1]) >= 24 and at + 2 + length <= size:
            return at + 2, at + 2 + length
    elif first == 0x59 and at + 2 < size:
        length = data[at + 1] << 8 | data[at + 2]
        if length >= 256 and at + 3 + length <= size:
            return at + 3, at + 3 + length
    head = read_head(data, at)
    if head.major != BYTES:
        raise MalformedError(f"{what} is not a byte string.")
    return head.content, head.content + head.argument


def read_head(data: bytes | bytearray | memoryview, at: int) -> Head:
    """Read the head of the data item at offset `at`, and check that its content is inside `data`.

    Raises:
        MalformedError: cut short, of indefinite length, longer than necessary, or a reserved form.
    """
    size = len(data)
    if at >= size:
        raise MalformedError("The CBOR item ends too early.")
    first = data[at]
    major, info = first >> 5, first & 0x1F
    at += 1
    if info < 24:
        argument = info
    else:
        width = _WIDTHS.get(info)
        if width is None:
            raise MalformedError("CBOR of indefinite length or of a reserved form is not accepted.")
        if at + width > size:
            raise MalformedError("The CBOR item ends too early.")
        argument = int.from_bytes(data[at : at + width], "big")
        at += width
        if argument < _LEAST[info] and major != SIMPLE:
            raise MalformedError("A CBOR number or length is written longer than necessary.")
    # Every element of a container takes at least a byte, a map entry two: an announced size that cannot
    # fit is refused here, before anybody prepares room for it.
    if major in (BYTES, TEXT, ARRAY) and argument > size - at:
        raise MalformedError("A CBOR length reaches past the end of the message.")
    if major == MAP and argument > (size - at) // 2:
        raise MalformedError("A CBOR map announces more entries than there are bytes.")
    if major == SIMPLE:
        _check_simple(data, at, info)
    return Head(major, argument, at)


def item_end(
    data: bytes | bytearray | memoryview,
    start: int,
    *,
    max_depth: int = DEFAULT_MAX_DEPTH,
    max_items: int = DEFAULT_MAX_ITEMS,
) -> int:
    """Walk the data item at offset `start` without building it, and return the offset behind it.

    Checks everything that `decode` promises except that text is UTF-8.

    Raises:
        TooLargeError: deeper than `max_depth` or more items than `max_items`.
        MalformedError: not in the one accepted encoding.
    """
    return _Walk(data, max_depth, max_items).item(start, 0)


class _Walk:
    """One walk over untrusted bytes, with a budget of items."""

    __slots__ = ("_data", "_left", "_max_depth", "_max_items")

    def __init__(self, data: bytes | bytearray | memoryview, max_depth: int, max_items: int) -> None:
        self._data = data
        self._left = self._max_items = max_items
        self._max_depth = max_depth

    def item(self, at: int, depth: int) -> int:  # noqa: C901 calls would double the time of all that is parsed
        """Return the offset behind the item at `at`, which is inside `depth` containers."""
        self._left -= 1
        if self._left < 0:
            raise TooLargeError(f"More than {self._max_items} CBOR items in one message.")
        data = self._data
        size = len(data)
        first = data[at] if at < size else 0xFF
        # Nearly everything in a statement is one of these three, and the walk is most of what parsing costs.
        if first < 0x38:
            if first & 0x1F < 24:  # a number below 24
                return at + 1
        elif first < 0x79:
            length = first & 0x1F
            if first >= 0x40 and length < 24:  # a string of less than 24 bytes
                end = at + 1 + length
                if end <= size:
                    return end
            elif length == 24 and first >= 0x58 and at + 1 < size and data[at + 1] >= 24:  # one of less than 256
                end = at + 2 + data[at + 1]
                if end <= size:
                    return end
        head = read_head(self._data, at)
        major = head.major
        if major in (ARRAY, MAP):
            return self._container(head, depth)
        if major in (BYTES, TEXT):
            return head.content + head.argument
        if major == NEGATIVE and head.argument >= 2**63:
            raise MalformedError("A CBOR integer is below -2**63.")
        if major == TAG:
            raise MalformedError(f"The CBOR tag {head.argument} is not accepted here.")
        return head.content

    def _container(self, head: Head, depth: int) -> int:
        if depth >= self._max_depth:
            raise TooLargeError(f"CBOR nested deeper than {self._max_depth} levels.")
        at = head.content
        if head.major == MAP:
            return self._map(at, head.argument, depth + 1)
        for _ in range(head.argument):
            at = self.item(at, depth + 1)
        return at

    def _map(self, at: int, entries: int, depth: int) -> int:
        data, size = self._data, len(self._data)
        previous = b""
        for _ in range(entries):
            first = data[at] if at < size else TAG << 5
            if 0x60 <= first < 0x78:  # nearly every key of ours: text of less than 24 bytes
                self._left -= 1
                behind_key = at + first - 0x5F
                if self._left < 0 or behind_key > size:
                    behind_key = self._slowly(at, depth)
            elif first >> 5 in (UNSIGNED, NEGATIVE, TEXT):
                behind_key = self.item(at, depth)
            else:
                raise MalformedError("A CBOR map key is neither text nor an integer.")
            key = bytes(data[at:behind_key])
            if key <= previous:
                raise MalformedError("The keys of a CBOR map are duplicate or not in order.")
            previous = key
            at = self.item(behind_key, depth)
        return at

    def _slowly(self, at: int, depth: int) -> int:
        """Say what is wrong with an item that was counted already."""
        self._left += 1
        return self.item(at, depth)


def _check_simple(data: bytes | bytearray | memoryview, content: int, info: int) -> None:
    if info in _FALSE_TRUE_NULL:
        return
    if info != _SIMPLE_FLOAT64:
        raise MalformedError("Of CBOR's simple values only false, true, null and 64-bit floats are accepted.")
    # An exponent of all ones is NaN or infinity. The eight bytes were already found to be there.
    if data[content - 8] & 0x7F == 0x7F and data[content - 7] & 0xF0 == 0xF0:
        raise MalformedError("A CBOR float is NaN or infinite.")
