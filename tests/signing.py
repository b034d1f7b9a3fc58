"""A gateway's service whose results are really signed, by an agent that may lie."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from fakes import COORDINATOR_KEY, NETWORK, START_MS, answer_to, key, klass
from gateways import VARIANT, FakeService

from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.jobs import JobState
from edge_agent.coordinator.service import Accepted
from edge_agent.wire import cose, strict_cbor
from edge_agent.wire.envelope import CONTENT_TYPE
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import Result, TensorDigest
from edge_agent.wire.receipts import make_receipt
from edge_agent.wire.tensors import Tensor

AGENT = key("agent")
SALT = hashlib.sha256(b"salt").digest()


def signed_receipt(
    job: bytes,
    inputs: tuple[Tensor, ...],
    outputs: tuple[Tensor, ...],
    *,
    family: str = "digits",
    coordinator: SigningKey = COORDINATOR_KEY,
    agent: SigningKey = AGENT,
    certificate: bytes | None = None,
) -> bytes:
    """Return the receipt of a job."""
    statement = Result(
        network=NETWORK,
        issued_ms=START_MS,
        job=job,
        epoch=1,
        agent_id=agent.public.id,
        family=family,
        variant=VARIANT.digest_bytes,
        klass=klass(VARIANT.digest_bytes),
        inputs=tuple(TensorDigest.of(tensor, SALT) for tensor in inputs),
        outputs=tuple(TensorDigest.of(tensor) for tensor in outputs),
        received_ms=START_MS,
        finished_ms=START_MS,
        run_us=300,
    )
    result = cose.sign1(agent, strict_cbor.encode(statement.model_dump()), content_type=CONTENT_TYPE)
    return make_receipt(
        coordinator,
        result=result,
        agent_key=agent.public,
        network=NETWORK,
        salt=SALT,
        accepted_ms=START_MS,
        certificate=certificate,
    )


class SigningService(FakeService):
    """Computes digits and signs what it computed; `change` turns an outcome into what a liar would give."""

    def __init__(self) -> None:
        super().__init__()
        self.change: dict[str, Any] = {}
        self.keys: dict[str, bytes] = {}
        self._outcomes: dict[bytes, Outcome] = {}

    async def submit(
        self,
        family: str,
        inputs: tuple[Tensor, ...],
        outputs: tuple[str, ...],
        **options: Any,  # noqa: ANN401 as given
    ) -> Accepted:
        """Take it on; the same idempotency key is the same job."""
        await super().submit(family, inputs, outputs, **options)
        known = self.keys.get(options["options"].idempotency_key or "")
        if known is not None:
            return Accepted(known, repeated=True)
        job = len(self._outcomes).to_bytes(16, "big")
        self.keys[options["options"].idempotency_key or ""] = job
        computed = tuple(t for t in answer_to(inputs[0]) if not outputs or t.name in outputs)
        self._outcomes[job] = replace(
            Outcome(
                job,
                JobState.SUCCEEDED,
                outputs=computed,
                receipt=signed_receipt(job, inputs, computed),
                agent_id=AGENT.public.id,
                variant=VARIANT.digest_bytes,
                run_us=300,
            ),
            **self.change,
        )
        return Accepted(job, repeated=False)

    async def outcome(self, job_id: bytes, timeout_seconds: float) -> Outcome | None:
        """Give it."""
        return self._outcomes[job_id]
