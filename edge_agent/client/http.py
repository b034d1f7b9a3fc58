"""A synchronous client with a deadline, idempotency keys and retries, so that a call survives a restart on the way."""

from __future__ import annotations

import json
import random
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

import httpx

from edge_agent.client import credentials
from edge_agent.errors import (
    DeniedError,
    EdgeAgentError,
    InputError,
    JobFailedError,
    RefusedError,
    ResourceError,
    TransportError,
    UnknownFamilyError,
    UsageError,
)
from edge_agent.models.entries import Port
from edge_agent.wire.job_options import JobOptions
from edge_agent.wire.oip_json import tensor_from_json, tensor_to_json
from edge_agent.wire.tensors import Tensor

RETRY_STATUSES = frozenset({408, 429, 502, 503, 504})
RETRY_FIRST_SECONDS = 0.05
RETRY_MAX_SECONDS = 2.0
CALL_SECONDS = 90.0
CONNECT_SECONDS = 5.0
NO_OPTIONS = JobOptions()

J = TypeVar("J", dict[str, Any], list[Any])


@dataclass(frozen=True, slots=True)
class Answer:
    """What a job gave.

    Attributes:
        klass: id of the class of machines that computed it; to be asked for again with `Placement`.
        body: the response as JSON text, as it came: keep it beside the receipt, which proves its digests.
        seconds: from the first try to the answer, measured here.
        tries: HTTP calls that it took.
    """

    job_id: str
    outputs: tuple[Tensor, ...]
    variant: str
    klass: str
    agent_id: str
    run_us: int
    body: bytes
    seconds: float
    tries: int


