"""What becomes of a job after an attempt without a result: pure rules, for whatever may have happened."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.coordinator.hedging import BURST, HedgeBudget
from edge_agent.coordinator.jobs import Blame, Job
from edge_agent.coordinator.retries import (
    BACKOFF_FIRST_SECONDS,
    BACKOFF_MAX_SECONDS,
    DEADLY,
    INNOCENT,
    POISON_AGENTS,
    backoff_seconds,
    blame_of_poison,
    counts,
    verdict,
    waits,
)
from edge_agent.wire.messages import Failure

WHYS = st.sampled_from(sorted(INNOCENT | DEADLY | {"not-held", "lease-expired", "model-run"}))


def _job(*, failures: int, killed: int, max_attempts: int) -> Job:
    job = Job(
        id=bytes(16),
        family="digits",
        inputs=(),
        outputs=(),
        salt=bytes(32),
        submitted_ms=0,
        deadline=1.0,
        max_attempts=max_attempts,
    )
    job.failures = failures
    job.killed = {f"agent {number}" for number in range(killed)}
    return job


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_the_wait_grows_up_to_its_bound_and_may_be_anything_below(failures: int, drawn: float) -> None:
    """Full jitter: from nothing to the whole."""
    bound = backoff_seconds(failures, lambda: 1.0)
    assert BACKOFF_FIRST_SECONDS <= bound <= BACKOFF_MAX_SECONDS
    assert bound == min(BACKOFF_MAX_SECONDS, BACKOFF_FIRST_SECONDS * 2.0 ** min(max(failures - 1, 0), 30))
    assert 0.0 <= backoff_seconds(failures, lambda: drawn) <= bound
    assert backoff_seconds(failures, lambda: 0.0) == 0.0


def test_those_who_failed_together_come_back_apart() -> None:
    """A thousand jobs that lost their agent in one moment do not return in one moment."""
    rng = random.Random(7)
    moments = sorted(backoff_seconds(4, rng.random) for _ in range(1000))
    buckets = [sum(start <= moment < start + 0.1 for moment in moments) for start in (0.0, 0.2, 0.4, 0.6)]
    assert min(buckets) > 60
    assert max(buckets) < 200


@given(st.integers(0, 10), st.integers(0, 5), st.integers(1, 10), WHYS, st.sampled_from(Blame), st.sampled_from(Blame))
def test_a_job_ends_exactly_when_it_is_poison_or_its_attempts_are_used_up(  # noqa: PLR0917 all that counts
    failures: int, killed: int, max_attempts: int, why: str, blame: Blame, poison_blame: Blame
) -> None:
    """And every end has a code, a sentence and somebody to blame."""
    error = verdict(
        _job(failures=failures, killed=killed, max_attempts=max_attempts), why, "It was so.", blame, poison_blame
    )
    if killed >= POISON_AGENTS:
        assert error is not None
        assert (error.code, error.blame) == ("poison", poison_blame)
    elif failures >= max_attempts:
        assert error is not None
        assert (error.code, error.blame) == ("attempts-exhausted", blame)
    else:
        assert error is None
    assert error is None or why in error.message


@pytest.mark.parametrize(
    ("lost_by", "blame"),
    [("=ada", Blame.COORDINATOR), ("=mal", Blame.AGENT), (None, Blame.COORDINATOR)],
)
def test_where_one_owner_refused_a_job_that_others_lost_nobody_knows_whose_fault_it_is(
    lost_by: str | None, blame: Blame
) -> None:
    """But for who refused it and lost it, too. A refusal that comes last is still the word of one."""
    job = _job(failures=5, killed=0, max_attempts=5)
    job.refusals = {"=mal": "bad-input"}
    error = verdict(job, "not-held", "", Blame.AGENT, Blame.MODEL, lost_by)
    assert error is not None
    assert (error.code, error.blame) == ("attempts-exhausted", blame)
    assert ("(bad-input)" in error.message) == (blame is Blame.COORDINATOR)


@given(st.integers(0, 50), st.integers(0, 50))
def test_poison_is_the_inputs_fault_where_the_model_serves_others(accepted: int, poisoned: int) -> None:
    """Evidence decides: a model that works for nobody is to blame itself."""
    assert blame_of_poison(accepted, poisoned) is (Blame.REQUESTER if accepted > poisoned else Blame.MODEL)
    assert blame_of_poison(0, 0) is Blame.MODEL


def test_what_says_nothing_of_the_job_counts_nothing() -> None:
    """A full queue, a clean stop, a revoked admission, a full outbox, and the second of two results."""
    for why in ("queue-full", "handed-back", "not-enrolled", "not-sent", "not-arrived", "overtaken"):
        assert not counts(why)
    for why in ("worker-died", "worker-hung", "lease-expired", "not-held", "digest-mismatch", "anything"):
        assert counts(why)


def test_an_agent_that_says_goodbye_costs_its_jobs_no_wait() -> None:
    """What is handed back or was lost on the way goes out at once; what failed does not."""
    assert not any(map(waits, ("handed-back", "not-held", "not-arrived", "not-enrolled", "queue-full")))
    assert all(map(waits, ("worker-died", "lease-expired", "not-sent")))


def test_the_codes_are_those_that_agents_can_send() -> None:
    """They fit the statement, so that no rule here is for a code that cannot come."""
    for code in INNOCENT | DEADLY:
        Failure(
            network="home", issued_ms=0, job=bytes(16), epoch=1, agent_id="a" * 32, code=code, message="",
            blame="agent", retry=True, retry_after_ms=0,
        )  # fmt: skip


@given(st.floats(0, 1), st.lists(st.booleans(), max_size=400))
def test_no_more_second_attempts_than_their_share_of_the_jobs(share: float, events: list[bool]) -> None:
    """Whatever the order: after every job, and with a bounded store."""
    budget = HedgeBudget(share)
    jobs = hedges = 0
    for is_job in events:
        if is_job:
            jobs += 1
            budget.earn()
        elif budget.left:
            hedges += 1
            budget.spend()
        assert hedges <= share * jobs + 1e-3


def test_two_in_a_hundred_are_two_in_a_hundred() -> None:
    """The default share, exactly; and what is saved up is bounded."""
    budget = HedgeBudget(0.02)
    hedges = 0
    for _ in range(1000):
        budget.earn()
        if budget.left:
            hedges += 1
            budget.spend()
    assert hedges == 20
    for _ in range(10_000):
        budget.earn()
    saved = 0
    while budget.left:
        saved += 1
        budget.spend()
    assert saved == BURST
