"""What the machine says that it serves: offers, and the class of its results. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from edge_agent.agent.estimates import Estimates
from edge_agent.agent.plans import Plan
from edge_agent.agent.policy import Policy
from edge_agent.agent.prospects import Prospects
from edge_agent.models.selection import Measured
from edge_agent.wire.messages import Offer, VariantClass

PROVIDER = "CPUExecutionProvider"


class Offering:
    """Makes offers of plans.

    Args:
        policy: what the owner allows.
        prospects: knows the runtime, without which nothing is offered.
        estimates: of how long jobs take.
        isa: the instruction set path, part of the class of every result.
    """

    def __init__(self, policy: Policy, prospects: Prospects, estimates: Estimates, isa: str) -> None:
        self._policy = policy
        self._prospects = prospects
        self._estimates = estimates
        self._isa = isa
        self._classes: dict[bytes, VariantClass] = {}

    def brief(self, plans: Iterable[Plan]) -> tuple[tuple[str, bool], ...]:
        """Return the digest of each variant that is offered, and whether it is loaded."""
        if not self._prospects.runtime:
            return ()
        return tuple((plan.chosen.variant.digest, plan.loaded) for plan in plans if plan.chosen is not None)

    def offers(self, plans: Iterable[Plan]) -> tuple[Offer, ...]:
        """Return what can be leased to this machine."""
        if not self._prospects.runtime:
            return ()
        return tuple(self._offer(plan, plan.chosen) for plan in plans if plan.chosen is not None)

    def class_of(self, variant: bytes) -> VariantClass:
        """Return the class in which a variant is served here; each job asks for it several times."""
        known = self._classes.get(variant)
        if known is None or known.runtime != self._prospects.runtime:
            known = self._classes[variant] = self._class_of(variant)
        return known

    def _class_of(self, variant: bytes) -> VariantClass:
        return VariantClass(variant=variant, runtime=self._prospects.runtime, provider=PROVIDER, isa=self._isa)

    def _offer(self, plan: Plan, chosen: Measured) -> Offer:
        return Offer(
            family=plan.family.name,
            variant=chosen.variant.digest_bytes,
            variant_name=chosen.variant.name,
            klass=self.class_of(chosen.variant.digest_bytes),
            latency_us=self._estimates.latency_us(chosen),
            max_in_flight=self._policy.max_in_flight,
            loaded=plan.loaded,
        )
