"""Whether a new job is taken on, or why not: room for it, and machines that would do it. Pure."""

from __future__ import annotations

from collections.abc import Callable

from edge_agent.clock import Now
from edge_agent.coordinator.events import SubmitRefused
from edge_agent.coordinator.jobs import Job
from edge_agent.coordinator.leasing import Leasing
from edge_agent.coordinator.parties import Parties
from edge_agent.coordinator.registry import Registry
from edge_agent.coordinator.rules import Rules
from edge_agent.wire.job_options import ANYWHERE, owners_wanted

PACKET_OVERHEAD_BYTES = 256
"""No job's packet is larger than its inputs by less: nothing is refused for its size that could be sent."""


class Vetting:
    """Judges new jobs.

    Args:
        registry: the agents.
        leasing: the jobs that there are.
        parties: whose each agent is.
        rules: limits.
    """

    def __init__(self, registry: Registry, leasing: Leasing, parties: Parties, rules: Rules) -> None:
        self._registry = registry
        self._leasing = leasing
        self._parties = parties
        self._rules = rules

    def refuse(self, job: Job, max_packet_bytes: int | None, now: Now) -> SubmitRefused | None:
        """Say why a new job cannot be taken on, if it cannot.

        Args:
            job: that is new.
            max_packet_bytes: of the broker; None where that is not known.
            now: the moment.
        """
        return self._no_room(job, max_packet_bytes) or self._no_machine(job, now)

    def _no_room(self, job: Job, limit: int | None) -> SubmitRefused | None:
        size = job.input_bytes + PACKET_OVERHEAD_BYTES
        if limit is not None and size > limit:
            text = f"the inputs have {job.input_bytes} bytes, and the broker takes packets of {limit} bytes at most"
            return SubmitRefused(job.id, "too-large", text, None)
        if len(self._leasing.jobs) >= self._rules.max_queued_jobs:
            text = f"{len(self._leasing.jobs)} jobs wait at the coordinator, as many as may"
            return SubmitRefused(job.id, "queue-full", text, 1.0)
        waiting = self._leasing.input_bytes
        if waiting and waiting + job.input_bytes > self._rules.max_queued_bytes:
            text = f"the inputs of the jobs that wait at the coordinator have {waiting} bytes, as many as may"
            return SubmitRefused(job.id, "queue-full", text, 1.0)
        if not self._leasing.takes(job):
            text = "jobs with as many different placements wait at the coordinator as may"
            return SubmitRefused(job.id, "queue-full", text, 1.0)
        return None

    def _no_machine(self, job: Job, now: Now) -> SubmitRefused | None:
        serves = self._serves(job, now)
        if not serves(job.client):
            seconds = self._registry.expected_seconds(job.placement, job.client, now.monotonic)
            if seconds is None and serves(None):
                return SubmitRefused(job.id, "no-taker", self._nobody_takes(job), None)
            such = "" if job.variant is None and job.placement == ANYWHERE else " as it is asked for"
            return self._nobody(job, f"no machine offers {job.family}{such}", seconds)
        wanted = owners_wanted(job.mode)
        if wanted > 1 and (there := self._parties.owners_of(job)) < wanted:
            return self._too_few_owners(job, wanted, there)
        return None

    def _serves(self, job: Job, now: Now) -> Callable[[str | None], bool]:
        since = now.monotonic - self._rules.offer_grace_seconds
        return lambda client: self._registry.may_serve(job.family, job.variant, job.placement, client, since)

    def _nobody_takes(self, job: Job) -> str:
        """Say what of a job the owners of all machines that could do it do not want: its client, or what it is."""
        able = self._registry.eligible(job.family, job.variant, job.placement, None)
        if any(agent.terms is None or agent.terms.why_not_client(job.client) is None for agent in able):
            what = f"labelled {', '.join(job.placement.job_labels)}" if job.placement.job_labels else "without a label"
        else:
            what = f"of {job.client or 'unnamed clients'}"
        return f"no owner of a machine that offers {job.family} lets it take jobs {what}"

    def _too_few_owners(self, job: Job, wanted: int, there: int) -> SubmitRefused:
        """Say so at once: it makes sense to wait for machines of enough owners only where there are such."""
        text = f"{job.mode} takes machines of {wanted} owners"
        if (known := self._parties.owners_known()) < wanted:
            return SubmitRefused(job.id, "too-few-owners", f"{text}, and there are only {known} in this network", None)
        return SubmitRefused(job.id, "no-agent", f"{text}, and machines of {there} offer {job.family} now", 2.0)

    def _nobody(self, job: Job, text: str, seconds: float | None) -> SubmitRefused:
        if seconds is None:
            return SubmitRefused(job.id, "no-agent", f"{text} at the moment", 2.0)
        soon = f"; machines that have just come load and measure models, which takes about {seconds:.0f} s more"
        return SubmitRefused(job.id, "loading", f"{text} yet{soon}", seconds)
