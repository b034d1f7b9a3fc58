"""`status.json`: written when something is new, and not every minute."""

from __future__ import annotations

from pathlib import Path

from fakes import COORDINATOR_KEY, NETWORK, TOPICS, AgentScript

from edge_agent.agent.events import MessageReceived
from edge_agent.agent.status import STATUS_FILE, StatusFile, read_status, standing
from edge_agent.wire.envelope import seal
from edge_agent.wire.identity import Revocations, Revoked


def test_what_is_not_new_is_not_written(tmp_path: Path) -> None:
    """An idle agent must not wear a card out; a change is there at once."""
    file = StatusFile(tmp_path)
    file.write({"mode": "work"})
    first = (tmp_path / STATUS_FILE).stat().st_ino
    file.write({"mode": "work"})
    assert (tmp_path / STATUS_FILE).stat().st_ino == first
    file.write({"mode": "rest"})
    assert read_status(tmp_path) == {"mode": "rest"}


def revocations(number: int, *revoked: Revoked) -> MessageReceived:
    """Return a list of revoked keys, as the coordinator says it to everybody."""
    said = Revocations(network=NETWORK, issued_ms=1, number=number, revoked=revoked)
    return MessageReceived(TOPICS.revocations, seal(COORDINATOR_KEY, said))


def test_a_revoked_key_is_shown_with_what_to_do_next() -> None:
    """Before all else that keeps it from working; the status that people and programs read has it."""
    agent = AgentScript()
    agent.ready()
    core = agent.core
    assert standing(agent.planner, True, True, core.standing.revoked)["obstacles"] == []
    agent.tell(revocations(7, Revoked(id=agent.id, since_ms=1, reason="stolen")))
    (obstacle,) = standing(agent.planner, True, True, core.standing.revoked)["obstacles"]
    assert (obstacle["code"], obstacle["text"]) == ("revoked", "the operator revoked this agent's key: stolen")
    assert "edge-agent enrol" in obstacle["change"]
    agent.tell(revocations(6))  # an older list, which a broker had kept
    assert core.standing.revoked == "stolen"
