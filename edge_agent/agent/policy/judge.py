"""May the machine work now? (rules, order, readings, now, what held before) to a decision with all its reasons. Pure.

What the owner orders and the hours of the week hold exactly as long as they hold. What is measured makes the machine
rest at once, and must be over for the dwell time before it works again: so nothing flaps faster than that.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import tzinfo
from enum import StrEnum

from edge_agent.agent.policy.hours import clock_text, is_open, next_change_ms
from edge_agent.agent.policy.readings import NOT_READ, Reading, Readings
from edge_agent.clock import Now
from edge_agent.settings import RESUME_BELOW_CELSIUS, Gate, Policy, Window, parse_gate, parse_window

CLOCK_SECONDS = 60.0
"""Hours are looked at so often at least: the clock may be set, and a machine that slept did not notice."""


PENDING_SECONDS = 1.0
"""What takes two looks is looked at again so soon."""


class Mode(StrEnum):
    """What the machine does."""

    WORK = "work"
    REST = "rest"


@dataclass(frozen=True, slots=True)
class Order:
    """What the owner ordered.

    Attributes:
        kind: `pause` leaves work within the grace time; `drain` finishes all that is held.
        until: monotonic second at which it is over; None for when the owner says `resume`.
    """

    kind: str
    until: float | None = None


def tighter(one: Order, other: Order | None) -> Order:
    """Return the order that allows nothing that either forbids: a pause if one is, for as long as either holds."""
    if other is None:
        return one
    kind = "pause" if "pause" in {one.kind, other.kind} else one.kind
    until = None if one.until is None or other.until is None else max(one.until, other.until)
    return Order(kind, until)


@dataclass(frozen=True, slots=True)
class Reason:
    """Why the machine rests.

    Attributes:
        code: a stable name.
        text: what is so, with the setting that minds it.
        change: what would change it.
        unknowable: whether it rests because it cannot be known.
        subject: which of several of this code; empty where there is one.
        pending: whether that is only because nothing was read since the start; it does not dwell.
    """

    code: str
    text: str
    change: str
    unknowable: bool = False
    subject: str = ""
    pending: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Tells reasons apart."""
        return (self.code, self.subject)


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered between two decisions.

    Attributes:
        held: key of each measured reason, and the monotonic second at which it held last.
    """

    held: tuple[tuple[tuple[str, str], float], ...] = ()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the machine may do, and why.

    Attributes:
        mode: work or rest.
        reasons: all that hold now; none when it may work.
        notes: rules that cannot be judged here and are passed over, as the owner wants.
        within_seconds: how long running attempts may take to finish; None for as long as they need.
        look_at: monotonic second at which to decide again at the latest; None if only an order or a change of the
            rules can change anything.
        state: for the next decision.
    """

    mode: Mode
    reasons: tuple[Reason, ...]
    notes: tuple[Reason, ...]
    within_seconds: float | None
    look_at: float | None
    state: State


@dataclass(frozen=True, slots=True)
class Rules:
    """The owner's rules in the form that is judged by.

    Attributes:
        settings: as they were set.
        windows: hours in which it may work; none for always.
        zone: in which they are meant.
        gates: that must all be open.
    """

    settings: Policy
    windows: tuple[Window, ...]
    zone: tzinfo
    gates: tuple[Gate, ...] = ()

    @classmethod
    def of(cls, settings: Policy, zone: tzinfo) -> Rules:
        """Take the settings, in this time zone."""
        windows = tuple(parse_window(text) for text in settings.work_hours)
        return cls(settings, windows, zone, tuple(parse_gate(text) for text in settings.gates))

    @property
    def measures(self) -> bool:
        """Whether any rule needs the machine to be looked at."""
        own = self.settings
        limits = (own.max_other_cpu_share, own.max_memory_pressure_share, own.max_cpu_celsius, *self._budgets)
        minds = own.idle_seconds or self.minds_battery or self.gates or own.network != "any"
        return bool(minds or any(limit is not None for limit in limits))

    @property
    def _budgets(self) -> tuple[int | None, int | None]:
        return (self.settings.max_monthly_network_bytes, self.settings.max_daily_written_bytes)

    @property
    def minds_battery(self) -> bool:
        """Whether the supply matters."""
        return self.settings.battery != "any" or self.settings.min_battery_share > 0


