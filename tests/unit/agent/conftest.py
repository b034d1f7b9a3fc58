"""What a process leaves to its end, tests clean up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.agent.account.book import Book


@pytest.fixture(autouse=True)
def _close_accounts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Close the accounts that a test left open, as the end of an agent's process would: Python 3.13 wants it."""
    opened: list[Book] = []
    open_book = Book.__init__

    def noticed(book: Book, folder: Path) -> None:
        open_book(book, folder)
        opened.append(book)

    monkeypatch.setattr(Book, "__init__", noticed)
    yield
    for book in opened:
        book.close()
