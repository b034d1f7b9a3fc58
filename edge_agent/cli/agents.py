"""`edge-agent agents`: the machines of a coordinator: list them, admit one, drain one, label one, revoke one."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from edge_agent.cli.parsing import new_command
from edge_agent.cli.reaching import add_coordinator, client_of
from edge_agent.cli.watching import add_watch, show
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers

ACTIONS = ("list", "approve", "revoke", "drain", "undrain", "label", "reinstate")
PRESENCES = ("online", "stopped", "gone")


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "agents",
        summary="list the machines of a coordinator; approve, drain, label or revoke one",
        description="Without an action (or with `list`): each machine with its presence, what it serves, how it fares\n"
        "and why it rests. The actions need a key with the scope operator, where keys are asked for:\n"
        "`approve ID` lets one work, `drain ID` gives it nothing new, `undrain ID` takes that back,\n"
        "`label ID NAME …` says what you call it (no name: nothing), `revoke ID` ends its work here\n"
        "for ever: that key is never let in again, and the machine needs a new one. `reinstate ID` ends the\n"
        "rest of one that was proven wrong.",
        examples=(
            "edge-agent agents",
            "edge-agent agents --presence online --serves digits --watch",
            "edge-agent agents approve 7xq2lmp4czk3vwtyb5ahd6nfogr2sjue --owner ada",
            "edge-agent agents label 7xq2lmp4czk3vwtyb5ahd6nfogr2sjue attic region=eu",
        ),
    )
    parser.add_argument("action", nargs="?", default="list", choices=ACTIONS, help="what to do; default: list")
    parser.add_argument("agent_id", nargs="?", metavar="ID", help="the machine, for all but list")
    parser.add_argument("labels", nargs="*", metavar="LABEL", help="with label: all that you call it")
    add_coordinator(parser)
    parser.add_argument("--owner", metavar="NAME", help="with list: only this owner's; with approve: whose it is")
    parser.add_argument("--presence", choices=PRESENCES, help="with list: only those")
    parser.add_argument("--serves", metavar="FAMILY", help="with list: only those that serve it now")
    parser.add_argument("--label", metavar="NAME", help="with list: only those with this label")
    parser.add_argument("--waiting", action="store_true", help="with list: only those that wait for approval")
    parser.add_argument("--json", action="store_true", help="with list: print JSON; with --watch one array a line")
    add_watch(parser)


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    if args.action != "list":
        return _act(args)
    if args.agent_id is not None:
        raise UsageError("list takes no id.", hint="edge-agent agents --help shows how to choose.")
    with client_of(args) as client:

        def text() -> str:
            found = [agent for agent in client.agents() if _fits(agent, args)]
            return json.dumps(found) if args.json else table(found)

        return show(text, args.watch, clear=not args.json)


def _act(args: argparse.Namespace) -> int:
    if not re.fullmatch(r"[a-z2-7]{32}", args.agent_id or ""):
        raise UsageError(
            f"A machine's id is 32 letters and digits, not {(args.agent_id or 'nothing')[:64]!r}.",
            hint=f"`edge-agent agents` lists them: edge-agent agents {args.action} ID",
        )
    if args.labels and args.action != "label":
        raise UsageError(f"{args.action} takes an id and nothing else.")
    body: dict[str, Any] = {}
    if args.action == "label":
        body = {"labels": args.labels}
    elif args.owner is not None:
        if args.action != "approve":
            raise UsageError("--owner goes with approve and list.")
        body = {"owner": args.owner}
    with client_of(args) as client:
        client.operate(args.agent_id, args.action, body)
    done = {
        "approve": "may work",
        "revoke": "may never work here again with this key",
        "drain": "gets nothing new",
        "undrain": "gets jobs",
        "reinstate": "need rest no longer",
    }
    print(f"The machine {args.agent_id} {done.get(args.action, 'is called so')}.")
    return 0


def _fits(agent: dict[str, Any], args: argparse.Namespace) -> bool:
    return (
        (args.owner is None or agent.get("owner") == args.owner)
        and (args.presence is None or agent.get("presence") == args.presence)
        and (args.serves is None or args.serves in agent.get("offers", []))
        and (args.label is None or args.label in agent.get("labels", []))
        and not (args.waiting and agent.get("approved"))
    )


def state_of(agent: dict[str, Any]) -> str:  # noqa: PLR0911 one state a branch
    """Return how a machine stands, in a few words."""
    presence = str(agent.get("presence", ""))
    if not agent.get("approved") and presence != "online":
        return "waiting"
    if presence != "online":
        return presence
    if (agent.get("resting_until_ms") or 0) > time.time() * 1000:
        until = time.strftime("%Y-%m-%d %H:%M", time.localtime(agent["resting_until_ms"] / 1000))
        return f"distrusted until {until}: a result was proven wrong"
    if agent.get("drained"):
        return "drained"
    if agent.get("mode") == "rest":
        return f"rests: {', '.join(agent.get('reasons', [])) or '?'}"
    if agent.get("in_flight"):
        return "works"
    if agent.get("offers"):
        return "ready"
    return f"serves nothing: {', '.join(agent.get('reasons', [])) or '?'}"


def seen(agent: dict[str, Any]) -> str:
    """Return when it was last born, roughly."""
    if agent.get("seen_ms") is None:
        return "never"
    seconds = max(0.0, time.time() - agent["seen_ms"] / 1000)
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit} ago"
    return "just now"


def columns(agent: dict[str, Any]) -> list[str]:
    """Return a machine as a row."""
    celsius, cpu = agent.get("celsius"), agent.get("cpu_percent")
    return [
        str(agent.get("agent_id", "")),
        ",".join(agent.get("labels", [])),
        str(agent.get("owner") or ""),
        state_of(agent),
        ",".join(agent.get("offers", [])),
        str(agent.get("in_flight") or ""),
        "" if cpu is None else f"{cpu}%",
        "" if celsius is None else f"{celsius}°C",
        str(agent.get("board") or agent.get("isa") or ""),
        seen(agent),
    ]


HEADINGS = ("machine", "labels", "owner", "state", "serves", "jobs", "cpu", "heat", "board", "session since")


def table(agents: list[dict[str, Any]]) -> str:
    """Return machines as a table."""
    from edge_agent.cli.table import render  # noqa: PLC0415 the parser of every command imports this module

    if not agents:
        return "No machine fits. An agent asks to be admitted when it starts: edge-agent run --help"
    return render(HEADINGS, [columns(agent) for agent in agents], right=(5, 6, 7))
