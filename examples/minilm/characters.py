"""What an uncased BERT does to each character before it looks words up, as a table.

The rules are those of BERT's own tokenizer: control characters go, white space becomes a space, accents are taken
off (canonical decomposition without non-spacing marks), letters become small. All of them look at one character
at a time, so a table says the same.
"""

from __future__ import annotations

import sys
import unicodedata
from collections.abc import Iterator

IDEOGRAPHS = (
    (0x4E00, 0x9FFF),
    (0x3400, 0x4DBF),
    (0x20000, 0x2A6DF),
    (0x2A700, 0x2B73F),
    (0x2B740, 0x2B81F),
    (0x2B820, 0x2CEAF),
    (0xF900, 0xFAFF),
    (0x2F800, 0x2FA1F),
)
"""First and last code point of the blocks whose characters are words of their own."""


def table() -> Iterator[tuple[str, str]]:
    """Yield each character that does not stay as it is, and what it becomes."""
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        if 0xD800 <= code <= 0xDFFF:
            continue  # halves of UTF-16 pairs are no characters
        becomes = replacement(character)
        if becomes != character:
            yield character, becomes


def replacement(character: str) -> str:
    """Return what becomes of one character."""
    if character in "\t\n\r" or unicodedata.category(character) in {"Zs", "Zl", "Zp"}:
        return " "
    if character in "\0\ufffd" or unicodedata.category(character) in {"Cc", "Cf", "Co"}:
        return ""
    parts = unicodedata.normalize("NFD", character)
    return "".join(part.lower() for part in parts if unicodedata.category(part) != "Mn")
