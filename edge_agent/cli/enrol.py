"""`edge-agent enrol`: get this machine into a network."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, add_settings, effective, new_command
from edge_agent.errors import ResourceError, TransportError, UsageError

if TYPE_CHECKING:
    import argparse
    import ssl
    from pathlib import Path

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.enrolling.asking import Asking
    from edge_agent.enrolling.ways import Way
    from edge_agent.settings import Settings
    from edge_agent.wire.identity import Enrolled
    from edge_agent.wire.keys import PublicKey
    from edge_agent.wire.tokens import Token

POLL_SECONDS = 2.0
RETRIES_WITHIN_SECONDS = 60.0
"""A coordinator that cannot be reached is tried again so long, unless --wait says otherwise."""
STILL_WAITING = 75


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "enrol",
        summary="get this machine into a network",
        description="Make this agent's keys, prove to the coordinator at URL that TOKEN is known here, pin the\n"
        "coordinator's key, and keep what `edge-agent run` needs, so that it then runs without any flag. URL is the\n"
        "coordinator's HTTP address or the broker's. The token (`edge-agent coordinator token`) is never sent and\n"
        "carries the coordinator's fingerprint: somebody in between is noticed. `-` reads it from standard input.\n"
        "Without a token, a code is shown here and at the coordinator; its operator compares the two and approves.\n"
        "Status 0: enrolled. 75: still waiting. 76: refused.",
        examples=(
            "edge-agent enrol http://192.0.2.7:8420 --token-file token.txt",
            "echo ea1-… | edge-agent enrol mqtts://broker.example:8883 -",
            "edge-agent enrol http://192.0.2.7:8420 --wait 600",
        ),
    )
    parser.add_argument("url", metavar="URL", help="http(s)://COORDINATOR or mqtt(s)://BROKER")
    parser.add_argument("token", metavar="TOKEN", nargs="?", help="the token, or - for standard input")
    parser.add_argument("--token-file", metavar="FILE", help="a file whose first line is the token")
    parser.add_argument("--wait", metavar="SECONDS", type=float, help="give up waiting after so long; default: never")
    parser.add_argument("--ca-file", metavar="FILE", help="PEM file of the only authorities to trust for TLS")
    add_json_flag(parser, "what came of it")
    add_settings(parser, "network.name", "agent.state_dir", "agent.coordinator_key_file")


def run(args: argparse.Namespace) -> int:
    """Enrol."""
    import secrets  # noqa: PLC0415 the parser of every command imports this module

    from edge_agent.enrolling.asking import Asking  # noqa: PLC0415 as above
    from edge_agent.enrolling.keeping import keep, pin  # noqa: PLC0415 as above
    from edge_agent.folders import take  # noqa: PLC0415 as above
    from edge_agent.own_keys import agent_keys, plain_file  # noqa: PLC0415 as above

    token = _token(args)
    found = effective(args)
    settings = found.settings
    own = settings.agent
    with take(own.state_dir):
        keys = agent_keys(settings)
        way, network = _way(args, settings, token, keys.signing.public.id)
        asking = Asking(
            keys.signing,
            keys.sealing.public,
            network,
            secrets.token_bytes(32),
            token,
            _pinned(own.coordinator_key_file),
        )
        try:
            said = _ask(asking, way, args)
        finally:
            way.close()
        if said is None or asking.coordinator is None:
            _tell(args, asking, "waiting", None)
            return STILL_WAITING
        pin(own.coordinator_key_file, asking.coordinator)
        broker = args.url if args.url.startswith("mqtt") else said.broker_url
        keep(own.state_dir, said, broker_url=broker, key_file=plain_file(own.key_file, settings))
    _tell(args, asking, "enrolled", broker)
    return 0


def _token(args: argparse.Namespace) -> Token | None:
    from pathlib import Path  # noqa: PLC0415 as above

    from edge_agent.wire.tokens import MAX_TOKEN_CHARACTERS, Token  # noqa: PLC0415 as above

    if args.token is not None and args.token_file is not None:
        raise UsageError("Give the token or --token-file, not both.")
    text = args.token
    if text == "-":
        text = sys.stdin.readline(MAX_TOKEN_CHARACTERS + 2)
    elif args.token_file is not None:
        try:
            with Path(args.token_file).open() as file:
                text = file.readline(MAX_TOKEN_CHARACTERS + 2)
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"The token file {args.token_file} cannot be read: {error}.") from error
    return Token.parse(text) if text is not None else None


def _way(args: argparse.Namespace, settings: Settings, token: Token | None, agent_id: str) -> tuple[Way, str]:
    """Return the way to the coordinator, and the network's name."""
    from edge_agent.enrolling.ways import OverHttp  # noqa: PLC0415 as above

    network = token.network if token is not None else settings.network.name
    way = way_to(args.url, settings, network, agent_id, args.ca_file)
    if token is None and isinstance(way, OverHttp):
        network = way.network()
    return way, network


