"""The oracle: holds what happened against the promises of docs/reliability.md. It looks at histories, not at rules."""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from fakes import COORDINATOR_KEY, MAX_BYTES, NETWORK, answer_to, scan

from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.jobs import FINAL_STATES, Blame, JobState
from edge_agent.coordinator.registry import Presence
from edge_agent.coordinator.retries import DEADLY, POISON_AGENTS, counts
from edge_agent.wire import envelope
from edge_agent.wire.job_options import owners_wanted
from edge_agent.wire.ledger import FORFEIT, WORK
from edge_agent.wire.messages import Result
from edge_agent.wire.receipts import verify_receipt
from edge_agent.wire.tensors import Tensor
from simulator.agent import REFUSAL
from simulator.database import AttemptRow
from simulator.script import COORDINATOR, Kind
from simulator.simulation import PROBE, Simulation
from simulator.wire import TOKEN_RECEIPT
from simulator.world import Promise

LIVENESS_SECONDS = 150.0
"""A job that has so much time left once everything is well succeeds: a rebirth, a lease and a few retries fit in."""
SLACK_SECONDS = 1.0
STOP_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that was broken, and how."""

    promise: Promise
    sentence: str

    def __str__(self) -> str:
        return f"promise {self.promise.value} ({self.promise.name.lower()}): {self.sentence}"


def check(simulation: Simulation) -> list[Violation]:
    """Return every violation of a run that has come to its end."""
    found = [Violation(promise, sentence) for promise, sentence in simulation.world.violations]
    for rule in RULES:
        found += [Violation(promise, sentence) for promise, sentence in rule(simulation)]
    return found


Found = Iterator[tuple[Promise, str]]


def _name(simulation: Simulation, job_id: bytes) -> str:
    row = simulation.coordinator.database.tables.jobs.get(job_id)
    if row is None:
        return f"job {job_id.hex()[:8]}"
    return f"job {job_id.hex()[:8]} ({row.inserted.submit.idempotency_key or 'without a key'})"


def every_acknowledged_job_ends(simulation: Simulation) -> Found:
    """Promise 1: stored, ended, with a state that says who is to blame."""
    rows = simulation.coordinator.database.tables.jobs
    for request in simulation.requests:
        for job_id in sorted(request.acknowledged):
            if job_id not in rows:
                yield Promise.ENDS_ONCE, f"the acknowledged {_name(simulation, job_id)} is not in the database"
        if request.waits:
            yield Promise.ENDS_ONCE, f"{request} still waits for an answer"
    for job_id, row in rows.items():
        if row.state not in FINAL_STATES or row.outcome is None:
            yield Promise.ENDS_ONCE, f"{_name(simulation, job_id)} has not ended: it is {row.state}"
        elif (row.state is JobState.SUCCEEDED) != (row.outcome.error is None):
            yield Promise.ENDS_ONCE, f"{_name(simulation, job_id)} is {row.state} with {row.outcome.error}"
        elif row.state is JobState.CANCELLED and row.outcome.error.blame is not Blame.CANCELLED:
            yield Promise.ENDS_ONCE, f"the cancelled {_name(simulation, job_id)} blames {row.outcome.error.blame}"


def nobody_is_told_what_is_not_so(simulation: Simulation) -> Found:
    """Promise 1: what a client was told is what the database says."""
    rows = simulation.coordinator.database.tables.jobs
    for request in simulation.requests:
        told = request.told
        if told is None or (request.step.sync and _power_failed_after(simulation, told.at)):
            continue  # the end of what waits for its client alone is not synchronised to the disk
        row = rows.get(told.job_id)
        if row is None or row.outcome is None:
            yield Promise.ENDS_ONCE, f"{request} was told of an end that the database does not have"
        elif replace(row.outcome, verification=None) != replace(told.outcome, verification=None):  # checks come later
            state, said = row.outcome.state, told.outcome.state
            yield Promise.ENDS_ONCE, f"{request} was told {said}, the database has another end: {state}"
        elif simulation.coordinator.inputs[told.job_id] != answer_inputs(request.step.count):
            yield Promise.ENDS_ONCE, f"{request} was given the answer to another request"


def one_key_is_one_job(simulation: Simulation) -> Found:
    """Promise 1: requests that are repeated under a key are done once, and everybody is told of the same job."""
    jobs: dict[str, set[bytes]] = defaultdict(set)
    for request in simulation.requests:
        told = request.told
        if told is not None and request.step.sync and _power_failed_after(simulation, told.at):
            told = None  # as above
        if request.step.text:
            jobs[request.step.text] |= request.acknowledged | ({told.job_id} if told else set())
    for key, done in jobs.items():
        if len(done) > 1:
            yield Promise.ENDS_ONCE, f"under the key {key} {len(done)} jobs were done"


def _power_failed_after(simulation: Simulation, moment: float) -> bool:
    faults = simulation.faults
    return any(f.step.kind is Kind.POWER_CUT and f.step.who == COORDINATOR and f.at >= moment for f in faults)


def _workers_failed(simulation: Simulation) -> int:
    return sum(fault.step.kind in {Kind.KILL_WORKER, Kind.HANG_WORKER} for fault in simulation.faults)


def _clock_jumped_over_a_reboot(simulation: Simulation) -> bool:
    kinds = {fault.step.kind for fault in simulation.faults if fault.step.who == COORDINATOR}
    return kinds >= {Kind.POWER_CUT, Kind.CLOCK}


def answer_inputs(number: int) -> tuple[Tensor, ...]:
    """Return the inputs of the request of this number."""
    return (scan(number),)


def number_in(inputs: tuple[Tensor, ...]) -> int:
    """Return the number in the inputs of a request."""
    return int(struct.unpack("<f", inputs[0].data[:4])[0])


def results_fit_their_attempts(simulation: Simulation) -> Found:
    """Promise 1 and 2: a result is for its own input, by the agent that held an attempt that was not over."""
    tables = simulation.coordinator.database.tables
    attempts: dict[bytes, dict[int, AttemptRow]] = defaultdict(dict)
    for (job_id, epoch), attempt in tables.attempts.items():
        attempts[job_id][epoch] = attempt
    for job_id, row in tables.jobs.items():
        outcome = row.outcome
        if outcome is None:
            continue
        accepted = [epoch for epoch, attempt in attempts[job_id].items() if attempt.outcome == JobState.SUCCEEDED]
        if any(attempt.outcome is None for attempt in attempts[job_id].values()):
            yield Promise.ENDS_ONCE, f"{_name(simulation, job_id)} has ended, and an attempt of it has not"
        if row.state is not JobState.SUCCEEDED:
            continue
        (image,) = simulation.coordinator.inputs[job_id]
        if outcome.outputs != answer_to(image):
            yield Promise.ENDS_ONCE, f"{_name(simulation, job_id)} has the result of another input"
        if accepted != [row.result_epoch]:
            yield Promise.BROKER, f"the result of {_name(simulation, job_id)} is of an attempt that was over"
        elif _epoch_in(simulation, outcome) != row.result_epoch:
            yield Promise.BROKER, f"the result of {_name(simulation, job_id)} was signed for an attempt that was over"
        elif attempts[job_id][accepted[0]].inserted.agent_id != outcome.agent_id:
            yield Promise.BROKER, f"the result of {_name(simulation, job_id)} is not by the agent that held the attempt"


def _epoch_in(simulation: Simulation, outcome: Outcome) -> int:
    """Return the epoch in the statement that the agent signed."""
    receipt = outcome.receipt or b""
    if not receipt.startswith(TOKEN_RECEIPT):
        return verify_receipt(receipt, COORDINATOR_KEY.public).result.epoch
    agent = next(agent for agent in simulation.agents if agent.id == outcome.agent_id)
    signed = receipt.removeprefix(TOKEN_RECEIPT)
    opened = envelope.open_envelope(signed, agent.key.public, Result, network=NETWORK, max_bytes=MAX_BYTES)
    return opened.statement.epoch


def poison_is_contained(simulation: Simulation) -> Found:
    """Promise 1: what kills workers is tried on two agents at most and blames none; what is refused blames none.

    Unless nobody refused it, since those that held it lost it; or who refused it lost it, too: a word about a job does
    not excuse what becomes of it.
    """
    script, tables = simulation.script, simulation.coordinator.database.tables
    for job_id, row in tables.jobs.items():
        tried = [a for (tried_id, _), a in tables.attempts.items() if tried_id == job_id]
        error = row.outcome.error if row.outcome is not None else None
        number = number_in(simulation.coordinator.inputs[job_id])
        if number == script.poison:
            killed = {a.inserted.agent_id for a in tried if a.outcome in DEADLY}
            if row.state is JobState.SUCCEEDED or len(killed) > POISON_AGENTS:
                yield Promise.ENDS_ONCE, f"the poison of {_name(simulation, job_id)} was given to {len(killed)} agents"
            if len(killed) >= POISON_AGENTS and error is not None and error.blame is Blame.AGENT:
                yield Promise.STANDING, f"the poison of {_name(simulation, job_id)} blames an agent"
        elif number == script.bad and (
            error is None or (error.blame is Blame.AGENT and _refused_by_others(simulation, tried))
        ):
            yield Promise.ENDS_ONCE, f"the refused {_name(simulation, job_id)} ended with {error}"


def _refused_by_others(simulation: Simulation, tried: list[AttemptRow]) -> bool:
    """Whether whoever lost the job, another owner's machine had refused it."""
    owner = simulation.coordinator.owners.get
    refused = {owner(a.inserted.agent_id) for a in tried if a.outcome == REFUSAL}
    lost = {owner(a.inserted.agent_id) for a in tried if a.outcome and a.outcome != REFUSAL and counts(a.outcome)}
    return len(refused) > 1 or bool(refused - lost)


