"""How often an agent says its presence again when nothing has changed: a message may have got lost on the way. Pure.

A birth is large (it carries the keys that inputs are sealed to), offers are small. A coordinator that hears offers of a
session whose birth it lacks asks for the birth, so that offers are enough once a birth was said twice.
"""

from __future__ import annotations

from typing import Final

from edge_agent.clock import Now

PRESENT_AGAIN_SECONDS: Final = 60.0
"""Offers are said again so often: one that got lost on the way keeps nobody idle for longer."""
WHOLE_EVERY: Final = 20
"""Of so many repetitions one begins with the birth; the first after each news does, too."""


class Repeating:
    """When to say presence again, and whether with the birth.

    Attributes:
        at: monotonic second of the next time.
    """

    def __init__(self) -> None:
        self.at = 0.0
        self._quiet = 0

    def whole(self, now: Now, *, quiet: bool) -> bool:
        """Take note that presence is said now; return whether the birth is part of it.

        Args:
            now: the moment.
            quiet: whether it is said without news, to a coordinator that we have heard and that lets us in.
        """
        self.at = now.monotonic + PRESENT_AGAIN_SECONDS
        self._quiet = self._quiet + 1 if quiet else 0
        return self._quiet % WHOLE_EVERY == 1 or not quiet
