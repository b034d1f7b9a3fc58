"""Content codings of HTTP bodies, gzip and deflate, in both directions; what is unpacked is bounded while it grows.

Source: RFC 9110, 8.4 and 12.5.3. `deflate` is the zlib format, as the RFC says and as clients send it.
"""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Iterator

from edge_agent.errors import InputError

_WINDOW_BITS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
OFFERED = "gzip, deflate"
PACKED_FROM_BYTES = 4096
"""Shorter answers are sent as they are: packing them costs more than it saves."""
PIECE_BYTES = 256 * 1024
_LEVEL = 1
_IN_A_THREAD_FROM_BYTES = 64 * 1024


class Unpacker:
    """Unpacks a body piece by piece.

    Args:
        coding: the header `Content-Encoding`, unread.

    Raises:
        InputError: `unsupported-encoding`.
    """

    def __init__(self, coding: str) -> None:
        bits = _WINDOW_BITS.get(coding.strip().lower())
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


def wanted_coding(accepted: str | None) -> str | None:
    """Return the coding to answer in, by the header `Accept-Encoding`, or None for none."""
    if not accepted:
        return None
    for item in accepted[:1000].lower().split(","):
        name, *parameters = (part.strip() for part in item.split(";"))
        refused = any(parameter.replace(" ", "") in {"q=0", "q=0.0", "q=0.00", "q=0.000"} for parameter in parameters)
        if name in {"gzip", "deflate"} and not refused:
            return name
    return None


async def packed(body: bytes, coding: str) -> bytes:
    """Return a body in this coding; a long one is packed beside the loop."""
    if len(body) < _IN_A_THREAD_FROM_BYTES:
        return _pack(body, coding)
    return await asyncio.to_thread(_pack, body, coding)


def _pack(body: bytes, coding: str) -> bytes:
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOW_BITS[coding])
    return stream.compress(body) + stream.flush()
