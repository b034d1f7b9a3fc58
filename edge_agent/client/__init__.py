"""The Python client: `Client`, and `AsyncClient` for asyncio; results are checked by receipts (docs/client.md)."""

from __future__ import annotations

from edge_agent.client.aio import AsyncClient
from edge_agent.client.http import Client
from edge_agent.client.procedures import Answer, Result
from edge_agent.client.proof import Verified, quorum
from edge_agent.client.sealed import SealedAnswer, infer_sealed
from edge_agent.wire.job_options import JobOptions, Placement

__all__ = [
    "Answer",
    "AsyncClient",
    "Client",
    "JobOptions",
    "Placement",
    "Result",
    "SealedAnswer",
    "Verified",
    "infer_sealed",
    "quorum",
]
