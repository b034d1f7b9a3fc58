"""Which entries the ledger gets, and when: from verified work only, exactly one for a result. Pure.

A result that a check confirmed, or that comes from a machine that the operator trusts, is verified. What an agent that
is known already delivers without a check waits in escrow for its next check: if that confirms, all of it is released,
if it proves a result wrong, all of it is lost. What newcomers deliver waits until they are none any more.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from edge_agent.coordinator.events import AddEntry
from edge_agent.coordinator.trust import Party
from edge_agent.wire.ledger import FORFEIT, WORK, escrow_account, owner_account


@dataclass(slots=True)
class Ledger:
    """Makes entries; the writer numbers and chains them.

    Attributes:
        escrow: what waits, by account.
    """

    escrow: Counter[str] = field(default_factory=Counter)

    def restore(self, balances: dict[str, int]) -> None:
        """Take over what was stored."""
        self.escrow = Counter({name: amount for name, amount in balances.items() if name.startswith("escrow:")})

    def unchecked(self, job_id: bytes, party: Party, variant: bytes, amount: int, at_ms: int) -> list[AddEntry]:
        """Enter a result that was accepted without a check, of an agent that is no newcomer."""
        if party.trusted:
            return [AddEntry("result", WORK, owner_account(_name(party)), amount, at_ms, job_id)]
        return [self._wait(job_id, party, variant, amount, at_ms)]

    def confirmed(  # noqa: PLR0913 what a confirmed result consists of
        self, job_id: bytes, party: Party, variant: bytes, amount: int, at_ms: int, *, newcomer: bool
    ) -> list[AddEntry]:
        """Enter a result that a check confirmed; release what waited for that."""
        if newcomer and not party.trusted:
            return [self._wait(job_id, party, variant, amount, at_ms)]
        account = owner_account(_name(party))
        entries = [AddEntry("result", WORK, account, amount, at_ms, job_id)]
        waiting = escrow_account(_name(party), party.lasting_id, variant)
        released = self.escrow.pop(waiting, 0)
        if released:
            entries.append(AddEntry("release", waiting, account, released, at_ms))
        return entries

    def release(self, party: Party, variant: bytes, at_ms: int) -> list[AddEntry]:
        """Release what waited for a check that has confirmed a result which has its entry already."""
        waiting = escrow_account(_name(party), party.lasting_id, variant)
        released = self.escrow.pop(waiting, 0)
        if not released:
            return []
        return [AddEntry("release", waiting, owner_account(_name(party)), released, at_ms)]

    def forfeited(self, party: Party, at_ms: int) -> list[AddEntry]:
        """Take what waits of all results of an agent of which one was proven wrong."""
        own = escrow_account(_name(party), party.lasting_id, b"").rstrip("/") + "/"
        lost = [(name, amount) for name, amount in sorted(self.escrow.items()) if name.startswith(own) and amount]
        for name, _ in lost:
            del self.escrow[name]
        return [AddEntry("forfeit", name, FORFEIT, amount, at_ms) for name, amount in lost]

    def _wait(self, job_id: bytes, party: Party, variant: bytes, amount: int, at_ms: int) -> AddEntry:
        account = escrow_account(_name(party), party.lasting_id, variant)
        self.escrow[account] += amount
        return AddEntry("result", WORK, account, amount, at_ms, job_id)


def _name(party: Party) -> str:
    return party.owner.removeprefix("=")
