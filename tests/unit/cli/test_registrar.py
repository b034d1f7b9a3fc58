"""`edge-agent registrar`: what it signs on a machine of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from fakes import COORDINATOR_KEY, key

from edge_agent.cli import main


@pytest.mark.parametrize("name", ["club.pem", "coordinator.pub"])
def test_the_coordinators_public_key_is_the_file_that_is_named(tmp_path: Path, name: str) -> None:
    """Not one beside it that is called as the coordinator calls its own."""
    key("registrar").write(tmp_path / "registrar.key")
    key("somebody else").public.write(tmp_path / "club.pub")
    COORDINATOR_KEY.public.write(tmp_path / name)
    arguments = ["--key", str(tmp_path / "registrar.key"), "--coordinator-key", str(tmp_path / name)]
    out = tmp_path / "broker"
    assert main(["registrar", "broker-certificates", *arguments, "--server-name", "b", "--out-dir", str(out)]) == 0
    made = x509.load_pem_x509_certificate((out / "coordinator.crt").read_bytes())
    assert made.public_key().public_bytes_raw() == COORDINATOR_KEY.public.raw  # type: ignore[union-attr] # Ed25519
