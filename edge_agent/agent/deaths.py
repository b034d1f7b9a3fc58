"""Which variants ended the worker of late, by being computed or loaded when it died. Pure."""

from __future__ import annotations

from edge_agent.clock import Now
from edge_agent.models.selection import Measured

MAX_DEATHS = 3
"""A variant over which the worker ended so often …"""
WITHIN_SECONDS = 3600.0
"""… within this long is withdrawn: by a crash, a hang or a kill for memory it costs more than it gives."""


class Deaths:
    """The deaths of late, by variant."""

    def __init__(self) -> None:
        self._ever: set[bytes] = set()
        self._late: dict[bytes, list[tuple[float, bytes | None]]] = {}

    def together(self, entry: Measured) -> int:
        """Return how many waiting runs of a variant are made one: a death costs all of them, so after one none."""
        return 1 if entry.variant.digest_bytes in self._ever else entry.together

    def blame(self, variant: bytes, inputs: bytes | None, message: str, now: Now) -> str:
        """Take note of a death; return in words why it was one too many, if it was. The count begins anew then.

        Inputs that end workers, such as those of a client that tries again and again, count once.

        Args:
            variant: that was computed or loaded.
            inputs: what tells the inputs of a run from others; None if it was loaded.
            message: how the worker ended.
            now: the present moment.
        """
        for known, deaths in list(self._late.items()):
            self._late[known] = [death for death in deaths if now.monotonic - death[0] < WITHIN_SECONDS]
            if not self._late[known]:
                del self._late[known]
        self._ever.add(variant)
        late = self._late.setdefault(variant, [])
        if inputs is None or all(inputs != others for _, others in late):
            late.append((now.monotonic, inputs))
        if len(late) < MAX_DEATHS:
            return ""
        del self._late[variant]
        within = f"{WITHIN_SECONDS / 3600:g} h"
        return f"the worker ended over it {MAX_DEATHS} times within {within}, the last time so: {message}"