def decide(rules: Rules, order: Order | None, readings: Readings, now: Now, state: State) -> Decision:
    """Judge all rules.

    Args:
        rules: the owner's.
        order: the owner's, if any; one that is over counts no more.
        readings: of the machine; what no rule asks for need not be read.
        now: the moment.
        state: that the decision before gave.
    """
    looks: list[float] = []
    orders, notes = list(_ordered(order, now, looks)), []
    reasons = [*orders, *_outside_hours(rules, now, looks)]
    held, kept = dict(state.held), []
    for found in _measured(rules, readings, held):
        if found.unknowable and rules.settings.unknowable == "work":
            notes.append(found)
        else:
            if found.pending and found.unknowable:
                looks.append(now.monotonic + PENDING_SECONDS)
            if not found.pending:
                held[found.key] = now.monotonic
            reasons.append(found)
    seen = {reason.key for reason in reasons}
    for key, last in held.items():
        over_at = last + rules.settings.dwell_seconds
        if key not in seen and now.monotonic < over_at:
            looks.append(over_at)
            reasons.append(_dwelling(*key, now.monotonic - last, over_at - now.monotonic))
        if key in seen or now.monotonic < over_at:
            kept.append((key, last))
    if rules.measures:
        looks.append(now.monotonic + rules.settings.look_seconds)
    drains = order is not None and order.kind == "drain" and len(reasons) == len(orders) == 1
    return Decision(
        mode=Mode.REST if reasons else Mode.WORK,
        reasons=tuple(reasons),
        notes=tuple(notes),
        within_seconds=None if drains else rules.settings.grace_seconds,
        look_at=min(looks, default=None),
        state=State(tuple(kept)),
    )


# -- what holds exactly as long as it holds ---------------------------------------------------------------------------


def _ordered(order: Order | None, now: Now, looks: list[float]) -> Iterator[Reason]:
    if order is None or (order.until is not None and now.monotonic >= order.until):
        return
    done = {"pause": "paused", "drain": "drained"}[order.kind]
    if order.until is None:
        yield Reason(done, f"you {done} it", "edge-agent resume")
        return
    looks.append(order.until)
    yield Reason(done, f"you {done} it", f"edge-agent resume, or in {seconds_text(order.until - now.monotonic)}")


def _outside_hours(rules: Rules, now: Now, looks: list[float]) -> Iterator[Reason]:
    if not rules.windows:
        return
    change_ms = next_change_ms(rules.windows, now.wall_ms, rules.zone)
    wait = CLOCK_SECONDS if change_ms is None else (change_ms - now.wall_ms) / 1000
    looks.append(now.monotonic + min(wait, CLOCK_SECONDS))
    if is_open(rules.windows, now.wall_ms, rules.zone):
        return
    hours = ", ".join(rules.settings.work_hours)
    when = "other hours" if change_ms is None else f"{clock_text(change_ms, rules.zone)}, in {seconds_text(wait)}"
    yield Reason(
        "outside-hours",
        f"it is {clock_text(now.wall_ms, rules.zone)}, and it may work only {hours} (policy.work_hours)",
        when,
    )


# -- what is measured -------------------------------------------------------------------------------------------------


def _measured(rules: Rules, readings: Readings, held: dict[tuple[str, str], float]) -> Iterator[Reason]:
    own = rules.settings
    if own.idle_seconds:
        yield from _in_use(own, readings.idle_seconds)
    if own.max_other_cpu_share is not None:
        limit, setting = own.max_other_cpu_share, "policy.max_other_cpu_share"
        yield from _above("busy", "other programs take", readings.other_cpu_share, limit, setting)
    if own.max_memory_pressure_share is not None:
        limit, setting = own.max_memory_pressure_share, "policy.max_memory_pressure_share"
        yield from _above("memory-short", "programs wait for memory", readings.memory_pressure_share, limit, setting)
    if own.max_cpu_celsius is not None:
        yield from _hot(own, own.max_cpu_celsius, readings.cpu_celsius, was_hot=("hot", "") in held)
    if rules.minds_battery:
        yield from _battery(own, readings)
    if own.network == "unmetered":
        yield from _metered(readings.metered)
    if own.max_monthly_network_bytes is not None:
        yield from _spent("data-cap", readings.network_bytes, own.max_monthly_network_bytes)
    if own.max_daily_written_bytes is not None:
        yield from _spent("disk-budget", readings.written_bytes, own.max_daily_written_bytes)
    for gate in rules.gates:
        yield from _gate(gate, readings.gates.get(gate.text, NOT_READ))


def _unknowable(code: str, what: str, why: str, setting: str, *, pending: bool = False) -> Reason:
    if pending:
        text = f"{what} is not known yet ({why}), and {setting} is set"
        return Reason(code, text, "the next look at the machine", unknowable=True, pending=True)
    text = f"{what} cannot be known here ({why}), and {setting} is set"
    return Reason(code, text, f'take {setting} away, or set policy.unknowable = "work"', unknowable=True)


def _in_use(own: Policy, idle: Reading) -> Iterator[Reason]:
    setting = "policy.idle_seconds"
    if idle.value is None:
        yield _unknowable("in-use", "whether anybody uses this machine", idle.why, setting)
    elif idle.value < own.idle_seconds:
        text = f"somebody used this machine {seconds_text(idle.value)} ago ({setting} is {own.idle_seconds:g})"
        yield Reason("in-use", text, f"nobody uses it for {seconds_text(own.idle_seconds - idle.value)} more")