def everything_drains(simulation: Simulation) -> Found:
    """Promises 1, 2 and 5: nothing is held for ever, on either side."""
    coordinator = simulation.coordinator
    if coordinator.core.leasing.jobs:
        yield Promise.ENDS_ONCE, f"the coordinator still holds {len(coordinator.core.leasing.jobs)} jobs"
    for agent in coordinator.core.registry.agents.values():
        if agent.in_flight:
            yield Promise.BOUNDED, f"the room of an agent is taken up by {len(agent.in_flight)} jobs that are over"
    for agent in simulation.agents:
        if len(agent.core.attempts):
            yield Promise.BROKER, f"{agent} holds {len(agent.core.attempts)} attempts for ever"
        if agent.spool and not any(fault.step.kind is Kind.SPOOL_FAILS for fault in simulation.faults):
            yield Promise.BROKER, f"{agent} keeps {len(agent.spool)} results on disk that were settled"


def everybody_is_back(simulation: Simulation) -> Found:
    """Promises 2 and 3: once everything is well again, every agent is online, offers, and a job succeeds."""
    for process in (simulation.coordinator, *simulation.agents):
        if not process.alive:
            yield Promise.CLEAN_STOP, f"{process} is not there"
    for agent in simulation.agents:
        known = simulation.coordinator.core.registry.agents.get(agent.id)
        if known is None or known.presence is not Presence.ONLINE or (not known.offers and not agent.withdrew):
            presence = known.presence if known else "unknown"
            yield Promise.BROKER, f"{agent} is up and connected, but the coordinator has it as {presence}"
    rows = simulation.coordinator.database.tables.jobs
    for job_id, row in rows.items():
        submit = row.inserted.submit
        inputs = simulation.coordinator.inputs[job_id]
        probe = inputs == answer_inputs(PROBE)
        if row.state is JobState.FAILED and row.outcome is not None and row.outcome.error is not None:
            left = simulation.submitted_at(job_id) + submit.deadline_seconds - simulation.healed_at
            exhausted = row.outcome.error.code == "attempts-exhausted"
            may_be = exhausted and row.inserted.max_attempts < 50 and not probe
            may_be = may_be or number_in(inputs) in {simulation.script.poison, simulation.script.bad}
            may_be = may_be or (row.outcome.error.code == "poison" and _workers_failed(simulation) >= POISON_AGENTS)
            may_be = may_be or _clock_jumped_over_a_reboot(simulation)
            may_be = may_be or _owners_that_serve(simulation) < owners_wanted(submit.mode)
            if left > LIVENESS_SECONDS and not may_be:
                error = row.outcome.error
                yield Promise.ENDS_ONCE, f"{_name(simulation, job_id)} could have succeeded, but: {error.message}"


