"""What a client may ask for besides the model and its inputs: the options of a job, as HTTP carries them.

They travel in `parameters` of an Open Inference Protocol request, each a text or a number, so that every client of
the protocol can set them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final, TypeGuard

from edge_agent.errors import InputError
from edge_agent.spelling import closest
from edge_agent.wire.messages import LABEL_PATTERN, MAX_LABELS
from edge_agent.wire.topics import AGENT_ID_PATTERN

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_PRIORITY: Final = 100
MAX_ATTEMPTS: Final = 100
MAX_DEADLINE_SECONDS: Final = 366 * 86_400
MAX_IDEMPOTENCY_KEY_CHARS: Final = 255

NAMES: Final = (
    "deadline_seconds",
    "priority",
    "idempotency_key",
    "max_attempts",
    "labels",
    "owner",
    "class",
    "client",
    "agent",
    "mode",
    "accept_newcomers",
    "job_labels",
)
"""The parameters that are options of a job; others are for other servers and are passed over."""

MAX_NAME_CHARS: Final = 100
"""No more of a foreign name is looked at."""

SHORTEST_NAME = min(len(name) for name in NAMES)
_NAME = re.compile(r"[ -~]{1,64}")
_LABEL = re.compile(LABEL_PATTERN)
_AGENT = re.compile(AGENT_ID_PATTERN)
_CLASS = re.compile(r"[0-9a-f]{32}")
_QUORUM = re.compile(r"quorum\(([2-5])\)")


@dataclass(frozen=True, slots=True)
class Placement:
    """Which agents may have a job; what is not given leaves the choice open.

    Attributes:
        labels: all of which the agent must have, sorted.
        owner: whom the operator named as the agent's owner.
        klass: id of the class in which the agent must compute: `VariantClass.id`.
        agents: ids of agents, one of which must do it.
        job_labels: what the client calls the job, sorted: owners say which of those they take.
    """

    labels: tuple[str, ...] = ()
    owner: str | None = None
    klass: str | None = None
    agents: tuple[str, ...] = ()
    job_labels: tuple[str, ...] = ()


ANYWHERE: Final = Placement()


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a client asks for.

    Attributes:
        deadline_seconds: from the submission; the coordinator's own by default.
        priority: among the jobs of the same client, -100 to 100; higher ones go first.
        idempotency_key: the same request under the same key is one job.
        max_attempts: 1 to 100; the coordinator's own by default.
        placement: which agents may have it.
        client: for whom it is; machines are shared fairly between clients. The sender's address by default.
        mode: how the result is verified before it is given out: `signed`, `rechecked` by a machine of another owner,
            or by a `quorum(n)` of n owners, 2 to 5, whose machines agree.
        accept_newcomers: take results of machines that are not known yet before they are checked.
    """

    deadline_seconds: float | None = None
    priority: int = 0
    idempotency_key: str | None = None
    max_attempts: int | None = None
    placement: Placement = ANYWHERE
    client: str | None = None
    mode: str = "signed"
    accept_newcomers: bool = False

    def __post_init__(self) -> None:
        """Refuse what is out of bounds.

        Raises:
            InputError: names the option.
        """
        seconds = self.deadline_seconds
        if seconds is not None and not (_is_number(seconds) and 0 < seconds <= MAX_DEADLINE_SECONDS):
            raise _wrong("deadline_seconds", f"a number above 0 and at most {MAX_DEADLINE_SECONDS}")
        if not _is_whole(self.priority) or abs(self.priority) > MAX_PRIORITY:
            raise _wrong("priority", f"a whole number from {-MAX_PRIORITY} to {MAX_PRIORITY}")
        attempts = self.max_attempts
        if attempts is not None and not (_is_whole(attempts) and 1 <= attempts <= MAX_ATTEMPTS):
            raise _wrong("max_attempts", f"a whole number from 1 to {MAX_ATTEMPTS}")
        key = self.idempotency_key
        if key is not None and not (_is_text(key) and 0 < len(key) <= MAX_IDEMPOTENCY_KEY_CHARS):
            raise _wrong("idempotency_key", f"a text of 1 to {MAX_IDEMPOTENCY_KEY_CHARS} characters")
        _check_labels("labels", self.placement.labels, "kitchen,region=eu")
        _check_labels("job_labels", self.placement.job_labels, "batch,video")
        for name, text in (("owner", self.placement.owner), ("client", self.client)):
            if text is not None and not (_is_text(text) and _NAME.fullmatch(text)):
                raise _wrong(name, "a text of 1 to 64 printable ASCII characters")
        klass = self.placement.klass
        if klass is not None and not (_is_text(klass) and _CLASS.fullmatch(klass)):
            raise _wrong("class", "the id of a class, 32 hexadecimal digits, as answers and the list of agents show it")
        if not all(_is_text(agent) and _AGENT.fullmatch(agent) for agent in self.placement.agents):
            raise _wrong(
                "agent", "the id of an agent, 32 letters and digits, as answers and the list of agents show it"
            )
        self._check_mode()

    def _check_mode(self) -> None:
        if not _is_text(self.mode) or (self.mode not in {"signed", "rechecked"} and not _QUORUM.fullmatch(self.mode)):
            raise _wrong("mode", "signed, rechecked or quorum(n) with n from 2 to 5")
        if type(self.accept_newcomers) is not bool:
            raise _wrong("accept_newcomers", "true or false")

    @property
    def wanted(self) -> int:
        """How many owners' machines must agree: 1 when nothing is asked for."""
        return owners_wanted(self.mode)

    def parameters(self) -> dict[str, str | int | float | bool]:
        """Return what is not left to the coordinator, as parameters of a request."""
        found = {
            "deadline_seconds": self.deadline_seconds,
            "priority": self.priority or None,
            "idempotency_key": self.idempotency_key,
            "max_attempts": self.max_attempts,
            "labels": ",".join(self.placement.labels) or None,
            "owner": self.placement.owner,
            "class": self.placement.klass,
            "client": self.client,
            "agent": self.placement.agents[0] if self.placement.agents else None,
            "mode": self.mode if self.mode != "signed" else None,
            "accept_newcomers": self.accept_newcomers or None,
            "job_labels": ",".join(self.placement.job_labels) or None,
        }
        return {name: value for name, value in found.items() if value is not None}


