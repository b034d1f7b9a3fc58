"""What the operator ordered of single agents: nothing new for this one, these labels for that one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edge_agent.coordinator.schema import agent_orders


@dataclass(frozen=True, slots=True)
class Orders:
    """All orders that hold.

    Attributes:
        drained: agents that finish what they hold and get nothing new.
        labels: what the operator calls agents, beside what their owners do; by id.
        reinstated: when the operator last ended an agent's rest, Unix milliseconds; by id.
    """

    drained: frozenset[str] = frozenset()
    labels: Mapping[str, frozenset[str]] = field(default_factory=dict)
    reinstated: Mapping[str, int] = field(default_factory=dict)


def read_orders(connection: Connection) -> Orders:
    """Read them."""
    rows = connection.execute(sa.select(agent_orders)).all()
    drained = frozenset(row.agent_id for row in rows if row.drained)
    labels = {row.agent_id: frozenset(json.loads(row.labels)) for row in rows if row.labels}
    return Orders(drained, labels, {row.agent_id: row.reinstated_ms for row in rows if row.reinstated_ms is not None})


def write_drained(connection: Connection, agent_id: str, *, drained: bool) -> None:
    """Give an agent nothing new from now on, or again."""
    _write(connection, agent_id, {"drained": drained})


def write_labels(connection: Connection, agent_id: str, labels: frozenset[str]) -> None:
    """Call an agent so, and no longer as before."""
    _write(connection, agent_id, {"labels": json.dumps(sorted(labels)) if labels else None})


def write_reinstated(connection: Connection, agent_id: str, now_ms: int) -> None:
    """Let an agent rest no longer; `identities.reinstate` says so in its standing, too."""
    _write(connection, agent_id, {"reinstated_ms": now_ms})


def pass_on(connection: Connection, agent_id: str, successor: str) -> None:
    """Let what was ordered of an agent hold for the key that replaces its own.

    A rest that was ended is over: it must not seem to be ended anew, which would end the next one, too.
    """
    connection.execute(sa.delete(agent_orders).where(agent_orders.c.agent_id == successor))
    theirs = sa.update(agent_orders).where(agent_orders.c.agent_id == agent_id)
    connection.execute(theirs.values(agent_id=successor, reinstated_ms=None))


def _write(connection: Connection, agent_id: str, values: dict[str, object]) -> None:
    changed = connection.execute(
        sa.update(agent_orders).where(agent_orders.c.agent_id == agent_id).values(values)
    ).rowcount
    if not changed:
        connection.execute(sa.insert(agent_orders).values(agent_id=agent_id, **{"drained": False, **values}))
