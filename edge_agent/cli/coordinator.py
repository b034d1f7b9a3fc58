"""`edge-agent coordinator`: the coordinator itself, and the operator's commands on its database."""

from __future__ import annotations

import json
import os
import time
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import coordinator_broker, coordinator_identity, coordinator_keys
from edge_agent.cli.parsing import add_settings, effective, new_command
from edge_agent.cli.parts import add_ready_file, own_secret, ready_file, set_up_log, write_ready_file
from edge_agent.errors import SettingsError, UsageError
from edge_agent.garbage import settle

if TYPE_CHECKING:
    import argparse
    import asyncio
    from collections.abc import Iterator

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.coordinator.daemon import Coordinator
    from edge_agent.models.known import Known
    from edge_agent.settings import Settings

ACTIONS = ("run", "agents", "keys", "broker-config", *coordinator_identity.ACTIONS)
FLAGS = {"owner": ("token", "approve"), "reason": ("revoke",), "list": ("revoke",)}
"""Each goes with these actions alone: with another one it would say what is not done."""


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "coordinator",
        summary="run a coordinator, or admit agents to it",
        description="Without an action (or with `run`): take jobs over HTTP, lease them to agents over the broker,\n"
        "verify and countersign what comes back, until SIGTERM or Ctrl-C. Makes its key at the first start;\n"
        "agents pin the public half, coordinator.pub in the state directory.\n"
        "`token` prints a token that lets one machine in, once (edge-agent enrol); `tokens` lists them, and which of\n"
        "them somebody tried again. `approve ID` or `approve CODE` admits an agent, `revoke ID` refuses its key\n"
        "for ever, `reinstate ID` ends the rest of one that was proven wrong, `agents` lists those that are known.\n"
        "All work beside a running coordinator, which notices within a second. `keys add NAME` makes an API key for a\n"
        "client and prints it once, `keys list` shows them, `keys revoke NAME` ends them. Away from loopback, callers\n"
        "need one. Needs the extra [coordinator].",
        examples=(
            "edge-agent coordinator --broker mqtt://127.0.0.1:1883 --http 127.0.0.1:8420",
            "edge-agent coordinator token --owner ada --ttl 1h",
            "edge-agent coordinator approve 7xq2lmp4czk3vwtyb5ahd6nfogr2sjue --owner ada",
            "edge-agent coordinator agents",
            "edge-agent coordinator broker-config mosquitto --server-name broker.example",
            "edge-agent coordinator keys add reports --scope infer --out reports.key",
        ),
    )
    parser.add_argument("action", nargs="?", default="run", choices=ACTIONS, help="what to do; default: run")
    parser.add_argument(
        "agent_id",
        nargs="?",
        metavar="ID",
        help="the agent, for approve, revoke and reinstate; for approve also its code; a verb of keys; a broker",
    )
    parser.add_argument("name", nargs="?", metavar="NAME", help="with keys add, revoke: the client")
    parser.add_argument("--owner", metavar="NAME", help="with token and approve: whose agent it is")
    parser.add_argument("--reason", metavar="TEXT", help="with revoke: why, for everybody to read")
    parser.add_argument(
        "--list", metavar="FILE", type=Path, help="with revoke: all keys on a list of `edge-agent registrar revoke`"
    )
    parser.add_argument("--json", action="store_true", help="print what token, tokens, agents and keys say as JSON")
    coordinator_keys.add_flags(parser)
    coordinator_broker.add_flags(parser)
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


def _refuse_strays(args: argparse.Namespace) -> None:
    for flag, actions in FLAGS.items():
        if getattr(args, flag) is not None and args.action not in actions:
            raise UsageError(f"--{flag} goes with {' and '.join(actions)}, not with {args.action}.")


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    _refuse_strays(args)
    settings = effective(args).settings
    match args.action:
        case "run":
            return _run(args, settings)
        case "agents":
            return _list(settings, as_json=args.json)
        case "broker-config":
            return coordinator_broker.run(args, settings)
        case "keys":
            coordinator_identity.existing(settings)
            return coordinator_keys.run(args, settings)
        case _:
            return coordinator_identity.run(args, settings)


def _run(args: argparse.Namespace, settings: Settings) -> int:
    from edge_agent.folders import take  # noqa: PLC0415 the coordinator's extra is loaded by this command alone

    set_up_log(settings)
    ready = ready_file(args)
    with take(settings.coordinator.state_dir):
        _serve(settings, ready)
    return 0


@contextmanager
def _traced(settings: Settings, coordinator: Coordinator) -> Iterator[None]:
    """Have what the coordinator does traced while the block lasts, if an address for that is set."""
    from edge_agent.coordinator.tracing import Traces  # noqa: PLC0415 as above
    from edge_agent.telemetry import Tracer  # noqa: PLC0415 as above

    if settings.telemetry.endpoint is None:
        yield
        return
    tracer = Tracer.connect(settings.telemetry.endpoint, "edge-coordinator", settings.telemetry.job_share)
    coordinator.observed.listeners.append(Traces(tracer).saw)
    try:
        yield
    finally:
        tracer.stop()


