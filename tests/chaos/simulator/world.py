"""Simulated time: one heap of what is to happen, and the processes that it happens to."""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections import Counter, deque
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

from edge_agent.clock import Now
from simulator.chance import share

START_MS = 1_800_000_000_000
TIMER_LATE_SECONDS = 0.0005
INBOX_MESSAGES = 1000


class Promise(Enum):
    """The promises of docs/reliability.md by their numbers; 0 is that no process has a defect."""

    NO_DEFECT = 0
    ENDS_ONCE = 1
    BROKER = 2
    STANDING = 3
    TIME = 4
    BOUNDED = 5
    CLEAN_STOP = 6


class Killed(Exception):  # noqa: N818 not an error: what a process does not survive
    """The process ends here, in the middle of its commands."""


class World:
    """Time, what is still to come, and what went wrong.

    Args:
        seed: of the script.

    Attributes:
        now: true seconds, which nobody in the network can see.
        violations: (promise, sentence) of everything that a process did against a promise while it ran.
        counts: how often each thing happened.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.now = 0.0
        self.violations: list[tuple[Promise, str]] = []
        self.counts: Counter[str] = Counter()
        self.log: list[str] | None = None
        self._heap: list[tuple[float, int, Callable[[], None]]] = []
        self._order = 0
        self._draws: Counter[int] = Counter()

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Do something after this time."""
        self._order += 1
        heapq.heappush(self._heap, (self.now + seconds, self._order, act))

    def step(self, until: float) -> bool:
        """Do the next thing that is due by then; return False when there is none, and the time is `until`."""
        if not self._heap or self._heap[0][0] > until:
            self.now = max(self.now, until)
            return False
        self.now, _, act = heapq.heappop(self._heap)
        act()
        return True

    def draw(self, question: int) -> float:
        """Return the next number in [0, 1) for this question."""
        self._draws[question] += 1
        return share(self.seed, question, self._draws[question])

    def say(self, text: str) -> None:
        """Write a line of the record, if one is kept."""
        if self.log is not None:
            self.log.append(f"{self.now:9.3f} s  {text}")

    def violate(self, promise: Promise, sentence: str) -> None:
        """Note that a promise is broken."""
        self.say(f"!! {promise.name}: {sentence}")
        self.violations.append((promise, sentence))


