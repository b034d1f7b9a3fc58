"""The owner's rules: each one and its opposite, what lasts how long, and what is said about it."""

from __future__ import annotations

from datetime import UTC
from typing import Any

import pytest

from edge_agent.agent.policy import Decision, Mode, Order, Reading, Readings, Rules, State, decide, seconds_text
from edge_agent.clock import Now
from edge_agent.settings import Policy
from hardware.power import Supply

START = Now(1000.0, 1_800_000_000_000)  # Friday, 15 January 2027, 8:00 in UTC


def later(seconds: float) -> Now:
    """Return the moment so long after the start."""
    return Now(START.monotonic + seconds, START.wall_ms + int(seconds * 1000))


def judge(
    settings: Policy,
    readings: Readings | None = None,
    order: Order | None = None,
    now: Now = START,
    state: State | None = None,
) -> Decision:
    """Decide once."""
    return decide(Rules.of(settings, UTC), order, readings or Readings(), now, state or State())


def codes(decision: Decision) -> list[str]:
    """Return the codes of all reasons."""
    return [reason.code for reason in decision.reasons]


def test_without_rules_it_works_and_never_looks() -> None:
    """The defaults cost nothing: no reading, no wake-up."""
    found = judge(Policy())
    assert (found.mode, found.reasons, found.look_at) == (Mode.WORK, (), None)
    assert not Rules.of(Policy(), UTC).measures


def on_battery(charge: float | None) -> Supply:
    """Return a battery that drains."""
    return Supply(has_battery=True, on_battery=True, charge_share=charge)


CHARGING = Supply(has_battery=True, charging_or_full=True, charge_share=0.2)
NOT_CHARGING = Supply(has_battery=True, charge_share=0.8)


@pytest.mark.parametrize(
    ("settings", "bad", "good", "code"),
    [
        ({"work_hours": ("09:00-17:00",)}, Readings(), None, "outside-hours"),
        ({"work_hours": ("mon-thu 00:00-24:00",)}, Readings(), None, "outside-hours"),
        ({"work_hours": ("mon-thu 00:00-24:00", "fri 08:00-08:01")}, None, Readings(), "outside-hours"),
        (
            {"idle_seconds": 300.0},
            Readings(idle_seconds=Reading(299.0)),
            Readings(idle_seconds=Reading(300.0)),
            "in-use",
        ),
        (
            {"max_other_cpu_share": 0.5},
            Readings(other_cpu_share=Reading(0.51)),
            Readings(other_cpu_share=Reading(0.5)),
            "busy",
        ),
        (
            {"max_memory_pressure_share": 0.1},
            Readings(memory_pressure_share=Reading(0.11)),
            Readings(memory_pressure_share=Reading(0.1)),
            "memory-short",
        ),
        ({"max_cpu_celsius": 70.0}, Readings(cpu_celsius=Reading(70.0)), Readings(cpu_celsius=Reading(69.9)), "hot"),
        ({"battery": "never"}, Readings(supply=on_battery(1.0)), Readings(supply=NOT_CHARGING), "battery"),
        ({"battery": "charging"}, Readings(supply=NOT_CHARGING), Readings(supply=CHARGING), "battery"),
        ({"battery": "charging"}, Readings(supply=on_battery(1.0)), Readings(supply=Supply()), "battery"),
        (
            {"min_battery_share": 0.4},
            Readings(supply=on_battery(0.39)),
            Readings(supply=on_battery(0.4)),
            "battery",
        ),
        ({"min_battery_share": 0.4}, Readings(supply=on_battery(0.1)), Readings(supply=CHARGING), "battery"),
        (
            {"gates": ("roof/watts > 500",)},
            Readings(gates={"roof/watts > 500": Reading(500.0)}),
            Readings(gates={"roof/watts > 500": Reading(500.1)}),
            "gate",
        ),
        (
            {"gates": ("grid#now <= 0.2",)},
            Readings(gates={"grid#now <= 0.2": Reading(0.21)}),
            Readings(gates={"grid#now <= 0.2": Reading(0.2)}),
            "gate",
        ),
        (
            {"gates": ("roof/watts > 500",)},
            Readings(gates={"roof/watts > 500": Reading(None, "it is old")}),
            None,
            "gate",
        ),
        (
            {"gates": ("roof/watts > 500 else open",)},
            Readings(gates={"roof/watts > 500 else open": Reading(400.0)}),
            Readings(gates={"roof/watts > 500 else open": Reading(None, "it is old")}),
            "gate",
        ),
        ({"gates": ("roof/watts > 500 else closed",)}, Readings(), None, "gate"),
        ({"battery": "any"}, None, Readings(supply=on_battery(0.01)), "battery"),
    ],
)
def test_a_rule_and_its_opposite(
    settings: dict[str, Any], bad: Readings | None, good: Readings | None, code: str
) -> None:
    """What breaks a rule makes the machine rest for exactly that reason; what keeps it lets it work."""
    if bad is not None:
        found = judge(Policy(**settings), bad)
        assert (found.mode, codes(found)) == (Mode.REST, [code])
        assert found.reasons[0].text
        assert found.reasons[0].change
        assert ("the gate" if code == "gate" else f"policy.{next(iter(settings))}") in found.reasons[0].text
    if good is not None:
        assert judge(Policy(**settings), good).mode is Mode.WORK
    assert judge(Policy(), bad or good).mode is Mode.WORK  # and without the rule neither matters