def way_to(url: str, settings: Settings, network: str, agent_id: str, ca_file: str | None) -> Way:
    """Return the way to a coordinator, over its HTTP interface or over the broker.

    Raises:
        UsageError: it is no address.
    """
    from dataclasses import replace  # noqa: PLC0415 as above
    from pathlib import Path  # noqa: PLC0415 as above

    from edge_agent.connection import link_options  # noqa: PLC0415 as above
    from edge_agent.enrolling.ways import OverBroker, OverHttp  # noqa: PLC0415 as above
    from edge_agent.mqtt import BrokerAddress  # noqa: PLC0415 as above
    from edge_agent.wire.topics import Topics  # noqa: PLC0415 as above

    if url.startswith(("http://", "https://")):
        return OverHttp(url, _context(ca_file))
    if not url.startswith(("mqtt://", "mqtts://")):
        raise UsageError(f"{url[:200]!r} is no address.", hint="Write http(s)://COORDINATOR or mqtt(s)://BROKER.")
    options = replace(link_options(settings, f"ea1-enrol-{agent_id}"), address=BrokerAddress.parse(url))
    if ca_file:
        options = replace(options, ca_file=Path(ca_file))
    return OverBroker(options, Topics(network), agent_id)


def _context(ca_file: str | None) -> ssl.SSLContext | None:
    import ssl  # noqa: PLC0415 as above

    if not ca_file:
        return None
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise UsageError(f"--ca-file {ca_file} cannot be used: {error}.") from error


def _pinned(path: Path) -> PublicKey | None:
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 as above

    return PublicKey.from_file(path) if path.exists() else None


def _ask(asking: Asking, way: Way, args: argparse.Namespace) -> Enrolled | None:
    """Ask until the coordinator lets us in; None when the time is over."""
    from edge_agent.clock import system_now  # noqa: PLC0415 as above

    began = time.monotonic()
    end = began + args.wait if args.wait else None
    told = heard = False
    while True:
        try:
            answers = way.ask(asking.request(system_now().wall_ms), POLL_SECONDS)
        except TransportError:
            patience = end if end is not None else began + (RETRIES_WITHIN_SECONDS if not heard else float("inf"))
            if time.monotonic() + POLL_SECONDS > patience:
                raise
            answers = []
        heard = heard or bool(answers)
        said = next((found for data in answers if (found := asking.answer(data)) is not None), None)
        if said is not None and said.state == "admitted":
            return said
        if said is not None and said.state == "waiting" and not told:
            told = True
            _say_waiting(asking, said)
        if end is not None and time.monotonic() + POLL_SECONDS > end:
            if not heard:
                raise ResourceError("No coordinator answers.", hint="Does it run, in this network, on this broker?")
            return None
        if not heard and time.monotonic() > began + RETRIES_WITHIN_SECONDS:
            raise TransportError("No coordinator answers.", hint="Does it run, in this network, on this broker?")
        if said is None or said.state == "waiting":
            time.sleep(POLL_SECONDS)


def _say_waiting(asking: Asking, said: Enrolled) -> None:
    if said.code == "registrar":
        print("Let in; waiting for the registrar's certificate …", file=sys.stderr)
        return
    code = asking.code
    print(
        f"Code {code} - the coordinator shows it, too. If it is the same there, its operator types\n"
        f"    edge-agent coordinator approve {code}\nWaiting …",
        file=sys.stderr,
        flush=True,
    )


def _tell(args: argparse.Namespace, asking: Asking, state: str, broker: str | None) -> None:
    coordinator = asking.coordinator.id if asking.coordinator is not None else None
    about = {"state": state, "agent_id": asking.key.public.id, "coordinator_id": coordinator}
    about |= {"network": asking.network, "broker": broker, "code": asking.code}
    if args.json:
        print(json.dumps(about))
    elif state == "enrolled":
        print(f"enrolled     agent {about['agent_id']} in the network {about['network']}")
        print(f"coordinator  {coordinator} is pinned")
        print(f"broker       {broker}; next: edge-agent run")
    else:
        print(f"still waiting for the operator; run this again. Code: {about['code']}")
