"""The owner's side of a running agent: rules, orders, the machine as it is read, and what became of all that.

Decides when to look, looks, asks the pure rules, and tells the core to rest or to work. Belongs to the daemon's loop.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

from edge_agent.agent import adjusting
from edge_agent.agent.asked import HomeSaid, HomeUp, OwnerAsked
from edge_agent.agent.events import PaceChanged, RestRequested, TermsChanged, WorkRequested
from edge_agent.agent.history import History, OrderFile
from edge_agent.agent.home import Home
from edge_agent.agent.policy import (
    LIMITS,
    Adjustments,
    Decision,
    Mode,
    Order,
    Pace,
    Reading,
    Readings,
    Reason,
    Rules,
    State,
    adjusted_policy,
    clientele,
    decide,
    highest,
    pace_of,
    terms_of,
    threads_of,
    tighter,
)
from edge_agent.agent.readers import midnight_ms
from edge_agent.agent.tally import Tally
from edge_agent.agent.wanted import NO_WAYS, Ways, Wishes
from edge_agent.clock import Now
from edge_agent.errors import SettingsError
from edge_agent.wire.terms import Terms

log = logging.getLogger("edge_agent.agent.owner")

Told = RestRequested | WorkRequested | PaceChanged | TermsChanged
SOME = 20
"""Transitions that are shown when nobody says how many."""
THE_RULES = "your rules"
START = "the start"


class Owner:
    """What the owner wants.

    Args:
        folder: the agent's state directory.
        wishes: where the rules come from, and what the machine is read with.
        boot: a number of this boot of the machine.
        tally: of the jobs.
        now: the moment.
        ways: to the rest of the agent.
    """

    def __init__(  # noqa: PLR0913, PLR0917 made in one place
        self, folder: Path, wishes: Wishes, boot: int, tally: Tally, now: Now, ways: Ways = NO_WAYS
    ) -> None:
        self._ways = ways
        self._zone = wishes.zone
        self._readers = wishes.readers
        self._folder = folder
        self._wishes = wishes
        self._policy = wishes.at_start.policy
        self._adjusted, problem = adjusting.read(folder)
        if problem:
            log.error("What was adjusted cannot be read, so it is quiet: %s", problem, extra=_action("adjusted"))
        self._threads = wishes.threads
        self._cpus: float | None = None
        self._terms: Terms | None = None
        self._rules = self._rules_of()
        self._wanted = wishes.at_start
        self._home = Home(wishes.readers, ways.put, self.status, ways.latest)
        self._reload = wishes.reload
        self._tally = tally
        self._history = History(folder, tally)
        self.account = wishes.account(tally, now)
        self._orders = OrderFile(folder, boot)
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

    def _rules_of(self) -> Rules:
        """Return the rules that hold: the file's, with what was adjusted."""
        known = self._readers.cpu_celsius().value is not None
        settings = adjusted_policy(self._policy, self._adjusted, thermometer=known)
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
    def look_at(self) -> float:
        """The monotonic second at which to `look` at the latest."""
        moments = (self._decision.look_at, self.account.look_at, self._home.look_at)
        return min(moment for moment in moments if moment is not None)

    def start(self, now: Now) -> list[Told]:
        """Listen where need be, and decide for the first time."""
        self._listen()
        return self.look(now, START)

    def _listen(self) -> None:
        self._home.listen(self._rules, self.account.tariff.sources, self._wanted.home, self._wanted.device)

    def look(self, now: Now, by: str = THE_RULES) -> list[Told]:
        """Look at the machine and decide; return what the core is to be told, if that is something else than before."""
        before = self._decision
        if self.account.look_at <= now.monotonic:
            self.account.downloaded(self._ways.fetched_bytes(), now)
            self.account.look(now)
        if self._order is not None and self._order.until is not None and self._order.until <= now.monotonic:
            self._keep_order(None, now)
        found = decide(self._rules, self._order, self._read(now), now, self._state)
        self._decision, self._state = found, found.state
        terms = self._change_terms()
        if found.mode != before.mode:
            self._since_ms = now.wall_ms
        if found.mode != before.mode or (terms and by != START):
            self._note(by, now)
            self._home.hurry(now)
        self._home.look(now)
        return [*self._pace(), *terms, *self._turn(before, found)]

    def _read(self, now: Now) -> Readings:
        found = self._readers.read(self._rules, now)
        own = self._rules.settings
        if own.max_monthly_network_bytes is not None:
            found = replace(found, network_bytes=Reading(float(self.account.network_bytes(now))))
        if own.max_daily_written_bytes is not None:
            found = replace(found, written_bytes=Reading(float(self.account.written_bytes(now))))
        return found

    def _pace(self) -> list[PaceChanged]:
        """Return the number of threads and CPUs, if one of them is another than before."""
        share = self._rules.settings.cpu_share
        threads = threads_of(share, self._wishes.threads, self._wishes.cpus)
        cpus = share * self._wishes.cpus if share < 1 else None
        if (threads, cpus) == (self._threads, self._cpus):
            return []
        self._threads, self._cpus = threads, cpus
        return [PaceChanged(threads, cpus)]

    def _change_terms(self) -> list[TermsChanged]:
        """Return whose jobs are taken, if that is something else than before."""
        terms = terms_of(self._policy)
        if terms == self._terms:
            return []
        self._terms = terms
        return [TermsChanged(terms, clientele(self._policy)["text"])]

    @staticmethod
    def _turn(before: Decision, found: Decision) -> list[Told]:
        if found.mode is Mode.WORK:
            return [WorkRequested()] if before.mode is Mode.REST else []
        hurries = before.within_seconds is None and found.within_seconds is not None
        if before.mode is Mode.REST and not hurries:
            return []
        return [RestRequested("; ".join(reason.text for reason in found.reasons), found.within_seconds)]

    def obey(self, kind: str | None, seconds: float | None, by: str, now: Now, *, tighten: bool = False) -> list[Told]:
        """Take an order: pause, drain, or (None) resume. It is kept first; where that fails, it holds all the same.

        Whoever wants the memory now must not wait for a disk; that the next process will not know of it is told. With
        `tighten`, what another order forbids already stays forbidden.
        """
        order = None if kind is None else Order(kind, None if seconds is None else now.monotonic + seconds)
        if tighten and order is not None:
            order = tighter(order, self._order)
        try:
            self._orders.write(order, now)
            self._unkept = ""
        except OSError as error:
            self._unkept = f"it holds, but not over a restart, since it could not be written: {error.strerror}"
            log.warning("The owner's order: %s", self._unkept, extra=_action("order"))
        self._order = order
        log.info("The owner says %s", kind or "resume", extra={"action": kind or "resume", "by": by})
        return self.look(now, by)

    def adjust(self, adjusted: Adjustments, by: str, now: Now) -> list[Told]:
        """Take what was adjusted: kept first, as an order is; what the file says is never exceeded."""
        try:
            adjusting.write(self._folder, adjusted)
        except OSError as error:
            log.warning("What was adjusted holds, but not over a restart: %s", error, extra=_action("adjusted"))
        self._adjusted = adjusted
        self._rules = self._rules_of()
        fields = {"action": "adjusted", "by": by, **{name: value for name, value in asdict(adjusted).items() if value}}
        log.info("The owner wants it %s", pace_of(self._policy, adjusted), extra=fields)
        return self.look(now, by)

    def hear(self, event: HomeSaid | HomeUp, now: Now, tell: Callable[[Sequence[Told]], None]) -> None:
        """Take in what came over the broker at home."""
        adjust = partial(_adjustments, self._adjusted)
        if (request := self._home.hear(event, self._policy, self._adjusted, adjust, now)) is not None:
            self._do(request, "the broker at home", now, tell, tighten=self._home.tightens)
        self._home.hurry(now)

    def serve(self, asked: OwnerAsked, now: Now, tell: Callable[[Sequence[Told]], None]) -> None:
        """Do what is asked through the control socket, and answer how things stand then.

        Args:
            asked: a request.
            now: the moment.
            tell: has the core told, and what it wants done.
        """
        request = asked.request
        if request["do"] == "history":
            asked.reply({"ok": True, "transitions": self._history.last(request.get("count") or SOME)})
            return
        self._do(request, asked.by, now, tell)
        asked.reply({"ok": True, **self.status(now)})

    def status(self, now: Now) -> dict[str, Any]:
        """Return all that is said to people."""
        return {**self._ways.status(), **self._report(now)}

    def _do(
        self,
        request: Mapping[str, Any],
        by: str,
        now: Now,
        tell: Callable[[Sequence[Told]], None],
        *,
        tighten: bool = False,
    ) -> None:
        match request["do"]:
            case "pause" | "drain" as kind:
                tell(self.obey(kind, request.get("seconds"), by, now, tighten=tighten))
            case "resume":
                tell(self.obey(None, None, by, now))
            case "adjust":
                tell(self.adjust(_adjustments(self._adjusted, request), by, now))
            case "account":
                self.account.look(now)
                self.account.write(now)
            case _:
                tell(self.look(now))
        self._home.hurry(now)

    def reload(self, now: Now) -> list[Told]:
        """Read the rules anew; invalid ones are refused, and those that hold stay."""
        try:
            wanted = self._reload()
        except SettingsError as error:
            self._refused = error.message
            log.error("Refused the new rules, the old ones stay: %s", error.message, extra=_action("rules-refused"))  # noqa: TRY400 no defect
            return []
        self._refused = ""
        self._policy, self._wanted = wanted.policy, wanted
        self._rules = self._rules_of()
        self.account.tariff.change(wanted.energy)
        self._listen()
        log.info("The owner's rules were read anew", extra=_action("rules-reloaded"))
        return self.look(now, "your new rules")

    def leave(self, now: Now) -> None:
        """Keep what is worth keeping at the end, and listen no more."""
        self._home.leave()
        self._readers.stop()
        self.account.leave(now)
        self._write_history()

    def _keep_order(self, order: Order | None, now: Now) -> None:
        try:
            self._orders.write(order, now)
        except OSError as error:  # it is over all the same, also for a next process
            log.warning("Could not write that the order is over: %s", error, extra=_action("order"))
        self._order = order

    def _note(self, by: str, now: Now) -> None:
        reasons = [{"code": reason.code, "text": reason.text} for reason in self._decision.reasons]
        works = clientele(self._policy)["text"]
        self._history.add({"at_ms": now.wall_ms, "mode": self.mode.value, "by": by, "reasons": reasons, "works": works})
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
            "refused_order": self._home.refused or None,
            "cpu_celsius": celsius.value,
            "cpu_celsius_why": celsius.why or None,
            "clientele": clientele(self._policy),
            "pace": pace_of(self._policy, self._adjusted).value,
            "threads": self._threads,
            "limits": {
                name: {
                    "value": getattr(self._rules.settings, name),
                    "highest": highest(self._policy, name),
                    "lowest": limit.lowest,
                }
                for name, limit in LIMITS.items()
            },
            "account": self.account.report(now),
            "today": {family: asdict(count) for family, count in self._tally.since(midnight_ms()).items()},
        }


def _adjustments(before: Adjustments, request: Mapping[str, Any]) -> Adjustments:
    """Return what holds after a request: what it names, and what was adjusted before."""
    named = {name: request[name] for name in LIMITS if name in request}
    if "pace" in request:
        named["pace"] = None if request["pace"] is None else Pace(request["pace"])
    return replace(before, **named)


def _action(name: str) -> dict[str, str]:
    return {"action": name}
