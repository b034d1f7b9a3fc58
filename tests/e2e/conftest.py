"""A running network for each end-to-end test that asks for one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from networks import Network, running_network


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """A network with the embedded broker."""
    with running_network(tmp_path) as found:
        yield found
