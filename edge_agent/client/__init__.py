"""The Python client: jobs over the coordinator's HTTP API, in its JSON form for now."""

from __future__ import annotations

from edge_agent.client.http import Answer, Client
from edge_agent.wire.job_options import JobOptions, Placement

__all__ = ["Answer", "Client", "JobOptions", "Placement"]
