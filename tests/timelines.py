"""Random owners and random machines: a timeline each, decided step by step, and judged by a second opinion.

The second opinion is as simple as can be: what holds at a moment is written down again here, from the settings alone.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime, tzinfo
from zoneinfo import ZoneInfo

from edge_agent.agent.policy import Adjustments, Mode, Order, Reading, Readings, Rules, State, adjusted_policy, decide
from edge_agent.clock import Now
from edge_agent.settings import Policy, parse_window
from hardware.power import Supply

ZONES = ("Europe/Paris", "America/St_Johns", "Australia/Lord_Howe", "UTC")
START_MS = 1_790_000_000_000  # September 2026; the clocks are changed within the weeks that follow
METERED = (Reading(0.0), Reading(1.0), Reading(None, "nobody knows"))
GATE, OPEN_GATE = "roof/watts > 500 within 60", "grid/price#now <= 0.2 else open"


@dataclass(slots=True)
class Moment:
    """What was decided at one moment."""

    at: float
    mode: Mode
    measured: bool
    allowed: bool


@dataclass(slots=True)
class Timeline:
    """One random owner's machine over some days.

    Args:
        seed: of everything.
        steps: decisions.
    """

    seed: int
    steps: int = 120
    moments: list[Moment] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def run(self) -> Timeline:
        """Live through it, and write down what breaks a promise."""
        draw = random.Random(self.seed)
        settings = random_settings(draw)
        zone = ZoneInfo(draw.choice(ZONES))
        rules = Rules.of(adjusted_policy(settings, Adjustments(), thermometer=True), zone)
        settings = expected_policy(settings)
        monotonic, state, order = draw.uniform(0, 1e6), State(), None
        begin, wall_ms = monotonic, START_MS + draw.randrange(60 * 86_400_000)
        readings = random_readings(draw)
        for _ in range(self.steps):
            now = Now(monotonic, wall_ms + int((monotonic - begin) * 1000))
            if draw.random() < 0.3:
                readings = random_readings(draw)
            if draw.random() < 0.05:
                order = draw.choice(
                    [None, Order("pause"), Order("drain"), Order("pause", monotonic + draw.uniform(1, 9e3))]
                )
            found = decide(rules, order, readings, now, state)
            state = found.state
            bad = bool(measured_problems(settings, readings))
            ordered = order is not None and (order.until is None or order.until > monotonic)
            allowed = in_hours(settings, now.wall_ms, zone) and not ordered
            self.moments.append(Moment(monotonic, found.mode, bad, allowed))
            self._judge(found.mode, bool(found.reasons), settings)
            if found.look_at is not None and found.look_at <= monotonic:
                self.problems.append(f"seed {self.seed}: wants to look in the past")
            # Work goes on until the next look, so hours must be open until then.
            until = monotonic + 3600 if found.look_at is None else found.look_at
            if found.mode is Mode.WORK:
                last = now.wall_ms + int((until - monotonic) * 1000) - 2
                if not in_hours(settings, max(now.wall_ms, last), zone):
                    self.problems.append(f"seed {self.seed}: would work outside the hours before it looks again")
            early = draw.random() < 0.2
            monotonic = monotonic + draw.uniform(0.001, until - monotonic) if early else until + draw.uniform(0, 0.01)
        return self

    def _judge(self, mode: Mode, reasons: bool, settings: Policy) -> None:  # noqa: FBT001 two facts of one moment
        now = self.moments[-1]
        said = f"seed {self.seed} at {now.at:.1f}"
        if (mode is Mode.REST) != reasons:
            self.problems.append(f"{said}: {mode} with{'out' if not reasons else ''} reasons")
        calm_since = next((m.at for m in reversed(self.moments) if m.measured), None)
        dwelt = calm_since is None or now.at >= calm_since + settings.dwell_seconds
        if mode is Mode.WORK and not now.allowed:
            self.problems.append(f"{said}: works outside the hours, or against an order")
        if mode is Mode.WORK and now.measured:
            self.problems.append(f"{said}: works although a reading forbids it")
        if mode is Mode.WORK and not dwelt:
            self.problems.append(f"{said}: flaps faster than {settings.dwell_seconds} s")
        if mode is Mode.REST and now.allowed and not now.measured and dwelt:
            self.problems.append(f"{said}: rests although nothing holds")

    @property
    def changes(self) -> int:
        """How often the mode changed."""
        return sum(a.mode != b.mode for a, b in zip(self.moments, self.moments[1:], strict=False))


def random_settings(draw: random.Random) -> Policy:
    """Return rules of an owner who may want anything."""

    def maybe(value: float) -> float | None:
        return value if draw.random() < 0.5 else None

    def hours() -> str:
        days = draw.choice(["", "mon-fri ", "sat-sun ", "wed ", "sat-mon "])
        start, end = draw.sample(range(0, 1440, 15), 2)
        return f"{days}{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"

    return Policy(
        work_hours=tuple(hours() for _ in range(draw.choice([0, 0, 1, 2, 3]))),
        idle_seconds=draw.choice([0.0, 0.0, 30.0, 600.0]),
        max_other_cpu_share=maybe(0.5),
        max_memory_pressure_share=maybe(0.1),
        max_cpu_celsius=maybe(70.0),  # without a lower limit to resume at, which needs a memory of its own to judge
        network=draw.choice(["any", "any", "unmetered"]),
        max_monthly_network_bytes=draw.choice([None, None, 10_000_000]),
        max_daily_written_bytes=draw.choice([None, None, 5_000_000]),
        mode=draw.choice(["quiet", "normal", "full"]),
        battery=draw.choice(["any", "charging", "never"]),
        min_battery_share=draw.choice([0.0, 0.0, 0.4]),
        gates=draw.choice([(), (GATE,), (GATE, OPEN_GATE)]),
        unknowable=draw.choice(["rest", "work"]),
        dwell_seconds=draw.choice([0.0, 5.0, 60.0, 600.0]),
        look_seconds=draw.choice([1.0, 10.0, 60.0]),
    )


def random_readings(draw: random.Random) -> Readings:
    """Return a machine that may be in any state; often in a quiet one, else nothing would ever work."""
    if draw.random() < 0.5:
        quiet = Supply(has_battery=True, charging_or_full=True, charge_share=1.0)
        gates = {GATE: Reading(900.0), OPEN_GATE: Reading(None, "it is mute")}
        budgets = {"network_bytes": Reading(0.0), "written_bytes": Reading(0.0), "metered": Reading(0.0)}
        return Readings(Reading(1e6), Reading(0.0), Reading(0.0), Reading(30.0), supply=quiet, gates=gates, **budgets)

    def reading(low: float, high: float) -> Reading:
        return Reading(None, "no sensor") if draw.random() < 0.1 else Reading(draw.uniform(low, high))

    supply = draw.choice(
        [Supply(), Supply(True, True, False, draw.random()), Supply(True, False, True, 0.9), Supply(True, why="dumb")]
    )
    # Not between the two limits of the temperature: there the answer depends on what was before.
    heat = draw.choice([Reading(draw.uniform(20, 49)), Reading(draw.uniform(70, 90)), Reading(None, "no sensor")])
    gates = {GATE: reading(450, 900), OPEN_GATE: reading(0.1, 0.22)}
    used = {"network_bytes": reading(0, 2e7), "written_bytes": reading(0, 1e7), "metered": draw.choice(METERED)}
    return Readings(reading(0, 900), reading(0, 1), reading(0, 0.3), heat, supply=supply, gates=gates, **used)


def expected_policy(settings: Policy) -> Policy:
    """Say again what a mode makes of the rules."""
    if settings.mode == "full":
        return settings.model_copy(update={"idle_seconds": 0.0, "max_other_cpu_share": None})
    if settings.mode == "quiet":
        return settings.model_copy(update={"max_cpu_celsius": 60.0})
    return settings


def in_hours(settings: Policy, wall_ms: int, zone: tzinfo) -> bool:
    """Judge the hours by the minute of the week."""
    if not settings.work_hours:
        return True
    shown = datetime.fromtimestamp(wall_ms / 1000, zone)
    minute = 1440 * shown.weekday() + 60 * shown.hour + shown.minute
    for window in (parse_window(text) for text in settings.work_hours):
        if any((minute - 1440 * day - window.start) % (7 * 1440) < window.minutes for day in window.days):
            return True
    return False


def measured_problems(settings: Policy, readings: Readings) -> list[str]:  # noqa: C901, PLR0912 one branch a rule
    """Judge the readings one by one."""
    found = []

    def judge(name: str, reading: Reading, bad: bool) -> None:  # noqa: FBT001 computed by the caller
        if (reading.value is None and settings.unknowable == "rest") or (reading.value is not None and bad):
            found.append(name)

    def value(reading: Reading) -> float:
        return reading.value if reading.value is not None else 0.0

    if settings.idle_seconds:
        judge("in-use", readings.idle_seconds, value(readings.idle_seconds) < settings.idle_seconds)
    if settings.max_other_cpu_share is not None:
        judge("busy", readings.other_cpu_share, value(readings.other_cpu_share) > settings.max_other_cpu_share)
    if settings.max_memory_pressure_share is not None:
        pressure = readings.memory_pressure_share
        judge("memory-short", pressure, value(pressure) > settings.max_memory_pressure_share)
    if settings.max_cpu_celsius is not None:
        judge("hot", readings.cpu_celsius, value(readings.cpu_celsius) >= settings.max_cpu_celsius)
    if settings.network == "unmetered":
        judge("metered", readings.metered, value(readings.metered) > 0)
    for name, budget, reading in (
        ("data-cap", settings.max_monthly_network_bytes, readings.network_bytes),
        ("disk-budget", settings.max_daily_written_bytes, readings.written_bytes),
    ):
        if budget is not None:
            judge(name, reading, value(reading) >= budget)
    for text in settings.gates:
        number = readings.gates[text].value
        if text == GATE and (number is None or number <= 500):
            found.append(text)
        if text == OPEN_GATE and number is not None and number > 0.2:
            found.append(text)
    if settings.battery == "any" and not settings.min_battery_share:
        return found
    supply = readings.supply
    if supply.why:
        judge("battery", Reading(None), bad=False)
    elif supply.has_battery:
        low = supply.on_battery and (supply.charge_share or 0.0) < settings.min_battery_share
        forbidden = (settings.battery == "never" and supply.on_battery) or (
            settings.battery == "charging" and not supply.charging_or_full
        )
        judge("battery", Reading(1.0), low or forbidden)
    return found
