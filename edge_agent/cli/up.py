"""`edge-agent up`: a whole network on this machine, until it is told to stop."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import new_command
from edge_agent.cli.parts import add_ready_file, ready_file, write_ready_file

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from edge_agent.cli.parsing import Parser, Subparsers
    from edge_agent.local.network import LocalNetwork, Options

WATCH_SECONDS = 0.25


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "up",
        summary="run a broker, a coordinator and an agent on this machine",
        description="Start a broker, a coordinator and an agent as separate processes on loopback, say when they are\n"
        "ready and where, keep them running, and stop them all at Ctrl-C or SIGTERM.\n"
        "Without --state, keys and jobs live in a temporary directory that is removed at the end.",
        examples=(
            "edge-agent up --http 127.0.0.1:8420 --grpc 127.0.0.1:8421",
            "edge-agent up --state ~/edge --broker mqtt://127.0.0.1:1883 --ready-file up.json",
            "edge-agent up --catalogue http://127.0.0.1:8430/ --catalogue-root ~/catalogue/root.json",
        ),
    )
    add_network_flags(parser)
    parser.add_argument("--grpc", metavar="HOST:PORT", help="offer gRPC there, too (extra grpc); default: gateway.grpc")
    parser.add_argument("--state", metavar="DIR", help="keep keys, jobs, receipts and logs here")
    add_ready_file(parser, "addresses and process ids")


def add_network_flags(parser: Parser) -> None:
    """Add what `up` and `demo` have in common."""
    parser.add_argument("--http", metavar="HOST:PORT", default="127.0.0.1:0", help="the coordinator's address")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--mqtt", metavar="HOST:PORT", default="127.0.0.1:0", help="the embedded broker's address")
    where.add_argument("--broker", metavar="URL", help="use this broker: mqtt://HOST:PORT or mqtts://HOST:PORT")
    parser.add_argument("--catalogue", metavar="URL", help="serve the models of this catalogue, too")
    parser.add_argument("--catalogue-root", metavar="FILE", help="its root.json, from its operator")
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")


def network_options(args: argparse.Namespace, state_dir: str) -> Options:
    """Check the addresses and make the options of a local network."""
    from pathlib import Path  # noqa: PLC0415 the parser of every command imports this module

    from edge_agent.errors import UsageError  # noqa: PLC0415 as above
    from edge_agent.local.network import Options  # noqa: PLC0415 as above
    from edge_agent.mqtt import BrokerAddress  # noqa: PLC0415 as above
    from edge_agent.settings import parse_host_port  # noqa: PLC0415 as above

    grpc = getattr(args, "grpc", None)  # `demo` does not offer it
    for flag, text in (("--http", args.http), ("--mqtt", args.mqtt), ("--grpc", grpc)):
        if text is None:
            continue
        try:
            parse_host_port(text)
        except ValueError as error:
            raise UsageError(f"{flag} {text[:64]!r} {error}.") from error
    if args.broker is not None:
        BrokerAddress.parse(args.broker)
    if (args.catalogue is None) != (args.catalogue_root is None):
        raise UsageError("--catalogue and --catalogue-root go together: the root says whom to trust.")
    catalogue = (args.catalogue, Path(args.catalogue_root).expanduser().absolute()) if args.catalogue else None
    state = Path(state_dir).expanduser()
    return Options(state, args.http, args.mqtt, args.broker, args.log_level, catalogue, grpc)


def run(args: argparse.Namespace) -> int:
    """Start everything, stay, stop everything."""
    import signal  # noqa: PLC0415 as above
    import tempfile  # noqa: PLC0415 as above
    from contextlib import ExitStack  # noqa: PLC0415 as above

    from edge_agent.local.network import LocalNetwork  # noqa: PLC0415 as above

    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ExitStack() as stack:
        ready = ready_file(args)
        stack.callback(_remove, ready)
        state = args.state or stack.enter_context(tempfile.TemporaryDirectory(prefix="edge-agent-up-"))
        network = LocalNetwork(network_options(args, state), _step, lambda: _publish(network, ready))
        try:
            stack.enter_context(network)
            _publish(network, ready)
            _say_ready(network, kept=bool(args.state))
            while True:
                network.look_after(WATCH_SECONDS)
        except KeyboardInterrupt:
            # A second signal must not leave processes behind.
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            print("Stopping.", file=sys.stderr)
    return 0


def _step(text: str) -> None:
    print(f"… {text}", file=sys.stderr)


def _publish(network: LocalNetwork, ready: Path | None) -> None:
    write_ready_file(ready, network.description())


def _remove(ready: Path | None) -> None:
    if ready is not None:
        ready.unlink(missing_ok=True)


def _say_ready(network: LocalNetwork, *, kept: bool) -> None:
    offered = ", ".join((network.status() or {}).get("offers", []))
    print(f"Ready: {offered} at {network.http} (broker {network.mqtt})")
    if network.grpc is not None:
        print(f"  gRPC             {network.grpc} (for tritonclient.grpc and other clients of the same protocol)")
    print(f"  coordinator key  {network.coordinator_key}")
    print(f"  API key          {network.api_key_file} (asked for only where others reach the address)")
    print(f"  state            {network.state_dir}{'' if kept else ' (removed at the end)'}")
    trust = f"--cacert {network.certificate} " if network.http.startswith("https:") else ""
    print(f"  try              curl {trust}{network.http}/v2/models/digits")
    print("Ctrl-C stops everything.", flush=True)
