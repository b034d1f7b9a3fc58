"""What an agent says of how it fares: for the operator to see, never for trust, and nothing depends on its arrival."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal, TypeAlias

from pydantic import Field, StringConstraints

from edge_agent.wire.messages import (
    MAX_LONG_STATEMENT_BYTES,
    AgentId,
    Code,
    Count,
    Family,
    Part,
    Positive,
    ShortText,
    Statement,
)
from edge_agent.wire.tensors import PLAIN_TEXT_CLASS

MAX_REASONS: Final = 16
MAX_FITS: Final = 64
MAX_REMARK_CHARACTERS: Final = 200

Remark: TypeAlias = Annotated[
    str, StringConstraints(pattern=f"^{PLAIN_TEXT_CLASS}*$", max_length=MAX_REMARK_CHARACTERS)
]
Celsius: TypeAlias = Annotated[int, Field(ge=-100, le=200)]
Percent: TypeAlias = Annotated[int, Field(ge=0, le=100)]


class Reason(Part):
    """Why the machine rests or offers nothing: a stable code, and a sentence."""

    code: Code
    text: Remark


class FitReport(Part):
    """What a variant costs on this machine, predicted from its graph and measured in a canary run; None: not done.

    Attributes:
        served: whether it is what serves its family here.
        why: it is served, or not.
    """

    family: Family
    variant_name: ShortText
    served: bool
    predicted_us: Count | None
    predicted_bytes: Count | None
    measured_us: Count | None
    measured_bytes: Count | None
    why: Remark


class Status(Statement):
    """How I fare. Replaces earlier ones of the session, but for `fits`, which stay as they were when it is null."""

    max_statement_bytes: ClassVar[int] = MAX_LONG_STATEMENT_BYTES

    kind: Literal["status"] = "status"
    agent_id: AgentId
    session: Positive
    sequence: Count
    mode: Literal["work", "rest"]
    reasons: Annotated[tuple[Reason, ...], Field(max_length=MAX_REASONS, strict=False)]
    celsius: Celsius | None
    cpu_percent: Percent | None
    fits: Annotated[tuple[FitReport, ...], Field(max_length=MAX_FITS, strict=False)] | None
