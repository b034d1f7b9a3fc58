"""`edge-agent coordinator`: the coordinator itself, and the operator's commands on its database."""

from __future__ import annotations

import json
import re
from contextlib import closing, suppress
from typing import TYPE_CHECKING

from edge_agent.cli import coordinator_keys
from edge_agent.cli.parsing import add_settings, effective, new_command
from edge_agent.cli.parts import add_ready_file, ready_file, set_up_log, write_ready_file
from edge_agent.errors import StateError, UsageError

if TYPE_CHECKING:
    import argparse
    import asyncio
    from pathlib import Path

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.models.known import Known
    from edge_agent.settings import Settings

ACTIONS = ("run", "approve", "revoke", "agents", "keys")


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "coordinator",
        summary="run a coordinator, or admit agents to it",
        description="Without an action (or with `run`): take jobs over HTTP, lease them to agents over the broker,\n"
        "verify and countersign what comes back, until SIGTERM or Ctrl-C. Makes its key at the first start;\n"
        "agents pin the public half, coordinator.pub in the state directory.\n"
        "`approve ID` admits an agent, `revoke ID` ends that, `agents` lists those that are known; all three work\n"
        "beside a running coordinator, which notices within a second. Needs the extra [coordinator].\n"
        "`keys add NAME` makes an API key for a client and prints it once, `keys list` shows them, `keys revoke NAME`\n"
        "ends them. Away from loopback, callers need one.",
        examples=(
            "edge-agent coordinator --broker mqtt://127.0.0.1:1883 --http 127.0.0.1:8420",
            "edge-agent coordinator approve 7xq2lmp4czk3vwtyb5ahd6nfogr2sjue --owner ada",
            "edge-agent coordinator agents",
            "edge-agent coordinator keys add reports --scope infer --out reports.key",
        ),
    )
    parser.add_argument("action", nargs="?", default="run", choices=ACTIONS, help="what to do; default: run")
    parser.add_argument(
        "agent_id", nargs="?", metavar="ID", help="the agent, for approve and revoke; or a verb of keys"
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="with keys add, revoke: the client")
    parser.add_argument("--owner", metavar="NAME", help="with approve: whose agent it is; jobs can ask for an owner")
    parser.add_argument("--json", action="store_true", help="print the agents, or the keys, as JSON")
    coordinator_keys.add_flags(parser)
    add_settings(
        parser,
        "network.name",
        "broker.url",
        "coordinator.http",
        "gateway.grpc",
        "coordinator.state_dir",
        "catalogue.url",
        "catalogue.root_file",
        "log.level",
        "log.format",
    )
    add_ready_file(parser, "the address, the public key's file and the process id")


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    settings = effective(args).settings
    match args.action:
        case "run":
            return _run(args, settings)
        case "agents":
            return _list(settings, as_json=args.json)
        case "keys":
            _existing(settings)
            return coordinator_keys.run(args, settings)
        case _:
            return _admit(settings, args.agent_id, approved=args.action == "approve", owner=args.owner)


def _run(args: argparse.Namespace, settings: Settings) -> int:
    from edge_agent.folders import take  # noqa: PLC0415 the coordinator's extra is loaded by this command alone

    set_up_log(settings)
    ready = ready_file(args)
    with take(settings.coordinator.state_dir):
        _serve(settings, ready)
    return 0


