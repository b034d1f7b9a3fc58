"""What one call to a coordinator takes, without a socket or a clock: what to send, when to wait, and what to raise.

A procedure is a generator: it yields a `Send` and is given the `Reply`, or thrown the error of the way there; it yields
a `Wait` and goes on when that is over, or an `Aside` and goes on when that is done; what it returns is the result. The
clients drive it, waiting or with asyncio.
"""

from __future__ import annotations

import io
import json
import random
import re
import secrets
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit

from edge_agent.errors import (
    DeniedError,
    EdgeAgentError,
    InputError,
    JobFailedError,
    MalformedError,
    RefusedError,
    ResourceError,
    TooLargeError,
    TransportError,
    UnknownFamilyError,
)
from edge_agent.wire.job_options import JobOptions
from edge_agent.wire.unpacking import Unpacker

RETRY_STATUSES = frozenset({408, 429, 502, 503, 504})
RETRY_FIRST_SECONDS = 0.05
RETRY_MAX_SECONDS = 2.0
PATIENCE_SECONDS = 60.0
"""So long a coordinator may ask for, as when a model is being loaded or a minute's calls are used up."""

MAX_ANSWER_BYTES = 256 * 1024 * 1024
"""Of what is bounded by nothing closer: no result is longer that came over MQTT."""
PACKED_SPARE_BYTES = 1024
"""So much longer, and a thousandth, may the packed form of an answer be than the answer: the format's own bytes."""
_NEAR = re.compile(r"localhost|127(\.\d+){3}|::1")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Send:
    """Make this HTTP call, within so many seconds.

    Attributes:
        most_bytes: of the answer, unpacked; one that is longer is not read to its end.
        packed: whether it is long text at times, so that it may come packed.
    """

    method: str
    path: str
    content: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    most_bytes: int = MAX_ANSWER_BYTES
    packed: bool = False


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing for so many seconds."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Aside:
    """Do this, which may wait for a disk or another process, on no thread that others need; give what it returns."""

    work: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer of HTTP.

    Attributes:
        headers: by their names in lower case.
        tries: calls that it took.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    tries: int = 1


class Incoming:
    """An answer as it arrives, held to the length that was asked for, as it comes and as it is unpacked.

    Args:
        send: what is answered.
        status: of HTTP.
        headers: by their names in lower case.
        packed: whether it was asked for packed with gzip.
    """

    def __init__(self, send: Send, status: int, headers: Mapping[str, str], *, packed: bool = False) -> None:
        self._send, self._status, self._headers = send, status, headers
        self._body = io.BytesIO()
        self._came_bytes = 0
        self._too_long = False
        self._problem = ""
        self._unpacker: Unpacker | None = None
        coding = headers.get("content-encoding", "").strip().lower()
        if packed and coding == "gzip":
            self._unpacker = Unpacker(coding)
        elif coding not in {"", "identity"}:
            self._problem = f"is packed ({coding[:40]}), and was asked for {'in gzip or ' if packed else ''}as it is"

    def add(self, part: bytes) -> bool:
        """Take the next bytes as they came; whether more are wanted."""
        if self._problem or self._too_long:
            return False
        # Packed bytes need not unpack to any: an endless answer would be of no length. Random ones grow by packing.
        self._came_bytes += len(part)
        spare = 0 if self._unpacker is None else PACKED_SPARE_BYTES + self._send.most_bytes // 1000
        self._too_long = self._came_bytes > self._send.most_bytes + spare
        try:
            for piece in (part,) if self._unpacker is None else self._unpacker.feed(part):
                self._too_long = self._too_long or self._body.tell() + len(piece) > self._send.most_bytes
                if self._too_long:
                    return False
                self._body.write(piece)
        except InputError as error:
            self._problem = f"cannot be unpacked: {error.message}"
        return not self._problem

    def reply(self) -> Reply:
        """Return the whole of it; of a refusal that cannot be read, what its status says.

        Raises:
            TooLargeError: it is longer than it may be.
            MalformedError: it is packed as was not asked for, or what it is packed in is none of that, or is cut.
        """
        if self._unpacker is not None and not (self._too_long or self._problem):
            try:
                self._unpacker.end()
            except InputError as error:
                self._problem = f"cannot be unpacked: {error.message}"
        if 200 <= self._status < 300 and self._too_long:
            raise TooLargeError(
                f"the answer to {self._send.path[:200]} is longer than {self._send.most_bytes} bytes",
                hint="No coordinator sends so much: look at who answers at that address.",
            )
        if 200 <= self._status < 300 and self._problem:
            raise MalformedError(
                f"the answer to {self._send.path[:200]} {self._problem}",
                hint="If a proxy stands before the coordinator, let it pack nothing for clients that do not accept it.",
            )
        whole = b"" if self._too_long or self._problem else self._body.getvalue()
        return Reply(self._status, self._headers, whole)


