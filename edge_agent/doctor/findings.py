"""What a check is, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from edge_agent.errors import EdgeAgentError

if TYPE_CHECKING:
    from edge_agent.doctor.context import Context


class Status(StrEnum):
    """How a check came out. Only `FAILED` makes the doctor's exit status 1."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check's outcome.

    Attributes:
        found: a sentence for people.
        mend: what to do about it; empty when there is nothing to do.
        code: of docs/errors.md, where the trouble has one.
        facts: figures for programs; names end in their unit.
    """

    status: Status
    found: str
    mend: str = ""
    code: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing to look at.

    Attributes:
        name: one word, for programs.
        title: what is checked, for people.
        look: does it; an `EdgeAgentError` that it lets out becomes a failure with its code and hint.
    """

    name: str
    title: str
    look: Callable[[Context], Finding]

    def run(self, context: Context) -> Finding:
        """Do the check, whatever happens in it."""
        try:
            return self.look(context)
        except SkipCheck as skipped:
            return Finding(Status.SKIPPED, str(skipped))
        except EdgeAgentError as error:
            return Finding(Status.FAILED, f"{error.message}", error.hint, error.error_code)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return Finding(Status.FAILED, f"{where}{error.strerror or error}", "Look at the file or device it names.")


class SkipCheck(Exception):  # noqa: N818 it is no error
    """Says why a check makes no sense here and now."""


Facts = Mapping[str, Any]
NONE: Facts = {}


def ok(found: str, facts: Facts = NONE) -> Finding:
    """All is well."""
    return Finding(Status.OK, found, facts=dict(facts))


def warning(found: str, mend: str, facts: Facts = NONE) -> Finding:
    """It works, but somebody should look at it."""
    return Finding(Status.WARNING, found, mend, facts=dict(facts))


def failed(found: str, mend: str, code: str | None = None, facts: Facts = NONE) -> Finding:
    """It does not work."""
    return Finding(Status.FAILED, found, mend, code, facts=dict(facts))