@pytest.mark.parametrize(
    ("settings", "readings", "code"),
    [
        ({"idle_seconds": 1.0}, Readings(idle_seconds=Reading(None, "no logind")), "in-use"),
        ({"max_other_cpu_share": 0.5}, Readings(other_cpu_share=Reading(None, "no /proc/stat")), "busy"),
        ({"max_memory_pressure_share": 0.5}, Readings(memory_pressure_share=Reading(None, "no PSI")), "memory-short"),
        ({"max_cpu_celsius": 70.0}, Readings(cpu_celsius=Reading(None, "no sensor")), "hot"),
        ({"battery": "never"}, Readings(supply=Supply(has_battery=True, why="it is mute")), "battery"),
        ({"min_battery_share": 0.5}, Readings(supply=on_battery(None)), "battery"),
    ],
)
def test_what_cannot_be_known_is_said_and_not_guessed(settings: dict[str, Any], readings: Readings, code: str) -> None:
    """It rests, and says how to mend that; or, if the owner wants it so, works and says that all the same."""
    rest = judge(Policy(**settings), readings)
    assert (rest.mode, codes(rest), rest.notes) == (Mode.REST, [code], ())
    assert rest.reasons[0].unknowable
    assert "cannot be known" in rest.reasons[0].text
    work = judge(Policy(**settings, unknowable="work"), readings)
    assert (work.mode, work.reasons, [note.code for note in work.notes]) == (Mode.WORK, (), [code])


def test_all_reasons_are_given_not_just_one() -> None:
    """Whoever mends the first one must not find out about the next only then."""
    settings = Policy(work_hours=("20:00-22:00",), battery="never", max_cpu_celsius=60.0)
    found = judge(settings, Readings(cpu_celsius=Reading(61.0), supply=on_battery(0.5)), Order("pause"))
    assert codes(found) == ["paused", "outside-hours", "hot", "battery"]


# -- time -------------------------------------------------------------------------------------------------------------


def test_hours_open_and_close_to_the_second() -> None:
    """It asks to look at the very moment, and says when that is."""
    settings = Policy(work_hours=("08:00-08:01",))
    found = judge(settings)
    assert (found.mode, found.look_at) == (Mode.WORK, START.monotonic + 60)
    assert judge(settings, now=later(59.999)).mode is Mode.WORK
    closed = judge(settings, now=later(60))
    assert closed.mode is Mode.REST
    assert closed.reasons[0].change == "Sat 08:00, in 23 h 59 min"


