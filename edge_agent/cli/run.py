"""`edge-agent run`: the agent itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_settings, effective, new_command
from edge_agent.cli.parts import add_ready_file, ready_file, set_up_log, write_ready_file
from edge_agent.errors import KeyFileError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.wire.keys import PublicKey


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "run",
        summary="run the agent: offer this machine to a network",
        description="Profile this machine, choose the variants that fit by measuring them, connect to the broker\n"
        "and work until SIGTERM or Ctrl-C. Makes its key at the first start; the coordinator's operator admits\n"
        "it with `edge-agent coordinator approve ID`. Needs the coordinator's public key.",
        examples=(
            "edge-agent run --broker mqtts://broker.example:8883 --coordinator-key coordinator.pub",
            "edge-agent run --broker mqtt://192.0.2.7 --coordinator-key coordinator.pub --families 'digits'",
        ),
    )
    add_settings(
        parser,
        "network.name",
        "broker.url",
        "agent.state_dir",
        "agent.coordinator_key_file",
        "agent.families",
        "agent.labels",
        "agent.threads",
        "catalogue.url",
        "catalogue.root_file",
        "log.level",
        "log.format",
    )
    add_ready_file(parser, "the agent's id and process id")


def run(args: argparse.Namespace) -> int:
    """Run the agent until it is told to stop."""
    import os  # noqa: PLC0415 the parser of every command imports this module
    import signal  # noqa: PLC0415 as above

    # Until the agent looks after it, there is nothing to hand back: a stop while it starts is a clean one, too.
    signal.signal(signal.SIGTERM, _leave)

    from edge_agent.agent.assemble import make_agent  # noqa: PLC0415 as above
    from edge_agent.connection import client_id, link_options  # noqa: PLC0415 as above
    from edge_agent.folders import take  # noqa: PLC0415 as above
    from edge_agent.garbage import settle  # noqa: PLC0415 as above
    from edge_agent.own_keys import keys_to_run_with  # noqa: PLC0415 as above

    settings = effective(args).settings
    set_up_log(settings)
    ready = ready_file(args)
    with take(settings.agent.state_dir):
        keys = keys_to_run_with(settings)
        agent_id = keys.signing.public.id
        coordinator_key = _pinned_key(settings.agent.coordinator_key_file)
        link = link_options(settings, client_id(keys.signing, settings.network.name))
        agent = make_agent(settings, link, keys, coordinator_key, lambda: effective(args).settings)
        settle()
        return agent.run(lambda: write_ready_file(ready, {"agent_id": agent_id, "pid": os.getpid()}))


def _leave(_number: int, _frame: object) -> None:
    raise SystemExit(0)


def _pinned_key(path: Path) -> PublicKey:
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 as above

    if not path.exists():
        raise KeyFileError(
            f"the coordinator's public key {path} is not there, and an agent needs one to pin",
            hint="Enrol with a token of the operator: edge-agent enrol URL TOKEN. Or copy coordinator.pub from the "
            "coordinator's state directory, and name it with --coordinator-key FILE.",
        )
    return PublicKey.from_file(path)