def _serve(settings: Settings, ready: Path | None) -> None:
    import asyncio  # noqa: PLC0415 as above
    import logging  # noqa: PLC0415 as above

    from edge_agent.connection import client_id, link_options  # noqa: PLC0415 as above
    from edge_agent.coordinator.admissions import Terms  # noqa: PLC0415 as above
    from edge_agent.coordinator.daemon import Coordinator  # noqa: PLC0415 as above
    from edge_agent.coordinator.gateway.front import Front  # noqa: PLC0415 as above
    from edge_agent.coordinator.gateway.server import listen, loop_factory  # noqa: PLC0415 as above
    from edge_agent.coordinator.options import Options  # noqa: PLC0415 as above
    from edge_agent.coordinator.rules import Rules  # noqa: PLC0415 as above
    from edge_agent.coordinator.store import Store  # noqa: PLC0415 as above
    from edge_agent.coordinator.trust import TrustRules  # noqa: PLC0415 as above
    from edge_agent.own_keys import signing_key  # noqa: PLC0415 as above
    from edge_agent.own_keys import source_of as key_source_of  # noqa: PLC0415 as above
    from edge_agent.published import known_now, source_of, watch  # noqa: PLC0415 as above
    from edge_agent.settings import parse_host_port  # noqa: PLC0415 as above

    own = settings.coordinator
    keys = key_source_of(settings)
    key = signing_key(own.key_file, keys)
    registrar = coordinator_identity.registrar_of(settings, keys, make=own.admit == "approved")
    options = Options(
        network=settings.network.name,
        link=link_options(settings, client_id(key, settings.network.name)),
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
        check_rules=TrustRules(first=own.first_checked_results, floor=own.check_share),
        check_secret=own_secret(own.state_dir / "checks.key"),
        trusted_owners=own.trusted_owners,
        retention_seconds=own.retention_hours * 3600,
        registrar=registrar if own.admit == "approved" else None,
        terms=Terms(own.agents_broker_url or settings.broker.url, _authorities(settings)),
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
        settle()
        coordinator.supervisor.ready(f"serving at {base_url}")
        about = {"http": base_url, "coordinator_key": str(public), "pid": os.getpid(), "grpc": front.grpc_address}
        write_ready_file(ready, {name: value for name, value in about.items() if value is not None})

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


def _authorities(settings: Settings) -> bytes | None:
    """Return the authorities by which this coordinator knows its broker, for agents that enrol.

    Raises:
        SettingsError: the file cannot be read, or is too long to be told.
    """
    from edge_agent.wire.identity import MAX_AUTHORITIES_BYTES  # noqa: PLC0415 as above

    file = settings.broker.ca_file
    if file is None:
        return None
    try:
        content = file.read_bytes()
    except OSError as error:
        raise SettingsError(f"broker.ca_file {file} cannot be read: {error.strerror}.") from error
    if len(content) > MAX_AUTHORITIES_BYTES:
        raise SettingsError(f"broker.ca_file {file} is longer than {MAX_AUTHORITIES_BYTES} bytes.")
    return content


def _list(settings: Settings, *, as_json: bool) -> int:
    from edge_agent.coordinator import identities  # noqa: PLC0415 as above
    from edge_agent.coordinator.store import Store  # noqa: PLC0415 as above

    coordinator_identity.existing(settings)
    with closing(Store(settings.coordinator.database)) as store:
        agents = store.agents()
        known = {each.agent_id: each for each in store.read(identities.all_identities)}
    revoked = {name: each.revoked_reason for name, each in known.items() if each.revoked_ms is not None}
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
                        "wrong_results": a.wrong_results,
                        "resting_until_ms": a.resting_until_ms or None,
                        "revoked": revoked.get(a.id),
                    }
                    for a in agents
                ]
            )
        )
        return 0
    for agent in agents:
        admission = "revoked" if agent.id in revoked else "approved" if agent.approved else "waiting"
        more = revoked.get(agent.id) or (known[agent.id].code if agent.id in known else None) or ""
        if agent.resting_until_ms > time.time() * 1000:
            until = time.strftime("%Y-%m-%d %H:%M", time.localtime(agent.resting_until_ms / 1000))
            more = f"{more} rests until {until}: a result was proven wrong".strip()
        line = f"{agent.id}  {admission:8}  {agent.software or 'never seen'}  {agent.owner or ''}  {more}"
        print(line.rstrip())
    for each in known.values():  # those who asked and were never here, with the code that they show
        if each.code is not None and each.agent_id not in {agent.id for agent in agents}:
            print(f"{each.agent_id}  waiting   code {each.code}")
    if not agents:
        print("No agent has asked for admission yet. An agent prints its id when it starts: edge-agent run --help")
    return 0
