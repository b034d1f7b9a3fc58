"""Everything that can be asked of a coordinator, each as steps that the clients drive."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar
from urllib.parse import quote

from edge_agent.client import proof, revocations
from edge_agent.client.credentials import Pins
from edge_agent.client.proof import Verified
from edge_agent.client.steps import MAX_ANSWER_BYTES, Aside, Reply, Send, Steps, Way, keyed
from edge_agent.client.values import Inputs, Value, tensors_of, value_of
from edge_agent.errors import EdgeAgentError, InputError, MalformedError, RefusedError, TooLargeError, UsageError
from edge_agent.models.entries import Port
from edge_agent.wire.certificates import check_certificate
from edge_agent.wire.identity import MAX_CERTIFICATE_BYTES, Certificate
from edge_agent.wire.job_options import JobOptions
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.oip_binary import LENGTH_HEADER
from edge_agent.wire.oip_json import OutputForm, body_of, request_from_json, response_from_body, tensor_from_json
from edge_agent.wire.receipts import MAX_RECEIPT_FILE_BYTES
from edge_agent.wire.standing import MAX_LIST_BYTES
from edge_agent.wire.tensors import Tensor

NO_OPTIONS = JobOptions()

_NO_ANSWER = (ValueError, KeyError, TypeError, OverflowError, RecursionError)
"""What reading JSON that is none of a coordinator's raises: a number may be infinite, lists may be thousands deep."""

J = TypeVar("J", dict[str, Any], list[Any])


