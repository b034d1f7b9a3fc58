"""What becomes of a coordinator's offers when the catalogue changes. Pure."""

from __future__ import annotations

import logging
from collections.abc import Iterable

from edge_agent.clock import Now
from edge_agent.coordinator.events import Command
from edge_agent.coordinator.registry import Agent, Presence
from edge_agent.coordinator.statements import Statements
from edge_agent.models.catalogue import Catalogue, Family
from edge_agent.notes import Note


def change(
    families: dict[str, Family], catalogue: Catalogue, agents: Iterable[Agent], statements: Statements, now: Now
) -> list[Command]:
    """Go by another catalogue from now on.

    What it does not have is withdrawn, so that no job is leased for it any more; agents are asked to say again what
    they offer, since offers of what was unknown so far were passed over.

    Args:
        families: by name; changed in place, for all who go by it.
        catalogue: the new one.
        agents: that are known.
        statements: signs what is said to them.
        now: the time.
    """
    families.clear()
    families.update({family.name: family for family in catalogue.families})
    commands: list[Command] = []
    for agent in agents:
        for name, offer in list(agent.offers.items()):
            if name not in families or families[name].variant(offer.variant) is None:
                del agent.offers[name]
        if agent.presence is Presence.ONLINE:
            commands.append(statements.control(agent.id, "rebirth", now))
    text = f"Going by catalogue {catalogue.version} with {len(families)} families"
    return [*commands, Note(logging.INFO, text, "catalogue")]
