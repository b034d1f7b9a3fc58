"""What the gateway may ask of a running coordinator: submit, wait, look up, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_agent.coordinator.admissions import Admissions
from edge_agent.coordinator.books import Books
from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.observation import Observation
from edge_agent.coordinator.operations import Operations
from edge_agent.coordinator.receipt_log import ReceiptLog
from edge_agent.coordinator.registry import Agent
from edge_agent.coordinator.rows import StoredAgent, StoredJob
from edge_agent.models.catalogue import Catalogue
from edge_agent.wire.job_options import JobOptions
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.tensors import Tensor


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission that was taken on; `repeated` when its idempotency key was known already."""

    job_id: bytes
    repeated: bool


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent as the database has it, and what is known of it now; None while it was not here since our start."""

    stored: StoredAgent
    live: Agent | None


class Service(Protocol):
    """The seam between HTTP and the coordinator; the daemon implements it."""

    catalogue: Catalogue
    network: str
    public_key: PublicKey
    receipt_log: ReceiptLog
    admissions: Admissions
    books: Books
    observed: Observation
    operations: Operations

    @property
    def counters(self) -> Mapping[str, int]:
        """How often each thing happened, by its action and code."""

    @property
    def ready(self) -> bool:
        """Whether the broker is connected."""

    def offered(self, family: str, variant: bytes | None = None) -> bool:
        """Whether a machine offers this family now, in this variant if one is named by its digest."""

    async def submit(  # noqa: PLR0913 each is a part of what a client asks for
        self,
        family: str,
        inputs: tuple[Tensor, ...],
        outputs: tuple[str, ...],
        *,
        variant: bytes | None,
        durable: bool,
        options: JobOptions,
    ) -> Accepted:
        """Take a job on.

        Raises:
            InputError: the inputs do not fit the family, the idempotency key was used for something else, or the
                deadline is further away than may be.
            TooLargeError: the broker does not take messages of that size.
            ResourceError: `queue-full`.
            JobFailedError: `no-agent`.
        """

    async def outcome(self, job_id: bytes, timeout_seconds: float) -> Outcome | None:
        """Wait for a job's end; None when it takes longer, or when there is no such job."""

    async def job(self, job_id: bytes) -> StoredJob | None:
        """Look a job up."""

    def cancel(self, job_id: bytes) -> None:
        """End a job that has not ended."""

    async def jobs(self, limit: int, client: str | None) -> list[StoredJob]:
        """Return the jobs that were submitted last, of one client or of all, newest first."""

    async def agents(self) -> list[AgentView]:
        """Return every agent that is known."""
