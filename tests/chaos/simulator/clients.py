"""Clients: each sends one request, repeats it as the real client does, and keeps what it was told."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from fakes import scan

from edge_agent.coordinator.events import JobStored, Outcome, Submit, SubmitRefused
from edge_agent.coordinator.requests import request_digest
from simulator.coordinator import Answer, CoordinatorProcess
from simulator.script import Step
from simulator.world import Promise, World

FAMILY = "digits"
PATIENCE_SECONDS = 60.0
"""A client tries for so long after its deadline."""
RETRY_FIRST_SECONDS = 0.25
RETRY_MAX_SECONDS = 5.0


@dataclass(slots=True)
class Told:
    """What a client was told of the end of a job."""

    at: float
    job_id: bytes
    outcome: Outcome


class Request:
    """One client with one request.

    Args:
        world: that it lives in.
        coordinator: whom it asks.
        index: the position among all requests.
        step: what it asks for.

    Attributes:
        acknowledged: the job that the coordinator said is stored, once it did.
        told: what came of it.
        refused: the code of the last refusal.
        given_up: it asks no more.
    """

    def __init__(self, world: World, coordinator: CoordinatorProcess, index: int, step: Step, mode: str) -> None:
        self.step = step
        self.mode = mode
        self.index = index
        self.acknowledged: set[bytes] = set()
        self.asked: set[bytes] = set()
        self.told: Told | None = None
        self.refusals: list[SubmitRefused] = []
        self.given_up = False
        self._world = world
        self._coordinator = coordinator
        self._tries = 0
        self._began = world.now

    def __str__(self) -> str:
        return f"the client of number {self.step.count}"

    @property
    def waits(self) -> bool:
        """Whether it still expects something."""
        return self.told is None and not self.given_up

    def ask(self) -> None:
        """Submit, for the first time or again."""
        if not self.waits:
            return
        self._tries += 1
        name = b"%d %d %d" % (self._world.seed, self.index, self._tries)
        image = scan(self.step.count)
        submit = Submit(
            job_id=hashlib.blake2b(b"job " + name, digest_size=16).digest(),
            salt=hashlib.blake2b(b"salt " + name, digest_size=32).digest(),
            family=FAMILY,
            inputs=(image,),
            outputs=(),
            variant=None,
            idempotency_key=self.step.text or None,
            request_digest=request_digest(FAMILY, None, (image,), ()),
            durable=not self.step.sync,
            deadline_seconds=self.step.seconds,
            client=f"client {self.step.count % 2}",
            priority=self.step.count % 3,
            mode=self.mode,
            accept_newcomers=self.step.count % 2 == 0,
        )
        self.asked.add(submit.job_id)
        if not self._coordinator.submit(submit, self._answered):
            self._later(self.ask)

    def _answered(self, answer: Answer) -> None:
        match answer:
            case JobStored():
                if not self.step.sync:
                    self.acknowledged.add(answer.job_id)
                self._wait_for(answer.job_id)
            case SubmitRefused(code="idempotency-conflict"):
                self.refusals.append(answer)
                self.given_up = True
            case SubmitRefused():
                self.refusals.append(answer)
                self._later(self.ask, answer.retry_after_seconds or 0.0)
            case None if self.step.text:
                self._later(self.ask)
            case None:  # without a key, it cannot ask again without risking to have it done twice
                self.given_up = True

    def _wait_for(self, job_id: bytes) -> None:
        def tell(outcome: Outcome | None) -> None:
            if outcome is not None:
                self.told = Told(self._world.now, job_id, outcome)
                self._world.say(f"{self} is told: {outcome.state} {outcome.error or ''}")
            elif self.step.sync and self.step.text:
                self._later(self.ask)
            elif self.step.sync:
                self.given_up = True
            elif self._coordinator.alive:
                self._world.violate(Promise.ENDS_ONCE, f"{self} is told that its acknowledged job is not known")
                self.given_up = True
            else:
                self._later(lambda: self._wait_for(job_id))

        if not self._coordinator.outcome(job_id, tell):
            self._later(lambda: self._wait_for(job_id) if not self.step.sync else self.ask())

    def _later(self, act: object, at_least: float = 0.0) -> None:
        if self._world.now > self._began + self.step.seconds + PATIENCE_SECONDS and not self.acknowledged:
            self.given_up = True
            return
        bound = min(RETRY_FIRST_SECONDS * 2**self._tries, RETRY_MAX_SECONDS)
        self._world.later(max(at_least, bound * self._world.draw(1000 + self.index)), act)  # type: ignore[arg-type]
