"""What several commands build from the settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.cli.parts import own_secret
from edge_agent.errors import StateError


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    """The same at the next start, also when its file was put back open to others."""
    path = tmp_path / "state" / "checks.key"
    made = own_secret(path)
    assert (len(made), path.stat().st_mode & 0o777) == (32, 0o600)
    path.chmod(0o644)
    assert own_secret(path) == made
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"x" * 31, b"x" * 33])
def test_a_damaged_secret_is_refused_and_stays_as_it_is(tmp_path: Path, content: bytes) -> None:
    """Another one in its place would contradict what auditors have seen: that is the operator's to decide."""
    path = tmp_path / "checks.key"
    path.write_bytes(content)
    with pytest.raises(StateError) as refused:
        own_secret(path)
    assert "backup" in (refused.value.hint or "")
    assert path.read_bytes() == content
