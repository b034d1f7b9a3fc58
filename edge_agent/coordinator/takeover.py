"""What a coordinator that was started again takes over from its database."""

from __future__ import annotations

from edge_agent.clock import Now
from edge_agent.coordinator import ledger_table
from edge_agent.coordinator.core import Core
from edge_agent.coordinator.idempotency import MAX_KNOWN
from edge_agent.coordinator.pending import read_pending
from edge_agent.coordinator.registrar import Registrar
from edge_agent.coordinator.rows import standing_rows
from edge_agent.coordinator.store import Store
from edge_agent.wire.keys import PublicKey


def take_over(  # noqa: PLR0913 each is a fact of this start
    core: Core,
    store: Store,
    now: Now,
    boot: int,
    *,
    lease_seconds: float,
    registrar: Registrar | None = None,
) -> int:
    """Give a new core the agents, the jobs that had not ended and the idempotency keys; return how many such jobs.

    Args:
        core: nothing has happened to it yet.
        store: the open database.
        now: the moment.
        boot: `clock.boot_number`.
        lease_seconds: for attempts that were live.
        registrar: makes certificates and checks them; None where none are asked for.
    """
    served = store.served_families()
    agents = store.agents()
    for agent in agents:
        if agent.public_key is not None:
            key = PublicKey.from_bytes(agent.public_key)
            core.registry.restore(agent.id, key, agent.session, served.get(agent.id, set()), now.monotonic)
    core.registry.adopt(store.standing(registrar, now.wall_ms))
    core.leasing.verdicts.accepted.update(store.accepted())
    core.checking.trust.restore(store.read(standing_rows))
    core.checking.ledger.restore(store.read(ledger_table.balances))
    jobs = store.open_jobs(monotonic=now.monotonic, wall_ms=now.wall_ms, lease_seconds=lease_seconds, boot=boot)
    for job in jobs:
        core.leasing.add(job)
    core.checking.resume(store.read(read_pending))
    for key_text, job_id, digest in store.requests(MAX_KNOWN + 1):
        core.requests.remember(key_text, job_id, digest)
    return len(jobs)