def test_the_clock_is_looked_at_every_minute() -> None:
    """Somebody may set it, and a machine that slept does not notice."""
    assert judge(Policy(work_hours=("10:00-11:00",))).look_at == START.monotonic + 60


def test_what_was_measured_must_be_over_for_the_dwell_time() -> None:
    """It rests at once, and works again only when nothing of it was seen for so long."""
    settings = Policy(max_other_cpu_share=0.5, dwell_seconds=60.0, look_seconds=10.0)
    busy, calm = Readings(other_cpu_share=Reading(0.9)), Readings(other_cpu_share=Reading(0.0))
    state = judge(settings, busy).state
    found = judge(settings, calm, now=later(59.9), state=state)
    assert (found.mode, codes(found)) == (Mode.REST, ["busy"])
    assert found.look_at == pytest.approx(START.monotonic + 60)
    assert "policy.dwell_seconds" in found.reasons[0].text
    again = judge(settings, busy, now=later(59.95), state=found.state)
    assert judge(settings, calm, now=later(60), state=again.state).mode is Mode.REST
    assert judge(settings, calm, now=later(120), state=again.state).mode is Mode.WORK


def test_heat_goes_only_well_below_the_limit() -> None:
    """Ten degrees, or as the owner says: else work would heat it up again at once."""
    settings = Policy(max_cpu_celsius=70.0, dwell_seconds=0.0)
    state = judge(settings, Readings(cpu_celsius=Reading(70.0))).state
    warm = judge(settings, Readings(cpu_celsius=Reading(60.0)), now=later(10), state=state)
    assert (warm.mode, codes(warm)) == (Mode.REST, ["hot"])
    assert judge(settings, Readings(cpu_celsius=Reading(59.9)), now=later(20), state=warm.state).mode is Mode.WORK
    assert judge(settings, Readings(cpu_celsius=Reading(60.0))).mode is Mode.WORK  # it was never hot
    own = Policy(max_cpu_celsius=70.0, resume_cpu_celsius=68.0, dwell_seconds=0.0)
    assert judge(own, Readings(cpu_celsius=Reading(67.9)), now=later(10), state=state).mode is Mode.WORK


def test_it_looks_as_often_as_the_owner_says_if_something_is_measured() -> None:
    """And not at all if nothing is."""
    settings = Policy(max_cpu_celsius=70.0, look_seconds=15.0)
    assert judge(settings, Readings(cpu_celsius=Reading(40.0))).look_at == START.monotonic + 15


def test_each_gate_dwells_for_itself() -> None:
    """All must be open; one that was closed must have been open for the dwell time, whatever the others do."""
    roof, grid = "roof/watts > 500", "grid/price < 0.2"
    settings = Policy(gates=(roof, grid), dwell_seconds=60.0)
    state = judge(settings, Readings(gates={roof: Reading(1.0), grid: Reading(0.1)})).state
    closed = judge(settings, Readings(gates={roof: Reading(900.0), grid: Reading(0.3)}), now=later(30), state=state)
    assert [reason.subject for reason in closed.reasons] == [grid, roof]
    both_open = Readings(gates={roof: Reading(900.0), grid: Reading(0.1)})
    waits = judge(settings, both_open, now=later(61), state=closed.state)
    assert [reason.subject for reason in waits.reasons] == [grid]
    assert judge(settings, both_open, now=later(90), state=waits.state).mode is Mode.WORK


def test_a_gate_that_nobody_has_spoken_of_yet_does_not_dwell() -> None:
    """After a start it opens with the first reading: it cannot have flapped."""
    settings = Policy(gates=("roof/watts > 500",))
    found = judge(settings, Readings(gates={"roof/watts > 500": Reading(None, "not yet", pending=True)}))
    assert found.mode is Mode.REST
    spoken = Readings(gates={"roof/watts > 500": Reading(900.0)})
    assert judge(settings, spoken, now=later(1), state=found.state).mode is Mode.WORK


# -- orders -----------------------------------------------------------------------------------------------------------


