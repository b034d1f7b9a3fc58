"""The closest right name for a wrong one, for error messages."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def closest(name: str, names: Sequence[str], *, alike: float = 0.6) -> str | None:
    """Return the one of `names` that `name` was probably meant to be, if any; case does not matter.

    Args:
        name: the wrong one.
        names: the right ones.
        alike: from 0 to 1; more wants fewer differences.
    """
    by_lower = {candidate.lower(): candidate for candidate in names}
    matches = difflib.get_close_matches(name[:100].lower(), by_lower, n=1, cutoff=alike)
    return by_lower[matches[0]] if matches else None


def newer(own: str, software: str) -> str:
    """Return the newer of two versions: our own, and the one in `edge-agent/1.2.3`, if it is one.

    Args:
        own: such as `1.2.3`.
        software: foreign text.
    """
    name, _, version = software.partition("/")
    if name != "edge-agent" or not re.fullmatch(r"[0-9]{1,6}(?:\.[0-9]{1,6}){0,3}", version):
        return own
    return max(own, version, key=lambda text: [int(part) for part in text.split(".")])
