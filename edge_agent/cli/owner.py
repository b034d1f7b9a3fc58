"""What the owner's commands share: whom to ask, how long a pause is, and how an agent's answer is shown."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING, Any

from edge_agent.cli.parsing import add_json_flag, add_settings, effective, new_command
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from edge_agent.cli.parsing import Parser, Subparsers

_SPAN = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,3})?)([smhd]?)")
_UNITS = {"": 60.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
COLUMN = 10


def owner_command(
    subparsers: Subparsers, name: str, *, summary: str, description: str, examples: Sequence[str]
) -> Parser:
    """Add a command that asks the running agent of this machine."""
    parser = new_command(subparsers, name, summary=summary, description=description, examples=examples)
    add_json_flag(parser, "the answer")
    add_settings(parser, "agent.state_dir")
    return parser


def ask_agent(args: argparse.Namespace, do: str, **more: object) -> dict[str, Any]:
    """Ask the agent whose state directory the settings name.

    Raises:
        EdgeAgentError: none runs there, it is somebody else's, or it refused.
    """
    from edge_agent.agent.ask import ask  # noqa: PLC0415 the parser of every command imports this module

    given = {name: value for name, value in more.items() if value is not None}
    return ask(effective(args).settings.agent.state_dir, {"do": do, **given})


def span_seconds(text: str) -> float:
    """Read a span of time: `90s`, `30m`, `2h`, `1d`; a number alone means minutes.

    Raises:
        UsageError: it is something else.
    """
    match = _SPAN.fullmatch(text)
    seconds = float(match[1]) * _UNITS[match[2]] if match else 0.0
    if not 0 < seconds <= 366 * 86_400:
        raise UsageError(
            f"{text[:64]!r} is no span of time.", hint="Write it as 30m, 2h or 1d; without any it lasts until resume."
        )
    return seconds


def show(args: argparse.Namespace, answer: dict[str, Any], lines: Sequence[str]) -> int:
    """Print an answer: as JSON if that was asked for, else these lines."""
    answer.pop("ok", None)
    print(json.dumps(answer) if args.json else "\n".join(lines))
    return 0


def reason_lines(answer: dict[str, Any]) -> list[str]:
    """Return all reasons for which it rests, and what would change each."""
    return [f"- {reason['text']}\n  until: {reason['change']}" for reason in answer["reasons"]]


def obstacle_lines(answer: dict[str, Any]) -> list[str]:
    """Return what keeps it from working where its owner lets it, and what would change each."""
    return [f"- {found['text']}\n  until: {found['change']}" for found in answer["obstacles"]]


def kept_lines(answer: dict[str, Any]) -> list[str]:
    """Return what is wrong with how an order was kept, if anything is."""
    return [f"Note: {answer['order_not_kept']}."] if answer["order_not_kept"] else []


def headline(answer: dict[str, Any]) -> str:
    """Return in one line what the agent does."""
    if answer["mode"] == "rest":
        memory = "" if answer["worker_pid"] is None else ", as soon as what runs is finished"
        return f"rests since {clock(answer['since_ms'])}{memory}"
    held = answer["attempts"]
    if held["running"] or held["waiting"]:
        return f"works on {held['running']} jobs, {held['waiting']} wait"
    if answer["obstacles"]:
        return f"may work, but cannot: {answer['obstacles'][0]['text']}"
    return "ready for jobs"


def clock(wall_ms: int) -> str:
    """Return a moment as a clock here shows it, with the date if it is not today's."""
    moment, now = time.localtime(wall_ms / 1000), time.localtime()
    same_day = moment[:3] == now[:3]
    return time.strftime("%H:%M:%S" if same_day else "%Y-%m-%d %H:%M", moment)
