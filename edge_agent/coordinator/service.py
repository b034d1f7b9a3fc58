"""What the gateway may ask of a running coordinator: submit, wait, look up, cancel."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from edge_agent.coordinator.events import Outcome
from edge_agent.coordinator.store import StoredAgent, StoredJob
from edge_agent.models.catalogue import Catalogue
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.tensors import Tensor


@dataclass(frozen=True, slots=True)
class Accepted:
    """A submission that was taken on; `repeated` when its idempotency key was known already."""

    job_id: bytes
    repeated: bool


class Service(Protocol):
    """The seam between HTTP and the coordinator; the daemon implements it."""

    catalogue: Catalogue
    network: str
    public_key: PublicKey

    @property
    def counters(self) -> Mapping[str, int]:
        """How often each thing happened, by its action and code."""

    @property
    def ready(self) -> bool:
        """Whether the broker is connected."""

    def offered(self, family: str) -> bool:
        """Whether a machine offers this family now."""

    async def submit(  # noqa: PLR0913 each is a part of what a client asks for
        self,
        family: str,
        inputs: tuple[Tensor, ...],
        outputs: tuple[str, ...],
        *,
        variant: bytes | None,
        idempotency_key: str | None,
        durable: bool,
        deadline_seconds: float | None,
    ) -> Accepted:
        """Take a job on.

        Raises:
            InputError: the inputs do not fit the family, or the idempotency key was used for something else.
            ResourceError: `queue-full`.
            JobFailedError: `no-agent`.
        """

    async def outcome(self, job_id: bytes, timeout_seconds: float) -> Outcome | None:
        """Wait for a job's end; None when it takes longer, or when there is no such job."""

    async def job(self, job_id: bytes) -> StoredJob | None:
        """Look a job up."""

    def cancel(self, job_id: bytes) -> None:
        """End a job that has not ended."""

    async def agents(self) -> list[tuple[StoredAgent, str, tuple[str, ...]]]:
        """Return every agent with its presence and the families that it offers now."""
