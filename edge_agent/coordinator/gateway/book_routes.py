"""HTTP about the ledger, the keys of the draws, and the leaves of the log: for owners, and for who audits."""

from __future__ import annotations

from typing import Any, Protocol

from fastapi import FastAPI
from starlette.responses import Response

from edge_agent.coordinator.books import Books
from edge_agent.coordinator.gateway.answers import NEVER, json_answer
from edge_agent.errors import InputError

MAX_ENTRIES = 10_000
DEFAULT_ENTRIES = 1000


class BookService(Protocol):
    """What these routes ask of a running coordinator."""

    books: Books


def add_book_routes(app: FastAPI, service: BookService) -> None:
    """Add the routes."""

    @app.get("/api/v1/ledger/balances")
    async def balances() -> Response:
        found = await service.books.balances()
        answer: dict[str, Any] = {"size": found.size, "chain": found.chain.hex(), "ledger_head": found.signed.hex()}
        return json_answer(answer | {"accounts": found.accounts}, headers=NEVER)

    @app.get("/api/v1/ledger/entries")
    async def entries(owner: str | None = None, after: str = "0", limit: str = str(DEFAULT_ENTRIES)) -> Response:
        found = await service.books.entries(
            after=_whole("after", after, 2**53 - 1), limit=max(1, _whole("limit", limit, MAX_ENTRIES)), owner=owner
        )
        return json_answer([entry.as_json() for entry in found], headers=NEVER)

    @app.get("/api/v1/log/leaves")
    async def leaves(after: str = "0", limit: str = str(DEFAULT_ENTRIES)) -> Response:
        found = await service.books.leaves(
            after=_whole("after", after, 2**53 - 1), limit=max(1, _whole("limit", limit, MAX_ENTRIES))
        )
        return json_answer([leaf.hex() for leaf in found], headers=NEVER)

    @app.get("/api/v1/checks/keys")
    async def check_keys() -> Response:
        return json_answer(service.books.check_keys(), headers=NEVER)


def _whole(name: str, text: str, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 16 and int(text) <= most):
        raise InputError(f"{name} must be a whole number up to {most}")
    return int(text)
