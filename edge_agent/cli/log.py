"""`edge-agent log`: watch the log of receipts that a coordinator keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, new_command
from edge_agent.cli.reaching import add_coordinator, add_coordinator_key, client_of
from edge_agent.errors import InputError, LogForkedError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.client.auditing import Prover, SeenHead

ACTIONS = ("audit",)


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "log",
        summary="check that a coordinator's log of receipts only grows",
        description="With `audit`: fetch the signed tree head of the coordinator's log, check that the log continues\n"
        "what FILE has of it, and append the tree head there; run it from time to time. With --compare, files of\n"
        "other people, or receipts with their proof, are checked against the same log: a coordinator that shows\n"
        "different logs to different people is found out. Ends with status 1 when the log was forked, rewritten or\n"
        "shortened, and keeps both signed tree heads as evidence.",
        examples=(
            "edge-agent log audit --coordinator-key coordinator.pub --heads heads.jsonl",
            "edge-agent log audit --coordinator-key coordinator.pub --heads heads.jsonl --compare scan.receipt",
        ),
    )
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    add_coordinator(parser)
    add_coordinator_key(parser)
    parser.add_argument("--heads", metavar="FILE", type=Path, required=True, help="the tree heads that you have seen")
    parser.add_argument(
        "--compare", metavar="FILE", type=Path, nargs="+", default=[], help="what others have seen, or receipts"
    )
    parser.add_argument("--network", metavar="NAME", help="the network that the log must be of")
    add_json_flag(parser, "what was found")


def run(args: argparse.Namespace) -> int:
    """Audit the log once."""
    from edge_agent.client.auditing import append_head, fetch_head, fetch_proof, read_head  # noqa: PLC0415 as above
    from edge_agent.clock import system_now  # noqa: PLC0415 as above
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 as above

    key = PublicKey.from_file(args.coordinator_key)
    mine = read_head(args.heads, key, network=args.network)
    seen = [] if mine is None else [mine]
    for path in args.compare:
        theirs = read_head(path, key, network=args.network)
        if theirs is None:
            raise InputError(f"There is no tree head in {path}.", hint="Give a file of `log audit`, or a receipt.")
        seen.append(theirs)
    with client_of(args) as client:
        # Asked for after all files were read: whatever honest people saw is in it.
        current = fetch_head(client, key, network=args.network)
        _check(seen, current, lambda old, new: fetch_proof(client, old, new), args.heads)
    if mine is None or mine.statement.size < current.statement.size:
        append_head(args.heads, current, system_now().wall_ms)
    print(json.dumps(_document(seen, current)) if args.json else _text(seen, current, key.id))
    return 0


def _check(seen: list[SeenHead], current: SeenHead, prove: Prover, heads: Path) -> None:
    from edge_agent.client.auditing import check_continues, write_evidence  # noqa: PLC0415 as above
    from edge_agent.clock import system_now  # noqa: PLC0415 as above

    for head in seen:
        try:
            check_continues(head, current, prove)
        except LogForkedError as error:
            evidence = write_evidence(heads, (head, current), system_now().wall_ms)
            error.hint = f"Both tree heads are in {evidence}, signed with the same key. Ask the coordinator's operator."
            raise


def _document(seen: list[SeenHead], current: SeenHead) -> dict[str, object]:
    statement = current.statement
    return {
        "consistent": True,
        "network": statement.network,
        "size": statement.size,
        "root": statement.root.hex(),
        "issued_ms": statement.issued_ms,
        "continues": [{"file": head.where, "size": head.statement.size} for head in seen],
    }


def _text(seen: list[SeenHead], current: SeenHead, coordinator_id: str) -> str:
    statement = current.statement
    lines = [f"The log of {coordinator_id} in the network {statement.network} has {statement.size} receipts."]
    lines += [f"It continues the {head.statement.size} that {head.where} has seen." for head in seen]
    if not seen:
        lines.append("This is the first look: what is signed from now on must continue it.")
    return "\n".join(lines)
