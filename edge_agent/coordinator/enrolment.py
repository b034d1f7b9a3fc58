"""Decides on enrolments: one signed request, one transaction, one answer.

A token lets one key in, once. The proof in the request is bound to that key and to our own, so that it is worth nothing
to whoever sees it pass. Without a token the operator decides, by a code that both sides show.
"""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Literal

from sqlalchemy.engine import Connection

from edge_agent.coordinator import identities, orders
from edge_agent.coordinator.identities import StoredToken
from edge_agent.errors import UsageError
from edge_agent.wire import tokens
from edge_agent.wire.envelope import Opened
from edge_agent.wire.identity import Enrol, Succession
from edge_agent.wire.keys import PublicKey

REUSED = "token-used"


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of a request.

    Attributes:
        state: as in `Enrolled`.
        code: why it was refused.
        nonce: our part of the code that both sides show.
        shown: that code, once it is known: told to the operator.
        first: whether this is news, worth a line in the log.
    """

    state: Literal["admitted", "open", "waiting", "refused"]
    code: str | None = None
    nonce: bytes | None = None
    shown: str | None = None
    first: bool = False


def decide(  # noqa: PLR0911 one return an answer
    connection: Connection, opened: Opened[Enrol], *, network: str, coordinator: PublicKey, now_ms: int
) -> Decision:
    """Decide on a request whose signature was checked, and write down what follows from it.

    Args:
        connection: inside a transaction.
        opened: the request.
        network: ours.
        coordinator: our key.
        now_ms: Unix milliseconds.
    """
    said = opened.statement
    known = identities.find(connection, said.agent_id)
    if known is not None and known.revoked_ms is not None:
        return Decision("refused", "revoked")
    if said.token is not None and said.proof is not None:
        token = identities.find_token(connection, said.token)
        refused = _why_not(token, opened, network=network, coordinator=coordinator, now_ms=now_ms)
        if token is None or refused is not None:
            identities.refuse_token(connection, said.token, said.agent_id)
            return Decision("refused", refused or "token-unknown")
        first = token.used_by is None
        if not identities.use_token(connection, said.token, said.agent_id, now_ms):
            identities.refuse_token(connection, said.token, said.agent_id)
            return Decision("refused", REUSED)
        _let_in(connection, opened, token.owner, now_ms)
        return Decision("admitted", first=first)
    if known is None or known.commitment != said.commitment or known.nonce is None:
        nonce = secrets.token_bytes(tokens.NONCE_BYTES)
        values = {"request": opened.signed, "commitment": said.commitment, "nonce": nonce, "asked_ms": now_ms}
        identities.keep(connection, said.agent_id, code=None, **values)
        identities.forget_waiting(connection)
        return Decision("open", nonce=nonce)
    if said.opening is None:
        return Decision("open", nonce=known.nonce)
    if tokens.commitment(said.opening) != said.commitment:
        return Decision("refused", "wrong-code")
    shown = tokens.code(network, coordinator, opened.key, said.opening, known.nonce)
    identities.keep(connection, said.agent_id, code=shown, request=opened.signed, asked_ms=now_ms)
    return Decision("waiting", nonce=known.nonce, shown=shown, first=known.code != shown)


def _why_not(
    token: StoredToken | None, opened: Opened[Enrol], *, network: str, coordinator: PublicKey, now_ms: int
) -> str | None:
    """Return the code of what is wrong with a token, if anything is; whether it exists shows only who knows it."""
    said = opened.statement
    right = tokens.proof(token.mac_key if token else bytes(32), network, coordinator.id, opened.key)
    if token is None or said.proof is None or not hmac.compare_digest(right, said.proof):
        return "token-unknown"
    if token.used_by is not None and token.used_by != said.agent_id:
        return REUSED
    if token.used_by is None and now_ms >= token.expires_ms:
        return "token-expired"
    return None


def _let_in(connection: Connection, opened: Opened[Enrol], owner: str | None, now_ms: int) -> None:
    said = opened.statement
    identities.keep(connection, said.agent_id, request=opened.signed, asked_ms=now_ms, code=None)
    identities.admit(connection, said.agent_id, owner=owner, public_key=said.public_key, sealing_key=said.sealing_key)


def succeed(connection: Connection, opened: Opened[Succession], now_ms: int) -> Decision:
    """Let an agent go on under a new key: what the old one had passes to it, and the old one counts no more.

    Owner, admission and the operator's orders are moved. What it earned and what it owes need not be: that is kept
    under its first id, which follows from the revocation that names the successor (`identities.first_ids`).

    Args:
        connection: inside a transaction.
        opened: signed with the old key; that the new one agrees was checked.
        now_ms: Unix milliseconds.
    """
    said = opened.statement
    new = PublicKey.from_bytes(said.new_key)
    old = identities.find(connection, said.agent_id)
    if old is not None and old.revoked_ms is not None:
        # Said again, since the answer was lost on the way: the same answer. Anything else is refused for ever.
        return Decision("admitted") if old.successor == new.id else Decision("refused", "revoked")
    agent = identities.approved_agent(connection, said.agent_id)
    if agent is None:
        return Decision("refused", "not-enrolled")
    hindrance = identities.may_succeed(connection, said.agent_id, new.id, now_ms)
    if hindrance is not None:
        return Decision("refused", hindrance)
    try:
        identities.admit(connection, new.id, owner=agent["owner"], public_key=new.raw, sealing_key=said.new_sealing_key)
    except UsageError:
        return Decision("refused", "revoked")
    orders.pass_on(connection, said.agent_id, new.id)
    identities.revoke(connection, said.agent_id, "replaced by a new key", now_ms, successor=new.id)
    return Decision("admitted", first=True)
