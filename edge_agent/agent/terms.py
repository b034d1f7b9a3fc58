"""Holds the machine to whose jobs its owner takes: what is said of it, and what is refused. Pure.

The coordinator is told and leases accordingly; a job that breaks the rule all the same is handed back here. A
coordinator that does not know terms cannot say whose a job is, so that nothing is offered to it while they restrict.
"""

from __future__ import annotations

import logging

from edge_agent.agent.attempts import Attempts
from edge_agent.agent.delivery import Delivery
from edge_agent.agent.events import Command, TermsChanged
from edge_agent.clock import Now
from edge_agent.notes import Note
from edge_agent.wire.messages import WITH_TERMS, Hello, Job
from edge_agent.wire.terms import Terms

NOT_TAKEN = "not-taken"
"""The code with which a job is answered that breaks the terms although the coordinator knows them."""


class Clientele:
    """For whom the machine works.

    Args:
        attempts: that are held.
        delivery: hands back.
    """

    def __init__(self, attempts: Attempts, delivery: Delivery) -> None:
        self.terms: Terms | None = None
        self._attempts = attempts
        self._delivery = delivery
        self._understood = True
        self._software = ""

    @property
    def unheard(self) -> str | None:
        """Say why the terms cannot be kept with this coordinator, if that is so."""
        if self._understood or self.terms is None or not self.terms.restrict:
            return None
        return f"the coordinator is {self._software}, which does not say whose a job is"

    @property
    def said(self) -> Terms | None:
        """What the offers say of it."""
        return self.terms if self._understood else None

    def on_hello(self, hello: Hello) -> None:
        """Take note of what the coordinator understands."""
        self._understood, self._software = WITH_TERMS in hello.versions, hello.software

    def change(self, event: TermsChanged, now: Now) -> list[Command]:
        """Go by other terms: what waits and is not for this machine any more is handed back, what runs may finish."""
        self.terms = event.terms
        commands: list[Command] = [Note(logging.INFO, f"Working {event.text}", "terms")]
        for held in self._attempts.waiting():
            if (why := self.why_not(held.job)) is not None:
                commands += self._delivery.fail(held, "handed-back", why, "agent", now, retry=True)
        return commands

    def why_not(self, job: Job) -> str | None:
        """Say why a job is not taken on, or None."""
        return None if self.terms is None else self.terms.why_not(job.client, job.labels)

    @staticmethod
    def code(job: Job) -> str:
        """Return how a job is answered that is not taken: one of before the terms were heard is nobody's fault."""
        return NOT_TAKEN if job.v == WITH_TERMS else "handed-back"

    def goes_first(self, job: Job) -> bool:
        """Whether a job goes before those of others."""
        return self.terms is not None and job.client is not None and job.client in self.terms.first
