"""What several commands build from the settings: keys, the link's options, ready files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from edge_agent.cli.parsing import Parser
    from edge_agent.mqtt import LinkOptions
    from edge_agent.settings import Settings
    from edge_agent.wire.keys import SigningKey

MQTT_OVERHEAD_BYTES = 64 * 1024
"""A packet is larger than its message by its header, topic and properties."""


def set_up_log(settings: Settings) -> None:
    """Send the log of this process to standard error, as the settings say."""
    from edge_agent import log  # noqa: PLC0415 only commands that log need it

    log.set_up(settings.log.level, settings.log.format)


def link_options(settings: Settings, client_id: str) -> LinkOptions:
    """Turn the settings into the options of one link.

    Raises:
        SettingsError: the broker's address or a file does not hold.
    """
    from edge_agent.mqtt import BrokerAddress, LinkOptions  # noqa: PLC0415 paho is not needed by every command

    broker = settings.broker
    return LinkOptions(
        address=BrokerAddress.parse(broker.url),
        client_id=client_id,
        username=broker.username,
        password=broker.read_password(),
        ca_file=broker.ca_file,
        client_cert=broker.client_cert_file,
        client_key=broker.client_key_file,
        protocol=broker.protocol,
        keepalive_seconds=broker.keepalive_seconds,
        max_packet_bytes=settings.limits.max_inline_bytes + MQTT_OVERHEAD_BYTES,
        inbox_messages=settings.limits.inbox_messages,
        outbox_messages=settings.limits.outbox_messages,
    )


def own_key(path: Path) -> SigningKey:
    """Read our key, or make it at the first start, with the public half beside it.

    Raises:
        KeyFileError: the file is there and is not a key, or it cannot be written.
    """
    from edge_agent.wire.keys import SigningKey  # noqa: PLC0415 as above

    if path.exists():
        return SigningKey.from_file(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key = SigningKey.generate()
    key.write(path)
    public = path.with_suffix(".pub")
    if not public.exists():
        key.public.write(public)
    return key


def add_ready_file(parser: Parser, content: str) -> None:
    """Add `--ready-file`."""
    parser.add_argument("--ready-file", metavar="FILE", help=f"write {content} to FILE as JSON once it works")


def write_ready_file(args: argparse.Namespace, content: dict[str, object]) -> None:
    """Write the file that `--ready-file` names, if it was given, in one piece."""
    if args.ready_file:
        from pathlib import Path  # noqa: PLC0415 as above

        path = Path(args.ready_file)
        temporary = path.with_name(f".{path.name}.new")
        temporary.write_text(json.dumps(content) + "\n")
        temporary.replace(path)