class Client:
    """Talks to one coordinator.

    Args:
        base_url: such as `http://127.0.0.1:8420`.
        deadline_seconds: for one job, retries included.
        seed: of the jitter between retries; random by default.
        on_retry: told what went wrong before each further try.
        api_key: shown with each call; else the one that the environment names, see `credentials.api_key`.
        ca_file: PEM file of the only authorities to trust; else the system's.

    Raises:
        UsageError: the address is none of HTTP.
        SettingsError: the key's or the authorities' file cannot be read.
    """

    def __init__(  # noqa: PLR0913 all but the first by name
        self,
        base_url: str,
        *,
        deadline_seconds: float = CALL_SECONDS,
        seed: int | None = None,
        on_retry: Callable[[EdgeAgentError], None] = lambda _: None,
        api_key: str | None = None,
        ca_file: Path | None = None,
    ) -> None:
        self._base = base_url.rstrip("/")
        _check_address(self._base)
        self._on_retry = on_retry
        self._http = httpx.Client(
            base_url=self._base,
            timeout=httpx.Timeout(deadline_seconds, connect=CONNECT_SECONDS),
            trust_env=False,
            headers=credentials.headers(api_key),
            verify=credentials.trust(self._base, ca_file),
        )
        self._deadline = deadline_seconds
        self._rng = random.Random(seed)  # noqa: S311 jitter, not a secret

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def infer(
        self,
        family: str,
        inputs: Sequence[Tensor],
        *,
        outputs: Sequence[str] = (),
        version: str | None = None,
        options: JobOptions = NO_OPTIONS,
    ) -> Answer:
        """Run a job and wait for its verified result.

        Sent again with the same idempotency key when the way there is broken, so that it is done once all the same.

        Args:
            family: what to run.
            inputs: one tensor for each input.
            outputs: names of the wanted ones; none means all.
            version: insist on this variant.
            options: deadline, priority, placement and so on; a deadline given here is also how long we try.

        Raises:
            InputError: the inputs do not fit the family.
            UnknownFamilyError: there is no such family.
            JobFailedError: the job failed, or there was no result before the deadline.
            TransportError: `unreachable`.
        """
        request: dict[str, Any] = {"inputs": [tensor_to_json(tensor) for tensor in inputs]}
        if outputs:
            request["outputs"] = [{"name": name} for name in outputs]
        return self.infer_json(family, json.dumps(request).encode(), version=version, options=options)

    def infer_json(
        self, family: str, request: bytes, *, version: str | None = None, options: JobOptions = NO_OPTIONS
    ) -> Answer:
        """Do what `infer` does with a request of the Open Inference Protocol that is JSON already."""
        path = f"/v2/models/{family}" + (f"/versions/{version}" if version else "") + "/infer"
        content, headers = _with_options(request, options)
        started = time.monotonic()
        end = started + self._seconds(options)
        response, tries = self._with_retries("POST", path, end, content=content, headers=headers)
        body = response.content
        try:
            answer = json.loads(body)
            about = answer.get("parameters", {})
            return Answer(
                job_id=str(about.get("job_id", "")),
                outputs=tuple(tensor_from_json(output) for output in answer["outputs"]),
                variant=str(answer.get("model_version", "")),
                klass=str(about.get("class", "")),
                agent_id=str(about.get("agent_id", "")),
                run_us=int(about.get("run_us", 0)),
                body=body,
                seconds=time.monotonic() - started,
                tries=tries,
            )
        except (ValueError, KeyError, TypeError, AttributeError, InputError) as error:
            raise self._no_coordinator(error) from error

    def _seconds(self, options: JobOptions) -> float:
        """How long to try: a second more than the job has, to hear how it ended."""
        return self._deadline if options.deadline_seconds is None else options.deadline_seconds + 1.0

    def submit_json(
        self, family: str, request: bytes, *, version: str | None = None, options: JobOptions = NO_OPTIONS
    ) -> str:
        """Submit a job without waiting; it is stored once this returns its id.

        Raises:
            EdgeAgentError: as `infer`.
        """
        content, headers = _with_options(request, options)
        end = time.monotonic() + self._deadline
        path = f"/api/v1/models/{family}" + (f"/versions/{version}" if version else "") + "/jobs"
        response, _ = self._with_retries("POST", path, end, content=content, headers=headers)
        try:
            return str(response.json()["job_id"])
        except (ValueError, KeyError, TypeError) as error:
            raise self._no_coordinator(error) from error

    def job(self, job_id: str) -> dict[str, Any]:
        """Return how a job stands."""
        response, _ = self._with_retries("GET", f"/api/v1/jobs/{job_id}", time.monotonic() + self._deadline)
        return self._json(response, dict)

    def jobs(self, limit: int = 50, client: str | None = None) -> list[dict[str, Any]]:
        """Return the jobs that were submitted last, newest first; of one client, or of all."""
        query = f"?limit={limit}" + (f"&client={quote(client, safe='')}" if client is not None else "")
        response, _ = self._with_retries("GET", f"/api/v1/jobs{query}", time.monotonic() + self._deadline)
        return self._json(response, list)

    def cancel(self, job_id: str) -> dict[str, Any]:
        """End a job that has not ended; return how it stands then."""
        response, _ = self._with_retries("DELETE", f"/api/v1/jobs/{job_id}", time.monotonic() + self._deadline)
        return self._json(response, dict)

    def receipt(self, job_id: str) -> bytes:
        """Return the receipt of a job that succeeded, plain; `receipt_bundle` also proves that it is in the log."""
        path = f"/api/v1/jobs/{job_id}/receipt"
        response, _ = self._with_retries("GET", path, time.monotonic() + self._deadline)
        return response.content

    def receipt_bundle(self, job_id: str) -> bytes:
        """Return the receipt with the proof that it is in the coordinator's log, for `wire.bundles`.

        Raises:
            RefusedError: `not-logged`: it is from before the coordinator kept a log.
        """
        return self.get(f"/api/v1/log/bundle?job={job_id}").content

    def get(self, path: str) -> httpx.Response:
        """Ask for something that has no method of its own here; errors and retries as everywhere."""
        response, _ = self._with_retries("GET", path, time.monotonic() + self._deadline)
        return response

    def inputs(self, family: str) -> tuple[Port, ...]:
        """Return what a family takes, as the coordinator knows it; extents that the caller chooses are symbols.

        Raises:
            UnknownFamilyError: there is no such family.
            TransportError: `unreachable`.
        """
        response, _ = self._with_retries("GET", f"/v2/models/{quote(family)}", time.monotonic() + self._deadline)
        try:
            return tuple(_port(entry) for entry in self._json(response, dict)["inputs"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._no_coordinator(error) from error

    def agents(self) -> list[dict[str, Any]]:
        """Return the agents that the coordinator knows."""
        response, _ = self._with_retries("GET", "/api/v1/agents", time.monotonic() + self._deadline)
        return self._json(response, list)

    def _json(self, response: httpx.Response, kind: type[J]) -> J:
        try:
            found = response.json()
        except ValueError as error:
            raise self._no_coordinator(error) from error
        if not isinstance(found, kind):
            raise self._no_coordinator(TypeError(f"{type(found).__name__} instead of {kind.__name__}"))
        return found

    def _no_coordinator(self, error: Exception) -> TransportError:
        return TransportError(
            f"what answers at {self._base} is no coordinator: {error}",
            code="unreachable",
            hint="Check the address: `edge-agent up` and `edge-agent coordinator` say theirs when they are ready.",
        )

    def _with_retries(
        self,
        method: str,
        path: str,
        end: float,
        *,
        content: bytes | None = None,
        headers: dict[str, str] | None = None,
    ) -> tuple[httpx.Response, int]:
        """Call until an answer comes that another try would not change."""
        tries = 0
        while True:
            tries += 1
            failure: EdgeAgentError
            wait = 0.0
            try:
                left = max(1.0, end - time.monotonic())
                timeout = httpx.Timeout(left, connect=CONNECT_SECONDS)
                response = self._http.request(method, path, content=content, headers=headers, timeout=timeout)
            except httpx.TransportError as error:
                text = f"cannot reach the coordinator at {self._base}: {error or type(error).__name__}"
                failure = TransportError(text, code="unreachable")
            else:
                if response.is_success:
                    return response, tries
                failure = _error_of(response)
                if response.status_code not in RETRY_STATUSES or not _may_retry(response):
                    raise failure
                wait = _retry_after_seconds(response)
            bound = min(RETRY_FIRST_SECONDS * 2 ** (tries - 1), RETRY_MAX_SECONDS)
            wait = max(wait, self._rng.uniform(0, bound))
            if time.monotonic() + wait >= end:
                raise failure
            self._on_retry(failure)
            time.sleep(wait)


def _with_options(request: bytes, options: JobOptions) -> tuple[bytes, dict[str, str]]:
    """Put options into a request; return it with its headers, which always have an idempotency key."""
    key = options.idempotency_key or secrets.token_hex(16)
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    parameters = replace(options, idempotency_key=None).parameters()
    if not parameters:
        return request, headers
    try:
        body = json.loads(request)
    except ValueError as error:
        raise InputError(f"the request is no JSON: {error}") from error
    own = body.get("parameters") if isinstance(body, dict) else None
    if not isinstance(body, dict) or not isinstance(own, dict | None):
        raise InputError("the request is none of the Open Inference Protocol: options cannot be added to it")
    return json.dumps({**body, "parameters": {**(own or {}), **parameters}}).encode(), headers


def _port(entry: dict[str, Any]) -> Port:
    shape = [f"D{place}" if size == -1 else size for place, size in enumerate(entry["shape"])]
    return Port.model_validate({**entry, "shape": tuple(shape)})


def _check_address(base_url: str) -> None:
    try:
        address = httpx.URL(base_url)
        problem = "" if address.scheme in {"http", "https"} and address.host else "it must be http://HOST:PORT"
    except httpx.InvalidURL as error:
        problem = str(error)
    if problem:
        raise UsageError(
            f"{base_url[:200]!r} is not the address of a coordinator: {problem}.",
            hint="For example http://127.0.0.1:8420, with the scheme in front.",
        )


def _details(response: httpx.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _may_retry(response: httpx.Response) -> bool:
    """Whether the coordinator says that trying again makes sense; a proxy's bare 503 does not forbid it."""
    details = _details(response)
    # A job that ended, which is what blame speaks of, stays so under its key, and all our tries have one key.
    return bool(details.get("retry", True)) and "blame" not in details


def _retry_after_seconds(response: httpx.Response) -> float:
    value = response.headers.get("Retry-After", "")
    return min(float(value), RETRY_MAX_SECONDS) if value.isdigit() else 0.0


def _error_of(response: httpx.Response) -> EdgeAgentError:
    """Turn an error body back into the error that it was made of."""
    details = _details(response)
    text = str(details.get("error") or f"the coordinator answered {response.status_code}")[:1000]
    hint = details.get("hint")
    code = details.get("code")
    made: EdgeAgentError
    match response.status_code, code:
        case (_, code) if code in JobFailedError.codes:
            made = JobFailedError(text, hint=hint, code=code)
        case (404, "unknown-family"):
            made = UnknownFamilyError(text, hint=hint)
        case (404, "not-logged"):
            made = RefusedError(text, hint=hint, code=code)
        case (408, _):
            made = TransportError(text, hint=hint, code="timeout")
        case (401 | 403, "unauthorized" | "forbidden"):
            made = DeniedError(text, hint=hint, code=code)
        case (429, _):
            made = ResourceError(text, hint=hint, code=code if code in ResourceError.codes else "queue-full")
        case (504, _):
            made = JobFailedError(text, hint=hint, code="deadline")
        case (status, _) if 400 <= status < 500:
            made = InputError(text, hint=hint)
        case _:
            made = JobFailedError(text, hint=hint)
    return made
