"""`edge-agent checks`: whether the coordinator's checks were drawn as it had bound itself to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, new_command
from edge_agent.cli.reaching import add_coordinator, add_coordinator_key, client_of
from edge_agent.errors import InputError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.client.ledgers import AuditedDraw

ACTIONS = ("audit",)
MAX_KEYS_BYTES = 1024 * 1024


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "checks",
        summary="audit that checks were drawn and not steered",
        description="With `audit`: fetch the coordinator's signed commitments to the keys of its draws, and keep them\n"
        "in FILE; a commitment that has changed is told. For each receipt of a day that is over, draw again with the\n"
        "key of that day, and compare with whether the result was checked. Run it once a day without receipts, so\n"
        "that the commitments are in your hands before the keys are. Ends with status 1 when a draw was steered.",
        examples=(
            "edge-agent checks audit --coordinator-key coordinator.pub --keys keys.json",
            "edge-agent checks audit --coordinator-key coordinator.pub --keys keys.json --receipt *.receipt",
        ),
    )
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    add_coordinator(parser)
    add_coordinator_key(parser)
    parser.add_argument("--keys", metavar="FILE", type=Path, required=True, help="the commitments that you have seen")
    parser.add_argument("--receipt", metavar="FILE", type=Path, nargs="+", default=[], help="receipts that you have")
    add_json_flag(parser, "what was found")


def run(args: argparse.Namespace) -> int:
    """Audit once."""
    from edge_agent.cli.verify import open_receipt  # noqa: PLC0415 the parser of every command imports this module
    from edge_agent.client.ledgers import audit_draw, fetch_keys  # noqa: PLC0415 as above
    from edge_agent.folders import write_durably  # noqa: PLC0415 as above
    from edge_agent.wire.bundles import Bundle  # noqa: PLC0415 as above
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 as above
    from edge_agent.wire.receipts import result_in  # noqa: PLC0415 as above

    key = PublicKey.from_file(args.coordinator_key)
    known = _read(args.keys)
    found: list[AuditedDraw] = []
    with client_of(args) as client:
        fetch_keys(client, key, known)
        write_durably(args.keys, json.dumps({str(period): known[period].hex() for period in sorted(known)}))
        for path in args.receipt:
            data, receipt, logged = open_receipt(path, key, None)
            signed = result_in(data if logged is None else Bundle.decode(data).receipt)
            found.append(audit_draw(client, key, receipt, signed, known))
    if args.json:
        rows = [
            {name: getattr(draw, name) for name in ("job_id", "period", "number", "probability", "drawn", "state")}
            for draw in found
        ]
        print(json.dumps({"commitments": len(known), "draws": rows}))
        return 0
    print(f"{len(known)} commitments are kept in {args.keys}; none of them was changed.")
    for draw in found:
        print(_line(draw))
    return 0


def _line(draw: AuditedDraw) -> str:
    if draw.number is None:
        return f"{draw.job_id}: the key of its day is not given out yet; ask again tomorrow"
    what = "was drawn" if draw.drawn else "was not drawn"
    return (
        f"{draw.job_id}: drew {draw.number:.4f} below or above {draw.probability:g}, {what}, as it had to; {draw.state}"
    )


def _read(path: Path) -> dict[int, bytes]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEYS_BYTES + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    try:
        found = json.loads(data)
        return {int(period): bytes.fromhex(value) for period, value in found.items()}
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise InputError(f"{path} holds no commitments.", hint="Give a file that `checks audit` has written.") from None
