"""The clients that wait: for the answer to a submission, or for the end of a job. Lives in the coordinator's loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from edge_agent.coordinator.events import Outcome, SubmitRefused
from edge_agent.coordinator.service import Accepted
from edge_agent.errors import (
    EdgeAgentError,
    InputError,
    JobFailedError,
    ResourceError,
    TooLargeError,
    TransportError,
)


class Clients:
    """Futures by ticket and by job; each is there only as long as somebody waits for it."""

    def __init__(self) -> None:
        self._submitted: dict[bytes, asyncio.Future[Accepted]] = {}
        self._waiting: dict[bytes, list[asyncio.Future[Outcome]]] = {}
        self._turned_away = False

    def turn_away(self) -> None:
        """Answer all who wait, and all who still come, that they should send it again under the same key.

        For a coordinator that stops: whoever is started next knows the key and goes on with the job.
        """
        self._turned_away = True
        waiting: list[asyncio.Future[Any]] = [future for futures in self._waiting.values() for future in futures]
        for future in [*waiting, *self._submitted.values()]:
            if not future.done():
                future.set_exception(_stopping())

    def expect(self, ticket: bytes) -> asyncio.Future[Accepted]:
        """Return what will be the answer to a submission.

        Raises:
            TransportError: `stopping`.
        """
        if self._turned_away:
            raise _stopping()
        future: asyncio.Future[Accepted] = asyncio.get_running_loop().create_future()
        self._submitted[ticket] = future
        return future

    def accept(self, ticket: bytes, accepted: Accepted) -> None:
        """Answer a submission."""
        future = self._submitted.pop(ticket, None)
        if future is not None and not future.done():
            future.set_result(accepted)

    def refuse(self, refused: SubmitRefused) -> None:
        """Answer a submission with an error."""
        future = self._submitted.pop(refused.ticket, None)
        if future is not None and not future.done():
            future.set_exception(_error(refused))

    def tell(self, outcome: Outcome) -> None:
        """Tell those who wait for a job that it has ended."""
        for future in self._waiting.pop(outcome.job_id, []):
            if not future.done():
                future.set_result(outcome)

    @contextmanager
    def listen(self, job_id: bytes) -> Iterator[asyncio.Future[Outcome]]:
        """Give what will be the outcome of a job, for as long as the block lasts.

        Raises:
            TransportError: `stopping`.
        """
        if self._turned_away:
            raise _stopping()
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(job_id, []).append(future)
        try:
            yield future
        finally:
            waiting = self._waiting.get(job_id, [])
            if future in waiting:
                waiting.remove(future)
            if not waiting:
                self._waiting.pop(job_id, None)


def _stopping() -> TransportError:
    return TransportError(
        "the coordinator is stopping",
        code="stopping",
        hint="Send it again under the same idempotency key: it goes on with it when it is started again.",
    )


def _error(refused: SubmitRefused) -> EdgeAgentError:
    seconds = refused.retry_after_seconds
    match refused.code:
        case "queue-full":
            hint = "Send it again in a second; nothing of it is kept."
            return ResourceError(refused.message, hint=hint, code="queue-full", retry_after_seconds=seconds)
        case "no-agent" | "loading":
            return JobFailedError(refused.message, code=refused.code, retry_after_seconds=seconds)
        case "too-few-owners":
            hint = (
                "Ask for the mode signed, or have a machine of another owner let in: "
                "`edge-agent coordinator token --owner NAME` makes a token for one."
            )
            return JobFailedError(refused.message, code="too-few-owners", hint=hint)
        case "no-taker":
            hint = (
                "Ask the owners to name this client in policy.circle, or to take such labels, or add a machine that "
                "works for everybody."
            )
            return JobFailedError(refused.message, code="no-taker", hint=hint)
        case "too-large":
            return TooLargeError(refused.message, hint="Send a smaller input, or ask the operator to raise the limit.")
        case _:
            hint = "Use a new idempotency key for a new request."
            return InputError(refused.message, hint=hint, code="idempotency-conflict")
