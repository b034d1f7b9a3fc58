"""Where this agent stands in its network: the certificates that it is given, and whether its key still counts. Pure."""

from __future__ import annotations

import logging
from typing import Literal

from edge_agent.agent.events import Command, KeepCertificates
from edge_agent.notes import Note
from edge_agent.wire.identity import Enrolled, Revocations


class Standing:
    """Remembers the newest list of revoked keys, so that an older one that a broker kept is not believed.

    Args:
        agent_id: ours.

    Attributes:
        revoked: why our own key counts no more, if it does not.
        waits: whether the coordinator said that we have no place yet.
    """

    def __init__(self, agent_id: str) -> None:
        self.revoked: str | None = None
        self.waits = False
        self._agent_id = agent_id
        self._number = -1

    def on_revocations(self, said: Revocations) -> list[Command]:
        """Take note of a list; say so if we stand in it."""
        if said.number <= self._number:
            return []
        self._number = said.number
        mine = next((entry for entry in said.revoked if entry.id == self._agent_id), None)
        if mine is None or self.revoked is not None:
            return []
        self.revoked = mine.reason
        text = (
            f"The operator revoked the key of this agent: {mine.reason}. It gets no more jobs; "
            "`edge-agent status` says what to do for a new one"
        )
        return [Note(logging.ERROR, text, "revoked")]

    def turned_away(self, command: Literal["not-enrolled", "no-room"]) -> list[Command]:
        """Say why we have no place here yet."""
        self.waits = True
        text = "The coordinator has as many agents as it can take; this one asks again from time to time"
        if command == "not-enrolled":
            text = (
                "The coordinator does not know this machine yet; its operator can admit it with: "
                f"edge-agent coordinator approve {self._agent_id}"
            )
        return [Note(logging.WARNING, text, command)]


def keep(said: Enrolled) -> list[Command]:
    """Keep the certificates that the coordinator gives."""
    if said.state != "admitted" or said.certificate is None:
        return []
    return [KeepCertificates(said)]