class Process(ABC):
    """What a coordinator and an agent have in common: an inbox, clocks of their own, a timer, and an end.

    Args:
        world: that it lives in.
        number: names it in questions of chance; -1 for the coordinator.
    """

    timer_first = True
    """Whether, after a hang, a timer that has rung comes before what waits."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.alive = False
        self.hung = False
        self.wall_jump = 0.0
        self.incarnation = 0
        self.boots = 0
        self.handled = 0
        self._monotonic_offset = 0.0
        self._inbox: deque[Callable[[], None]] = deque()
        self._messages = 0
        self.commands = 0
        self._before: list[tuple[int, Callable[[], None]]] = []
        self._on_killed: Callable[[], None] = lambda: None
        self._timer = 0
        self._hangs: list[tuple[float, float]] = []
        self.ups: list[tuple[float, float | None]] = []
        """(started at, ended at) of every process here"""

    # -- clocks -------------------------------------------------------------------------------------------------------

    def boot(self) -> None:
        """Let the machine start: its monotonic clock begins anew."""
        self.boots += 1
        self._monotonic_offset = 1000.0 * share(self.world.seed, 90, self.number, self.incarnation) - self.world.now

    def clock(self) -> Now:
        """Read both clocks of its machine."""
        wall = self.world.now + self.wall_jump
        return Now(self.world.now + self._monotonic_offset, START_MS + int(wall * 1000))

    def true_time(self, monotonic: float) -> float:
        """Return when its monotonic clock shows this."""
        return monotonic - self._monotonic_offset

    # -- life ---------------------------------------------------------------------------------------------------------

    def kill_before(self, command: int, then: Callable[[], None]) -> None:
        """End it before its command of this number from here; 0 is the next thing that it does at all."""

        def kill() -> None:
            self._on_killed = then
            raise Killed

        self.before(command, kill)

    def before(self, command: int, act: Callable[[], None]) -> None:
        """Let something happen before its command of this number from here."""
        self._before.append((self.commands + command, act))

    def disarm(self) -> None:
        """Let nothing happen that has not happened yet."""
        self._before.clear()

    def forget_inbox(self) -> None:
        """Lose what was not handled, with the process."""
        self._inbox.clear()
        self._messages = 0
        self._before.clear()
        self.hung = False
        self._timer += 1

    def hang(self, seconds: float) -> None:
        """Do nothing for a while; what comes meanwhile waits in the bounded inbox."""
        if not self.alive or self.hung:
            return
        self.hung = True
        self._hangs.append((self.world.now, seconds))
        incarnation = self.incarnation
        self.world.later(seconds, lambda: self.wake() if self.incarnation == incarnation else None)

    def wake(self) -> None:
        """Go on after a hang."""
        if not self.hung:
            return
        self.hung = False
        if self.timer_first:
            self.ring()
        while self._inbox and self.alive and not self.hung:
            self._messages = 0
            self._inbox.popleft()()
        self.ring()

    def hangs(self) -> list[tuple[float, float]]:
        """Return from and until when it was to hang, in order; a process that ended meanwhile did not hang so long."""
        return [(at, at + seconds) for at, seconds in self._hangs]

    def hung_between(self, start: float, end: float) -> float:
        """Return how many seconds of this span it hung."""
        return sum(max(0.0, min(end, at + seconds) - max(start, at)) for at, seconds in self._hangs)

    # -- events and commands ------------------------------------------------------------------------------------------

    def give(self, event: Any, *, message: bool = False) -> None:  # noqa: ANN401 the events of either core
        """Let it handle an event, now or when it no longer hangs; messages above the bound are dropped."""
        if not self.alive:
            return
        if self.hung:
            if message and self._messages >= INBOX_MESSAGES:
                return
            self._messages += message
            incarnation = self.incarnation
            self._inbox.append(lambda: self._apply(event) if self.incarnation == incarnation else None)
            return
        self._apply(event)

    def call(self, act: Callable[[], None]) -> None:
        """Let it do something of its daemon's, now or when it no longer hangs."""
        if not self.alive:
            return
        if self.hung:
            self._inbox.append(act)
            return
        self.guarded(act)

    def _apply(self, event: Any) -> None:  # noqa: ANN401 as above
        self.handled += 1
        self.guarded(lambda: self.execute(self.handle(event)))

    def guarded(self, act: Callable[[], None]) -> None:
        """Do something that the process may not survive."""
        try:
            act()
        except Killed:
            then, self._on_killed = self._on_killed, lambda: None
            then()
            return
        except Exception as error:
            self.world.violate(Promise.NO_DEFECT, f"{self} raised {error!r}")
            if self.world.log is not None:
                raise
            return
        if self.alive:
            self.schedule()

    def boundary(self) -> None:
        """Stand between two commands: here a process may be killed.

        Raises:
            Killed: it is, now.
        """
        here = self.commands
        self.commands += 1
        for entry in [entry for entry in self._before if entry[0] <= here]:
            self._before.remove(entry)
            entry[1]()

    def schedule(self) -> None:
        """Set the one timer that the core wants."""
        deadline = self.deadline()
        if deadline is None:
            return
        self._timer += 1
        number = self._timer
        wait = max(0.0, deadline - self.clock().monotonic)
        self.world.later(wait + TIMER_LATE_SECONDS, lambda: self.ring() if number == self._timer else None)

    def ring(self) -> None:
        """Tell the core that its time has come, if it has."""
        if not self.alive or self.hung:
            return
        deadline = self.deadline()
        if deadline is not None and deadline <= self.clock().monotonic:
            self._apply(self.tick())
        elif deadline is not None:
            self.schedule()

    # -- what each process is -----------------------------------------------------------------------------------------

    @abstractmethod
    def handle(self, event: Any) -> Sequence[Any]:  # noqa: ANN401 as above
        """Ask the core."""

    @abstractmethod
    def execute(self, commands: Sequence[Any]) -> None:
        """Do what the core says."""

    @abstractmethod
    def deadline(self) -> float | None:
        """Return the core's next deadline."""

    @abstractmethod
    def tick(self) -> Any:  # noqa: ANN401 as above
        """Return the event that says that time has passed."""
