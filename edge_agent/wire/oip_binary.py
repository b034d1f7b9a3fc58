"""The binary tensor data extension of the Open Inference Protocol: raw bytes of tensors behind the JSON text.

The header `Inference-Header-Content-Length` says where the JSON text ends; each tensor in the JSON says with the
parameter `binary_data_size` how many of the bytes behind it are its own, in the order of the tensors. The bytes are
those of `tensors`: little-endian, row-major, BYTES elements after their lengths.

Source: https://github.com/triton-inference-server/server, docs/protocol/extension_binary_data.md.
"""

from __future__ import annotations

from edge_agent.errors import InputError

LENGTH_HEADER = "Inference-Header-Content-Length"
SIZE = "binary_data_size"
MAX_LENGTH_DIGITS = 12


class Tail:
    """The bytes behind the JSON text, given out from front to back."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)
        self._at = 0

    def take(self, size: object, where: str) -> bytes:
        """Return the next `size` bytes.

        Args:
            size: as the message gives it, unread.
            where: whose bytes they are, for the error.

        Raises:
            InputError: `size` is no whole number, or there are not so many.
        """
        if type(size) is not int or size < 0:
            raise InputError(f"{where}: {SIZE!r} must be a whole number, not negative.")
        left = len(self._data) - self._at
        if size > left:
            raise InputError(f"{where} has {size} bytes by its {SIZE!r}, but only {left} bytes are left in the body.")
        self._at += size
        return bytes(self._data[self._at - size : self._at])

    def end(self) -> None:
        """Refuse bytes that belong to no tensor.

        Raises:
            InputError: there are some.
        """
        left = len(self._data) - self._at
        if left:
            raise InputError(f"{left} bytes are left in the body that belong to no tensor by its {SIZE!r}.")


def split(body: bytes | bytearray, json_length: str | None) -> tuple[bytes | bytearray, Tail | None]:
    """Return the JSON text of a body and what is behind it; None where everything is JSON.

    Args:
        body: the whole body.
        json_length: the header `Inference-Header-Content-Length`, unread; None where there is none.

    Raises:
        InputError: the header is no length of a part of this body.
    """
    if json_length is None:
        return body, None
    digits = json_length.strip()
    if not (digits.isascii() and digits.isdigit() and len(digits) <= MAX_LENGTH_DIGITS):
        raise InputError(f"The header {LENGTH_HEADER} must be the number of bytes of the JSON text.")
    length = int(digits)
    if length > len(body):
        raise InputError(f"The header {LENGTH_HEADER} says {length}, but the body has {len(body)} bytes.")
    if not length:
        raise InputError(f"The header {LENGTH_HEADER} says 0: a body without JSON text is not taken.")
    return body[:length], Tail(memoryview(body)[length:])
