"""Auditing a coordinator's ledger and its draws from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

from edge_agent.client.auditing import fetch_head
from edge_agent.client.http import Client
from edge_agent.errors import InputError, MalformedError, RefusedError
from edge_agent.wire import cose, merkle, strict_json
from edge_agent.wire.draws import Draw, commitment, period_of
from edge_agent.wire.envelope import open_envelope
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.ledger import LedgerAudit, entry_from
from edge_agent.wire.pledges import MAX_PLEDGE_BYTES, CheckKey, LedgerHead
from edge_agent.wire.receipts import VerifiedReceipt

PAGE = 10_000
S = TypeVar("S", LedgerHead, CheckKey)


@dataclass(frozen=True, slots=True)
class AuditedLedger:
    """A ledger that was added up again.

    Attributes:
        network: that the coordinator signed it for.
        unlogged: results that were paid and whose receipts are in no log; none, or the audit failed.
    """

    network: str
    audit: LedgerAudit
    logged: int


def audit_ledger(client: Client, coordinator: PublicKey) -> AuditedLedger:
    """Fetch the whole ledger and the log of receipts, and add both up again.

    Raises:
        PeerError: `ledger-wrong`, or what is signed is not by this coordinator.
        TransportError: `unreachable`.
    """
    answer = _mapping(client.get("/api/v1/ledger/balances"))
    head = opened(_hex(answer.get("ledger_head")), coordinator, LedgerHead)
    audit = LedgerAudit()
    while audit.size < head.size:
        rows = _rows(client.get(f"/api/v1/ledger/entries?after={audit.size}&limit={PAGE}"))
        wanted = rows[: head.size - audit.size]
        if not wanted:
            raise _wrong(f"The ledger has {audit.size} entries; its signed head says {head.size}.")
        audit.take(entry_from(row) for row in wanted)
    if audit.chain != head.chain:
        raise _wrong("The entries are not those that the coordinator has signed the chain of.")
    said = answer.get("accounts")
    if said != {name: amount for name, amount in audit.balances.items() if amount or name in (said or {})}:
        raise _wrong("The balances that the coordinator shows do not follow from the entries.")
    leaves = fetch_leaves(client, coordinator)
    missing = audit.results.keys() - set(leaves)
    if missing:
        raise _wrong(f"The ledger pays {len(missing)} results whose receipts are not in the log.")
    return AuditedLedger(head.network, audit, len(leaves))


def fetch_leaves(client: Client, coordinator: PublicKey) -> list[bytes]:
    """Fetch every leaf of the log and check them against a signed tree head.

    Raises:
        PeerError: they are not those of the tree head.
    """
    head = fetch_head(client, coordinator).statement
    leaves: list[bytes] = []
    while len(leaves) < head.size:
        some = [_hex(leaf) for leaf in _list(client.get(f"/api/v1/log/leaves?after={len(leaves)}&limit={PAGE}"))]
        if not some:
            raise _wrong(f"The log gives {len(leaves)} leaves; its signed tree head says {head.size}.")
        leaves += some[: head.size - len(leaves)]
    frontier = merkle.Frontier()
    for leaf in leaves:
        frontier.append(leaf)
    if frontier.root != head.root:
        raise _wrong("The leaves of the log are not those that the coordinator has signed the root of.")
    return leaves


@dataclass(frozen=True, slots=True)
class AuditedDraw:
    """What the draw of one result was, and what was done.

    Attributes:
        number: that was drawn; None while the key of its day is not given out.
        probability: below which it had to be checked.
    """

    job_id: str
    period: int
    number: float | None
    probability: float
    drawn: bool
    state: str


def audit_draw(
    client: Client, coordinator: PublicKey, receipt: VerifiedReceipt, signed: bytes, known: dict[int, bytes]
) -> AuditedDraw:
    """Draw again for one receipt, and compare with what the coordinator did.

    Args:
        client: of the coordinator.
        coordinator: its key.
        receipt: verified.
        signed: the agent's COSE_Sign1 in it.
        known: commitments by period that were seen before; what is new is added.

    Raises:
        RefusedError: `check-steered`.
    """
    job_id = receipt.result.job.hex()
    found = _mapping(client.get(f"/api/v1/jobs/{job_id}")).get("verification")
    if not isinstance(found, dict):
        raise MalformedError("The coordinator does not say how this job was verified.")
    period = period_of(receipt.accepted_ms)
    keys = fetch_keys(client, coordinator, known)
    probability, drawn, state = found.get("probability"), found.get("drawn"), found.get("state")
    if not isinstance(probability, int | float) or not isinstance(drawn, bool) or not isinstance(state, str):
        raise MalformedError("The coordinator does not say whether this job was to be checked.")
    said = found.get("period")
    if said not in {period - 1, period}:  # it is drawn when the result arrives; a held one is accepted later
        raise MalformedError("The coordinator says that it drew for this job on another day than it took the result.")
    key = keys.get(said)
    number = None if key is None else Draw.of(key, signed).check
    if number is not None and (number < probability) is not drawn:
        raise RefusedError(
            f"The result of job {job_id} drew {number:.6f}: with a probability of {probability:g} it "
            f"{'had' if number < probability else 'had not'} to be checked, and it {'was' if drawn else 'was not'}.",
            code="check-steered",
            hint="Keep the receipt and what the coordinator answered; others should audit it, too.",
        )
    return AuditedDraw(job_id, period, number, float(probability), drawn, state)


def fetch_keys(client: Client, coordinator: PublicKey, known: dict[int, bytes]) -> dict[int, bytes]:
    """Fetch the keys of the periods that are over, each checked against the commitment of its period.

    Args:
        client: of the coordinator.
        coordinator: its key.
        known: commitments that were seen before; new ones are added.

    Raises:
        RefusedError: `check-steered`: a commitment was changed, or a key is not the one that it is of.
    """
    keys: dict[int, bytes] = {}
    for row in _rows(client.get("/api/v1/checks/keys")):
        statement = opened(_hex(row.get("signed")), coordinator, CheckKey)
        before = known.setdefault(statement.period, statement.commitment)
        key = _hex(row.get("key")) if "key" in row else None
        if before != statement.commitment or (key is not None and commitment(key) != before):
            raise RefusedError(
                f"The key of the draws of day {statement.period} is not the one that the coordinator bound itself to.",
                code="check-steered",
                hint="Keep both signed statements: they contradict each other.",
            )
        if key is not None:
            keys[statement.period] = key
    return keys


def opened(data: bytes, coordinator: PublicKey, kind: type[S]) -> S:
    """Check a signed statement of the coordinator, of whatever network it names.

    Raises:
        PeerError: it is none.
    """
    limit = MAX_PLEDGE_BYTES + cose.MAX_OVERHEAD_BYTES
    return open_envelope(data, coordinator, kind, network=None, max_bytes=limit).statement


def _mapping(data: bytes) -> dict[str, Any]:
    found = _parsed(data)
    if not isinstance(found, dict):
        raise MalformedError("The coordinator's answer is no JSON object.")
    return found


def _list(data: bytes) -> list[Any]:
    found = _parsed(data)
    if not isinstance(found, list):
        raise MalformedError("The coordinator's answer is no JSON array.")
    return found


def _rows(data: bytes) -> list[dict[str, Any]]:
    rows = _list(data)
    if not all(isinstance(row, dict) for row in rows):
        raise MalformedError("The coordinator's answer is no list of objects.")
    return rows


def _parsed(data: bytes) -> object:
    try:
        return strict_json.read(data)
    except InputError as error:  # the coordinator's fault, not ours
        raise MalformedError(f"The coordinator's answer is no JSON: {error.message}") from None


def _hex(value: object) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) and value.isascii() else b""
    except ValueError:
        return b""


def _wrong(text: str) -> RefusedError:
    return RefusedError(text, code="ledger-wrong", hint="Keep what the coordinator answered, and ask its operator.")
