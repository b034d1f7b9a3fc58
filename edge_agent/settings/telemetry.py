"""Where traces go, as settings: nowhere, unless somebody says so."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from edge_agent.settings.fields import Section


class Telemetry(Section):
    """Traces for OpenTelemetry, of agent and coordinator alike; needs the extra `telemetry`."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[^\s@]{1,500}$")] | None = Field(
        default=None,
        description="Address that takes OTLP over HTTP, such as http://127.0.0.1:4318/v1/traces. Nothing is sent "
        "anywhere without it.",
    )
    job_share: Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)] = Field(
        default=1.0, description="Share of the jobs that are traced; with the same share, all choose the same jobs."
    )