def _owners_that_serve(simulation: Simulation) -> int:
    """Say how many owners have a machine that still serves: who asks for two is given nothing on the word of one."""
    return len({simulation.coordinator.owners.get(agent.id) for agent in simulation.agents if not agent.withdrew})


def deadlines_hold(simulation: Simulation) -> Found:
    """Promise 4: no job ends by its deadline before it, or goes on after it, on a clock that does not jump."""
    ended_at = simulation.coordinator.ended_at
    for job_id, row in simulation.coordinator.database.tables.jobs.items():
        if row.outcome is None or job_id not in ended_at:
            continue
        due = simulation.submitted_at(job_id) + row.inserted.submit.deadline_seconds
        error = row.outcome.error
        if _clock_jumped_over_a_reboot(simulation):
            continue  # nothing on the machine knows how long it was off
        if error is not None and error.blame is Blame.DEADLINE and ended_at[job_id][-1] < due - 0.1:
            early = due - ended_at[job_id][-1]
            yield Promise.TIME, f"{_name(simulation, job_id)} was ended {early:.1f} s before its deadline"
        slow = sum(fault.step.seconds for fault in simulation.faults if fault.step.kind is Kind.SLOW_DISK)
        for decided in simulation.coordinator.decided_at[job_id]:
            if decided < ended_at[job_id][0]:  # it did not go on, but its end was lost with the process
                due = max(due, simulation.next_end(decided))
        latest = max(simulation.next_up(due), simulation.last_reboot() + row.inserted.submit.deadline_seconds)
        if ended_at[job_id][0] > latest + slow + SLACK_SECONDS:
            late = ended_at[job_id][0] - due
            yield Promise.TIME, f"{_name(simulation, job_id)} went on for {late:.1f} s after its deadline"


