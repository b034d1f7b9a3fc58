"""For whom the machine works, as the owner's settings say it: for the coordinator, and for people. Pure."""

from __future__ import annotations

from typing import Any

from edge_agent.settings import Policy
from edge_agent.wire.terms import Terms


def terms_of(settings: Policy) -> Terms | None:
    """Return what the coordinator is told; None if every job is as good as any other."""
    mine = _once(settings.my_clients)
    clients: tuple[str, ...] | None = None
    if settings.clients != "everybody":
        clients = mine if settings.clients == "mine" else _once((*mine, *settings.circle))
    terms = Terms(
        clients=clients,
        first=() if settings.clients == "mine" else mine,
        labels=_once(settings.allow_labels) or None,
        denied=_once(settings.deny_labels),
    )
    return terms if terms.restrict or terms.first else None


def _once(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(names))


def clientele(settings: Policy) -> dict[str, Any]:
    """Return for whom it works, for people: the rule, the clients, the labels, and all of it in a sentence."""
    mine = ", ".join(_once(settings.my_clients))
    circle = ", ".join(name for name in _once(settings.circle) if name not in settings.my_clients)
    match settings.clients:
        case "mine":
            text = f"only for {mine}"
        case "circle":
            text = f"first for {mine}, then for {circle}" if mine and circle else f"only for {mine or circle}"
        case _:
            text = f"first for {mine}, then for everybody" if mine else "for everybody"
    if settings.allow_labels:
        text += f"; only jobs labelled {' or '.join(settings.allow_labels)}"
    if settings.deny_labels:
        text += f"; no jobs labelled {' or '.join(settings.deny_labels)}"
    return {
        "text": text,
        "clients": settings.clients,
        "mine": list(settings.my_clients),
        "circle": list(settings.circle) if settings.clients == "circle" else [],
        "allow_labels": list(settings.allow_labels),
        "deny_labels": list(settings.deny_labels),
    }