@dataclass(frozen=True, slots=True)
class Answer:
    """What a job gave, as JSON.

    Attributes:
        klass: id of the class of machines that computed it; to be asked for again with `Placement`.
        body: the response as JSON text, as it came: keep it beside the receipt, which proves its digests.
        seconds: from the first try to the answer, measured here.
        tries: HTTP calls that it took.
        verified: what was checked here; None without the registrar's key.
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
    verified: Verified | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """What a job gave.

    Attributes:
        outputs: by name, NumPy arrays, or nested lists where NumPy is not installed.
        tensors: the same as they came.
        verified: what was checked here; None if it was not to be.
        verification: what the coordinator says: `signed`, `rechecked` or `quorum`.
        klass: id of the class of machines that computed it; to be asked for again with `Placement`.
        seconds: from the first try to the answer, measured here.
        tries: HTTP calls that it took.
    """

    job_id: str
    outputs: dict[str, Value]
    tensors: tuple[Tensor, ...]
    variant: str
    verified: Verified | None
    verification: str
    klass: str
    agent_id: str
    run_us: int
    seconds: float
    tries: int


@dataclass(frozen=True, slots=True)
class Wish:
    """A job: see `Client.infer`."""

    model: str
    inputs: Inputs
    mode: str = "signed"
    outputs: Sequence[str] = ()
    version: str | None = None
    options: JobOptions = NO_OPTIONS
    verify: bool = True


class Procedures:
    """The calls of one coordinator.

    Args:
        way: to it.
        deadline_seconds: for one call, retries included.
        pins: the keys that were given.
        wall: tells the time, Unix seconds.
    """

    def __init__(self, way: Way, deadline_seconds: float, pins: Pins, wall: Callable[[], float]) -> None:
        self._way = way
        self._deadline = deadline_seconds
        self._wall = wall
        self.pins = pins
        self._known = revocations.KnownRevocations(pins.revocations_file)
        self._asked: PublicKey | None = None
        self._ports: dict[str, tuple[Port, ...]] = {}

    # -- jobs -----------------------------------------------------------------------------------------------------

    def infer(self, wish: Wish) -> Steps[Result]:
        """Run a job and check what comes back."""
        if not proof.is_mode(wish.mode):
            text = f"there is no mode {wish.mode[:40]!r}: signed, rechecked, or quorum(n) with n from 2 to 5"
            raise InputError(text, hint="What each of them means, and costs, stands in docs/verification.md.")
        started = self._way.clock()
        ports: Sequence[Port] = ()
        if not _are_tensors(wish.inputs):
            ports = yield from self.inputs(wish.model)
        tensors = tensors_of(wish.inputs, ports)
        if wish.verify:
            yield from self.coordinator_key()  # what cannot be checked is not asked for
        parameters, headers = keyed(wish.options)
        parameters["binary_data_output"] = True
        if wish.mode != "signed":
            parameters["mode"] = wish.mode
        if wish.verify:
            parameters["receipt_inline"] = True
        message: dict[str, Any] = {"parameters": parameters}
        if wish.outputs:
            message["outputs"] = [{"name": name} for name in wish.outputs]
        body, length = body_of(message, "inputs", tensors, OutputForm(binary=True))
        headers |= {"Content-Type": "application/octet-stream", LENGTH_HEADER: str(length)}
        send = Send("POST", f"{_model(wish.model, wish.version)}/infer", body, headers)
        reply = yield from self._way.call(send, started + self._seconds(wish.options))
        result, receipt = self._result(reply, self._way.clock() - started)
        proof.check_mode(wish.mode, result.verification)
        if not wish.verify:
            return result
        if receipt is None:  # an older coordinator
            receipt = yield from self.receipt(result.job_id)
        verified = yield from self._verified(
            receipt, wish.model, tensors, result.tensors, result.job_id, result.verification, wish.options
        )
        return replace(result, verified=verified)

    def infer_json(self, family: str, request: bytes, version: str | None, options: JobOptions) -> Steps[Answer]:
        """Run a job whose request is JSON already; with the registrar's key, check its receipt and its agent."""
        content, headers = _with_options(request, options, receipt_inline=self.pins.registrar is not None)
        started = self._way.clock()
        send = Send("POST", f"{_model(family, version)}/infer", content, headers, packed=True)
        reply = yield from self._way.call(send, started + self._seconds(options))
        try:
            answer = json.loads(reply.body)
            about = answer.get("parameters", {})
            found = Answer(
                job_id=str(about.get("job_id", "")),
                outputs=tuple(tensor_from_json(output) for output in answer["outputs"]),
                variant=str(answer.get("model_version", "")),
                klass=str(about.get("class", "")),
                agent_id=str(about.get("agent_id", "")),
                run_us=int(about.get("run_us", 0)),
                body=reply.body,
                seconds=self._way.clock() - started,
                tries=reply.tries,
            )
            state, receipt = str(about.get("verification", "")), _inline(about)
        except (*_NO_ANSWER, AttributeError, InputError) as error:
            raise self._way.no_coordinator(error) from error
        if self.pins.registrar is not None:
            if receipt is None:  # an older coordinator
                receipt = yield from self.receipt(found.job_id)
            inputs = request_from_json(request).inputs
            verified = yield from self._verified(receipt, family, inputs, found.outputs, found.job_id, state, options)
            return replace(found, verified=verified)
        return found

    def submit_json(self, family: str, request: bytes, version: str | None, options: JobOptions) -> Steps[str]:
        """Submit a job without waiting for its end."""
        content, headers = _with_options(request, options)
        path = f"/api/v1{_model(family, version).removeprefix('/v2')}/jobs"
        reply = yield from self._call("POST", path, content, headers)
        try:
            return str(json.loads(reply.body)["job_id"])
        except _NO_ANSWER as error:
            raise self._way.no_coordinator(error) from error

    def receipt(self, job_id: str) -> Steps[bytes]:
        """Fetch a receipt."""
        return (yield from self.get(f"/api/v1/jobs/{job_id}/receipt", MAX_RECEIPT_FILE_BYTES))

    # -- what there is --------------------------------------------------------------------------------------------

    def inputs(self, family: str) -> Steps[tuple[Port, ...]]:
        """Ask what a family takes; once."""
        if family not in self._ports:
            found = yield from self.object("GET", _model(family, None))
            try:
                self._ports[family] = tuple(_port(entry) for entry in found["inputs"])
            except _NO_ANSWER as error:
                raise self._way.no_coordinator(error) from error
        return self._ports[family]

    def coordinator_key(self) -> Steps[PublicKey]:
        """Return the key that receipts must be signed with: the one that was given, else what is said there, once."""
        if self.pins.coordinator is not None:
            return self.pins.coordinator
        if self._asked is None:
            found = yield from self.object("GET", "/api/v1/coordinator")
            try:
                self._asked = PublicKey.from_bytes(bytes.fromhex(found["public_key"]))
            except (*_NO_ANSWER, MalformedError) as error:
                raise self._way.no_coordinator(error) from error
        return self._asked

    def certificate(self, agent_id: str) -> Steps[Certificate]:
        """Fetch an agent's certificate, and check it, and that its key was not revoked as far as one hears."""
        registrar = self.pins.registrar
        if registrar is None:
            raise UsageError("Certificates are checked with registrar_key, and none was given.")
        network = str((yield from self.object("GET", "/api/v1/coordinator")).get("network"))
        signed = yield from self.get(f"/api/v1/agents/{quote(agent_id, safe='')}/certificate", MAX_CERTIFICATE_BYTES)
        checked = check_certificate(signed, registrar, network=network, at_ms=self._now_ms(), agent_id=agent_id)
        yield from self._hear(registrar, network)
        reason = self._known.why_revoked(agent_id)
        if reason is not None:
            raise RefusedError(f"The key of the agent {agent_id} was revoked: {reason}.", code="revoked")
        return checked.statement

    def object(self, method: str, path: str, content: bytes | None = None) -> Steps[dict[str, Any]]:
        """Ask for an object of JSON."""
        return (yield from self._json(dict, method, path, content))

    def list(self, method: str, path: str) -> Steps[list[Any]]:
        """Ask for a list of JSON."""
        return (yield from self._json(list, method, path))

    def get(self, path: str, most_bytes: int = MAX_ANSWER_BYTES) -> Steps[bytes]:
        """Ask for something that has no procedure of its own."""
        send = Send("GET", path, most_bytes=most_bytes, packed=True)
        return (yield from self._way.call(send, self._way.clock() + self._deadline)).body

    # -- parts ----------------------------------------------------------------------------------------------------

    def _verified(  # noqa: PLR0913, PLR0917 all that a receipt is about
        self,
        receipt: bytes,
        family: str,
        inputs: Sequence[Tensor],
        outputs: Sequence[Tensor],
        job_id: str,
        state: str,
        options: JobOptions,
    ) -> Steps[Verified]:
        """Check a receipt, and who its agent is as far as that was asked for or can be known."""
        verified = proof.check(
            receipt,
            (yield from self.coordinator_key()),
            pinned=self.pins.coordinator is not None,
            job_id=job_id,
            family=family,
            inputs=inputs,
            outputs=outputs,
            state=state,
        )
        proof.check_agent(verified.receipt, options.placement.agents)
        if self.pins.registrar is None:
            return verified
        # With a key of the caller's own the job may be one of long ago; else it was done just now.
        now_ms = self._now_ms() if options.idempotency_key is None else None
        verified = proof.certified(verified, self.pins.registrar, now_ms=now_ms, owner=options.placement.owner)
        yield from self._hear(self.pins.registrar, verified.receipt.result.network)
        return replace(verified, revocations=self._known.check(verified.receipt, self._now_ms()))

    def _hear(self, registrar: PublicKey, network: str) -> Steps[None]:
        """Ask for the list of revoked keys, if it is time to."""
        if not self._known.claim(self._way.clock()):
            return
        signers = ((yield from self.coordinator_key()), registrar)
        end = self._way.clock() + revocations.PATIENCE_SECONDS
        send = Send("GET", "/api/v1/revocations", most_bytes=MAX_LIST_BYTES)
        try:
            reply = yield from self._way.call(send, end)
        except (TooLargeError, MalformedError):  # this is none, as one that somebody else signed
            raise
        except EdgeAgentError as error:  # what that means is said with the result
            take = partial(self._known.miss, error, signers, network, self._way.clock())
        else:
            take = partial(self._known.take, reply.body, signers, network, self._way.clock())
        yield Aside(take)  # another process may have the file

    def _now_ms(self) -> int:
        return int(self._wall() * 1000)

    def _call(
        self, method: str, path: str, content: bytes | None = None, headers: dict[str, str] | None = None
    ) -> Steps[Reply]:
        send = Send(method, path, content, headers or {}, packed=True)
        return (yield from self._way.call(send, self._way.clock() + self._deadline))

    def _json(self, kind: type[J], method: str, path: str, content: bytes | None = None) -> Steps[J]:
        headers = {"Content-Type": "application/json"} if content is not None else None
        reply = yield from self._call(method, path, content, headers)
        try:
            found = json.loads(reply.body)
        except _NO_ANSWER as error:
            raise self._way.no_coordinator(error) from error
        if not isinstance(found, kind):
            raise self._way.no_coordinator(TypeError(f"{type(found).__name__} instead of {kind.__name__}"))
        return found

    def _seconds(self, options: JobOptions) -> float:
        """How long to try: a second more than the job has, to hear how it ended."""
        return self._deadline if options.deadline_seconds is None else options.deadline_seconds + 1.0

    def _result(self, reply: Reply, seconds: float) -> tuple[Result, bytes | None]:
        try:
            found = response_from_body(reply.body, reply.headers.get(LENGTH_HEADER.lower()))
            about = found.parameters
            receipt = _inline(about)
            result = Result(
                job_id=str(about.get("job_id", "")),
                outputs={tensor.name: value_of(tensor) for tensor in found.outputs},
                tensors=tuple(found.outputs),
                variant=found.model_version,
                verified=None,
                verification=str(about.get("verification", "")),
                klass=str(about.get("class", "")),
                agent_id=str(about.get("agent_id", "")),
                run_us=int(about.get("run_us", 0)),
                seconds=seconds,
                tries=reply.tries,
            )
        except (*_NO_ANSWER, InputError) as error:
            raise self._way.no_coordinator(error) from error
        return result, receipt


def jobs_path(limit: int, client: str | None) -> str:
    """Return where the newest jobs are listed."""
    return f"/api/v1/jobs?limit={limit}" + (f"&client={quote(client, safe='')}" if client is not None else "")


def _are_tensors(inputs: Inputs) -> bool:
    return isinstance(inputs, (list, tuple)) and bool(inputs) and all(isinstance(item, Tensor) for item in inputs)


def _model(family: str, version: str | None) -> str:
    return f"/v2/models/{quote(family, safe='')}" + (f"/versions/{quote(version, safe='')}" if version else "")


def _inline(about: dict[str, Any]) -> bytes | None:
    """Return the receipt that stands in an answer's parameters, if it was asked for there."""
    inline = about.get("receipt_cose")
    return base64.b64decode(inline, validate=True) if isinstance(inline, str) else None


def _with_options(request: bytes, options: JobOptions, *, receipt_inline: bool = False) -> tuple[bytes, dict[str, str]]:
    """Put options into a request; return it with its headers, which always have an idempotency key."""
    parameters, headers = keyed(options)
    if receipt_inline:
        parameters["receipt_inline"] = True
    headers |= {"Content-Type": "application/json"}
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
