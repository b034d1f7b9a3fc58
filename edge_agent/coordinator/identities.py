"""Who belongs to the network, in the database: certificates, revocations, tokens."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from edge_agent.coordinator.events import AgentCertificates, AgentsChanged
from edge_agent.coordinator.orders import read_orders, write_reinstated
from edge_agent.coordinator.registrar import Registrar, wants_renewal
from edge_agent.coordinator.schema import agents, identities, standings, tokens
from edge_agent.errors import PeerError, UsageError
from edge_agent.wire import strict_cbor
from edge_agent.wire.envelope import signed_payload
from edge_agent.wire.identity import MAX_CERTIFICATE_BYTES, MAX_REVOKED, Certificate, Revoked
from edge_agent.wire.keys import PublicKey, key_id
from edge_agent.wire.tokens import SECRET_BYTES, Token, mac_key

MAX_WAITING = 1000
"""So many agents may wait for the operator; the oldest requests make room."""
MAX_SUCCESSIONS = MAX_REVOKED // 2
"""So many keys may be replaced in the life of a network."""
SUCCESSION_MS = 86_400_000
"""A key that replaced another one is not replaced before so long."""


@dataclass(frozen=True, slots=True)
class StoredToken:
    """A token as the database has it: nothing of it can be used to enrol with, but for its key."""

    id: bytes
    mac_key: bytes
    owner: str | None
    created_ms: int
    expires_ms: int
    used_ms: int | None
    used_by: str | None
    refused: int
    refused_from: str | None


@dataclass(frozen=True, slots=True)
class StoredIdentity:
    """What is known of an agent's identity."""

    agent_id: str
    request: bytes | None
    commitment: bytes | None
    nonce: bytes | None
    code: str | None
    asked_ms: int | None
    certificate: bytes | None
    x509: bytes | None
    revoked_ms: int | None
    revoked_reason: str | None
    successor: str | None


# -- tokens -----------------------------------------------------------------------------------------------------------


def new_token(  # noqa: PLR0913 what a token says
    connection: Connection, *, network: str, coordinator_id: str, owner: str | None, now_ms: int, ttl_ms: int
) -> Token:
    """Make a token that lets one agent in, once, until then."""
    token = Token(network, coordinator_id, secrets.token_bytes(SECRET_BYTES))
    row = {"id": token.id, "mac_key": mac_key(token.secret), "owner": owner}
    connection.execute(sa.insert(tokens).values(**row, created_ms=now_ms, expires_ms=now_ms + ttl_ms, refused=0))
    return token


def find_token(connection: Connection, token_id: bytes) -> StoredToken | None:
    """Return a token by what names it."""
    row = connection.execute(sa.select(tokens).where(tokens.c.id == token_id)).mappings().one_or_none()
    return StoredToken(**row) if row is not None else None


def all_tokens(connection: Connection) -> list[StoredToken]:
    """Return every token, the newest first."""
    rows = connection.execute(sa.select(tokens).order_by(tokens.c.created_ms.desc())).mappings()
    return [StoredToken(**row) for row in rows]


def use_token(connection: Connection, token_id: bytes, agent_id: str, now_ms: int) -> bool:
    """Take a token for an agent; False if another one was faster."""
    free = tokens.c.used_by.is_(None) | (tokens.c.used_by == agent_id)
    taken = sa.update(tokens).where(tokens.c.id == token_id, free).values(used_by=agent_id, used_ms=now_ms)
    return connection.execute(taken).rowcount == 1


def refuse_token(connection: Connection, token_id: bytes, source: str) -> None:
    """Take note that somebody came with a token in vain: the operator sees it."""
    values = {"refused": tokens.c.refused + 1, "refused_from": source[:64]}
    connection.execute(sa.update(tokens).where(tokens.c.id == token_id).values(values))


# -- identities -------------------------------------------------------------------------------------------------------


def find(connection: Connection, agent_id: str) -> StoredIdentity | None:
    """Return what is known of an agent's identity."""
    row = connection.execute(sa.select(identities).where(identities.c.agent_id == agent_id)).mappings().one_or_none()
    return StoredIdentity(**row) if row is not None else None


def all_identities(connection: Connection) -> list[StoredIdentity]:
    """Return every one, by id."""
    rows = connection.execute(sa.select(identities).order_by(identities.c.agent_id)).mappings()
    return [StoredIdentity(**row) for row in rows]


def keep(connection: Connection, agent_id: str, **values: Any) -> None:  # noqa: ANN401 columns are of many types
    """Set columns of an agent's identity; it is made if it is not there."""
    changed = connection.execute(sa.update(identities).where(identities.c.agent_id == agent_id).values(**values))
    if not changed.rowcount:
        connection.execute(sa.insert(identities).values(agent_id=agent_id, **values))


def forget_waiting(connection: Connection) -> None:
    """Make room: of those that were never let in, the newest stay."""
    never = identities.c.certificate.is_(None) & identities.c.revoked_ms.is_(None)
    newest = sa.select(identities.c.agent_id).where(never).order_by(identities.c.asked_ms.desc()).limit(MAX_WAITING)
    approved = sa.select(agents.c.id).where(agents.c.approved)
    old = never & identities.c.agent_id.not_in(newest) & identities.c.agent_id.not_in(approved)
    connection.execute(sa.delete(identities).where(old))