Step: TypeAlias = Send | Wait | Aside
Steps: TypeAlias = Generator[Step, Any, T]


@dataclass(slots=True)
class Way:
    """The way to one coordinator.

    Attributes:
        base_url: of it, for what is said to people.
        clock: monotonic seconds.
        rng: draws the jitter between tries.
        on_retry: told what went wrong before each further try.
    """

    base_url: str
    clock: Callable[[], float]
    rng: random.Random
    on_retry: Callable[[EdgeAgentError], None]
    packs: bool = field(init=False)
    """Whether long text is asked for packed: on this very machine that would only cost time."""

    def __post_init__(self) -> None:
        self.packs = not _NEAR.fullmatch(urlsplit(self.base_url).hostname or "")

    def accepted(self, send: Send) -> dict[str, str]:
        """Return the header that says how an answer may be packed."""
        return {"Accept-Encoding": "gzip" if self.packs and send.packed else "identity"}

    def call(self, send: Send, end: float) -> Steps[Reply]:
        """Call until an answer comes that another try would not change, or until `end`, on the clock.

        Raises:
            EdgeAgentError: what the coordinator answered, or `unreachable`.
        """
        tries = 0
        while True:
            tries += 1
            wait = 0.0
            failure: EdgeAgentError
            try:
                reply: Reply = yield replace(send, seconds=max(1.0, end - self.clock()))
            except TransportError as error:
                failure = error
            else:
                if 200 <= reply.status < 300:
                    return replace(reply, tries=tries)
                failure = error_of(reply)
                if reply.status not in RETRY_STATUSES or not _may_retry(reply):
                    raise failure
                wait = _retry_after_seconds(reply)
            bound = min(RETRY_FIRST_SECONDS * 2 ** min(tries - 1, 20), RETRY_MAX_SECONDS)
            wait = max(wait, self.rng.uniform(0, bound))
            if self.clock() + wait >= end:
                raise failure
            self.on_retry(failure)
            yield Wait(wait)

    def unreachable(self, error: Exception) -> TransportError:
        """Make the error for a broken way."""
        text = f"cannot reach the coordinator at {self.base_url}: {error or type(error).__name__}"
        return TransportError(text, code="unreachable")

    def no_coordinator(self, error: Exception) -> TransportError:
        """Make the error for an answer that is none of a coordinator's."""
        return TransportError(
            f"what answers at {self.base_url} is no coordinator: {error}",
            code="unreachable",
            hint="Check the address: `edge-agent up` and `edge-agent coordinator` say theirs when they are ready.",
        )


def keyed(options: JobOptions) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the options as parameters, and the header with the idempotency key, made where there is none."""
    key = options.idempotency_key or secrets.token_hex(16)
    return replace(options, idempotency_key=None).parameters(), {"Idempotency-Key": key}


def error_of(reply: Reply) -> EdgeAgentError:
    """Turn an error body back into the error that it was made of."""
    details = _details(reply)
    text = str(details.get("error") or f"the coordinator answered {reply.status}")[:1000]
    hint = details.get("hint")
    code = details.get("code")
    made: EdgeAgentError
    match reply.status, code:
        case (_, code) if code in JobFailedError.codes:
            made = JobFailedError(text, hint=hint, code=code)
        case (401 | 403, "unauthorized" | "forbidden"):
            made = DeniedError(text, hint=hint, code=code)
        case (404, "unknown-family"):
            made = UnknownFamilyError(text, hint=hint)
        case (404, code) if code in RefusedError.codes:
            made = RefusedError(text, hint=hint, code=code)
        case (408, _):
            made = TransportError(text, hint=hint, code="timeout")
        case (429, _):
            made = ResourceError(text, hint=hint, code=code if code in ResourceError.codes else "queue-full")
        case (504, _):
            made = JobFailedError(text, hint=hint, code="deadline")
        case (502 | 503, code) if "blame" not in details:  # of no job: the coordinator is not there, or goes
            made = TransportError(text, hint=hint, code=code if code in TransportError.codes else "unreachable")
        case (status, code) if 400 <= status < 500:
            made = InputError(text, hint=hint, code=code if code in InputError.codes else None)
        case _:
            made = JobFailedError(text, hint=hint)
    seconds = _retry_after_seconds(reply)
    made.retry_after_seconds = seconds or None
    return made


def _details(reply: Reply) -> dict[str, Any]:
    try:
        found = json.loads(reply.body)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _may_retry(reply: Reply) -> bool:
    """Whether the coordinator says that trying again makes sense; a proxy's bare 503 does not forbid it."""
    details = _details(reply)
    # A job that ended, which is what blame speaks of, stays so under its key, and all our tries have one key.
    return bool(details.get("retry", True)) and "blame" not in details


def _retry_after_seconds(reply: Reply) -> float:
    value = reply.headers.get("retry-after", "")
    return min(float(value), PATIENCE_SECONDS) if value.isascii() and value.isdigit() else 0.0