def _serve(settings: Settings, ready: Path | None) -> None:
    import asyncio  # noqa: PLC0415 as above
    import logging  # noqa: PLC0415 as above
    import os  # noqa: PLC0415 as above

    from edge_agent.connection import link_options  # noqa: PLC0415 as above
    from edge_agent.coordinator.daemon import Coordinator  # noqa: PLC0415 as above
    from edge_agent.coordinator.gateway.front import Front  # noqa: PLC0415 as above
    from edge_agent.coordinator.gateway.server import listen, loop_factory  # noqa: PLC0415 as above
    from edge_agent.coordinator.options import Options  # noqa: PLC0415 as above
    from edge_agent.coordinator.rules import Rules  # noqa: PLC0415 as above
    from edge_agent.coordinator.store import Store  # noqa: PLC0415 as above
    from edge_agent.own_keys import signing_key  # noqa: PLC0415 as above
    from edge_agent.own_keys import source_of as key_source_of  # noqa: PLC0415 as above
    from edge_agent.published import known_now, source_of, watch  # noqa: PLC0415 as above
    from edge_agent.settings import parse_host_port  # noqa: PLC0415 as above

    own = settings.coordinator
    key = signing_key(own.key_file, key_source_of(settings))
    options = Options(
        network=settings.network.name,
        link=link_options(settings, f"ea1-coordinator-{key.public.id}"),
        rules=Rules(
            lease_seconds=own.lease_seconds,
            max_attempts=own.max_attempts,
            max_queued_jobs=own.max_queued_jobs,
            max_queued_bytes=own.max_queued_bytes,
            hedge_share=own.hedge_share,
            max_clock_skew_seconds=own.max_clock_skew_seconds,
            messages_per_second=own.messages_per_second,
            offer_grace_seconds=own.offer_grace_seconds,
            max_message_bytes=settings.limits.max_inline_bytes,
            max_output_bytes=settings.limits.max_output_bytes,
        ),
        admit_anyone=own.admit == "anyone",
        job_deadline_seconds=own.job_deadline_seconds,
        max_job_deadline_seconds=own.max_job_deadline_seconds,
        max_agents=own.max_agents,
        inbox_bytes=settings.limits.inbox_bytes,
        retention_seconds=own.retention_hours * 3600,
    )
    listener = listen(*parse_host_port(own.http))
    source = source_of(settings, own.state_dir)
    known = known_now(source)
    watching = watch(source, known, logging.getLogger("edge_agent.coordinator"))
    store = Store(own.database, upgrade=True)
    front = Front(settings, store)
    coordinator = Coordinator(options, key, store, known.served)
    app = front.app(coordinator)
    public = own.key_file.with_suffix(".pub")
    log = logging.getLogger("edge_agent.coordinator")

    def on_ready(base_url: str) -> None:
        log.info(
            "Ready at %s; agents pin %s", base_url, public, extra={"action": "ready", "coordinator_id": key.public.id}
        )
        coordinator.supervisor.ready(f"serving at {base_url}")
        about = {"http": base_url, "coordinator_key": str(public), "pid": os.getpid()}
        write_ready_file(ready, about if front.grpc_port is None else about | {"grpc_port": front.grpc_port})

    def serve_http(stop: asyncio.Event) -> asyncio.Future[None]:
        loop = asyncio.get_running_loop()

        def adopt(found: Known) -> None:
            with suppress(RuntimeError):  # the loop has ended
                loop.call_soon_threadsafe(coordinator.adopt, found.served)

        if watching is not None:
            watching.start(adopt)
        return asyncio.ensure_future(front.serve(app, listener, stop, on_ready))

    try:
        with asyncio.Runner(loop_factory=loop_factory()) as runner:
            runner.run(coordinator.run(serve_http))
    finally:
        if watching is not None:
            watching.stop()


def _admit(settings: Settings, agent_id: str | None, *, approved: bool, owner: str | None) -> int:
    from edge_agent.coordinator.store import Store  # noqa: PLC0415 as above

    word = "approve" if approved else "revoke"
    if agent_id is None or not re.fullmatch(r"[a-z2-7]{32}", agent_id):
        raise UsageError(
            f"An agent's id is 32 letters and digits, not {(agent_id or 'nothing')[:64]!r}.",
            hint=f"The agent prints its id at its first start: edge-agent coordinator {word} ID",
        )
    if owner is not None and not (approved and re.fullmatch(r"[ -~]{1,64}", owner)):
        raise UsageError("--owner goes with approve, and is a text of 1 to 64 printable ASCII characters.")
    _existing(settings)
    with closing(Store(settings.coordinator.database)) as store:
        store.approve(agent_id, approved=approved, owner=owner)
    whose = f" as one of {owner}'s" if owner else ""
    print(f"The agent {agent_id} is {f'admitted{whose}' if approved else 'no longer admitted'}.")
    return 0


def _existing(settings: Settings) -> None:
    """Tell a wrong --state, instead of making an empty database there.

    Raises:
        StateError: no coordinator was ever started there.
    """
    if not settings.coordinator.database.exists():
        raise StateError(
            f"there is no coordinator's database {settings.coordinator.database}",
            hint="Give the --state that the coordinator runs with; it makes its database at its first start.",
        )


def _list(settings: Settings, *, as_json: bool) -> int:
    from edge_agent.coordinator.store import Store  # noqa: PLC0415 as above

    _existing(settings)
    with closing(Store(settings.coordinator.database)) as store:
        agents = store.agents()
    if as_json:
        print(
            json.dumps(
                [
                    {
                        "agent_id": a.id,
                        "approved": a.approved,
                        "owner": a.owner,
                        "software": a.software,
                        "seen_ms": a.seen_ms,
                    }
                    for a in agents
                ]
            )
        )
        return 0
    for agent in agents:
        admission = "approved" if agent.approved else "waiting"
        print(f"{agent.id}  {admission:8}  {agent.software or 'never seen'}  {agent.owner or ''}".rstrip())
    if not agents:
        print("No agent has asked for admission yet. An agent prints its id when it starts: edge-agent run --help")
    return 0