def absence_costs_no_standing(simulation: Simulation) -> Found:
    """Promise 3: where only the coordinator failed, no lease ran out and no agent is blamed."""
    if any(fault.step.who != COORDINATOR or fault.step.kind not in _OURS for fault in simulation.faults):
        return
    if any(step.kind not in _OURS | {Kind.SUBMIT, Kind.CANCEL} for step in simulation.script.steps):
        return
    tables = simulation.coordinator.database.tables
    power_failed = _power_failed_after(simulation, 0.0)
    for (job_id, epoch), row in tables.attempts.items():
        if row.outcome == "lease-expired":
            yield Promise.STANDING, f"attempt {epoch} of {_name(simulation, job_id)} was taken from an agent at work"
        if row.outcome == "not-held" and not power_failed:
            yield (
                Promise.STANDING,
                f"attempt {epoch} of {_name(simulation, job_id)} counts against an agent that stayed",
            )
    for job_id, epoch in simulation.coordinator.taken_though_held:
        yield Promise.STANDING, f"attempt {epoch} of {_name(simulation, job_id)} was taken from the agent that held it"
    for job_id, row in tables.jobs.items():
        poison = number_in(simulation.coordinator.inputs[job_id]) == simulation.script.poison
        error = row.outcome.error if row.outcome is not None else None
        if error is not None and error.blame is Blame.AGENT and not poison:
            yield Promise.STANDING, f"{_name(simulation, job_id)} blames an agent for {error.message}"


_OURS = frozenset(
    {
        Kind.CRASH,
        Kind.POWER_CUT,
        Kind.HANG,
        Kind.STOP,
        Kind.CUT,
        Kind.UNREACHABLE,
        Kind.CLOCK,
        Kind.SLOW_DISK,
    }
)
_GOODBYES = frozenset({Kind.CRASH, Kind.POWER_CUT, Kind.STOP, Kind.CUT, Kind.KILL_WORKER, Kind.HANG_WORKER, Kind.CLOCK})


def an_absence_costs_at_most_the_lease(simulation: Simulation) -> Found:
    """Promise 3: what an agent held when it was killed or lost power is leased again when its lease is over."""
    steps = simulation.script.steps
    if any(s.kind not in _GOODBYES | {Kind.SUBMIT, Kind.CANCEL} or (s.kind in _OURS and s.who < 0) for s in steps):
        return
    lease = simulation.script.lease_seconds
    for fault in simulation.faults:
        if fault.step.kind is not Kind.POWER_CUT:  # the only one that is felt at the moment of its step
            continue
        for job_id, epoch in fault.held.items():
            ended = simulation.coordinator.attempt_ended_at.get((job_id, epoch))
            if ended is None or ended > fault.at + lease + SLACK_SECONDS:
                yield Promise.STANDING, f"{_name(simulation, job_id)} waited longer than the lease for a dead agent"


