"""Content codings of the gateway's answers, gzip and deflate, as clients ask for them.

Source: RFC 9110, 8.4 and 12.5.3. Requests that come packed are unpacked by `wire.unpacking`.
"""

from __future__ import annotations

import asyncio
import zlib

from edge_agent.wire.unpacking import WINDOW_BITS

PACKED_FROM_BYTES = 4096
"""Shorter answers are sent as they are: packing them costs more than it saves."""
_LEVEL = 1
_IN_A_THREAD_FROM_BYTES = 64 * 1024


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
    stream = zlib.compressobj(_LEVEL, wbits=WINDOW_BITS[coding])
    return stream.compress(body) + stream.flush()
