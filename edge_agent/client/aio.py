"""The client for asyncio: the same steps as `http.Client`, without a thread that waits."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from edge_agent.client import credentials
from edge_agent.client.http import CALL_SECONDS, CONNECT_SECONDS, checked_address, http_options
from edge_agent.client.procedures import NO_OPTIONS, Procedures, Result, Wish, jobs_path
from edge_agent.client.steps import Incoming, Reply, Send, Steps, Wait, Way
from edge_agent.client.values import Inputs
from edge_agent.errors import EdgeAgentError
from edge_agent.models.entries import Port
from edge_agent.wire.identity import Certificate
from edge_agent.wire.job_options import JobOptions
from edge_agent.wire.keys import PublicKey

T = TypeVar("T")


class AsyncClient:
    """Talks to one coordinator; arguments and errors are those of `Client`."""

    def __init__(  # noqa: PLR0913 all but the first by name
        self,
        base_url: str,
        *,
        deadline_seconds: float = CALL_SECONDS,
        seed: int | None = None,
        on_retry: Callable[[EdgeAgentError], None] = lambda _: None,
        api_key: str | None = None,
        ca_file: Path | None = None,
        coordinator_key: PublicKey | Path | str | None = None,
        registrar_key: PublicKey | Path | str | None = None,
        revocations_file: Path | str | None = None,
    ) -> None:
        base = checked_address(base_url)
        self._way = Way(base, time.monotonic, random.Random(seed), on_retry)  # noqa: S311 jitter, not a secret
        self._steps = Procedures(
            self._way, deadline_seconds, credentials.pins(coordinator_key, registrar_key, revocations_file), time.time
        )
        self._http = httpx.AsyncClient(**http_options(base, deadline_seconds, api_key, ca_file))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def infer(  # noqa: PLR0913 what a job consists of
        self,
        model: str,
        inputs: Inputs,
        mode: str = "signed",
        *,
        outputs: Sequence[str] = (),
        version: str | None = None,
        options: JobOptions = NO_OPTIONS,
        verify: bool = True,
    ) -> Result:
        """Run a job, wait for its result, and check the receipt of it: see `Client.infer`."""
        return await self._run(self._steps.infer(Wish(model, inputs, mode, outputs, version, options, verify)))

    async def job(self, job_id: str) -> dict[str, Any]:
        """Return how a job stands."""
        return await self._run(self._steps.object("GET", f"/api/v1/jobs/{job_id}"))

    async def jobs(self, limit: int = 50, client: str | None = None) -> list[dict[str, Any]]:
        """Return the jobs that were submitted last, newest first; of one client, or of all."""
        return await self._run(self._steps.list("GET", jobs_path(limit, client)))

    async def cancel(self, job_id: str) -> dict[str, Any]:
        """End a job that has not ended; return how it stands then."""
        return await self._run(self._steps.object("DELETE", f"/api/v1/jobs/{job_id}"))

    async def receipt(self, job_id: str) -> bytes:
        """Return the receipt of a job that succeeded."""
        return await self._run(self._steps.receipt(job_id))

    async def receipt_bundle(self, job_id: str) -> bytes:
        """Return the receipt with the proof that it is in the coordinator's log: see `Client.receipt_bundle`."""
        return await self._run(self._steps.get(f"/api/v1/log/bundle?job={job_id}"))

    async def inputs(self, family: str) -> tuple[Port, ...]:
        """Return what a family takes: see `Client.inputs`."""
        return await self._run(self._steps.inputs(family))

    async def coordinator_key(self) -> PublicKey:
        """Return the key that receipts must be signed with: the one that was given, else what is said there, once."""
        return await self._run(self._steps.coordinator_key())

    async def certificate(self, agent_id: str) -> Certificate:
        """Fetch what the registrar signed of an agent, and check that it counts now: see `Client.certificate`."""
        return await self._run(self._steps.certificate(agent_id))

    async def agents(self) -> list[dict[str, Any]]:
        """Return the agents that the coordinator knows."""
        return await self._run(self._steps.list("GET", "/api/v1/agents"))

    # -- driving --------------------------------------------------------------------------------------------------

    async def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    reply = await self._send(step) if isinstance(step, Send) else await asyncio.to_thread(step.work)
                except httpx.TransportError as error:
                    step = steps.throw(self._way.unreachable(error))
                except EdgeAgentError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            found: T = end.value
            return found

    async def _send(self, step: Send) -> Reply:
        timeout = httpx.Timeout(step.seconds, connect=CONNECT_SECONDS)
        headers = {**self._way.accepted(step), **step.headers}
        async with self._http.stream(
            step.method, step.path, content=step.content, headers=headers, timeout=timeout
        ) as answer:
            packed = self._way.packs and step.packed
            incoming = Incoming(step, answer.status_code, answer.headers, packed=packed)
            async for part in answer.aiter_raw():
                if not incoming.add(part):
                    break
            return incoming.reply()