def admit(
    connection: Connection, agent_id: str, *, owner: str | None, public_key: bytes | None, sealing_key: bytes | None
) -> None:
    """Let an agent in, whose key is known; an owner that is not given stays as it was.

    Raises:
        UsageError: its key was revoked.
    """
    found = find(connection, agent_id)
    if found is not None and found.revoked_ms is not None:
        raise UsageError(
            f"The key of the agent {agent_id} was revoked: {found.revoked_reason}.",
            hint="A revoked key stays so. Let the agent make a new one: edge-agent keygen --help",
        )
    given = {"owner": owner, "public_key": public_key, "sealing_key": sealing_key}
    values: dict[str, Any] = {"approved": True} | {name: value for name, value in given.items() if value is not None}
    changed = connection.execute(sa.update(agents).where(agents.c.id == agent_id).values(values))
    if not changed.rowcount:
        connection.execute(sa.insert(agents).values(id=agent_id, session=0, software="", **values))


def requested_keys(connection: Connection, agent_id: str) -> dict[str, bytes | None]:
    """Return the keys of an agent that asked to be let in, as its signed request names them; none where it did not."""
    found = find(connection, agent_id)
    if found is None or found.request is None:
        return {"public_key": None, "sealing_key": None}
    said: Any = strict_cbor.decode(signed_payload(found.request, len(found.request)), max_bytes=len(found.request))
    return {"public_key": said["public_key"], "sealing_key": said["sealing_key"]}


def approved_agent(connection: Connection, agent_id: str) -> RowMapping | None:
    """Return the row of an agent that is let in, or None."""
    query = sa.select(agents).where(agents.c.id == agent_id, agents.c.approved)
    return connection.execute(query).mappings().one_or_none()


def revoke(connection: Connection, agent_id: str, reason: str, now_ms: int, successor: str | None = None) -> bool:
    """Let a key count no more, for ever, from a moment on. The first reason stays, and the earliest moment.

    Returns:
        Whether the signed list has room for it. It is refused here in any case.
    """
    connection.execute(sa.update(agents).where(agents.c.id == agent_id).values(approved=False))
    found = find(connection, agent_id)
    if found is None or found.revoked_ms is None:
        keep(connection, agent_id, revoked_ms=now_ms, revoked_reason=reason, successor=successor)
    elif now_ms < found.revoked_ms:
        keep(connection, agent_id, revoked_ms=now_ms)
    return _count(connection, identities.c.revoked_ms.is_not(None)) <= MAX_REVOKED


def reinstate(connection: Connection, agent_id: str, now_ms: int) -> bool:
    """Let an agent work again before its rest is over; return whether it rested.

    A running coordinator goes by what it has in mind, and is told by the order.
    """
    who = lasting_ids(connection).get(agent_id, agent_id)
    resting = (standings.c.name == who) & (standings.c.resting_until_ms > now_ms)
    ended = connection.execute(sa.update(standings).where(resting).values(resting_until_ms=0)).rowcount
    write_reinstated(connection, agent_id, now_ms)
    return ended > 0


def may_succeed(connection: Connection, agent_id: str, new_id: str, now_ms: int) -> str | None:
    """Return the code of what keeps a key from being replaced now, or None.

    Each change of a key takes a place in the signed list of revoked keys for ever. So half of the places stay for the
    operator, and nobody can take many quickly.
    """
    if connection.scalar(sa.select(agents.c.id).where(agents.c.id == new_id)) is not None:
        return "key-known"
    since = connection.scalar(sa.select(sa.func.max(identities.c.revoked_ms)).where(identities.c.successor == agent_id))
    if since is not None and now_ms < since + SUCCESSION_MS:
        return "key-too-new"
    replaced, revoked = (
        _count(connection, column.is_not(None)) for column in (identities.c.successor, identities.c.revoked_ms)
    )
    return "too-many-keys" if replaced >= MAX_SUCCESSIONS or revoked >= MAX_REVOKED else None


def _count(connection: Connection, which: sa.ColumnElement[bool]) -> int:
    return connection.scalar(sa.select(sa.func.count()).select_from(identities).where(which)) or 0


def certificates_due(connection: Connection, registrar: Registrar, now_ms: int) -> list[tuple[bytes, str | None]]:
    """Return the signed requests of agents that are let in and need a certificate, now or soon, with their owners."""
    due = []
    for row in connection.execute(sa.select(agents).where(agents.c.approved)).mappings():
        known = find(connection, row["id"])
        if known is None or known.request is None or known.revoked_ms is not None:
            continue
        said = registrar.check(known.certificate, row["id"], now_ms)
        if said is None or said.owner != row["owner"] or wants_renewal(said, now_ms):
            due.append((known.request, row["owner"]))
    return due


