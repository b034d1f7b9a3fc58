"""What a coordinator writes of jobs: single records, and drawn lives of several jobs."""

from __future__ import annotations

import itertools
from dataclasses import replace

from fakes import scan
from hypothesis import strategies as st

from edge_agent.coordinator.events import EndAttempt, EndJob, InsertAttempt, InsertJob, Outcome, Record, Submit
from edge_agent.coordinator.jobs import Blame, JobError, JobState
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.receipts import make_receipt

KEY = SigningKey.generate(bytes(32))
RECEIPT = make_receipt(KEY, result=b"r", agent_key=KEY.public, network="home", salt=bytes(32), accepted_ms=1)


def insert(number: int) -> InsertJob:
    """Submit a job."""
    job_id, key = number.to_bytes(16, "big"), f"key-{number}"
    submit = Submit(
        job_id, bytes(32), "digits", (scan(1),), (), None, key, bytes(32), durable=False, deadline_seconds=1
    )
    return InsertJob(submit, 1000, 2000, 3)


def lease(number: int, epoch: int) -> InsertAttempt:
    """Lease an attempt."""
    return InsertAttempt(number.to_bytes(16, "big"), epoch, "agent", bytes(32), 1, 1, 1000, state=JobState.LEASED)


def lose(number: int, epoch: int) -> EndAttempt:
    """Lose an attempt; its job is queued again."""
    return EndAttempt(number.to_bytes(16, "big"), epoch, "worker-died", 1500, state=JobState.QUEUED)


def refuse(number: int, epoch: int) -> EndAttempt:
    """Let a machine say that a job can never succeed; it is queued again."""
    return replace(lose(number, epoch), outcome="bad-input", refused_by="=ada")


def end(number: int, epoch: int, *, well: bool) -> EndJob:
    """End a job."""
    job_id = number.to_bytes(16, "big")
    if well:
        return EndJob(
            Outcome(job_id, JobState.SUCCEEDED, receipt=RECEIPT, agent_id="agent", variant=bytes(32), run_us=5),
            epoch,
            1900,
        )
    return EndJob(Outcome(job_id, JobState.FAILED, error=JobError("late", "too late", Blame.DEADLINE)), epoch, 1900)


@st.composite
def lives(draw: st.DrawFn) -> list[list[Record]]:
    """Draw the records of a few jobs, interleaved, cut into transactions."""
    scripts: list[list[Record]] = []
    for number in range(draw(st.integers(1, 4))):
        script: list[Record] = [insert(number)]
        epochs = draw(st.integers(0, 3))
        for epoch in range(1, epochs + 1):
            script.append(lease(number, epoch))
            if epoch < epochs:
                script.append(draw(st.sampled_from((lose, refuse)))(number, epoch))
        if draw(st.booleans()):
            script.append(end(number, epochs, well=epochs > 0 and draw(st.booleans())))
        scripts.append(script)
    order: list[Record] = []
    while any(scripts):
        order.append(draw(st.sampled_from([script for script in scripts if script])).pop(0))
    cuts = sorted(draw(st.sets(st.integers(0, len(order)), max_size=4)) | {0, len(order)})
    return [order[a:b] for a, b in itertools.pairwise(cuts)]
