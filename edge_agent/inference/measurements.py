"""From a family's variant to a canary run, and from its outcome to a measurement."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.inference.process import Canary
from edge_agent.models.selection import Measured
from edge_agent.models.trials import thread_counts

if TYPE_CHECKING:
    from edge_agent.inference.events import CanaryDone
    from edge_agent.models.catalogue import Family, Variant
    from edge_agent.models.store import Store

SECONDS = 0.3
"""How long runs are repeated with each number of threads."""


def request(family: Family, variant: Variant, store: Store, threads: int, seconds: float = SECONDS) -> Canary:
    """Return what to measure of a variant; its file is open and verified, and the caller's to hand over.

    Raises:
        StateError, DigestMismatchError: the model's or the golden file is not there, or not the right one.
        MalformedError: the golden file is not one.
    """
    cases = () if variant.golden is None else store.golden_cases(variant)
    return Canary(
        digest=variant.digest_bytes,
        fd=store.open_variant(variant),
        threads=thread_counts(threads),
        cases=cases,
        tolerance=variant.golden,
        extents=family.extents,
        seconds=seconds,
    )


def measurement(variant: Variant, done: CanaryDone) -> Measured:
    """Return the outcome of a canary run as the choice needs it."""
    return Measured(
        variant=variant,
        p50_us=done.p50_us,
        peak_bytes=done.peak_bytes,
        golden_ok=done.golden_ok,
        why=done.why,
        p95_us=done.p95_us,
        load_peak_bytes=done.load_peak_bytes,
        steady_bytes=done.steady_bytes,
        run_peak_bytes=done.run_peak_bytes,
        cpu_us=done.cpu_us,
        threads=done.threads,
        checked=done.checked,
        lanes=done.lanes,
        together=done.together,
    )
