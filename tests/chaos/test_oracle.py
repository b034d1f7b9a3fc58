"""The oracle can fail: an honest run passes, and each broken promise is found under its name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import pytest
import wire_samples
from harness.evidence import AgentLog, AttemptRow, Evidence, JobRow, ResultRow, read_log
from harness.load import Record
from harness.numbers import MOST, input_with, is_right, number_in
from harness.oracle import DEFECT, LOST, STUCK, TWICE, WRONG, judge

from edge_agent.coordinator.rows import pack_tensors
from edge_agent.wire import cose, strict_cbor
from edge_agent.wire.envelope import CONTENT_TYPE
from edge_agent.wire.messages import TensorDigest
from edge_agent.wire.receipts import make_receipt
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

AGENT = wire_samples.AGENT
OUTPUTS = (Tensor(TensorSpec("logits", DataType.FP32, (1, 10)), bytes(40)),)
JOBS = [bytes([number]) * 16 for number in range(3)]


def receipt(number: int) -> bytes:
    """Return what the coordinator signs for the honest result of a number."""
    result = wire_samples.result().model_copy(
        update={
            "job": JOBS[number],
            "epoch": 1,
            "agent_id": AGENT.public.id,
            "inputs": (TensorDigest.of(input_with(number), wire_samples.SALT),),
            "outputs": tuple(TensorDigest.of(tensor) for tensor in OUTPUTS),
        }
    )
    signed = cose.sign1(AGENT, strict_cbor.encode(result.model_dump()), content_type=CONTENT_TYPE)
    return make_receipt(
        wire_samples.COORDINATOR,
        result=signed,
        agent_key=AGENT.public,
        network=wire_samples.NETWORK,
        salt=wire_samples.SALT,
        accepted_ms=wire_samples.NOW_MS,
    )


def honest() -> Evidence:
    """Return the evidence of a run of three jobs, all of which succeeded at the first attempt."""
    log = AgentLog()
    for action in ("attempt-taken", "attempt-finished", "attempt-accepted"):
        log.attempts[action] = {(job.hex(), 1) for job in JOBS}
    return Evidence(
        records=[
            Record(
                number=number,
                key=f"run-{number}",
                waits=True,
                sent_at=0.0,
                acked_at=1.0,
                ended_at=1.0,
                job_id=job.hex(),
                state="succeeded",
                outputs=OUTPUTS,
                receipt=receipt(number),
            )
            for number, job in enumerate(JOBS)
        ],
        jobs=[
            JobRow(job.hex(), f"run-{number}", pack_tensors([input_with(number)]), "succeeded", 1, 5, None, None)
            for number, job in enumerate(JOBS)
        ],
        attempts=[AttemptRow(job.hex(), 1, AGENT.public.id, "succeeded") for job in JOBS],
        results=[
            ResultRow(job.hex(), 1, AGENT.public.id, pack_tensors(OUTPUTS), receipt(number))
            for number, job in enumerate(JOBS)
        ],
        logs={AGENT.public.id: log},
    )


def found(evidence: Evidence, *, right: bool = True) -> set[tuple[str, str]]:
    """Return kind and rule of each violation."""

    def check(_number: int, _variant: str, _outputs: Sequence[Tensor]) -> bool:
        return right

    return {(v.kind, v.rule) for v in judge(evidence, wire_samples.COORDINATOR.public, check)}


def test_honest_run_breaks_nothing() -> None:
    """Three jobs, three results, all three sides agree."""
    assert found(honest()) == set()


def _row(evidence: Evidence, **changes: object) -> None:
    evidence.jobs[0] = dataclasses.replace(evidence.jobs[0], **changes)  # type: ignore[arg-type] # any field


def _result(evidence: Evidence, **changes: object) -> None:
    evidence.results[0] = dataclasses.replace(evidence.results[0], **changes)  # type: ignore[arg-type] # any field


def _record(evidence: Evidence, **changes: object) -> None:
    evidence.records[0] = dataclasses.replace(evidence.records[0], **changes)  # type: ignore[arg-type] # any field


def _forget_job(evidence: Evidence) -> None:
    del evidence.jobs[0], evidence.results[0], evidence.attempts[0]


def _second_job(evidence: Evidence) -> None:
    evidence.jobs.append(dataclasses.replace(evidence.jobs[0], id="ff" * 16))


def _other_agent_was_accepted_too(evidence: Evidence) -> None:
    other = AgentLog()
    for action in ("attempt-finished", "attempt-accepted"):
        other.attempts[action] = {(JOBS[0].hex(), 2)}
    evidence.logs = {**evidence.logs, "other": other}


def _other_agent_has_the_result(evidence: Evidence) -> None:
    _result(evidence, agent_id="other")


def _log_without_it(evidence: Evidence) -> None:
    for action in ("attempt-finished", "attempt-accepted"):
        evidence.logs[AGENT.public.id].attempts[action].discard((JOBS[0].hex(), 1))


BROKEN: list[tuple[str, Callable[[Evidence], object], tuple[str, str]]] = [
    ("acknowledged and gone", _forget_job, (LOST, "acknowledged")),
    ("settled and gone", lambda e: e.results.pop(0), (LOST, "settled")),
    ("succeeded without a result", lambda e: e.results.pop(0), (LOST, "result")),
    ("told success, stored failure", lambda e: _row(e, state="failed"), (LOST, "told")),
    ("told failure, stored success", lambda e: _record(e, state="failed"), (LOST, "told")),
    ("never told the end", lambda e: _record(e, state="unanswered"), (LOST, "answer")),
    ("result of a job that failed", lambda e: _row(e, state="failed"), (LOST, "one end")),
    ("failed without blame", lambda e: _row(e, state="failed", error_code="x"), (LOST, "reason")),
    ("two jobs for one key", lambda e: _row(e, id="ff" * 16), (TWICE, "one key")),
    ("two jobs for one number", _second_job, (TWICE, "one job")),
    ("two results of one job", lambda e: e.results.append(e.results[0]), (TWICE, "one result")),
    (
        "two attempts succeeded",
        lambda e: e.attempts.append(dataclasses.replace(e.attempts[0], epoch=2)),
        (TWICE, "one attempt"),
    ),
    ("too many attempts", lambda e: _row(e, epoch=6), (TWICE, "attempts")),
    ("two agents accepted", _other_agent_was_accepted_too, (TWICE, "settled")),
    ("another agent's result stored", _other_agent_has_the_result, (TWICE, "settled")),
    ("job still leased", lambda e: _row(e, state="leased"), (STUCK, "database")),
    ("client still waiting", lambda e: _record(e, state=""), (STUCK, "client")),
    (
        "attempt without an end",
        lambda e: e.attempts.append(AttemptRow(JOBS[0].hex(), 2, "other", None)),
        (STUCK, "attempt"),
    ),
    ("job that nobody sent", lambda e: _row(e, key="run-0 again"), (WRONG, "stored key")),
    ("input swapped", lambda e: _row(e, inputs=pack_tensors([input_with(1)])), (WRONG, "stored input")),
    ("client has other outputs", lambda e: _record(e, outputs=()), (WRONG, "same result")),
    ("receipt of another job", lambda e: _record(e, receipt=receipt(1)), (WRONG, "receipt")),
    ("result of no log", _log_without_it, (WRONG, "origin")),
    ("defect in a log", lambda e: e.coordinator_alarms.append("Traceback"), (DEFECT, "log")),
]


@pytest.mark.parametrize(("breaks", "expected"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
def test_broken_promise_is_found(breaks: Callable[[Evidence], object], expected: tuple[str, str]) -> None:
    """Each rule speaks when, and names what, it is there for."""
    evidence = honest()
    breaks(evidence)
    assert expected in found(evidence)


def test_outputs_that_do_not_follow_from_the_input_are_found() -> None:
    """The model is run once more on the number's input."""
    assert found(honest(), right=False) == {(WRONG, "computed again")}


@pytest.mark.parametrize("number", [0, 1, 16, 17, 4999, MOST - 1])
def test_number_comes_back_out_of_the_input(number: int) -> None:
    """What was put into the pixels is read there again."""
    assert number_in(input_with(number).data) == number


def test_computing_again_tells_right_from_wrong_outputs() -> None:
    """Outputs of zeros are no model's answer, and outputs of another name none at all."""
    assert not is_right(3, "fp32", OUTPUTS)
    assert not is_right(3, "fp32", ())


def test_log_that_was_cut_by_a_kill_is_read_as_far_as_it_goes() -> None:
    """Half a line is passed over; tracebacks and defects are alarms."""
    log = read_log(
        [
            '{"action": "attempt-taken", "job_id": "aa", "epoch": 2, "message": ""}\n',
            '{"action": "attempt-finished", "job_id": "aa", "ep',
            '{"action": "defect", "message": "A defect", "error": "boom"}\n',
            "Traceback (most recent call last):\n",
        ]
    )
    assert log.attempts["attempt-taken"] == {("aa", 2)}
    assert log.attempts["attempt-finished"] == set()
    assert len(log.alarms) == 2