def take_certificates(
    connection: Connection, registrar: Registrar, pairs: Sequence[tuple[bytes, bytes]], now_ms: int
) -> int:
    """Keep certificates that came from the registrar; return how many of them were good and wanted."""
    taken = 0
    for signed, x509 in pairs:
        try:
            agent_id = peek_signed_agent(signed)
        except PeerError:
            continue
        if registrar.check(signed, agent_id, now_ms) is None or approved_agent(connection, agent_id) is None:
            continue
        keep(connection, agent_id, certificate=signed, x509=x509)
        taken += 1
    return taken


def peek_signed_agent(certificate: bytes) -> str:
    """Return which agent a certificate is said to be for; not verified.

    Raises:
        PeerError: it is none.
    """
    said: Any = strict_cbor.decode(signed_payload(certificate, MAX_CERTIFICATE_BYTES), max_bytes=MAX_CERTIFICATE_BYTES)
    raw = said.get("agent_key") if isinstance(said, dict) else None
    return key_id(raw) if isinstance(raw, bytes) else ""  # the id follows from the key, and is not always said


def standing(
    connection: Connection, registrar: Registrar | None, now_ms: int, only: str | None = None
) -> AgentsChanged:
    """Say who may work here now; make certificates that are missing or about to end, where the registrar is here.

    Args:
        connection: inside a transaction.
        registrar: None where certificates are not asked for.
        now_ms: Unix milliseconds.
        only: look at this agent alone.
    """
    found, due = look(connection, registrar, now_ms, only)
    if registrar is None or not due:
        return found
    for row in due:
        made = registrar.certify(PublicKey.from_bytes(row["public_key"]), row["sealing_key"], row["owner"], now_ms)
        keep(connection, row["id"], certificate=made.signed, x509=made.x509)
    return look(connection, registrar, now_ms, only)[0]


def look(
    connection: Connection, registrar: Registrar | None, now_ms: int, only: str | None = None
) -> tuple[AgentsChanged, list[RowMapping]]:
    """As `standing`, but write nothing; return besides the agents for which a certificate is to be made.

    The statements need not see one state: agents are read before identities, so that one whose key is just being
    replaced is passed over for once, and never taken for a new one.
    """
    query, ids = sa.select(agents), sa.select(identities)
    if only is not None:
        query, ids = query.where(agents.c.id == only), ids.where(identities.c.agent_id == only)
    rows = connection.execute(query).mappings().all()
    known = {row["agent_id"]: StoredIdentity(**row) for row in connection.execute(ids).mappings()}
    revoked = {name: _revoked(each) for name, each in known.items() if each.revoked_ms is not None}
    approved, owners, due = set(), {}, []
    certificates: dict[str, AgentCertificates] = {}
    for row in rows:
        agent_id, owner = row["id"], row["owner"]
        if agent_id in revoked:
            continue
        if row["approved"] and registrar is not None:
            identity = known.get(agent_id)
            said = registrar.check(identity.certificate if identity else None, agent_id, now_ms)
            if registrar.key is not None and row["public_key"] is not None and not _holds(said, row, now_ms):
                due.append(row)
            if said is None or identity is None or identity.certificate is None:
                continue
            certificates[agent_id], owner = AgentCertificates(identity.certificate, identity.x509), said.owner
        if row["approved"]:
            approved.add(agent_id)
        if owner is not None:
            owners[agent_id] = owner
    first = first_ids((each.agent_id, each.successor) for each in known.values())
    found = AgentsChanged(frozenset(approved), owners, read_orders(connection), certificates, revoked, first)
    return found, due


def _holds(said: Certificate | None, row: RowMapping, now_ms: int) -> bool:
    """Whether a certificate need not be made anew."""
    return (
        said is not None
        and (said.owner, said.sealing_key) == (row["owner"], row["sealing_key"])
        and not wants_renewal(said, now_ms)
    )


def _revoked(known: StoredIdentity) -> Revoked:
    return Revoked(id=known.agent_id, since_ms=known.revoked_ms or 0, reason=known.revoked_reason or "revoked")


def revoked_keys(connection: Connection) -> dict[str, Revoked]:
    """Return the keys that count no more, by id."""
    columns = (identities.c.agent_id, identities.c.revoked_ms, identities.c.revoked_reason)
    rows = connection.execute(sa.select(*columns).where(identities.c.revoked_ms.is_not(None)))
    return {row[0]: Revoked(id=row[0], since_ms=row[1], reason=row[2] or "revoked") for row in rows}


def lasting_ids(connection: Connection) -> dict[str, str]:
    """Return the first id of each agent whose key was replaced, by its present one."""
    rows = connection.execute(sa.select(identities.c.agent_id, identities.c.successor))
    return first_ids((row[0], row[1]) for row in rows)


def first_ids(successors: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """Return the first id of each agent whose key was replaced, by its present one.

    Args:
        successors: of each agent, by ids. A successor was never an agent before: there are no circles.
    """
    before = {successor: agent_id for agent_id, successor in successors if successor is not None}
    found: dict[str, str] = {}
    for last in before.keys() - before.values():
        first = last
        while first in before:
            first = before[first]
        found[last] = first
    return found
