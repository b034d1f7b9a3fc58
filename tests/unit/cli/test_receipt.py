"""`edge-agent receipt export`: judged by securesystemslib, which knows nothing of us."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import needs
import pytest
import wire_samples
from receipt_logs import bundle, log_of, receipt

from edge_agent.cli import main
from edge_agent.wire.bundles import verify_bundle
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.receipts import verify_receipt

RECEIPTS = [receipt(number) for number in range(3)]
EXPORTER = SigningKey.generate(bytes(range(32)))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return one with the coordinator's key, an exporter's, and a receipt."""
    wire_samples.COORDINATOR.public.write(tmp_path / "coordinator.pub")
    EXPORTER.write(tmp_path / "mine.key")
    (tmp_path / "job.receipt").write_bytes(RECEIPTS[1])
    return tmp_path


def export(folder: Path, *more: str) -> int:
    """Run the command."""
    keys = ["--coordinator-key", str(folder / "coordinator.pub"), "--key", str(folder / "mine.key")]
    return main(["receipt", "export", str(folder / "job.receipt"), *keys, *more])


def judged(envelope: bytes, signer: SigningKey) -> dict[str, Any]:
    """Have the other implementation verify an envelope; return the statement."""
    needs.module("securesystemslib")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey  # noqa: PLC0415 as below
    from securesystemslib.dsse import Envelope  # noqa: PLC0415 where it is missing the test is skipped
    from securesystemslib.signer import SSlibKey  # noqa: PLC0415 as above

    found = Envelope.from_dict(json.loads(envelope))
    raw = Ed25519PublicKey.from_public_bytes(signer.public.raw)
    found.verify([SSlibKey.from_crypto(raw, keyid=signer.public.id)], threshold=1)
    statement: dict[str, Any] = json.loads(found.payload)
    return statement


def test_an_independent_implementation_accepts_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The envelope's signature verifies; the statement names the outputs and the model; nothing else is signed."""
    assert export(folder, "--format", "in-toto") == 0
    statement = judged(capsys.readouterr().out.encode(), EXPORTER)
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    (output,) = wire_samples.result().outputs
    assert statement["subject"] == [{"name": "label", "digest": {"sha256": output.digest.hex()}}]
    predicate = statement["predicate"]
    assert predicate["variant"] == {"sha256": wire_samples.VARIANT.hex()}
    assert (predicate["agent"], predicate["epoch"]) == (wire_samples.AGENT.public.id, 2)
    evidence = base64.b64decode(predicate["receipt"])
    assert verify_receipt(evidence, wire_samples.COORDINATOR.public).salt is None
    assert wire_samples.SALT not in evidence


def test_another_key_or_another_byte_is_not_accepted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """So the judge can say no."""
    needs.module("securesystemslib")
    from securesystemslib.exceptions import VerificationError  # noqa: PLC0415 as above

    assert export(folder) == 0
    good = capsys.readouterr().out.encode()
    with pytest.raises(VerificationError):
        judged(good, wire_samples.COORDINATOR)
    fields = json.loads(good)
    body = base64.b64decode(fields["payload"]).replace(b'"epoch":2', b'"epoch":3')
    fields["payload"] = base64.b64encode(body).decode()
    with pytest.raises(VerificationError):
        judged(json.dumps(fields).encode(), EXPORTER)


def test_a_receipt_with_its_proof_keeps_it(folder: Path) -> None:
    """In a file, for whoever gets it to check the log, too."""
    (folder / "job.receipt").write_bytes(bundle(log_of(RECEIPTS), RECEIPTS, 1))
    assert export(folder, "--output", str(folder / "job.dsse")) == 0
    statement = judged((folder / "job.dsse").read_bytes(), EXPORTER)
    evidence = base64.b64decode(statement["predicate"]["receipt"])
    found = verify_bundle(evidence, wire_samples.COORDINATOR.public)
    assert (found.index, found.receipt.salt) == (1, None)


def test_what_does_not_verify_is_not_exported(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody gets our word for an altered receipt."""
    data = bytearray(RECEIPTS[1])
    data[-1] ^= 1
    (folder / "job.receipt").write_bytes(bytes(data))
    assert export(folder, "--output", str(folder / "job.dsse")) == 76
    assert capsys.readouterr().out == ""
    assert not (folder / "job.dsse").exists()


def test_a_folder_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is told."""
    assert export(folder, "--output", str(folder / "missing" / "job.dsse")) == 74
    assert "cannot be written" in capsys.readouterr().err
