"""What a worker owes an answer to: commands in their order, and runs, which may be answered in any order.

Not locked: whoever holds it does that.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from edge_agent.inference.events import RunDone, RunFailed, WorkerEvent
from edge_agent.inference.frames import Header
from edge_agent.inference.messages import Judge


@dataclass(frozen=True, slots=True)
class Expected:
    """The answer to a command that is no run. `digest` is the model's."""

    kinds: tuple[type[WorkerEvent], ...]
    digest: bytes
    most_bytes: int = 0
    judge: Judge | None = None

    def is_met_by(self, event: WorkerEvent) -> bool:
        """Say whether this is the answer."""
        return isinstance(event, self.kinds) and getattr(event, "digest", None) == self.digest


class Owed:
    """The commands that were sent and are not answered."""

    def __init__(self) -> None:
        self._commands: deque[Expected] = deque()
        self._runs: dict[int, int] = {}  # by token, the most bytes of its outputs

    def __len__(self) -> int:
        return len(self._commands) + len(self._runs)

    @property
    def runs(self) -> tuple[int, ...]:
        """The tokens of the runs, oldest first."""
        return tuple(self._runs)

    @property
    def judge(self) -> Judge | None:
        """Who judges the outputs of the oldest command that is no run."""
        return self._commands[0].judge if self._commands else None

    def command(self, expected: Expected) -> None:
        """Take note of a command that is no run."""
        self._commands.append(expected)

    def take_command_back(self) -> None:
        """Forget the newest command that is no run: it could not be sent."""
        self._commands.pop()

    def run(self, token: int, most_bytes: int) -> None:
        """Take note of a run whose outputs have at most so many bytes."""
        self._runs[token] = most_bytes

    def take_run_back(self, token: int) -> None:
        """Forget a run that could not be sent."""
        del self._runs[token]

    def most_bytes(self, header: Header, token: int) -> int:
        """Return how many bytes may follow the header of an answer, which nobody has checked yet."""
        if header.get("say") == "done":
            return self._runs.get(token, 0)
        return self._commands[0].most_bytes if self._commands else 0

    def is_paid_by(self, event: WorkerEvent) -> bool:
        """Take an answer in; say whether it is one to what was asked."""
        if isinstance(event, (RunDone, RunFailed)):
            return self._runs.pop(event.token, None) is not None
        if not self._commands or not self._commands[0].is_met_by(event):
            return False
        self._commands.popleft()
        return True

    def clear(self) -> None:
        """Forget everything."""
        self._commands.clear()
        self._runs.clear()
