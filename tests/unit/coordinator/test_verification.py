"""The steps from an answer's bytes to a `VerifiedResult`; attacks on the whole way are in tests/attacks."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest
from fakes import COORDINATOR_KEY, NETWORK, CoordinatorScript, FakeAgent, codes, digits, jobs_for, klass

from edge_agent.coordinator.events import MessageReceived
from edge_agent.coordinator.jobs import Job
from edge_agent.coordinator.verification import (
    STEPS,
    VerifiedResult,
    input_digests,
    match_attempt,
    open_answer,
    verify_result,
)
from edge_agent.errors import PeerError
from edge_agent.wire import cose
from edge_agent.wire.envelope import Opened, seal
from edge_agent.wire.messages import Job as JobStatement
from edge_agent.wire.messages import TensorDigest
from edge_agent.wire.receipts import make_receipts, verify_receipt
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

FAMILY = digits()
MAX_SKEW_MS = 60_000
VARIANTS = [variant.digest_bytes for variant in FAMILY.variants]


class Setting:
    """A job that is leased to an agent, and what the agent answers."""

    def __init__(self) -> None:
        self.script = CoordinatorScript()
        self.agent = FakeAgent("agent", self.script.clock)
        self.script.connect()
        self.script.join(self.agent)
        job_id, commands = self.script.submit(3)
        (self.opened,) = jobs_for(self.agent, commands)
        self.job: Job = self.script.core.leasing.jobs[job_id]

    @property
    def received_ms(self) -> int:
        """Now."""
        return self.script.clock.now.wall_ms

    def verify(self, payload: bytes, received_ms: int | None = None) -> VerifiedResult:
        """Take all steps."""
        opened = open_answer(payload, self.agent.key.public, network=NETWORK, max_bytes=1 << 20)
        return verify_result(
            opened, self.job, FAMILY, received_ms=received_ms or self.received_ms, max_skew_ms=MAX_SKEW_MS
        )

    def answer(self, outputs: tuple[Tensor, ...] | None = None, **changes: Any) -> bytes:  # noqa: ANN401 any field
        """Sign an answer with these outputs and changes."""
        outputs = self.agent.outputs(self.opened) if outputs is None else outputs
        digests = {"outputs": tuple(TensorDigest.of(tensor) for tensor in outputs)}
        statement = self.agent.result_statement(self.opened, **{**digests, **changes})
        return seal(self.agent.key, statement, [tensor.data for tensor in outputs])

    def refuse(self, code: str, payload: bytes, received_ms: int | None = None) -> None:
        """Verify, which must be refused with this code."""
        with pytest.raises(PeerError) as caught:
            self.verify(payload, received_ms)
        assert caught.value.error_code == code


@pytest.fixture
def here() -> Setting:
    """Return a fresh setting."""
    return Setting()


def _floats(name: str, shape: tuple[int, ...]) -> Tensor:
    spec = TensorSpec(name, DataType.FP32, shape)
    return Tensor(spec, struct.pack(f"<{spec.element_count}f", *[0.5] * spec.element_count))


def _label(count: int) -> Tensor:
    return Tensor(TensorSpec("label", DataType.INT64, (count,)), struct.pack(f"<{count}q", *[1] * count))


def test_an_honest_result_is_verified_and_its_receipt_holds(here: Setting) -> None:
    """The outputs are those that were signed, and the receipt opens offline with the salt."""
    payload = here.answer()
    verified = here.verify(payload)
    assert verified.outputs == here.agent.outputs(here.opened)
    made = make_receipts(
        COORDINATOR_KEY, [verified.countersigned(here.job.salt)], network=NETWORK, accepted_ms=here.received_ms
    )
    receipt = verify_receipt(made[0], COORDINATOR_KEY.public)
    receipt.check_inputs(here.job.inputs)
    receipt.check_outputs(verified.outputs)
    assert payload.startswith(verified.signed)


def test_nobody_but_verification_makes_a_verified_result(here: Setting) -> None:
    """The type itself is the proof."""
    verified = here.verify(here.answer())
    with pytest.raises(TypeError, match="verify_result alone"):
        VerifiedResult(verified.statement, verified.signed, verified.key, verified.outputs, object())


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("wrong-job", {"job": bytes(16)}),
        ("wrong-job", {"epoch": 2}),
        ("wrong-model", {"family": "letters"}),
        ("wrong-model", {"variant": VARIANTS[1]}),
        ("wrong-input", {"inputs": ()}),
    ],
)
def test_an_answer_about_something_else_is_refused(here: Setting, code: str, changes: dict[str, Any]) -> None:
    """Every part of the question must come back in the answer."""
    here.refuse(code, here.answer(**changes))


def test_inputs_with_another_salt_are_other_inputs(here: Setting) -> None:
    """The commitments must be those of this job."""
    unsalted = tuple(TensorDigest.of(tensor) for tensor in here.job.inputs)
    assert unsalted != input_digests(here.job)
    here.refuse("wrong-input", here.answer(inputs=unsalted))


@pytest.mark.parametrize("sign", [-1, 1])
def test_a_clock_may_be_off_by_a_day_and_no_more(here: Setting, sign: int) -> None:
    """The epoch keeps old answers out; the clock only has to be plausible."""
    payload = here.answer()
    here.verify(payload, here.received_ms + sign * MAX_SKEW_MS)
    here.refuse("not-fresh", payload, here.received_ms + sign * (MAX_SKEW_MS + 1))


@pytest.mark.parametrize(
    "outputs",
    [
        (),
        (_floats("logits", (1, 10)),),
        (_label(1), _floats("logits", (1, 10))),
        (_floats("logits", (1, 10)), _floats("label", (1,))),
        (_floats("logits", (1, 11)), _label(1)),
        (_floats("logits", (10,)), _label(1)),
        (_floats("logits", (2, 10)), _label(2)),
        (_floats("logits", (1, 10)), _label(2)),
        (_floats("logits", (1, 10)), _label(1), _floats("more", (1,))),
    ],
    ids=["none", "one is missing", "order", "type", "size", "rank", "other batch", "batches differ", "one too many"],
)
def test_outputs_must_be_those_that_were_asked_for(here: Setting, outputs: tuple[Tensor, ...]) -> None:
    """Names, order, types and shapes, the batch of the inputs included."""
    here.refuse("wrong-output", here.answer(outputs))


def test_only_the_wanted_outputs_are_acceptable(here: Setting) -> None:
    """Who asked for one output gets that one."""
    here.job.outputs = ("label",)
    here.refuse("wrong-output", here.answer())
    assert [tensor.name for tensor in here.verify(here.answer((_label(1),))).outputs] == ["label"]


def test_the_bytes_of_the_outputs_must_be_those_that_were_signed(here: Setting) -> None:
    """Other bytes, or none at all, are no result."""
    outputs = here.agent.outputs(here.opened)
    payload = here.answer()
    here.refuse("digest-mismatch", payload.replace(outputs[0].data, _floats("x", (1, 10)).data))
    signed = here.verify(payload).signed
    here.refuse("malformed", signed)


def test_a_failure_is_no_result(here: Setting) -> None:
    """What opens as a failure cannot be verified as a result."""
    failure = here.agent.failure(here.opened.statement)
    here.refuse("wrong-kind", failure.payload)


def test_an_answer_matches_only_the_attempt_it_was_leased_as(here: Setting) -> None:
    """Job, epoch and agent, each with its code."""
    result = here.agent.result_statement(here.opened)
    assert match_attempt(result, here.job, here.agent.id) is here.job.attempts[0]
    for statement, agent_id, code in (
        (result, "someone", "wrong-agent"),
        (result.model_copy(update={"job": bytes(16)}), here.agent.id, "wrong-job"),
        (result.model_copy(update={"epoch": 2}), here.agent.id, "wrong-job"),
    ):
        with pytest.raises(PeerError) as caught:
            match_attempt(statement, here.job, agent_id)
        assert caught.value.error_code == code
    here.job.attempts.clear()
    with pytest.raises(PeerError) as caught:
        match_attempt(result, here.job, here.agent.id)
    assert caught.value.error_code == "stale-epoch"


def test_the_class_of_a_result_names_the_same_variant(here: Setting) -> None:
    """A result cannot be of one model and claim the class of another."""
    with pytest.raises(ValueError, match="another variant"):
        here.answer(klass=klass(VARIANTS[1]))


def test_a_job_commits_to_each_of_its_inputs(here: Setting) -> None:
    """What the agent is sent is what the result is held against."""
    opened: Opened[JobStatement] = here.opened
    assert opened.statement.inputs == input_digests(here.job)
    assert [digest.name for digest in input_digests(here.job)] == ["image"]


def test_the_first_step_that_fails_names_the_refusal(here: Setting) -> None:
    """An answer that is wrong in every way is mended step by step: it is refused by one step after another."""
    wrong_outputs = (_floats("logits", (2, 10)), _label(2))
    stranger = FakeAgent("stranger", here.script.clock)
    topic = f"ea1/{NETWORK}/{here.agent.id}/results"
    faults: dict[str, Any] = {
        "network": "elsewhere",
        "job": bytes(16),
        "variant": VARIANTS[1],
        "klass": klass(VARIANTS[1]),
        "finished_ms": 0,
        "outputs": tuple(TensorDigest.of(tensor) for tensor in wrong_outputs),
    }
    tensors = [tensor.data for tensor in wrong_outputs]
    right = here.agent.outputs(here.opened)

    def said(payload: bytes, on: str = topic) -> str:
        (code,) = codes(here.script.tell(MessageReceived(on, payload)))
        return code

    def signed(*mended: str, by: FakeAgent = here.agent) -> bytes:
        left = {name: value for name, value in faults.items() if name not in mended}
        return seal(by.key, here.agent.result_statement(here.opened, **left), tensors)

    found = [
        said(bytes(here.script.rules.max_message_bytes + 1), f"ea1/{NETWORK}/{stranger.id}/results"),
        said(b"rubbish", f"ea1/{NETWORK}/{stranger.id}/results"),
        said(b"rubbish"),
        said(signed(by=stranger)),
        said(_with_a_bad_signature(signed())),
        said(signed()),
        said(signed("network")),
        said(signed("network", "job")),
        said(signed("network", "job", "variant", "klass")),
        said(signed("network", "job", "variant", "klass", "finished_ms")),
        said(seal(here.agent.key, here.agent.result_statement(here.opened), [bytes(len(t.data)) for t in right])),
    ]
    assert found == [
        "too-large",
        "not-enrolled",
        "malformed",
        "unknown-key",
        "bad-signature",
        "wrong-network",
        "unknown-job",
        "wrong-model",
        "not-fresh",
        "wrong-output",
        "digest-mismatch",
    ]
    at = 0
    for code in found:
        at = next(number for number, step in enumerate(STEPS, 1) if code in step.codes and number >= at)


def test_the_steps_are_documented_as_they_are() -> None:
    """docs/security.md has the table of `STEPS`, row by row."""
    page = (Path(__file__).resolve().parents[3] / "docs" / "security.md").read_text()
    for number, step in enumerate(STEPS, 1):
        refused = ", ".join(f"`{code}`" for code in step.codes) or "(the mode decides)"
        assert f"| {number} | {step.name} | {step.checks} | {refused} |\n" in page


def _with_a_bad_signature(payload: bytes) -> bytes:
    altered = bytearray(payload)
    altered[cose.sign1_end(payload) - 1] ^= 1
    return bytes(altered)
