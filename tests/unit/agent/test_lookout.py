"""When the machine is looked at again."""

from __future__ import annotations

from edge_agent.agent.lookout import LOOK_SECONDS, LOOK_SOON_SECONDS, Lookout


def test_agent_that_started_while_memory_was_short_looks_again_soon() -> None:
    """Nothing fitted at the start: it is looked again within seconds, later and later, at least as often as ever."""
    lookout = Lookout(100.0)
    pauses = []
    now = 100.0
    for _ in range(9):
        pauses.append(lookout.due(idle=True) - now)
        now = lookout.due(idle=True)
        lookout.looked(now, idle=True)
    assert pauses[:4] == [LOOK_SOON_SECONDS * 2**n for n in range(4)]
    assert pauses[-1] == LOOK_SECONDS


def test_agent_that_offers_something_looks_seldom() -> None:
    """An idle agent costs nothing; what it offered and lost makes it look soon again."""
    lookout = Lookout(100.0)
    assert lookout.due(idle=False) == 100.0 + LOOK_SECONDS
    lookout.looked(400.0, idle=True)
    lookout.looked(500.0, idle=False)
    assert lookout.due(idle=True) == 500.0 + LOOK_SOON_SECONDS
