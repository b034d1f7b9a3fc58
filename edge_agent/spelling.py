"""The closest right name for a wrong one, for error messages."""

from __future__ import annotations

import difflib
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
