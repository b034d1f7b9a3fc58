"""The one place where an agent's answer becomes a `VerifiedResult`, in numbered steps, cheap ones first.

The steps are in `STEPS`. The first three are taken in `core`, before anything of a message is looked at; the others
here. The rest of the coordinator takes nothing but a `VerifiedResult`, which cannot be made anywhere else. A refusal
raises, has a stable code and with it a counter (`refused:CODE`) and a log line, and changes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from edge_agent.coordinator.jobs import Attempt, Job
from edge_agent.coordinator.requests import mismatch
from edge_agent.errors import RefusedError
from edge_agent.models.catalogue import Family
from edge_agent.wire.envelope import Opened, attach, open_envelope
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.messages import Failure, Result, TensorDigest
from edge_agent.wire.receipts import Countersigned
from edge_agent.wire.sealing import is_sealed, why_not_sealed_outputs
from edge_agent.wire.tensors import Tensor

_SEAL = object()


@dataclass(frozen=True, slots=True)
class Step:
    """One step between bytes from the broker and a `VerifiedResult`.

    Attributes:
        name: of what is checked.
        checks: what must hold.
        codes: with which an answer is refused that does not pass.
    """

    name: str
    checks: str
    codes: tuple[str, ...]


STEPS: Final = (
    Step("size", "no longer than a message may be", ("too-large",)),
    Step(
        "key",
        "the topic names an agent whose key is known, admitted and not revoked",
        ("malformed", "not-enrolled", "revoked"),
    ),
    Step("rate", "its topic has not used up its allowance of useless messages", ("rate-limited",)),
    Step(
        "envelope",
        "one tagged COSE_Sign1 and byte strings, nothing else, in the one encoding",
        ("malformed", "too-large"),
    ),
    Step(
        "header",
        "exactly our header fields, EdDSA, and the id of that key",
        ("malformed", "wrong-algorithm", "unknown-key"),
    ),
    Step("signature", "by that key, over the bytes as they came", ("bad-signature",)),
    Step(
        "kind",
        "a result or a failure, of this protocol version, for this network",
        ("malformed", "wrong-kind", "wrong-version", "wrong-network"),
    ),
    Step("schema", "every field, none unknown; signed in the agent's own name", ("malformed", "wrong-agent")),
    Step(
        "attempt",
        "for a job that has not ended (not seen before), in a live attempt of it, leased to this agent",
        ("unknown-job", "wrong-job", "stale-epoch", "wrong-agent"),
    ),
    Step(
        "question",
        "of the family, variant and inputs that were asked for",
        ("wrong-kind", "wrong-model", "wrong-input"),
    ),
    Step("freshness", "finished within the clock skew that is borne", ("not-fresh",)),
    Step(
        "outputs",
        "names, order, types and shapes as in the catalogue; then the bytes, by their digests",
        ("wrong-output", "malformed", "digest-mismatch"),
    ),
    Step("policy", "what the job's mode asks for beyond that", ()),
)
"""All steps, numbered from 1 in this order; docs/security.md has the same table."""


@dataclass(frozen=True, slots=True)
class VerifiedResult:
    """A result that was checked; only `verify_result` makes one.

    Attributes:
        signed: the agent's COSE_Sign1, untouched: the heart of the receipt.
        outputs: the tensors whose digests the agent signed.
    """

    statement: Result
    signed: bytes
    key: PublicKey
    outputs: tuple[Tensor, ...]
    _seal: object

    def __post_init__(self) -> None:
        if self._seal is not _SEAL:
            raise TypeError("a VerifiedResult is made by verify_result alone")

    def countersigned(self, salt: bytes, certificate: bytes | None = None) -> Countersigned:
        """Return what its receipt is made of: with the job's salt, and the agent's certificate if there is one."""
        return Countersigned(self.signed, self.key, salt, certificate)


def open_answer(payload: bytes, key: PublicKey, *, network: str, max_bytes: int) -> Opened[Result | Failure]:
    """Steps 4 to 8: envelope, header, signature, kind, schema; and the size once more.

    Raises:
        PeerError: nothing was opened.
    """
    kinds: tuple[type[Result | Failure], ...] = (Result, Failure)
    return open_envelope(payload, key, kinds, network=network, max_bytes=max_bytes)


def match_attempt(statement: Result | Failure, job: Job, agent_id: str) -> Attempt:
    """Step 9: the answer is for a live attempt of this job, by the agent that holds it.

    Raises:
        RefusedError: `wrong-job`, `stale-epoch` or `wrong-agent`.
    """
    if statement.job != job.id:
        raise RefusedError("the answer is for another job", code="wrong-job")
    attempt = job.attempt_of(statement.epoch)
    if attempt is None:
        if job.attempts and statement.epoch > job.epoch:
            raise RefusedError(f"the answer is for epoch {statement.epoch}, which was never leased", code="wrong-job")
        raise RefusedError(f"the answer is for epoch {statement.epoch}, which is over", code="stale-epoch")
    if attempt.agent_id != agent_id:
        raise RefusedError("the attempt is leased to another agent", code="wrong-agent")
    return attempt


def verify_result(
    opened: Opened[Result | Failure], job: Job, family: Family, *, received_ms: int, max_skew_ms: int
) -> VerifiedResult:
    """Steps 9 to 13 for a result whose envelope is open.

    Args:
        opened: what `open_answer` gave.
        job: the job that it claims to answer, as we have it.
        family: of that job, from the catalogue.
        received_ms: Unix milliseconds.
        max_skew_ms: how far off the agent's clock may be: boards without a clock start in the past, and the epoch,
            not the time, is what keeps old answers out; but the time stands in the receipt.

    Raises:
        PeerError: with the code of the first step that failed.
    """
    result = opened.statement
    if not isinstance(result, Result):
        raise RefusedError("a failure is no result", code="wrong-kind")
    # 9 job, epoch, agent
    attempt = match_attempt(result, job, opened.key.id)
    # 10 model and inputs
    if result.family != job.family or result.variant != attempt.variant or result.klass.variant != attempt.variant:
        raise RefusedError("the result is of another model than the one asked for", code="wrong-model")
    if tuple(result.inputs) != input_digests(job):
        raise RefusedError("the result is for other inputs than those that were sent", code="wrong-input")
    # 11 freshness: generous, because epochs do the real work
    if abs(result.finished_ms - received_ms) > max_skew_ms:
        raise RefusedError(f"the agent's clock is more than {max_skew_ms / 1000:g} s off", code="not-fresh")
    # 12 outputs: names, types, shapes, then the bytes themselves
    _check_outputs(result.outputs, job, family)
    outputs = attach(result.outputs, opened.attachments)
    # 13 policy: nothing more in mode `signed`
    return VerifiedResult(result, bytes(opened.signed), opened.key, tuple(outputs), _SEAL)


def input_digests(job: Job) -> tuple[TensorDigest, ...]:
    """The salted commitments to a job's inputs, as they stand in the job and must stand in the result; made once."""
    if job.input_digests is None:
        job.input_digests = tuple(TensorDigest.of(tensor, job.salt) for tensor in job.inputs)
    return job.input_digests


def _check_outputs(outputs: Sequence[TensorDigest], job: Job, family: Family) -> None:
    if is_sealed(tensor.spec for tensor in job.inputs):  # all that we can see of it
        problem = why_not_sealed_outputs([output.spec for output in outputs])
        if problem:
            raise RefusedError(f"the answer is none to a sealed job: {problem}", code="wrong-output")
        return
    wanted = job.outputs or tuple(port.name for port in family.outputs)
    given = tuple(output.name for output in outputs)
    if given != wanted:
        raise RefusedError(f"the outputs are {', '.join(given)}; asked for: {', '.join(wanted)}", code="wrong-output")
    symbols: dict[str, int] = {}
    for port in family.inputs:
        tensor = next(tensor for tensor in job.inputs if tensor.spec.name == port.name)
        mismatch(port, tensor.spec, symbols)
    ports = {port.name: port for port in family.outputs}
    for output in outputs:
        problem = mismatch(ports[output.name], output.spec, symbols)
        if problem:
            raise RefusedError(f"the output {output.name!r} {problem}", code="wrong-output")
