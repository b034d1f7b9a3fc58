"""What most tests of the coordinator need."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_agent.coordinator.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Return an empty database."""
    found = Store(tmp_path / "coordinator.db")
    yield found
    found.close()
