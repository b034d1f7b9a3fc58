"""The operator ends a rest before its time: on the command line, over HTTP, for a coordinator that runs or not."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa
from fakes import START_MS, key
from pools import Pool, lie

from edge_agent.cli import main
from edge_agent.coordinator import identities
from edge_agent.coordinator.events import AgentsChanged
from edge_agent.coordinator.gateway.operating import act_on
from edge_agent.coordinator.operations import Operations
from edge_agent.coordinator.orders import Orders, pass_on, read_orders
from edge_agent.coordinator.rows import standing_rows
from edge_agent.coordinator.schema import standings
from edge_agent.coordinator.store import Store
from edge_agent.coordinator.trust import HOUR_MS, Subject
from edge_agent.wire.job_options import Placement

HONEST = {"a1": "ada", "b1": "bob", "c1": "cy", "d1": "dee"}
AGENT = key("agent").public.id
OTHER = key("other").public.id
FAR_MS = 1 << 60


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A coordinator's folder, in whose database two agents rest."""
    store = Store(tmp_path / "coordinator.db")
    row = {"variant": b"", "count": 0, "failures": 2, "unclear": 0, "resting_until_ms": FAR_MS}
    store.write(lambda c: c.execute(sa.insert(standings), [row | {"name": AGENT}, row | {"name": OTHER}]))
    store.close()
    return tmp_path


def resting(state: Path) -> set[str]:
    """Return who rests by the database."""
    store = Store(state / "coordinator.db")
    found = {subject.name for subject, standing in store.read(standing_rows).items() if standing.resting_until_ms}
    store.close()
    return found


def offering(pool: Pool) -> set[str]:
    """Return who may be given something."""
    return {agent.id for agent in pool.script.registry.offering("digits")}


def test_whoever_lists_the_agents_sees_which_rests_and_until_when(
    state: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under its present key, too; and not that of a machine of which nothing was proven wrong."""
    store = Store(state / "coordinator.db")
    new, good = key("new").public.id, key("good").public.id
    store.write(lambda c: identities.admit(c, new, owner="ada", public_key=None, sealing_key=None))
    store.write(lambda c: identities.admit(c, good, owner="bob", public_key=None, sealing_key=None))
    store.write(lambda c: identities.keep(c, AGENT, revoked_ms=1, revoked_reason="replaced", successor=new))
    found = {agent.id: (agent.wrong_results, agent.resting_until_ms) for agent in store.agents()}
    store.close()
    assert found == {new: (2, FAR_MS), good: (0, 0)}
    soon = time.time_ns() // 1_000_000 + 3_600_000
    with closing(sqlite3.connect(state / "coordinator.db")) as database, database:
        database.execute("UPDATE standings SET resting_until_ms = ?", (soon,))
    assert main(["coordinator", "agents", "--state", str(state)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "a result was proven wrong" in lines[new]
    assert "proven wrong" not in lines[good]


def test_rest_is_ended_by_the_command(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of this agent alone; again, it says that there is nothing to end, and what makes no sense is refused."""
    command = ["coordinator", "reinstate", AGENT, "--state", str(state)]
    assert main(command) == 0
    assert "need rest no longer" in capsys.readouterr().out
    assert resting(state) == {OTHER}
    assert main(command) == 0
    assert "did not rest" in capsys.readouterr().out
    for wrong in ([*command, "--owner", "ada"], [*command, "--reason", "x"], ["coordinator", "reinstate", "x"]):
        assert main([*wrong, "--state", str(state)]) == 64
    assert resting(state) == {OTHER}


def test_rest_is_ended_by_the_call(state: Path) -> None:
    """The core is told at once, and the database says it to the next process."""
    store = Store(state / "coordinator.db")
    pool = Pool({})
    told: list[AgentsChanged] = []
    operations = Operations(
        pool.script.core, store, lambda: pool.clock.now, lambda event: told.append(cast("Any", event))
    )

    class Request:
        """Without a body."""

        async def stream(self) -> Any:  # noqa: ANN401 as Starlette's
            """Return its parts."""
            for part in (b"",):
                yield part

    asyncio.run(act_on(cast("Any", SimpleNamespace(operations=operations)), cast("Any", Request()), AGENT, "reinstate"))
    assert [event.orders.reinstated for event in told] == [{AGENT: pool.clock.now.wall_ms}]
    store.close()
    assert resting(state) == {OTHER}


def test_reinstated_agent_gets_jobs_at_once_and_rests_the_longer_the_next_time() -> None:
    """Its failures are not forgotten, and the same order, told again, does not end the next rest."""
    pool = Pool({"mallory": "mal", **HONEST}, quick=["mallory"])
    cheat, registry = pool.members["mallory"].agent.id, pool.script.registry
    pool.members["mallory"].behave = lambda image: lie(image, b"again")
    for number in range(40):
        pool.ask(number)
    assert cheat not in offering(pool)
    orders = Orders(reinstated={cheat: pool.clock.now.wall_ms})
    pool.carry_out(pool.script.tell(AgentsChanged(registry.approved, registry.owners, orders)))
    assert cheat in offering(pool)
    pool.ask(41, placement=Placement(agents=(cheat,)))
    assert pool.failures("mallory") == 2
    assert cheat not in offering(pool)
    standing = pool.script.core.checking.trust.standings[Subject(cheat)]
    assert standing.resting_until_ms == pool.clock.now.wall_ms + 48 * HOUR_MS
    labels = Orders(labels={OTHER: frozenset({"attic"})}, reinstated=orders.reinstated)
    pool.carry_out(pool.script.tell(AgentsChanged(registry.approved, registry.owners, labels)))
    assert cheat not in offering(pool)
    assert pool.failures("mallory") == 2  # the job that waits for it was not given to it


def test_key_changed_after_being_reinstated_ends_no_further_rest(state: Path) -> None:
    """The order does not pass to the new key; a new one for that key ends the rest that is kept under the first id."""
    store = Store(state / "coordinator.db")
    assert store.write(lambda c: identities.reinstate(c, AGENT, START_MS))
    store.write(lambda c: pass_on(c, AGENT, "new"))
    assert store.read(read_orders).reinstated == {}
    store.write(lambda c: identities.revoke(c, AGENT, "replaced by a new key", START_MS, successor="new"))
    again = sa.update(standings).where(standings.c.name == AGENT).values(resting_until_ms=FAR_MS)
    store.write(lambda c: c.execute(again))
    assert store.write(lambda c: identities.reinstate(c, "new", START_MS + 1))
    assert store.read(read_orders).reinstated == {"new": START_MS + 1}
    store.close()
    with closing(sqlite3.connect(state / "coordinator.db")) as connection:
        found = connection.execute("SELECT name FROM standings WHERE resting_until_ms > 0").fetchall()
    assert found == [(OTHER,)]