def queues_are_bounded(simulation: Simulation) -> Found:
    """Promise 5: the queue keeps its bound, and who is refused is told when to come back."""
    script = simulation.script
    if simulation.coordinator.most_jobs > script.max_queued_jobs:
        yield Promise.BOUNDED, f"the queue held {simulation.coordinator.most_jobs} jobs"
    for request in simulation.requests:
        for refusal in request.refusals:
            if refusal.code in {"queue-full", "no-agent"} and not refusal.retry_after_seconds:
                yield Promise.BOUNDED, f"{request} was refused with {refusal.code} and not told when to come back"


def clean_stops_are_clean(simulation: Simulation) -> Found:
    """Promise 6: a stop ends in its time, says `stopped`, and leaves nothing to wait for."""
    for agent in simulation.agents:
        for asked, ended, _ in agent.stops:
            hung = agent.hung_between(asked, ended)
            if ended - asked > STOP_SECONDS + SLACK_SECONDS + hung:
                yield Promise.CLEAN_STOP, f"{agent} took {ended - asked:.1f} s to stop"
        if agent.silent_stops:
            yield Promise.CLEAN_STOP, f"{agent} stopped while it was connected and did not say so"
    steps = simulation.script.steps
    if any(s.kind is not Kind.STOP or s.who == COORDINATOR for s in steps if s.kind not in {Kind.SUBMIT, Kind.CANCEL}):
        return
    for (job_id, epoch), row in simulation.coordinator.database.tables.attempts.items():
        if row.outcome == "lease-expired":
            yield Promise.CLEAN_STOP, f"attempt {epoch} of {_name(simulation, job_id)} was not handed back at a stop"


def honest_machines_keep_their_standing(simulation: Simulation) -> Found:
    """Promise 3: no fault makes a machine that tells the truth look like a cheat, or takes what it earned."""
    tables = simulation.coordinator.database.tables
    for subject, standing in tables.standings.items():
        if standing.failures:
            yield Promise.STANDING, f"{standing.failures} results of {subject.name[:8]} count as wrong, and none is"
    if tables.balances[FORFEIT]:
        yield Promise.STANDING, f"{tables.balances[FORFEIT]} were taken from machines that told the truth"


def the_ledger_is_what_was_done(simulation: Simulation) -> Found:
    """Promise 1: it adds up to nothing, owes nobody, and the coordinator knows what waits in it."""
    balances = simulation.coordinator.database.tables.balances
    if sum(balances.values()):
        yield Promise.ENDS_ONCE, f"the ledger adds up to {sum(balances.values())}"
    for account, amount in balances.items():
        if amount < 0 and account != WORK:
            yield Promise.ENDS_ONCE, f"the ledger's account {account} stands at {amount}"
    stored = {name: amount for name, amount in balances.items() if name.startswith("escrow:") and amount}
    known = {name: amount for name, amount in simulation.coordinator.core.checking.ledger.escrow.items() if amount}
    if stored != known:
        yield Promise.ENDS_ONCE, f"{known} waits for a check, but {stored} is what the ledger has"


def what_is_given_out_is_checked_as_asked(simulation: Simulation) -> Found:
    """Promise 1: who asked for two owners was given the result of two; no check is forgotten."""
    for job_id, row in simulation.coordinator.database.tables.jobs.items():
        submit, outcome = row.inserted.submit, row.outcome
        if outcome is not None and outcome.verification is not None and outcome.verification.state == "pending":
            yield Promise.ENDS_ONCE, f"the check of {_name(simulation, job_id)} has not ended"
        if submit.mode != "rechecked" or submit.checks is not None or outcome is None or outcome.error is not None:
            continue
        by = outcome.verification.by if outcome.verification else ()
        owners = {simulation.coordinator.owners.get(agent_id) for agent_id in by}
        if len(owners) < 2:
            yield Promise.ENDS_ONCE, f"{_name(simulation, job_id)} was given out on the word of {len(owners)} owners"


RULES: tuple[Callable[[Simulation], Found], ...] = (
    every_acknowledged_job_ends,
    nobody_is_told_what_is_not_so,
    one_key_is_one_job,
    results_fit_their_attempts,
    poison_is_contained,
    everything_drains,
    everybody_is_back,
    deadlines_hold,
    absence_costs_no_standing,
    an_absence_costs_at_most_the_lease,
    queues_are_bounded,
    clean_stops_are_clean,
    honest_machines_keep_their_standing,
    the_ledger_is_what_was_done,
    what_is_given_out_is_checked_as_asked,
)
