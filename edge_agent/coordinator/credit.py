"""How many attempts an agent may hold: what it asked for, less after it refused, more again as it answers. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.coordinator.retries import BACKOFF_MAX_SECONDS, Draw, backoff_seconds
from edge_agent.wire.messages import MAX_IN_FLIGHT


@dataclass(slots=True)
class Credit:
    """The credit of one agent in one session of it.

    Attributes:
        limit: our own bound, beside what the agent asks for.
        answers: since the limit was changed; each full set of them raises it by one.
        refusals: in a row while it held nothing.
        paused_until: monotonic seconds before which it is given nothing.
    """

    limit: int = MAX_IN_FLIGHT
    answers: int = 0
    refusals: int = 0
    paused_until: float = 0.0

    def allowed(self, asked: int, monotonic: float) -> int:
        """Return how many attempts it may hold at this monotonic second."""
        return 0 if monotonic < self.paused_until else min(asked, self.limit)

    def refuse(self, held: int, monotonic: float, draw: Draw, after_seconds: float = 0.0) -> None:
        """Take note that it refused one attempt for want of room, beside so many that it held.

        An agent that holds nothing of ours and still has no room works for somebody else: it is left alone for a
        while, longer each time; and in any case for as long as it says, within `BACKOFF_MAX_SECONDS`.
        """
        self.limit, self.answers = max(1, held), 0
        if held == 0:
            self.refusals += 1
            after_seconds = max(after_seconds, backoff_seconds(self.refusals, draw))
        self.pause(monotonic, after_seconds)

    def pause(self, monotonic: float, seconds: float) -> None:
        """Give it nothing for a while, within `BACKOFF_MAX_SECONDS`."""
        if seconds:
            self.paused_until = monotonic + min(seconds, BACKOFF_MAX_SECONDS)

    def answer(self, asked: int) -> None:
        """Take note that it answered an attempt; the limit grows by one when it has done so once for each."""
        self.refusals = 0
        if self.limit >= asked:
            return
        self.answers += 1
        if self.answers >= self.limit:
            self.limit, self.answers = self.limit + 1, 0
