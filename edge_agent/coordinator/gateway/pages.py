"""What people and their programs are told of agents, jobs and models: plain JSON values. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from edge_agent.coordinator.observation import Glance, Observation
from edge_agent.coordinator.operations import LiveJobs
from edge_agent.coordinator.orders import Orders
from edge_agent.coordinator.registry import Agent, Presence
from edge_agent.coordinator.rows import StoredAgent, StoredJob
from edge_agent.coordinator.timeline import Way
from edge_agent.models.catalogue import Catalogue
from edge_agent.wire.status import FitReport

SHOWN_JOBS = 40
SHOWN_FAILED = 12
MAX_FITS_SHOWN = 50


def agent_row(
    stored: StoredAgent, live: Agent | None, orders: Orders, trust: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return one machine; only fields that change make a message, so each stands for itself.

    Args:
        stored: what the database knows.
        live: what is known since the coordinator's start.
        orders: of the operator.
        trust: how far it is trusted; see `Operations.trust_in`.
    """
    row: dict[str, Any] = {
        "id": stored.id,
        "owner": stored.owner,
        "approved": stored.approved,
        "software": stored.software,
        "presence": Presence.GONE.value,
        "labels": [],
        "offers": [],
        "in_flight": 0,
        "seen_ms": stored.seen_ms,
        "drained": stored.id in orders.drained,
        "wrong_results": stored.wrong_results,
        "resting_until_ms": stored.resting_until_ms,
        "operator_labels": sorted(orders.labels.get(stored.id, ())),
        "trust": trust,
    }
    if live is None:
        return row
    row |= {
        "presence": live.presence.value,
        "labels": sorted(live.labels or ()),
        "offers": [
            {"family": o.family, "variant": o.variant_name, "loaded": o.loaded, "us": o.latency_us}
            for o in live.offers.values()
        ],
        "in_flight": len(live.in_flight),
        "skewed": live.skewed,
        "born_ms": live.born_ms,
    }
    if (machine := live.machine) is not None:
        row |= {"board": machine.board, "isa": machine.isa, "cpus": machine.cpus, "memory_mib": machine.memory_mib}
    if (status := live.status) is not None:
        row |= {
            "mode": status.mode,
            "reasons": [[reason.code, reason.text] for reason in status.reasons],
            "celsius": status.celsius,
            "cpu": status.cpu_percent,
        }
    return row


def overview(observed: Observation, live: LiveJobs, *, connected: bool, network: str) -> dict[str, Any]:
    """Return what the whole network does, with the last five minutes of it."""
    summary = observed.window.summary(observed.clock().monotonic)
    return {
        "network": network,
        "connected": connected,
        "live": live.states,
        "oldest_seconds": round(live.oldest_seconds),
        "ended": summary.states,
        "per_second": [round(rate, 2) for rate in summary.per_second],
        "failed_per_second": [round(rate, 2) for rate in summary.failed_per_second],
        "p50_ms": [None if p50 is None else round(p50 * 1000, 1) for p50 in summary.p50],
        "percentiles_ms": {str(share): round(seconds * 1000, 1) for share, seconds in summary.percentiles.items()},
    }


def job_glance(glance: Glance) -> dict[str, Any]:
    """Return one line about a job."""
    return {
        "id": glance.id.hex(),
        "family": glance.family,
        "client": glance.client,
        "state": glance.state,
        "attempts": glance.attempts,
        "agent_id": glance.agent_id,
        "submitted_ms": glance.submitted_ms,
        "ms": None if glance.seconds is None else round(glance.seconds * 1000, 1),
        "error": glance.error,
    }


def latest_jobs(observed: Observation) -> dict[str, Any]:
    """Return the latest jobs and the latest that failed, newest first."""
    latest = list(observed.latest.values())[-SHOWN_JOBS:]
    failed = list(observed.failed)[-SHOWN_FAILED:]
    return {
        "latest": [job_glance(glance) for glance in reversed(latest)],
        "failed": [job_glance(glance) for glance in reversed(failed)],
    }


def stored_line(job: StoredJob) -> dict[str, Any]:
    """Return one line about a job from the database, as `job_glance` has it."""
    return {
        "id": job.id.hex(),
        "family": job.family,
        "client": job.client,
        "state": job.state.value,
        "attempts": job.epoch,
        "agent_id": job.agent_id,
        "submitted_ms": job.submitted_ms,
        "ms": None if job.ended_ms is None else job.ended_ms - job.submitted_ms,
        "error": None if job.error is None else job.error.code,
    }


