"""`edge-agent coordinator broker-config`: a complete configuration for a broker, with its certificates."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import coordinator_identity
from edge_agent.errors import KeyFileError, StateError, UsageError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Parser
    from edge_agent.settings import Settings
    from edge_agent.wire.keys import SigningKey

SERVER_DAYS = 825.0
COORDINATOR_DAYS = 825.0
PORT = 8883


def add_flags(parser: Parser) -> None:
    """Add the flags of this action."""
    group = parser.add_argument_group("options of broker-config")
    group.add_argument("--server-name", metavar="NAME", help="host name or address by which agents reach the broker")
    group.add_argument("--port", metavar="PORT", type=int, default=PORT, help=f"for MQTT over TLS; default: {PORT}")
    group.add_argument("--out-dir", metavar="DIR", help="where the files go; default: `broker` in the state directory")


def run(args: argparse.Namespace, settings: Settings) -> int:
    """Write the files; print the configuration."""
    from edge_agent.coordinator import identities  # noqa: PLC0415 the coordinator's extra
    from edge_agent.coordinator.broker_config import BROKERS, Facts  # noqa: PLC0415 as above
    from edge_agent.coordinator.store import Store  # noqa: PLC0415 as above
    from edge_agent.folders import make_private, write_atomically  # noqa: PLC0415 as above
    from edge_agent.own_keys import source_of  # noqa: PLC0415 as above

    kind = args.agent_id
    if kind not in BROKERS:
        raise UsageError(
            f"Which broker? {', '.join(BROKERS)}.",
            hint="edge-agent coordinator broker-config mosquitto --server-name HOST",
        )
    if not args.server_name or not 1 <= args.port <= 65_535:
        raise UsageError(
            "--server-name is missing, or --port is none.",
            hint="Name the host by which agents reach the broker: it stands in the broker's certificate.",
        )
    database = coordinator_identity.existing(settings)
    registrar = coordinator_identity.registrar_of(settings, source_of(settings), make=False)
    if registrar is None or registrar.key is None:
        raise KeyFileError(
            "The registrar's secret key is not here, and it signs the certificates of the broker and its clients.",
            hint="Where it is: edge-agent registrar broker-certificates --help. Or start the coordinator once.",
        )
    now_ms = time.time_ns() // 1_000_000
    with closing(Store(database)) as store:
        standing = store.write(lambda connection: identities.standing(connection, registrar, now_ms))
    folder = Path(args.out_dir).absolute() if args.out_dir else settings.coordinator.state_dir / "broker"
    make_private(folder)
    facts = Facts(
        network=settings.network.name,
        folder=folder,
        agents=sorted(standing.certificates),
        revoked=sorted(standing.revoked),
        port=args.port,
        max_packet_bytes=settings.limits.max_inline_bytes + 65_536,
    )
    files = BROKERS[kind](facts)
    try:
        coordinator = settings.coordinator.key_file.with_suffix(".pub")
        write_certificates(folder, registrar.key, args.server_name, coordinator, now_ms)
        for name, text in files.items():
            write_atomically(folder / name, text)
    except OSError as error:
        raise StateError(f"the configuration cannot be written to {folder}: {error.strerror}") from error
    for name, text in files.items():
        print(f"# ---- {folder / name}\n{text}")
    _say(folder, args, settings)
    return 0


def write_certificates(
    folder: Path, registrar: SigningKey, server_name: str, coordinator_key: Path, now_ms: int
) -> None:
    """Write the authority, the broker's certificate with a key of its own, and the coordinator's certificate.

    Args:
        folder: where to.
        registrar: signs them.
        server_name: of the broker.
        coordinator_key: file of the coordinator's public key.
        now_ms: Unix milliseconds.

    Raises:
        OSError: they cannot be written.
        KeyFileError: the coordinator's key cannot be read.
    """
    import ssl  # noqa: PLC0415 as above

    from edge_agent.coordinator.broker_config import (  # noqa: PLC0415 as above
        AUTHORITY_FILE,
        CERTIFICATE_FILE,
        COORDINATOR_LOGIN,
        KEY_FILE,
    )
    from edge_agent.folders import write_atomically  # noqa: PLC0415 as above
    from edge_agent.wire.broker_certificates import authority, broker_certificate  # noqa: PLC0415 as above
    from edge_agent.wire.keys import PublicKey, SigningKey  # noqa: PLC0415 as above

    if not (folder / AUTHORITY_FILE).exists():  # clients keep it: it stays the same
        write_atomically(folder / AUTHORITY_FILE, authority(registrar, now_ms))
    if not (folder / KEY_FILE).exists():
        SigningKey.generate().write(folder / KEY_FILE)
    public = SigningKey.from_file(folder / KEY_FILE).public
    names = (server_name,) if server_name in {"localhost", "127.0.0.1"} else (server_name, "localhost", "127.0.0.1")
    server = broker_certificate(registrar, public, server_name, now_ms=now_ms, days=SERVER_DAYS, server_names=names)
    write_atomically(folder / CERTIFICATE_FILE, ssl.DER_cert_to_PEM_cert(server))
    coordinator = PublicKey.from_file(coordinator_key)
    client = broker_certificate(registrar, coordinator, COORDINATOR_LOGIN, now_ms=now_ms, days=COORDINATOR_DAYS)
    write_atomically(folder / "coordinator.crt", ssl.DER_cert_to_PEM_cert(client))


def _say(folder: Path, args: argparse.Namespace, settings: Settings) -> None:
    print(
        f"""The files are in {folder}; broker.key must be readable by the broker alone. The coordinator's settings:

[broker]
url = "mqtts://{args.server_name}:{args.port}"
ca_file = "{folder / "registrar-ca.pem"}"
client_cert_file = "{folder / "coordinator.crt"}"
client_key_file = "{settings.coordinator.key_file}"

Agents enrol over the coordinator's HTTP interface, since the broker lets nobody in without a certificate.""",
        file=sys.stderr,
    )