def options_from(parameters: Mapping[str, Any]) -> JobOptions:
    """Read the options among a request's parameters.

    Raises:
        InputError: one is out of bounds, or its name is nearly that of an option: taken for another server's, a
            misspelt deadline would be no deadline.
    """
    for name in parameters:
        meant = None if name in NAMES else _meant(name[:MAX_NAME_CHARS])
        if meant is not None:
            raise InputError(
                f"there is no parameter {name[:40]!r}; {meant!r} is probably meant",
                hint="Parameters that are meant for other servers are passed over, but not what is nearly one of ours.",
            )
    labels, job_labels = (parameters.get(name, "") for name in ("labels", "job_labels"))
    for name, text in (("labels", labels), ("job_labels", job_labels)):
        if not _is_text(text):
            raise _wrong(name, "a text: labels with commas between them")
    agent = parameters.get("agent")
    return JobOptions(
        deadline_seconds=parameters.get("deadline_seconds"),
        priority=parameters.get("priority", 0),
        idempotency_key=parameters.get("idempotency_key"),
        max_attempts=parameters.get("max_attempts"),
        placement=Placement(
            labels_from(labels),
            parameters.get("owner"),
            parameters.get("class"),
            () if agent is None else (agent,),
            labels_from(job_labels),
        ),
        client=parameters.get("client"),
        mode=parameters.get("mode", "signed"),
        accept_newcomers=_truth(parameters.get("accept_newcomers", False)),
    )


def owners_wanted(mode: str) -> int:
    """Return of how many owners machines must agree in a mode."""
    quorum = _QUORUM.fullmatch(mode)
    return int(quorum[1]) if quorum else 2 if mode == "rechecked" else 1


def _truth(value: object) -> Any:  # noqa: ANN401 what is no truth value is refused with the other options
    """Take 0 and 1 for truth values: not every client of the protocol can send those."""
    return bool(value) if type(value) is int and value in {0, 1} else value


def labels_from(text: str) -> tuple[str, ...]:
    """Split labels with commas between them; sorted, each once."""
    return tuple(sorted({label.strip() for label in text.split(",") if label.strip()}))


@lru_cache(maxsize=256)
def _meant(name: str) -> str | None:
    begun = [option for option in NAMES if len(name) >= SHORTEST_NAME and option.startswith(name.lower())]
    return begun[0] if begun else closest(name, NAMES, alike=0.8)


def _check_labels(name: str, labels: tuple[str, ...], such: str) -> None:
    if len(labels) > MAX_LABELS or not all(_is_text(label) and _LABEL.fullmatch(label) for label in labels):
        raise _wrong(name, f"at most {MAX_LABELS} labels with commas between them, such as {such}")


def _is_number(value: object) -> TypeGuard[float]:
    return type(value) in {int, float} and value == value  # noqa: PLR0124 not NaN


def _is_whole(value: object) -> TypeGuard[int]:
    return type(value) is int


def _is_text(value: object) -> TypeGuard[str]:
    return type(value) is str


def _wrong(name: str, wanted: str) -> InputError:
    return InputError(
        f"the option {name!r} must be {wanted}",
        hint="Options of a job stand in `parameters` of the request; docs/http.md lists them.",
    )
