"""API keys in the database, and what their clients did: shared by the operator's commands and the coordinator."""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import sqlalchemy as sa
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.engine import Connection

from edge_agent.coordinator.access import PREFIX, KeyRecord, Scope, Usage, digest_of
from edge_agent.coordinator.schema import api_key_usage, api_keys

USAGE_DAYS = 400
"""Of each client so many days are kept: a year, to be looked at."""


def new_token() -> tuple[str, str, bytes]:
    """Make a key; return its id, the key itself, which is shown once, and the digest, which is kept."""
    key_id = "".join(secrets.choice("abcdefghijklmnopqrstuvwxyz234567") for _ in range(10))
    token = f"{PREFIX}{key_id}_{secrets.token_urlsafe(32)}"
    return key_id, token, digest_of(token)


def read_keys(connection: Connection) -> list[KeyRecord]:
    """Return all keys, the oldest first; revoked ones, too."""
    query = sa.select(api_keys).order_by(api_keys.c.created_ms, api_keys.c.id)
    return [
        KeyRecord(**{**row, "scopes": frozenset(Scope(scope) for scope in row["scopes"].split(","))})
        for row in connection.execute(query).mappings()
    ]


def add_key(connection: Connection, key: KeyRecord) -> None:
    """Keep a new key."""
    row = {column.name: getattr(key, column.name) for column in api_keys.columns}
    connection.execute(sa.insert(api_keys).values(row | {"scopes": ",".join(sorted(key.scopes))}))


def revoke_keys(connection: Connection, which: str, now_ms: int) -> list[KeyRecord]:
    """Revoke the key of this id, or all keys of the client of this name, that hold; return them."""
    held = [k for k in read_keys(connection) if which in {k.id, k.name} and k.state(now_ms) == "active"]
    connection.execute(sa.update(api_keys).where(api_keys.c.id.in_([key.id for key in held])).values(revoked_ms=now_ms))
    return held


def read_usage(connection: Connection, day: int) -> dict[str, Usage]:
    """Return what clients did on a day."""
    query = sa.select(api_key_usage).where(api_key_usage.c.day == day)
    return {row["name"]: Usage(day, row["requests"], row["jobs"]) for row in connection.execute(query).mappings()}


def write_usage(connection: Connection, usages: Mapping[str, Usage]) -> None:
    """Keep what clients did by now, and forget what is older than `USAGE_DAYS`."""
    for name, usage in usages.items():
        counted = {"requests": usage.requests, "jobs": usage.jobs}
        statement = insert(api_key_usage).values(name=name, day=usage.day, **counted)
        keys = [api_key_usage.c.name, api_key_usage.c.day]
        connection.execute(statement.on_conflict_do_update(index_elements=keys, set_=counted))
    if usages:
        newest = max(usage.day for usage in usages.values())
        connection.execute(sa.delete(api_key_usage).where(api_key_usage.c.day < newest - USAGE_DAYS))
