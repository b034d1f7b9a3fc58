"""`edge-agent ledger`: what each owner has earned, and whether it adds up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.cli.parsing import add_json_flag, new_command
from edge_agent.cli.reaching import add_coordinator, add_coordinator_key, client_of
from edge_agent.cli.table import render
from edge_agent.errors import RefusedError, UsageError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.client import Client
    from edge_agent.wire.keys import PublicKey

ACTIONS = ("show", "audit")


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "ledger",
        summary="show what each owner has earned, or audit that it adds up",
        description="What owners have earned: `show` prints the accounts, and what waits in escrow for a check.\n"
        "`audit` needs the coordinator's public key: it fetches every entry and every leaf of the log of receipts,\n"
        "and checks the signed chain of entries, that each pays a receipt that is in the log, once, that escrow is\n"
        "released or lost as the rules say, and that the balances follow. With receipts, it says what each was paid.\n"
        "Ends with status 1 when something does not add up.",
        examples=(
            "edge-agent ledger show",
            "edge-agent ledger audit --coordinator-key coordinator.pub",
            "edge-agent ledger audit --coordinator-key coordinator.pub --receipt scan.receipt",
        ),
    )
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    add_coordinator(parser)
    add_coordinator_key(parser, only_for="audit")
    parser.add_argument(
        "--receipt", metavar="FILE", type=Path, nargs="+", default=[], help="for audit: receipts that you have"
    )
    add_json_flag(parser, "what was found")


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    with client_of(args) as client:
        if args.action == "show":
            return _show(client, as_json=args.json)
        if args.coordinator_key is None:
            raise UsageError("audit needs --coordinator-key: without it, anybody could have signed the ledger.")
        from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 the parser of every command imports this module

        return _audit(client, PublicKey.from_file(args.coordinator_key), args.receipt, as_json=args.json)


def _show(client: Client, *, as_json: bool) -> int:
    found = json.loads(client.get("/api/v1/ledger/balances"))
    if as_json:
        print(json.dumps(found))
        return 0
    accounts: dict[str, int] = found["accounts"]
    if not accounts:
        print("Nothing was earned yet: the ledger has no entries.")
        return 0
    rows = [(name, str(amount)) for name, amount in sorted(accounts.items())]
    print(render(("account", "Mmac"), rows, right=(1,)))
    print(f"{found['size']} entries; unverified: `edge-agent ledger audit` adds them up again")
    return 0


def _audit(client: Client, key: PublicKey, receipts: list[Path], *, as_json: bool) -> int:
    from edge_agent.cli.verify import open_receipt  # noqa: PLC0415 as above
    from edge_agent.client.ledgers import audit_ledger  # noqa: PLC0415 as above
    from edge_agent.wire.bundles import Bundle  # noqa: PLC0415 as above
    from edge_agent.wire.receipts import receipt_leaf  # noqa: PLC0415 as above

    found = audit_ledger(client, key)
    audit = found.audit
    paid: dict[str, int | None] = {}
    for path in receipts:
        data, receipt, logged = open_receipt(path, key, found.network)
        number = audit.results.get(receipt_leaf(data if logged is None else Bundle.decode(data).receipt))
        paid[str(path)] = number
        owner_said = receipt.result.agent_id
        if number is None and not as_json:
            print(f"{path}: not paid (yet): the result of {owner_said} is unverified, or its check still runs")
    document: dict[str, Any] = {
        "adds_up": True,
        "network": found.network,
        "entries": audit.size,
        "results_paid": len(audit.results),
        "receipts_in_log": found.logged,
        "accounts": {name: amount for name, amount in sorted(audit.balances.items()) if amount},
        "receipts": paid,
    }
    if sum(audit.balances.values()) != 0:
        raise RefusedError("The accounts are not zero together.", code="ledger-wrong")
    if as_json:
        print(json.dumps(document))
        return 0
    print(f"The ledger of {found.network} adds up: {audit.size} entries pay {len(audit.results)} results,")
    print(f"each once, and each with its receipt among the {found.logged} of the log.")
    for name, entry in paid.items():
        if entry is not None:
            print(f"{name}: paid by entry {entry}")
    return 0
