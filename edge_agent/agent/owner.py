"""The owner's side of a running agent: rules, orders, the machine as it is read, and what became of all that.

Decides when to look, looks, asks the pure rules, and tells the core to rest or to work. Belongs to the daemon's loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, tzinfo
from pathlib import Path
from typing import Any

from edge_agent.agent.events import OwnerAsked, RestRequested, WorkRequested
from edge_agent.agent.history import History, OrderFile
from edge_agent.agent.policy import Decision, Mode, Order, Reason, Rules, State, decide
from edge_agent.agent.readers import Readers, midnight_ms
from edge_agent.agent.tally import Tally
from edge_agent.clock import Now
from edge_agent.errors import SettingsError
from edge_agent.mqtt import LinkOptions
from edge_agent.settings import Policy

log = logging.getLogger("edge_agent.agent.owner")

Told = RestRequested | WorkRequested
SOME = 20
"""Transitions that are shown when nobody says how many."""
THE_RULES = "your rules"
START = "the start"


@dataclass(frozen=True, slots=True)
class Wishes:
    """Where the owner's rules come from, and what the machine is read with.

    Attributes:
        settings: that hold at the start.
        home: the owner's own broker, if there is one.
        reload: reads both anew; raises `SettingsError` if they are wrong.
        readers: look at the machine.
        zone: gives the time zone of a name, or the machine's.
    """

    settings: Policy
    home: LinkOptions | None
    reload: Callable[[], tuple[Policy, LinkOptions | None]]
    readers: Readers
    zone: Callable[[str | None], tzinfo]


class Owner:
    """What the owner wants.

    Args:
        folder: the agent's state directory.
        wishes: where the rules come from, and what the machine is read with.
        boot: a number of this boot of the machine.
        tally: of the jobs.
        now: the moment.
    """

    def __init__(self, folder: Path, wishes: Wishes, boot: int, tally: Tally, now: Now) -> None:
        self._zone = wishes.zone
        self._rules = self._rules_of(wishes.settings)
        self._home = wishes.home
        self._reload = wishes.reload
        self._readers = wishes.readers
        self._tally = tally
        self._orders = OrderFile(folder, boot)
        self._history = History(folder, tally)
        self._since_ms = now.wall_ms
        self._refused = ""
        self._unkept = ""
        self._state = State()
        self._order, problem = self._orders.read(now)
        if problem:
            log.error("The owner's order cannot be read, so it counts as a pause: %s", problem, extra=_action("order"))
        if problem := self._history.read():
            log.warning("The history cannot be read: %s", problem, extra=_action("history"))
        self._decision = Decision(Mode.WORK, (), (), None, now.monotonic, self._state)

    def _rules_of(self, settings: Policy) -> Rules:
        return Rules.of(settings, self._zone(settings.time_zone) if settings.work_hours else UTC)

    # -- what the loop calls ------------------------------------------------------------------------------------------

    @property
    def mode(self) -> Mode:
        """What the machine may do now."""
        return self._decision.mode

    @property
    def reasons(self) -> tuple[Reason, ...]:
        """Why it rests, as far as it does."""
        return self._decision.reasons

    @property
    def look_at(self) -> float | None:
        """The monotonic second at which to `look` at the latest, if any."""
        return self._decision.look_at

    def start(self, now: Now) -> list[Told]:
        """Listen where need be, and decide for the first time."""
        self._readers.listen(self._rules, self._home)
        return self.look(now, START)

    def look(self, now: Now, by: str = THE_RULES) -> list[Told]:
        """Look at the machine and decide; return what the core is to be told, if that is something else than before."""
        before = self._decision
        if self._order is not None and self._order.until is not None and self._order.until <= now.monotonic:
            self._keep_order(None, now)
        found = decide(self._rules, self._order, self._readers.read(self._rules, now), now, self._state)
        self._decision, self._state = found, found.state
        if found.mode != before.mode:
            self._since_ms = now.wall_ms
            self._note(by, now)
        if found.mode is Mode.WORK:
            return [WorkRequested()] if before.mode is Mode.REST else []
        hurries = before.within_seconds is None and found.within_seconds is not None
        if before.mode is Mode.REST and not hurries:
            return []
        return [RestRequested("; ".join(reason.text for reason in found.reasons), found.within_seconds)]

    def obey(self, kind: str | None, seconds: float | None, by: str, now: Now) -> list[Told]:
        """Take an order: pause, drain, or (None) resume. It is kept first; where that fails, it holds all the same.

        Whoever wants the memory now must not wait for a disk; that the next process will not know of it is told.
        """
        order = None if kind is None else Order(kind, None if seconds is None else now.monotonic + seconds)
        try:
            self._orders.write(order, now)
            self._unkept = ""
        except OSError as error:
            self._unkept = f"it holds, but not over a restart, since it could not be written: {error.strerror}"
            log.warning("The owner's order: %s", self._unkept, extra=_action("order"))
        self._order = order
        log.info("The owner says %s", kind or "resume", extra={"action": kind or "resume", "by": by})
        return self.look(now, by)

    def serve(
        self, asked: OwnerAsked, now: Now, tell: Callable[[Sequence[Told]], None], status: Callable[[], dict[str, Any]]
    ) -> None:
        """Do what is asked through the control socket, and answer how things stand then.

        Args:
            asked: a request.
            now: the moment.
            tell: has the core told, and what it wants done.
            status: what the agent says of itself.
        """
        request = asked.request
        match request["do"]:
            case "pause" | "drain" as kind:
                tell(self.obey(kind, request.get("seconds"), asked.by, now))
            case "resume":
                tell(self.obey(None, None, asked.by, now))
            case "history":
                asked.reply({"ok": True, "transitions": self._history.last(request.get("count") or SOME)})
                return
            case _:
                tell(self.look(now))
        asked.reply({"ok": True, **status(), **self._report(now)})

    def reload(self, now: Now) -> list[Told]:
        """Read the rules anew; invalid ones are refused, and those that hold stay."""
        try:
            settings, home = self._reload()
        except SettingsError as error:
            self._refused = error.message
            log.error("Refused the new rules, the old ones stay: %s", error.message, extra=_action("rules-refused"))  # noqa: TRY400 no defect
            return []
        self._refused = ""
        self._rules = self._rules_of(settings)
        self._readers.listen(self._rules, home)
        log.info("The owner's rules were read anew", extra=_action("rules-reloaded"))
        return self.look(now, "your new rules")

    def leave(self) -> None:
        """Keep what is worth keeping at the end, and listen no more."""
        self._readers.stop()
        self._write_history()

    def _keep_order(self, order: Order | None, now: Now) -> None:
        try:
            self._orders.write(order, now)
        except OSError as error:  # it is over all the same, also for a next process
            log.warning("Could not write that the order is over: %s", error, extra=_action("order"))
        self._order = order

    def _note(self, by: str, now: Now) -> None:
        reasons = [{"code": reason.code, "text": reason.text} for reason in self._decision.reasons]
        self._history.add({"at_ms": now.wall_ms, "mode": self.mode.value, "by": by, "reasons": reasons})
        self._write_history()

    def _write_history(self) -> None:
        try:
            self._history.write()
        except OSError as error:
            log.warning("Could not write the history: %s", error, extra=_action("history"))

    # -- what people see ----------------------------------------------------------------------------------------------

    def _report(self, now: Now) -> dict[str, Any]:
        """Return the mode and all reasons that hold, as they were seen last, and what was done since midnight."""
        celsius = self._readers.cpu_celsius()
        return {
            "mode": self.mode.value,
            "since_ms": self._since_ms,
            "now_ms": now.wall_ms,
            "order": None if self._order is None else self._order.kind,
            "order_not_kept": self._unkept or None,
            "reasons": [asdict(reason) for reason in self._decision.reasons],
            "notes": [asdict(reason) for reason in self._decision.notes],
            "refused_rules": self._refused or None,
            "cpu_celsius": celsius.value,
            "cpu_celsius_why": celsius.why or None,
            "today": {family: asdict(count) for family, count in self._tally.since(midnight_ms()).items()},
        }


def _action(name: str) -> dict[str, str]:
    return {"action": name}