def job_page(job: StoredJob, way: Way, variant_name: str | None) -> dict[str, Any]:
    """Return everything about a job but its tensors."""
    error = None
    if job.error is not None:
        error = {"code": job.error.code, "message": job.error.message, "blame": job.error.blame.value}
    return {
        **stored_line(job),
        "error": error,
        "priority": job.priority,
        "deadline_ms": job.deadline_ms,
        "variant": variant_name,
        "class": job.klass,
        "run_us": job.run_us,
        "receipt": f"/api/v1/jobs/{job.id.hex()}/receipt" if job.receipt is not None else None,
        "clock_moved_ms": round(way.moved_ms, 1),
        "stages": [
            {
                "name": stage.name,
                "text": stage.text,
                "start_ms": round(stage.start_ms, 3),
                "took_ms": round(stage.took_ms, 3),
                "agent_id": stage.agent_id,
            }
            for stage in way.stages
        ],
    }


def models_page(catalogue: Catalogue, agents: Iterable[Agent]) -> list[dict[str, Any]]:
    """Return each family with its variants, who serves which, and what was predicted and measured where."""
    served: dict[tuple[str, str], list[str]] = {}
    fits: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for agent in agents:
        for offer in agent.offers.values():
            served.setdefault((offer.family, offer.variant_name), []).append(agent.id)
        for fit in (agent.status.fits or ()) if agent.status is not None else ():
            fits.setdefault((fit.family, fit.variant_name), []).append(_fit(agent.id, fit))
    return [
        {
            "family": family.name,
            "variants": [
                {
                    "variant": variant.name,
                    "size_bytes": variant.size_bytes,
                    "served_by": served.get((family.name, variant.name), []),
                    "fits": fits.get((family.name, variant.name), [])[:MAX_FITS_SHOWN],
                    "fits_more": max(0, len(fits.get((family.name, variant.name), [])) - MAX_FITS_SHOWN),
                }
                for variant in family.variants
            ],
        }
        for family in catalogue.families
    ]


def checks_page(
    catalogue: Catalogue, observed: Observation, counters: Mapping[str, int], standings: Iterable[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return what was refused by which step, who is trusted how far, and what an operator may want to look into."""
    names = {v.digest_bytes: f"{family.name} · {v.name}" for family in catalogue.families for v in family.variants}
    prefix = "refused:"
    return {
        "refused": {name.removeprefix(prefix): n for name, n in counters.items() if name.startswith(prefix)},
        "checks": observed.checks,
        "wrong": counters.get("wrong-result", 0),
        "accepted": observed.accepted,
        "standings": [
            {
                "name": row["name"],
                "variant": names.get(row["variant"], row["variant"].hex()[:12]),
                "count": row["count"],
                "failures": row["failures"],
                "unclear": row["unclear"],
                "resting_until_ms": row["resting_until_ms"],
            }
            for row in standings
        ],
        "incidents": [
            {
                "at_ms": incident.at_ms,
                "action": incident.action,
                "text": incident.text,
                "agent_id": incident.agent_id,
                "job_id": incident.job_id,
            }
            for incident in reversed(observed.incidents)
        ],
    }


def fits_of(agent: Agent | None) -> list[dict[str, Any]]:
    """Return what an agent said of each variant on its machine."""
    fits = agent.status.fits if agent is not None and agent.status is not None else None
    return [{"family": fit.family, "variant": fit.variant_name, **_fit("", fit)} for fit in fits or ()]


def _fit(agent_id: str, fit: FitReport) -> dict[str, Any]:
    return {
        "agent_id": agent_id,
        "served": fit.served,
        "predicted_us": fit.predicted_us,
        "predicted_bytes": fit.predicted_bytes,
        "measured_us": fit.measured_us,
        "measured_bytes": fit.measured_bytes,
        "why": fit.why,
    }


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that changed; those that are gone become null."""
    changed = {name: value for name, value in after.items() if before.get(name, _NOTHING) != value}
    return changed | {name: None for name in before if name not in after}


_NOTHING = object()
