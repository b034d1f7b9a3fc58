"""The ledger of work: entries that anybody can add up again.

Each entry moves an amount from one account to another, so that all accounts together are always zero. Accounts:

    work                    everything that was ever computed for somebody, negative
    owner:NAME              what an owner has earned
    escrow:NAME/AGENT/V     what an agent's results with a variant are worth, until the next check confirms it
    forfeit                 what was lost by a result that was proven wrong

The amount of a result is what the catalogue says that one run of its variant is: millions of multiply-accumulates, at
least 1; nothing that a machine says of itself. Entries are chained by hashes and never change.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from edge_agent.errors import MalformedError, RefusedError
from edge_agent.wire import strict_cbor

WORK: Final = "work"
FORFEIT: Final = "forfeit"
EMPTY_CHAIN: Final = hashlib.sha256(b"edge-agent ledger 1").digest()
MAX_ACCOUNT_CHARACTERS: Final = 160

Kind = Literal["result", "release", "forfeit"]


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One entry.

    Attributes:
        number: from 1, without gaps.
        kind: `result` for one result; `release` and `forfeit` for what lay in escrow.
        debit: the account that the amount goes from.
        credit: the account that it goes to.
        leaf: of the result's receipt in the log; empty for what moves escrow.
        at_ms: Unix milliseconds.
    """

    number: int
    kind: Kind
    debit: str
    credit: str
    amount: int
    leaf: bytes
    at_ms: int

    def chained(self, before: bytes) -> bytes:
        """Return the chain after this entry."""
        said = [self.number, self.kind, self.debit, self.credit, self.amount, self.leaf, self.at_ms]
        return hashlib.sha256(before + strict_cbor.encode(said)).digest()

    def as_json(self) -> dict[str, Any]:
        """Return it for JSON."""
        return {
            "number": self.number,
            "kind": self.kind,
            "debit": self.debit,
            "credit": self.credit,
            "amount": self.amount,
            "leaf": self.leaf.hex(),
            "at_ms": self.at_ms,
        }


def owner_account(owner: str) -> str:
    """Return the account of an owner."""
    return f"owner:{owner}"


def escrow_account(owner: str, agent_id: str, variant: bytes) -> str:
    """Return the account in which the results of an agent with a variant wait."""
    return f"escrow:{owner}/{agent_id}/{variant[:8].hex()}"


def owner_of(account: str) -> str | None:
    """Return whose account it is, or None for nobody's."""
    kind, _, rest = account.partition(":")
    if kind == "owner" and rest:
        return rest
    return rest.rsplit("/", 2)[0] if kind == "escrow" and rest.count("/") >= 2 else None


def entry_from(row: object) -> LedgerEntry:
    """Read an entry of the coordinator's answer.

    Raises:
        MalformedError: it is none.
    """
    wrong = MalformedError("The coordinator's ledger has an entry that is none.")
    if not isinstance(row, Mapping):
        raise wrong
    number, amount, at_ms = (row.get(name) for name in ("number", "amount", "at_ms"))
    kind, debit, credit, leaf = (row.get(name) for name in ("kind", "debit", "credit", "leaf"))
    whole = all(type(value) is int for value in (number, amount, at_ms))
    texts = all(type(value) is str and len(value) <= MAX_ACCOUNT_CHARACTERS for value in (debit, credit, leaf))
    if not (whole and texts and kind in {"result", "release", "forfeit"}):
        raise wrong
    try:
        digest = bytes.fromhex(str(leaf))
    except ValueError:
        raise wrong from None
    return LedgerEntry(int(number or 0), kind, str(debit), str(credit), int(amount or 0), digest, int(at_ms or 0))


class LedgerAudit:
    """Adds the entries up again, one after the other.

    Attributes:
        chain: after the entries so far.
        balances: of each account.
        results: the leaf of each result, and the number of its entry.
    """

    def __init__(self) -> None:
        self.size = 0
        self.chain = EMPTY_CHAIN
        self.balances: Counter[str] = Counter()
        self.results: dict[bytes, int] = {}

    def take(self, entries: Iterable[LedgerEntry]) -> None:
        """Take further entries.

        Raises:
            RefusedError: `ledger-wrong`, with what is wrong.
        """
        for entry in entries:
            problem = self._problem(entry)
            if problem is not None:
                raise RefusedError(
                    f"Entry {entry.number} of the ledger {problem}.",
                    code="ledger-wrong",
                    hint="Keep what the coordinator answered, and ask its operator.",
                )
            self.size += 1
            self.chain = entry.chained(self.chain)
            self.balances[entry.debit] -= entry.amount
            self.balances[entry.credit] += entry.amount
            if entry.kind == "result":
                self.results[entry.leaf] = entry.number

    def _problem(self, entry: LedgerEntry) -> str | None:  # noqa: PLR0911 one rule a branch
        if entry.number != self.size + 1:
            return f"comes after entry {self.size}"
        if entry.amount < 1:
            return "moves nothing"
        if entry.kind == "result":
            if entry.debit != WORK or owner_of(entry.credit) is None:
                return f"pays a result from {entry.debit} to {entry.credit}"
            if len(entry.leaf) != 32 or entry.leaf in self.results:
                return "pays a result that is paid already, or none"
            return None
        if entry.leaf or not entry.debit.startswith("escrow:"):
            return f"moves what was not in escrow: {entry.debit}"
        wanted = FORFEIT if entry.kind == "forfeit" else owner_account(owner_of(entry.debit) or "")
        if entry.credit != wanted:
            return f"moves escrow of {entry.debit} to {entry.credit}"
        if entry.amount > self.balances[entry.debit]:
            return f"takes more from {entry.debit} than was there"
        return None