def test_a_pause_is_over_when_its_time_is() -> None:
    """To the second; without a time, only resume ends it."""
    order = Order("pause", START.monotonic + 7200)
    found = judge(Policy(), order=order)
    assert (found.mode, codes(found), found.look_at) == (Mode.REST, ["paused"], START.monotonic + 7200)
    assert found.reasons[0].change == "edge-agent resume, or in 2 h"
    assert judge(Policy(), order=order, now=later(7200)).mode is Mode.WORK
    for_ever = judge(Policy(), order=Order("pause"), now=later(10**8))
    assert (for_ever.mode, for_ever.look_at) == (Mode.REST, None)


def test_a_resume_is_no_reason_to_work_against_the_rules() -> None:
    """It takes the order back and nothing else."""
    settings = Policy(work_hours=("20:00-22:00",))
    assert codes(judge(settings, order=Order("pause"))) == ["paused", "outside-hours"]
    assert codes(judge(settings)) == ["outside-hours"]


def test_a_pause_does_not_make_the_machine_dwell() -> None:
    """Whoever says resume means now."""
    settings = Policy(dwell_seconds=600.0)
    assert judge(settings, state=judge(settings, order=Order("pause")).state).mode is Mode.WORK


def test_a_drain_lets_everything_finish_and_everything_else_does_not() -> None:
    """Unless another rule wants the machine to rest as well."""
    settings = Policy(grace_seconds=5.0, battery="never")
    assert judge(settings, order=Order("drain")).within_seconds is None
    assert judge(settings, order=Order("pause")).within_seconds == 5
    assert judge(settings, Readings(supply=on_battery(1.0)), Order("drain")).within_seconds == 5


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (45, "45 s"), (119, "119 s"), (125, "2 min"), (7200, "2 h"), (12_000, "3 h 20 min")],
)
def test_spans_of_time_for_people(seconds: float, text: str) -> None:
    """Rounded, and never zero."""
    assert seconds_text(seconds) == text


def test_a_first_look_that_says_nothing_yet_rests_for_a_moment_and_does_not_dwell() -> None:
    """Of other programs' CPU time it takes two looks: the second decides, and comes soon."""
    rules = Rules.of(Policy(max_other_cpu_share=0.5, dwell_seconds=60), UTC)
    pending = Readings(other_cpu_share=Reading(None, "it takes two looks", pending=True))
    first = decide(rules, None, pending, Now(100.0, 0), State())
    assert first.mode is Mode.REST
    assert first.look_at == 101.0
    second = decide(rules, None, Readings(other_cpu_share=Reading(0.1)), Now(101.0, 0), first.state)
    assert second.mode is Mode.WORK


@pytest.mark.parametrize(
    ("settings", "bad", "good", "code"),
    [
        ({"network": "unmetered"}, {"metered": Reading(1.0)}, {"metered": Reading(0.0)}, "metered"),
        (
            {"max_monthly_network_bytes": 5_000_000},
            {"network_bytes": Reading(5e6)},
            {"network_bytes": Reading(4.9e6)},
            "data-cap",
        ),
        (
            {"max_daily_written_bytes": 5_000_000},
            {"written_bytes": Reading(9e6)},
            {"written_bytes": Reading(0.0)},
            "disk-budget",
        ),
    ],
)
def test_budgets_and_metered_networks(
    settings: dict[str, Any], bad: dict[str, Reading], good: dict[str, Reading], code: str
) -> None:
    """Rest while it is so, work when it is not, and without the rule whatever it is."""
    rules = Rules.of(Policy(dwell_seconds=0, **settings), UTC)
    now = Now(100.0, 0)
    assert [reason.code for reason in decide(rules, None, Readings(**bad), now, State()).reasons] == [code]
    assert decide(rules, None, Readings(**good), now, State()).mode is Mode.WORK
    unknown = decide(rules, None, Readings(), now, State())
    assert [(reason.code, reason.unknowable) for reason in unknown.reasons] == [(code, True)]
    free = Rules.of(Policy(), UTC)
    assert decide(free, None, Readings(**bad), now, State()).mode is Mode.WORK