def _above(code: str, what: str, reading: Reading, limit: float, setting: str) -> Iterator[Reason]:
    if reading.value is None:
        yield _unknowable(code, f"how much {what}", reading.why, setting, pending=reading.pending)
    elif reading.value > limit:
        unit = "of the CPUs" if code == "busy" else "of the time"
        yield Reason(code, f"{what} {reading.value:.0%} {unit} ({setting} is {limit:g})", f"{limit:.0%} or less")


def _hot(own: Policy, limit: float, celsius: Reading, *, was_hot: bool) -> Iterator[Reason]:
    resume = own.resume_cpu_celsius if own.resume_cpu_celsius is not None else limit - RESUME_BELOW_CELSIUS
    if celsius.value is None:
        yield _unknowable("hot", "how hot the CPU is", celsius.why, "policy.max_cpu_celsius")
    elif celsius.value >= limit or (was_hot and celsius.value >= resume):
        text = f"the CPU is at {celsius.value:.0f} °C (policy.max_cpu_celsius is {limit:g})"
        yield Reason("hot", text, f"it cools down below {resume:g} °C")


def _battery(own: Policy, readings: Readings) -> Iterator[Reason]:
    supply = readings.supply
    if supply.why:
        yield _unknowable("battery", "how this machine is supplied", supply.why, "policy.battery")
        return
    if not supply.has_battery:
        return
    if own.battery == "charging" and not supply.charging_or_full:
        yield Reason("battery", "the battery does not charge (policy.battery is charging)", "it is plugged in")
    elif own.battery == "never" and supply.on_battery:
        yield Reason("battery", "this machine runs on its battery (policy.battery is never)", "it is plugged in")
    elif supply.on_battery and own.min_battery_share > 0:
        yield from _charge(own.min_battery_share, supply.charge_share)


def _charge(least: float, charge: float | None) -> Iterator[Reason]:
    setting = "policy.min_battery_share"
    if charge is None:
        yield _unknowable("battery", "how full the battery is", "it does not tell", setting)
    elif charge < least:
        text = f"the battery is at {charge:.0%} ({setting} is {least:g})"
        yield Reason("battery", text, f"it is plugged in, or at {least:.0%}")


def _metered(reading: Reading) -> Iterator[Reason]:
    if reading.value is None:
        yield _unknowable("metered", "whether the network is metered", reading.why, "policy.network")
    elif reading.value:
        yield Reason("metered", "the network is metered (policy.network)", "another network is used")


_BUDGETS = {
    "data-cap": ("policy.max_monthly_network_bytes", "over the network this month", "the month is over"),
    "disk-budget": ("policy.max_daily_written_bytes", "to disks today", "the day is over"),
}


def _spent(code: str, reading: Reading, budget: int) -> Iterator[Reason]:
    setting, what, change = _BUDGETS[code]
    if reading.value is None:
        yield _unknowable(code, f"how many bytes went {what}", reading.why, setting)
    elif reading.value >= budget:
        yield Reason(code, f"{reading.value / 1e6:.0f} MB went {what} ({setting} is {budget / 1e6:.0f} MB)", change)


def _gate(gate: Gate, reading: Reading) -> Iterator[Reason]:
    change = f"{gate.topic} is {gate.operator} {gate.number:g}"
    if reading.value is None:
        if not gate.open_without:
            text = f"the gate `{gate.text}` is closed: {reading.why}"
            yield Reason("gate", text, change, subject=gate.text, pending=reading.pending)
    elif not gate.lets(reading.value):
        text = f"the gate `{gate.text}` is closed: the reading is {reading.value:g}"
        yield Reason("gate", text, change, subject=gate.text)


_CALM = {
    "in-use": "this machine was used",
    "busy": "other programs took much of the CPUs",
    "memory-short": "memory was short",
    "hot": "the CPU was hot",
    "battery": "the battery was not to be used",
    "metered": "the network was metered",
    "data-cap": "the month's bytes were used up",
    "disk-budget": "the day's writes were used up",
    "gate": "the gate `{}` was closed",
}


def _dwelling(code: str, subject: str, since: float, left: float) -> Reason:
    was = _CALM[code].format(subject)
    text = f"{was} until {seconds_text(since)} ago, and that must be over for a while (policy.dwell_seconds)"
    return Reason(code, text, f"{seconds_text(left)} more without it", subject=subject)


def seconds_text(seconds: float) -> str:
    """Return a span of time for people: `45 s`, `12 min`, `3 h 20 min`."""
    whole = max(1, round(seconds))
    if whole < 120:
        return f"{whole} s"
    minutes = round(whole / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if minutes else f"{hours} h"
