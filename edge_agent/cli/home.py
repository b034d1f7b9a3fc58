"""`edge-agent home`: what Home Assistant sees of this machine."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_settings, effective, new_command
from edge_agent.errors import EdgeAgentError, StateError, UsageError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from edge_agent.agent.assistant.discovery import Device
    from edge_agent.cli.parsing import Subparsers
    from edge_agent.settings import Settings

ACTIONS = ("show", "forget")


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "home",
        summary="show what Home Assistant sees of this machine, or take it back",
        description="What Home Assistant is told. show: the device discovery message that the agent publishes\n"
        "on the broker of home.url, as JSON.\n"
        "forget: take everything back that this broker keeps for the agent, so that the device goes from Home\n"
        "Assistant. For an agent that does not run: a running one does it when home.assistant is turned off and\n"
        "the settings are read anew.",
        examples=("edge-agent home show", "edge-agent home forget"),
    )
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    add_settings(parser, "agent.state_dir")


def run(args: argparse.Namespace) -> int:
    """Do it."""
    settings = effective(args).settings
    if settings.home.url is None:
        raise UsageError("No broker at home is set.", hint="Set home.url; see docs/home.md.")
    device = _device(settings)
    if args.action == "show":
        from edge_agent.agent.assistant.discovery import message  # noqa: PLC0415 every command imports this module

        print(json.dumps({"topic": device.discovery_topic, "payload": json.loads(message(device))}, indent=2))
        return 0
    from edge_agent.agent.assistant.forgetting import forget  # noqa: PLC0415 as above
    from edge_agent.connection import home_link_options  # noqa: PLC0415 as above

    if _runs(settings.agent.state_dir) and settings.home.assistant == "on":
        raise UsageError(
            "The agent runs and would say it all again.",
            hint="Set home.assistant to off and reload the agent, which then forgets by itself; or stop it first.",
        )
    options = home_link_options(settings, f"ea1-{device.agent_id}-home")
    assert options is not None  # noqa: S101 it was asked for above
    forget(options, device.retained_topics)
    print(f"The broker {settings.home.url} keeps nothing more of {device.agent_id}.")
    return 0


def _device(settings: Settings) -> Device:
    from edge_agent.agent.assistant.device import device_of  # noqa: PLC0415 as above
    from edge_agent.agent.status import read_status  # noqa: PLC0415 as above
    from hardware import profile  # noqa: PLC0415 as above

    status = read_status(settings.agent.state_dir)
    if status is None:
        raise StateError(
            f"no agent has run with the state directory {settings.agent.state_dir}",
            hint="Name the agent's state directory with --state DIR.",
        )
    machine = profile()
    known = machine.thermal.cpu_celsius is not None
    return device_of(settings, str(status["agent_id"]), machine.board.model or "computer", thermometer=known)


def _runs(folder: Path) -> bool:
    from edge_agent.agent.ask import ask  # noqa: PLC0415 as above

    try:
        ask(folder, {"do": "status"})
    except EdgeAgentError as error:
        return error.error_code not in {"unreachable", "transport"}
    return True
