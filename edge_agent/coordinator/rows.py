"""What stands in the database's rows, as values: jobs to go on with, jobs and agents for people, columns."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection, RowMapping

from edge_agent.coordinator.events import Outcome, Verification
from edge_agent.coordinator.jobs import Attempt, Blame, Job, JobError, JobState
from edge_agent.coordinator.retries import DEADLY, take_note
from edge_agent.coordinator.schema import standings
from edge_agent.coordinator.trust import Standing, Subject
from edge_agent.wire import strict_cbor
from edge_agent.wire.job_options import ANYWHERE, Placement
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec


@dataclass(frozen=True, slots=True)
class StoredJob:
    """A job as the database has it, for people and for repeated requests."""

    id: bytes
    family: str
    state: JobState
    epoch: int
    submitted_ms: int
    ended_ms: int | None
    agent_id: str | None
    variant: bytes | None
    run_us: int | None
    outputs: tuple[Tensor, ...]
    receipt: bytes | None
    error: JobError | None
    klass: str | None = None
    client: str = ""
    priority: int = 0
    deadline_ms: int = 0
    verification: Verification | None = None
    checks: bytes | None = None


@dataclass(frozen=True, slots=True)
class StoredAgent:
    """An agent as the database has it.

    Attributes:
        wrong_results: so many results of it were proven wrong, ever.
        resting_until_ms: Unix milliseconds until which it is given nothing because of that; 0: it never rested so.
    """

    id: str
    public_key: bytes | None
    approved: bool
    session: int
    software: str
    seen_ms: int | None
    owner: str | None = None
    sealing_key: bytes | None = None
    wrong_results: int = 0
    resting_until_ms: int = 0


@dataclass(frozen=True, slots=True)
class StoredAttempt:
    """An attempt as the database has it; times are Unix milliseconds."""

    epoch: int
    agent_id: str
    variant: bytes
    leased_ms: int
    ended_ms: int | None
    outcome: str | None


def placement_to_text(placement: Placement) -> str | None:
    """Write a placement for a column; None for anywhere."""
    if placement == ANYWHERE:
        return None
    labels, agents, job_labels = list(placement.labels), list(placement.agents), list(placement.job_labels)
    return json.dumps([labels, placement.owner, placement.klass, agents, job_labels])


def placement_from_text(text: str | None) -> Placement:
    """Read what `placement_to_text` wrote."""
    if text is None:
        return ANYWHERE
    labels, owner, klass, *later = json.loads(text)  # what came in later versions is not in what was written before
    agents, job_labels = (tuple(each) for each in [*later, [], []][:2])
    return Placement(tuple(labels), owner, klass, agents, job_labels)


def standing_rows(connection: Connection) -> dict[Subject, Standing]:
    """Read how far everybody is trusted."""
    return {
        Subject(row["name"], row["variant"]): Standing(
            row["count"], row["failures"], row["unclear"], row["resting_until_ms"]
        )
        for row in connection.execute(sa.select(standings)).mappings()
    }


def verification_to_text(verification: Verification | None) -> str | None:
    """Write what was done to verify a result for a column."""
    if verification is None:
        return None
    return json.dumps({name: getattr(verification, name) for name in Verification.__slots__})


def verification_from_text(text: str | None) -> Verification | None:
    """Read what `verification_to_text` wrote; of results from before it was kept, the signature is all there is."""
    if text is None:
        return None
    found = json.loads(text)
    return Verification(**(found | {"by": tuple(found["by"])}))


def pack_tensors(tensors: Iterable[Tensor]) -> bytes:
    """Encode tensors for a column."""
    return strict_cbor.encode(
        [[t.spec.name, t.spec.datatype.value, list(t.spec.shape), bytes(t.data)] for t in tensors]
    )


NO_INPUTS: Final = pack_tensors(())
"""Of a job that has ended, and is not checked any more: nothing needs them, and they are the client's."""


def unpack_tensors(data: bytes) -> tuple[Tensor, ...]:
    """Decode what `pack_tensors` made."""
    rows: Any = strict_cbor.decode(data, max_bytes=len(data))
    return tuple(Tensor(TensorSpec(n, DataType(d), tuple(shape)), raw) for n, d, shape, raw in rows)


_LIVE_STATES: Final = (JobState.QUEUED, JobState.LEASED, JobState.HEDGED)
"""By the live attempts, not by the row: when the result of a hedged job was held, its other attempt ended, and the row
stayed as it was."""


def restored_job(
    row: RowMapping, tried: list[RowMapping], deadline: float, monotonic: float, lease_seconds: float
) -> Job:
    """Make a job of its row and those of its attempts."""
    live = [attempt for attempt in tried if attempt["outcome"] is None]
    ended = [attempt for attempt in tried if attempt["outcome"] is not None]
    refused = [attempt for attempt in ended if attempt["refused_by"] is not None]
    job = Job(
        id=row["id"],
        family=row["family"],
        inputs=unpack_tensors(row["inputs"]),
        outputs=tuple(json.loads(row["outputs"])),
        salt=row["salt"],
        submitted_ms=row["submitted_ms"],
        deadline=deadline,
        max_attempts=row["max_attempts"],
        variant=row["variant"],
        client=row["client"],
        priority=row["priority"],
        placement=placement_from_text(row["placement"]),
        mode=row["mode"] or "signed",
        checks=row["checks"],
        state=state if (state := JobState(row["state"])).final else _LIVE_STATES[len(live)],
        epoch=row["epoch"],
        attempts=[
            Attempt(
                attempt["epoch"],
                attempt["agent_id"],
                attempt["variant"],
                attempt["agent_session"],
                attempt["coordinator_session"],
                lease_until=monotonic + lease_seconds,
                leased_at=monotonic,
            )
            for attempt in live
        ],
        failed_on={attempt["agent_id"] for attempt in refused},
        killed={attempt["agent_id"] for attempt in ended if attempt["outcome"] in DEADLY},
        refusals={attempt["refused_by"]: attempt["outcome"] for attempt in refused},
    )
    for attempt in ended:
        if attempt["refused_by"] is None:
            take_note(job, attempt["agent_id"], attempt["outcome"])
    return job


def stored_job(row: RowMapping) -> StoredJob:
    """Make a view of a job of its row, joined with that of its result."""
    error = None
    if row["error_code"] is not None:
        error = JobError(row["error_code"], row["error_message"], Blame(row["error_blame"]))
    return StoredJob(
        id=row["id"],
        family=row["family"],
        state=JobState(row["state"]),
        epoch=row["epoch"],
        submitted_ms=row["submitted_ms"],
        ended_ms=row["ended_ms"],
        agent_id=row["agent_id"],
        variant=row["result_variant"],
        run_us=row["run_us"],
        outputs=unpack_tensors(row["result_outputs"]) if row["result_outputs"] is not None else (),
        receipt=row["receipt"],
        error=error,
        klass=row["klass"],
        client=row["client"],
        priority=row["priority"],
        deadline_ms=row["deadline_ms"],
        verification=verification_from_text(row["verification"]),
        checks=row["checks"],
    )


def outcome_of(stored: StoredJob) -> Outcome:
    """Return how a job ended, as those were told who waited for it."""
    return Outcome(
        job_id=stored.id,
        state=stored.state,
        outputs=stored.outputs,
        receipt=stored.receipt,
        agent_id=stored.agent_id,
        variant=stored.variant,
        klass=stored.klass,
        run_us=stored.run_us,
        error=stored.error,
        verification=stored.verification,
    )
