"""`edge-agent top`: the fleet in a terminal, as it is now."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from edge_agent.cli.agents import columns
from edge_agent.cli.parsing import new_command
from edge_agent.cli.reaching import add_coordinator, client_of
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from rich.console import Group

    from edge_agent.cli.parsing import Subparsers

LEAST_SECONDS = 0.5
BLOCKS = " ▁▂▃▄▅▆▇█"
ORDER = ("works", "ready", "drained", "serves nothing", "rests", "waiting", "stopped", "gone")
COLOURS = {"works": "cyan", "ready": "green", "gone": "red", "waiting": "yellow", "drained": "yellow"}
SHOWN = ("machine", "owner", "state", "serves", "jobs", "cpu", "heat", "board", "since")


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "top",
        summary="show the fleet of a coordinator in the terminal, live",
        description="What the machines of a coordinator do, how warm and how busy they are, why they rest, and how\n"
        "fast jobs are done, until Ctrl-C. Needs the extra [coordinator], and a key with the scope read where keys\n"
        "are asked for.",
        examples=(
            "edge-agent top",
            "edge-agent top --coordinator https://edge.example --every 5",
            "edge-agent top --once",
        ),
    )
    add_coordinator(parser)
    parser.add_argument("--every", metavar="SECONDS", type=float, default=1.0, help="look so often; default: 1")
    parser.add_argument("--once", action="store_true", help="print it once and leave")


def run(args: argparse.Namespace) -> int:
    """Show it."""
    if not LEAST_SECONDS <= args.every <= 3600:
        raise UsageError(f"--every takes {LEAST_SECONDS:g} to 3600 seconds.")
    from rich.console import Console  # noqa: PLC0415 the parser of every command imports this module
    from rich.live import Live  # noqa: PLC0415 as above

    console = Console()
    with client_of(args) as client:
        if args.once:
            console.print(_picture(client.overview(), client.agents(), console.height * 10))
            return 0
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                live.update(_picture(client.overview(), client.agents(), console.height), refresh=True)
                time.sleep(args.every)


def _picture(overview: dict[str, Any], agents: list[dict[str, Any]], height: int) -> Group:
    from rich.console import Group  # noqa: PLC0415 as above
    from rich.table import Table  # noqa: PLC0415 as above
    from rich.text import Text  # noqa: PLC0415 as above

    table = Table(box=None, header_style="bold", expand=True, pad_edge=False)
    for heading in SHOWN:
        table.add_column(heading, justify="right" if heading in {"jobs", "cpu", "heat"} else "left", no_wrap=True)
    rows = sorted((columns(agent) for agent in agents), key=lambda row: (_rank(row[3]), row[1], row[0]))
    room = max(1, height - 6)
    for agent_id, labels, owner, state, *rest in rows[:room]:
        name = labels.split(",")[0] or agent_id[:8]
        table.add_row(*(Text(text) for text in (name, owner)), Text(state, COLOURS.get(state, "")), *map(Text, rest))
    if len(rows) > room:
        table.add_row(Text(f"… and {len(rows) - room} more", "dim"))
    return Group(*(Text(line) for line in _head(overview, agents)), Text(""), table)


def _head(overview: dict[str, Any], agents: Sequence[dict[str, Any]]) -> list[str]:
    """Return the lines above the table."""
    online = sum(1 for agent in agents if agent.get("presence") == "online")
    resting = sum(1 for agent in agents if agent.get("mode") == "rest" and agent.get("presence") == "online")
    live, ended = overview.get("live", {}), overview.get("ended", {})
    rates = [float(rate) for rate in overview.get("per_second", [])]
    shares = overview.get("percentiles_ms", {})
    times = (
        ", ".join(f"p{share} {shares[share]:g} ms" for share in ("50", "95", "99") if share in shares) or "none ended"
    )
    running = live.get("leased", 0) + live.get("hedged", 0)
    done = f"{ended.get('succeeded', 0)} succeeded, {ended.get('failed', 0)} failed"
    broker = "" if overview.get("connected") else "   THE BROKER IS NOT CONNECTED"
    return [
        f"network {overview.get('network', '?')}: {online} of {len(agents)} machines online, {resting} resting{broker}",
        f"jobs    {live.get('queued', 0)} waiting, {running} running; 5 min: {done}; {times}",
        f"rate    {sparkline(rates)} {rates[-1] if rates else 0:g}/s",
    ]


def sparkline(rates: Sequence[float]) -> str:
    """Draw numbers in one line of blocks."""
    most = max(rates, default=0.0)
    if not most:
        return BLOCKS[1] * len(rates)
    return "".join(BLOCKS[max(1, round(rate / most * (len(BLOCKS) - 1)))] for rate in rates)


def _rank(state: str) -> int:
    return next((place for place, name in enumerate(ORDER) if state.startswith(name)), len(ORDER))
