"""Packed bodies of HTTP, gzip and deflate: unpacked piece by piece, so that they can be bounded while they grow.

Source: RFC 9110, 8.4. `deflate` is the zlib format, as the RFC says and as clients send it.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from edge_agent.errors import InputError

WINDOW_BITS: Final = {"gzip": 31, "x-gzip": 31, "deflate": 15}
OFFERED: Final = "gzip, deflate"
PIECE_BYTES: Final = 256 * 1024


class Unpacker:
    """Unpacks a body piece by piece.

    Args:
        coding: the header `Content-Encoding`, unread.

    Raises:
        InputError: `unsupported-encoding`.
    """

    def __init__(self, coding: str) -> None:
        bits = WINDOW_BITS.get(coding.strip().lower())
        if bits is None:
            raise InputError(
                f"the body comes in the coding {coding[:40]!r}, which is not read here",
                code="unsupported-encoding",
                hint=f"Send it as it is, or in one of {OFFERED}, once.",
            )
        self._stream = zlib.decompressobj(bits)

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what this piece unpacks to, in pieces of at most `PIECE_BYTES`.

        Raises:
            InputError: the bytes are not in the coding that was announced.
        """
        while True:
            try:
                unpacked = self._stream.decompress(data, PIECE_BYTES)
            except zlib.error as error:
                raise InputError(f"the body is not in the coding that its Content-Encoding names: {error}") from None
            if self._stream.unused_data:
                raise InputError("bytes follow the end of the packed body")
            yield unpacked
            data = self._stream.unconsumed_tail
            if not data and len(unpacked) < PIECE_BYTES:
                return

    def end(self) -> None:
        """Refuse a body that is cut.

        Raises:
            InputError: its end has not come.
        """
        if not self._stream.eof:
            raise InputError("the packed body is cut: its end is missing")
