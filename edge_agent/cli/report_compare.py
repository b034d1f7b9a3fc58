"""`edge-agent report --compare`: the agent's own copy against the coordinator's receipts and ledger."""

from __future__ import annotations

import json
import time
from itertools import islice
from typing import TYPE_CHECKING

from edge_agent.errors import EdgeAgentError, InputError, RefusedError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping, Sequence

    from edge_agent.agent.account.comparing import Comparison, Credit, Shown
    from edge_agent.agent.own_copy import Block, Entry
    from edge_agent.client import Client
    from edge_agent.settings import Settings
    from edge_agent.wire.keys import PublicKey

LEDGER_PAGE = 1000
MAX_PAGES = 1000


def compare_with(args: argparse.Namespace, settings: Settings, blocks: Sequence[bytes], agent_id: str) -> int:
    """Compare the newest results of the own copy, and print what came of it; 1 if something was altered.

    Raises:
        EdgeAgentError: the coordinator is not reached, or refuses; or the own copy is not this agent's.
    """
    from edge_agent.agent.account.comparing import compare, credit_by_day  # noqa: PLC0415 the parser of every command imports this
    from edge_agent.cli.reaching import client_of  # noqa: PLC0415 as above
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 as above

    coordinator = PublicKey.from_file(settings.agent.coordinator_key_file)
    opened, problem = _own_copy(blocks, settings, agent_id)
    entries = list(islice((entry for block in reversed(opened) for entry in reversed(block.entries)), args.jobs))
    with client_of(args) as client:
        shown = {entry.job: one for entry in entries if (one := _shown(client, entry, coordinator)) is not None}
        credited, why = _credited(client)
    found = compare(agent_id, entries, shown, credited)
    credit = {} if why else credit_by_day(found, shown, _day)
    left_out = sum(block.left_out for block in opened)
    if args.json:
        print(json.dumps(_document(found, problem, left_out, why) | {"credit": _credit_rows(credit)}))
    else:
        print("\n".join([*_lines(found, problem, left_out, why), *_credit_lines(credit)]))
    return 1 if found.altered or problem else 0


def _own_copy(blocks: Sequence[bytes], settings: Settings, agent_id: str) -> tuple[list[Block], str]:
    from edge_agent.agent.own_copy import check_chain  # noqa: PLC0415 as above
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 as above

    public = settings.agent.key_file.with_suffix(".pub")
    try:
        key = PublicKey.from_file(public)
    except EdgeAgentError as error:
        raise InputError(f"The agent's public key is needed to verify its copy: {error.message}") from error
    if key.id != agent_id:
        raise RefusedError(f"{public} is not the key of the agent {agent_id}.", code="wrong-agent")
    return check_chain(blocks, key, settings.network.name)


def _shown(client: Client, entry: Entry, coordinator: PublicKey) -> Shown | None:
    """Return what the coordinator has of a job; None if it has nothing."""
    from edge_agent.agent.account.comparing import Shown  # noqa: PLC0415 as above
    from edge_agent.wire.receipts import (  # noqa: PLC0415 as above
        receipt_leaf,
        result_in,
        verify_receipt,
    )

    try:
        data = client.receipt(entry.job.hex())
    except EdgeAgentError as error:
        if error.error_code == "unknown-job":
            return None
        raise
    verified = verify_receipt(data, coordinator)
    said = verified.result
    return Shown(said.agent_id, said.epoch, result_in(data), receipt_leaf(data), said.family, verified.accepted_ms)


def _credited(client: Client) -> tuple[dict[bytes, int], str]:
    """Return what the ledger pays for each leaf, and why that is not known, if so."""
    paid: dict[bytes, int] = {}
    after = 0
    try:
        for _ in range(MAX_PAGES):
            entries = json.loads(client.get(f"/api/v1/ledger/entries?after={after}&limit={LEDGER_PAGE}"))
            for entry in entries:
                if entry["kind"] in {"work", "escrow", "result"} or entry["leaf"]:
                    leaf = bytes.fromhex(entry["leaf"])
                    paid[leaf] = max(paid.get(leaf, 0), int(entry["amount"]))
                after = max(after, int(entry["number"]))
            if len(entries) < LEDGER_PAGE:
                break
    except EdgeAgentError as error:
        return {}, f"the ledger cannot be read: {error.message}"
    except (ValueError, KeyError, TypeError) as error:
        return {}, f"the ledger is not as it should be: {type(error).__name__}"
    return paid, ""


def _document(found: Comparison, problem: str, left_out: int, why: str) -> dict[str, object]:
    return {
        "same": len(found.same),
        "credited": {job.hex(): amount for job, amount in found.credited.items()},
        "not_credited": [job.hex() for job in found.same if job not in found.credited],
        "missing": [job.hex() for job in found.missing],
        "others": [job.hex() for job in found.others],
        "altered": [job.hex() for job in found.altered],
        "left_out_of_the_copy": left_out,
        "chain_problem": problem or None,
        "ledger_problem": why or None,
    }


def _day(at_ms: int) -> str:
    return time.strftime("%Y-%m-%d", time.localtime(at_ms / 1000))


def _credit_rows(credit: Mapping[tuple[str, str], Credit]) -> list[dict[str, object]]:
    return [{"day": day, "family": family, **one._asdict()} for (day, family), one in credit.items()]


def _credit_lines(credit: Mapping[tuple[str, str], Credit]) -> list[str]:
    if not credit:
        return []
    wide = max(18, *(len(family) for _, family in credit))
    lines = ["", f"{'':10}  {'model':{wide}}  {'results':>8}  {'credited':>8}  {'Mmac':>12}"]
    lines += [
        f"{day:10}  {family:{wide}}  {one.results:8}  {one.credited:8}  {one.amount:12}"
        for (day, family), one in credit.items()
    ]
    return lines


def _lines(found: Comparison, problem: str, left_out: int, why: str) -> list[str]:
    whole = len(found.same) + len(found.missing) + len(found.others) + len(found.altered)
    lines = [f"{len(found.same)} of {whole} results are with the coordinator exactly as this agent signed them."]
    if why:
        lines.append(f"What was credited is not known: {why}")
    elif found.same:
        amount = sum(found.credited.values())
        lines.append(f"The ledger credits {len(found.credited)} of them, {amount} Mmac together.")
    for jobs, words in (
        (found.missing, "have no receipt there any more (coordinator.retention_hours)"),
        (found.others, "have the result of another agent or attempt there"),
        (found.altered, "ARE SHOWN WITH OTHER BYTES than this agent signed: keep account.db and the receipts"),
    ):
        if jobs:
            lines.append(f"{len(jobs)} {words}, the first: {jobs[0].hex()}")
    if left_out:
        lines.append(f"{left_out} more were accepted than the copy had room for; they are only counted.")
    if problem:
        lines.append(f"The own copy is not whole: {problem}.")
    return lines
