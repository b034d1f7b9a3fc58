"""Results that were given out, and whose check had not ended when the coordinator did."""

from __future__ import annotations

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edge_agent.coordinator.cases import Pending
from edge_agent.coordinator.rows import restored_job, unpack_tensors, verification_from_text
from edge_agent.coordinator.schema import is_pending, jobs, results
from edge_agent.wire.receipts import result_in

_COLUMNS = ("epoch", "agent_id", "variant", "outputs", "receipt", "klass", "verification")
PENDING = (
    sa.select(jobs, *(results.c[name].label(f"result_{name}") for name in _COLUMNS))
    .join(results, results.c.job_id == jobs.c.id)
    .where(is_pending(results.c.verification))
    .order_by(jobs.c.submitted_ms, jobs.c.id)
)


def read_pending(connection: Connection) -> list[Pending]:
    """Read the results whose check has not ended, the oldest first."""
    found = []
    for row in connection.execute(PENDING).mappings():
        verification = verification_from_text(row["result_verification"])
        if verification is None or row["result_klass"] is None:
            raise AssertionError("a result that is checked has its class and what is done to verify it")
        found.append(
            Pending(
                restored_job(row, [], 0.0, 0.0, 0.0),
                row["result_epoch"],
                row["result_agent_id"],
                row["result_variant"],
                row["result_klass"],
                unpack_tensors(row["result_outputs"]),
                result_in(row["result_receipt"]),
                verification,
            )
        )
    return found
