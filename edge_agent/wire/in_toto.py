"""Receipts as in-toto statements (Statement v1) in DSSE envelopes (v1), for tools that speak that.

The subjects are the outputs, by the SHA-256 of their bytes; the predicate says what the receipt says and carries the
receipt itself, without its salt, so that whoever trusts the coordinator's key more than the envelope's can still check
that. The envelope is signed by whoever exports: it is their word that they verified the receipt. With the coordinator's
own key it is the coordinator's.
"""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any, Final

from edge_agent.wire.bundles import Bundle, is_bundle
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import TensorDigest
from edge_agent.wire.receipts import VerifiedReceipt, without_salt

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "urn:edge-agent:predicate:inference-receipt:v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"


def statement(receipt: VerifiedReceipt, file: bytes) -> dict[str, Any]:
    """Return the in-toto statement about a verified receipt.

    Args:
        receipt: as from `verify_receipt` or in what `verify_bundle` returned.
        file: what was verified: the receipt, or the receipt with its proof.
    """
    result = receipt.result
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": entry.name, "digest": {"sha256": entry.digest.hex()}} for entry in result.outputs],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "network": result.network,
            "job": result.job.hex(),
            "epoch": result.epoch,
            "coordinator": receipt.coordinator.id,
            "agent": receipt.agent.id,
            "family": result.family,
            "variant": {"sha256": result.variant.hex()},
            "class": {
                "runtime": result.klass.runtime,
                "provider": result.klass.provider,
                "isa": result.klass.isa,
            },
            "inputs": [_tensor(entry, "saltedSha256") for entry in result.inputs],
            "outputs": [_tensor(entry, "sha256") for entry in result.outputs],
            "runMicroseconds": result.run_us,
            "acceptedUnixMilliseconds": receipt.accepted_ms,
            "receipt": base64.b64encode(_public(file)).decode(),
        },
    }


def envelope(key: SigningKey, payload: dict[str, Any]) -> bytes:
    """Sign a statement and return the DSSE envelope, JSON.

    Args:
        key: whose word it is.
        payload: the statement.
    """
    body = json.dumps(payload, separators=(",", ":"), sort_keys=True).encode()
    signature = key.sign(pre_authentication(PAYLOAD_TYPE, body))
    return json.dumps(
        {
            "payloadType": PAYLOAD_TYPE,
            "payload": base64.b64encode(body).decode(),
            "signatures": [{"keyid": key.public.id, "sig": base64.b64encode(signature).decode()}],
        }
    ).encode()


def pre_authentication(payload_type: str, body: bytes) -> bytes:
    """Return what DSSE signs (its PAE): no COSE signature covers bytes that start like this."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(body), body)


def _public(file: bytes) -> bytes:
    """Leave out the salt: who reads the statement must not be able to try inputs."""
    if not is_bundle(file):
        return without_salt(file)
    bundle = Bundle.decode(file)
    return replace(bundle, receipt=without_salt(bundle.receipt)).encode()


def _tensor(entry: TensorDigest, digest: str) -> dict[str, Any]:
    about = {"name": entry.name, "datatype": entry.datatype.value, "shape": list(entry.shape)}
    return about | {"digest": {digest: entry.digest.hex()}}
