"""`edge-agent receipt`: receipts in the forms of other tools."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import new_command
from edge_agent.cli.reaching import add_coordinator_key
from edge_agent.errors import StateError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers

ACTIONS = ("export",)
FORMATS = ("in-toto",)


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "receipt",
        summary="export a receipt for other tools",
        description="With `export`: verify a receipt, and write what it says as an in-toto statement in a DSSE\n"
        "envelope, signed with your key: it is your word that you verified it, and the receipt itself is in it.\n"
        "With the coordinator's own key the envelope is the coordinator's. Prints it, or writes it to --output.",
        examples=(
            "edge-agent receipt export scan.receipt --coordinator-key coordinator.pub --key mine.key --format in-toto",
        ),
    )
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("receipt", metavar="RECEIPT", type=Path, help="the receipt's file, with or without its proof")
    add_coordinator_key(parser)
    parser.add_argument(
        "--key", metavar="FILE", type=Path, required=True, help="the secret key that signs the envelope"
    )
    parser.add_argument("--format", choices=FORMATS, default=FORMATS[0], help="default: %(default)s")
    parser.add_argument("--network", metavar="NAME", help="the network that the receipt must be for")
    parser.add_argument("--output", metavar="FILE", type=Path, help="write the envelope here instead of printing it")


def run(args: argparse.Namespace) -> int:
    """Export one receipt."""
    from edge_agent.cli.verify import open_receipt  # noqa: PLC0415 cryptography is not for `--help`
    from edge_agent.wire import in_toto  # noqa: PLC0415 as above
    from edge_agent.wire.keys import PublicKey, SigningKey  # noqa: PLC0415 as above

    key = PublicKey.from_file(args.coordinator_key)
    signer = SigningKey.from_file(args.key)
    data, receipt, _ = open_receipt(args.receipt, key, args.network)
    envelope = in_toto.envelope(signer, in_toto.statement(receipt, data)) + b"\n"
    if args.output is None:
        sys.stdout.write(envelope.decode())
        return 0
    try:
        args.output.write_bytes(envelope)
    except OSError as error:
        raise StateError(f"{args.output} cannot be written: {error.strerror}") from error
    return 0
