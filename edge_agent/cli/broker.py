"""`edge-agent broker`: the embedded broker, for one machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_settings, effective, new_command
from edge_agent.cli.parts import add_ready_file, ready_file, set_up_log, write_ready_file
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "broker",
        summary="run the embedded MQTT broker, on loopback",
        description="Run a small MQTT 3.1.1 broker in pure Python until SIGTERM or Ctrl-C: for trying things out on\n"
        "one machine. It lets everybody in and therefore listens on loopback only; a network of several\n"
        "machines wants Mosquitto or another broker with TLS. Needs the extra [coordinator].",
        examples=("edge-agent broker --listen 127.0.0.1:1883",),
    )
    parser.add_argument(
        "--listen",
        metavar="HOST:PORT",
        default="127.0.0.1:1883",
        help="loopback address; port 0 takes a free one",
    )
    add_settings(parser, "log.level", "log.format")
    add_ready_file(parser, "the address and the process id")


def run(args: argparse.Namespace) -> int:
    """Serve until told to stop."""
    import asyncio  # noqa: PLC0415 the coordinator's extra is loaded by this command alone
    import logging  # noqa: PLC0415 as above
    import os  # noqa: PLC0415 as above
    import signal  # noqa: PLC0415 as above

    from edge_agent.connection import MQTT_OVERHEAD_BYTES  # noqa: PLC0415 as above
    from edge_agent.coordinator.broker import serve  # noqa: PLC0415 as above
    from edge_agent.settings import parse_host_port  # noqa: PLC0415 as above

    settings = effective(args).settings
    set_up_log(settings)
    ready = ready_file(args)
    try:
        host, port = parse_host_port(args.listen)
    except ValueError as error:
        raise UsageError(f"--listen {args.listen[:64]!r} {error}.") from error

    def on_ready(real_host: str, real_port: int) -> None:
        shown = f"[{real_host}]" if ":" in real_host else real_host
        address = f"mqtt://{shown}:{real_port}"
        write_ready_file(ready, {"mqtt": address, "pid": os.getpid()})
        log = logging.getLogger("edge_agent.broker")
        log.info("The embedded broker listens at %s", address, extra={"action": "broker-ready"})

    async def main() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        limit = settings.limits.max_inline_bytes + MQTT_OVERHEAD_BYTES
        await serve(host, port, on_ready=on_ready, max_message_bytes=limit, stop=stop)

    asyncio.run(main())
    return 0
