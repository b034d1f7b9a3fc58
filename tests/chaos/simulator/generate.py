"""Scripts from seeds: which faults befall whom and when, by profiles that leave some kinds out."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

from edge_agent.wire.topics import CHANNELS, UP_CHANNELS
from simulator.script import COORDINATOR, Kind, Script, Step

READY_SECONDS = 1.0
"""By then everybody is connected and has offered, if nothing befalls them before."""
SPAN_SECONDS = 20.0
CHANNELS_HIT = (*CHANNELS, *UP_CHANNELS, "results", "results", "jobs", "settled", "settled")
JUMPS = (-36_000.0, -3600.0, -40.0, -3.0, 3.0, 40.0, 3600.0, 36_000.0)
"""Of a wall clock, seconds. Two clocks never come to be a whole day apart: then signatures count as stale."""

Draw = Callable[[random.Random, float, int], Step]
"""Makes a step of a moment and the number of agents."""


def _agent(rng: random.Random, agents: int) -> int:
    return rng.randrange(agents)


def _anybody(rng: random.Random, agents: int) -> int:
    return COORDINATOR if rng.random() < 0.4 else rng.randrange(agents)


def _pause(rng: random.Random) -> float:
    """Draw a length of time: mostly short, sometimes longer than any lease."""
    return round(rng.choice((0.0, 0.2, 1.0, 3.0, 8.0, 20.0)) * (0.5 + rng.random()), 2)


def _crash(who: Callable[[random.Random, int], int]) -> Draw:
    return lambda rng, at, agents: Step(at, Kind.CRASH, who(rng, agents), _pause(rng), rng.randrange(12))


def _lasting(kind: Kind, who: Callable[[random.Random, int], int]) -> Draw:
    return lambda rng, at, agents: Step(at, kind, who(rng, agents), _pause(rng))


def _coordinator(_rng: random.Random, _agents: int) -> int:
    return COORDINATOR


def _fate(rng: random.Random, at: float, agents: int) -> Step:
    channel = rng.choice(CHANNELS_HIT)
    kind = rng.choice((Kind.LOSE, Kind.LOSE, Kind.REPEAT, Kind.DELAY))
    seconds = 0.0 if kind is Kind.LOSE else round(0.05 + rng.random() ** 3 * 30, 2)
    return Step(at, kind, rng.randrange(agents), seconds, rng.randrange(1, 9), channel)


def _late_will(rng: random.Random, at: float, agents: int) -> Step:
    return Step(at, Kind.LATE_WILL, rng.randrange(agents), round(rng.random() * 40, 2))


def _broker_restart(rng: random.Random, at: float, _agents: int) -> Step:
    return Step(at, Kind.BROKER_RESTART, seconds=_pause(rng), count=rng.randrange(2))


def _clock(who: Callable[[random.Random, int], int]) -> Draw:
    return lambda rng, at, agents: Step(at, Kind.CLOCK, who(rng, agents), rng.choice(JUMPS))


def _weather(rng: random.Random, at: float, _agents: int) -> Step:
    return Step(at, Kind.WEATHER, seconds=round(1 + rng.random() * 10, 2), count=rng.choice((5, 20, 50, 90)))


def _kill_worker(rng: random.Random, at: float, agents: int) -> Step:
    return Step(at, Kind.KILL_WORKER, rng.randrange(agents), count=rng.randrange(8))


def _simple(kind: Kind) -> Draw:
    return lambda rng, at, agents: Step(at, kind, rng.randrange(agents))


_COORDINATOR_FAULTS: tuple[Draw, ...] = (
    _crash(_coordinator),
    _crash(_coordinator),
    _crash(_coordinator),
    _lasting(Kind.POWER_CUT, _coordinator),
    _lasting(Kind.HANG, _coordinator),
    _lasting(Kind.STOP, _coordinator),
    lambda _rng, at, _agents: Step(at, Kind.CUT),
    _lasting(Kind.UNREACHABLE, _coordinator),
    _clock(_coordinator),
    lambda rng, at, _agents: Step(at, Kind.SLOW_DISK, seconds=_pause(rng)),
)
_AGENT_FAULTS: tuple[Draw, ...] = (
    _crash(_agent),
    _crash(_agent),
    _lasting(Kind.POWER_CUT, _agent),
    _lasting(Kind.HANG, _agent),
    _lasting(Kind.STOP, _agent),
    _simple(Kind.CUT),
    _kill_worker,
    _kill_worker,
    _simple(Kind.HANG_WORKER),
    _lasting(Kind.SPOOL_FAILS, _agent),
    _clock(_agent),
)
_NETWORK_FAULTS: tuple[Draw, ...] = (
    _fate,
    _fate,
    _fate,
    _fate,
    _weather,
    _late_will,
    _simple(Kind.NO_WILL),
    lambda rng, at, agents: Step(at, Kind.CUT, _anybody(rng, agents)),
    _lasting(Kind.BLACK_HOLE, _anybody),
    _lasting(Kind.UNREACHABLE, _anybody),
    _broker_restart,
    lambda _rng, at, _agents: Step(at, Kind.BROKER_FORGETS),
    lambda _rng, at, _agents: Step(at, Kind.BROKER_REMEMBERS),
)


def _owner(rng: random.Random, at: float, agents: int) -> Step:
    return Step(at, Kind.PAUSE, rng.randrange(agents), _pause(rng), rng.choice((0, 0, 1, 5)))


_OPERATOR: tuple[Draw, ...] = (_simple(Kind.REVOKE), _simple(Kind.APPROVE))

PROFILES: dict[str, tuple[Draw, ...]] = {
    "everything": (*_COORDINATOR_FAULTS, *_AGENT_FAULTS, *_NETWORK_FAULTS, *_OPERATOR),
    "coordinator": _COORDINATOR_FAULTS,
    "network": _NETWORK_FAULTS,
    "agents": _AGENT_FAULTS,
    "processes": (*_COORDINATOR_FAULTS, *_AGENT_FAULTS),
    "kills": (_crash(_coordinator), _crash(_agent), _kill_worker),
    "clocks": (_clock(_coordinator), _clock(_coordinator), _clock(_agent), _crash(_anybody), _fate),
    "pauses": (_owner, _owner, _owner, _owner, _kill_worker, _crash(_agent), _simple(Kind.HANG_WORKER), _fate),
    "stops": (_lasting(Kind.STOP, _agent), _lasting(Kind.STOP, _coordinator), _kill_worker),
}


def generate(seed: int, profile: str | None = None) -> Script:
    """Make the script of a seed; equal seeds make equal scripts.

    Args:
        seed: any number.
        profile: of `PROFILES`; by default the seed takes them in turn.
    """
    rng = random.Random(seed)
    names = tuple(PROFILES)
    chosen = profile or names[seed % len(names)]
    agents = rng.choice((1, 2, 2, 3, 3, 4))
    steps = _requests(rng)
    # Faults that fall together meet each other's repairs.
    spread = rng.choice((SPAN_SECONDS, SPAN_SECONDS, 3.0))
    begin = rng.random() * (SPAN_SECONDS - spread)
    if spread < SPAN_SECONDS:
        steps = [
            replace(s, at=round(begin + s.at / SPAN_SECONDS * spread, 3)) if rng.random() < 0.5 else s for s in steps
        ]
    for _ in range(rng.choice((1, 2, 3, 4, 6, 8, 12))):
        at = round(begin + rng.random() * spread, 3)
        steps.append(rng.choice(PROFILES[chosen])(rng, at, agents))
    steps.sort(key=lambda step: step.at)
    crowded = rng.random() < 0.15
    return Script(
        seed=seed,
        profile=chosen,
        agents=agents,
        steps=tuple(steps),
        lease_seconds=rng.choice((4.0, 6.0, 30.0)),
        max_attempts=rng.choice((5, 50)),
        max_queued_jobs=3 if crowded else 100,
        agent_room=rng.choice((1, 2, 4)),
        worker_idle_seconds=rng.choice((0.0, 0.0, 2.0)),
        spool=rng.random() < 0.5,
        hedge_share=rng.choice((0.02, 1.0)),
        poison=rng.choice((0, 0, 0, 1, 2)),
        bad=rng.choice((0, 0, 0, 2, 3)),
        owners=(owners := min(agents, rng.choice((0, 0, 1, 2, 3)))),
        mode=rng.choice(("signed", "signed", "rechecked")) if owners > 1 else "signed",
    )


def _requests(rng: random.Random) -> list[Step]:
    steps = []
    moments = sorted(round(READY_SECONDS + rng.random() * (SPAN_SECONDS - 2), 3) for _ in range(rng.randrange(2, 9)))
    for number, at in enumerate(moments, start=1):
        deadline = rng.choice((2.0, 10.0, 60.0, 120.0, 300.0))
        key = f"k{number}" if rng.random() < 0.6 else ""
        sync = rng.random() < 0.5
        steps.append(Step(at, Kind.SUBMIT, seconds=deadline, count=number, text=key, sync=sync))
        if key and rng.random() < 0.3:  # the same again, or another request under the same key
            other = number if rng.random() < 0.8 else 100 + number
            again = round(at + rng.choice((0.0, 0.01, 1.0, 5.0)), 3)
            steps.append(Step(again, Kind.SUBMIT, seconds=deadline, count=other, text=key, sync=rng.random() < 0.5))
        if rng.random() < 0.15:
            steps.append(Step(round(at + rng.random() * 3, 3), Kind.CANCEL, count=number))
    return steps
