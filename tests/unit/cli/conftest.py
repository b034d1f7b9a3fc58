"""What tests of commands that call a coordinator share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from http_coordinators import HttpCoordinator, http_coordinator


@pytest.fixture
def coordinator() -> Iterator[HttpCoordinator]:
    """A stand-in that runs, for commands to call."""
    with http_coordinator() as server:
        yield server
