"""The client that waits: a deadline, idempotency keys and retries, so that a call survives a restart on the way."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from edge_agent.client import credentials
from edge_agent.client.procedures import NO_OPTIONS, Answer, Procedures, Result, Wish, jobs_path
from edge_agent.client.steps import Incoming, Reply, Send, Steps, Wait, Way
from edge_agent.client.values import Inputs
from edge_agent.errors import EdgeAgentError, UsageError
from edge_agent.models.entries import Port
from edge_agent.wire.identity import Certificate
from edge_agent.wire.job_options import JobOptions
from edge_agent.wire.keys import PublicKey

CALL_SECONDS = 90.0
CONNECT_SECONDS = 5.0
KEPT_CONNECTIONS = 256
"""For as many calls at once; the coordinator closes those that are idle."""

T = TypeVar("T")


class Client:
    """Talks to one coordinator; may be used from several threads.

    Args:
        base_url: such as `http://127.0.0.1:8420`.
        deadline_seconds: for one job, retries included.
        seed: of the jitter between retries; random by default.
        on_retry: told what went wrong before each further try.
        api_key: shown with each call; else the one that the environment names, see `credentials.api_key`.
        ca_file: PEM file of the only authorities to trust; else the system's.
        coordinator_key: the coordinator's public key or a file with it, from a source that you trust: receipts must be
            signed with it. Without it, the coordinator is asked for its key, once.
        registrar_key: likewise the registrar's: agents must have its certificates for their results to be given out, so
            that a stolen coordinator can invent none. Else the file that `EDGE_AGENT_CLIENT_REGISTRAR_FILE` names.
            With it, the coordinator is also asked which keys were revoked, and what these signed is refused.
        revocations_file: where the newest list of revoked keys is kept from one client to the next, so that an older
            one is refused. Else the file that `EDGE_AGENT_CLIENT_REVOCATIONS_FILE` names, else only while this lives.

    Raises:
        UsageError: the address is none of HTTP.
        SettingsError: the API key's or the authorities' file cannot be read.
        KeyFileError: the coordinator's or the registrar's key cannot be read.
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
        coordinator_key: PublicKey | Path | str | None = None,
        registrar_key: PublicKey | Path | str | None = None,
        revocations_file: Path | str | None = None,
    ) -> None:
        base = checked_address(base_url)
        self._way = Way(base, time.monotonic, random.Random(seed), on_retry)  # noqa: S311 jitter, not a secret
        self._steps = Procedures(
            self._way, deadline_seconds, credentials.pins(coordinator_key, registrar_key, revocations_file), time.time
        )
        self._http = httpx.Client(**http_options(base, deadline_seconds, api_key, ca_file))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    @property
    def on_retry(self) -> Callable[[EdgeAgentError], None]:
        """Who is told what went wrong before each further try."""
        return self._way.on_retry

    def infer(  # noqa: PLR0913 what a job consists of
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
        """Run a job, wait for its result, and check the receipt of it.

        Sent again with the same idempotency key when the way there is broken, so that it is done once all the same.

        Args:
            model: the family to run.
            inputs: values by name (NumPy arrays, lists, numbers, texts); for a family with one input, the value alone;
                or tensors.
            mode: `signed`: by the machine that computed it; `rechecked`: computed again on a machine of another owner;
                `quorum(n)`: n machines of different owners agree, 2 to 5.
            outputs: names of the wanted ones; none means all.
            version: insist on this variant.
            options: deadline, priority, placement and so on; a deadline given here is also how long we try.
            verify: check the receipt, and that it is for these inputs and outputs.

        Raises:
            InputError: the inputs do not fit the family.
            UnknownFamilyError: there is no such family.
            DeniedError: an API key is missing, or not enough.
            JobFailedError: the job failed, or there was no result before the deadline.
            PeerError: what came back does not prove what it should.
            TransportError: `unreachable`.
        """
        return self._run(self._steps.infer(Wish(model, inputs, mode, outputs, version, options, verify)))

    def infer_json(
        self, family: str, request: bytes, *, version: str | None = None, options: JobOptions = NO_OPTIONS
    ) -> Answer:
        """Run a job whose request is JSON of the Open Inference Protocol already.

        Its receipt is checked only if the registrar's key was given, and then as by `infer`.

        Raises:
            EdgeAgentError: as `infer`.
        """
        return self._run(self._steps.infer_json(family, request, version, options))

    def submit_json(
        self, family: str, request: bytes, *, version: str | None = None, options: JobOptions = NO_OPTIONS
    ) -> str:
        """Submit a job without waiting; it is stored once this returns its id.

        Raises:
            EdgeAgentError: as `infer`.
        """
        return self._run(self._steps.submit_json(family, request, version, options))

    def job(self, job_id: str) -> dict[str, Any]:
        """Return how a job stands."""
        return self._run(self._steps.object("GET", f"/api/v1/jobs/{job_id}"))

    def jobs(self, limit: int = 50, client: str | None = None) -> list[dict[str, Any]]:
        """Return the jobs that were submitted last, newest first; of one client, or of all."""
        return self._run(self._steps.list("GET", jobs_path(limit, client)))

    def cancel(self, job_id: str) -> dict[str, Any]:
        """End a job that has not ended; return how it stands then."""
        return self._run(self._steps.object("DELETE", f"/api/v1/jobs/{job_id}"))

    def receipt(self, job_id: str) -> bytes:
        """Return the receipt of a job that succeeded, plain; `receipt_bundle` also proves that it is in the log."""
        return self._run(self._steps.receipt(job_id))

    def receipt_bundle(self, job_id: str) -> bytes:
        """Return the receipt with the proof that it is in the coordinator's log, for `wire.bundles`.

        Raises:
            RefusedError: `not-logged`: it is from before the coordinator kept a log.
        """
        return self.get(f"/api/v1/log/bundle?job={job_id}")

    def get(self, path: str) -> bytes:
        """Ask for something that has no method of its own here; errors and retries as everywhere."""
        return self._run(self._steps.get(path))

    def inputs(self, family: str) -> tuple[Port, ...]:
        """Return what a family takes, as the coordinator knows it; extents that the caller chooses are symbols.

        Raises:
            UnknownFamilyError: there is no such family.
            TransportError: `unreachable`.
        """
        return self._run(self._steps.inputs(family))

    def coordinator_key(self) -> PublicKey:
        """Return the key that receipts must be signed with: the one that was given, else what is said there, once."""
        return self._run(self._steps.coordinator_key())

    @property
    def registrar_key(self) -> PublicKey | None:
        """The registrar's key that was given, if any."""
        return self._steps.pins.registrar

    def certificate(self, agent_id: str) -> Certificate:
        """Fetch what the registrar signed of an agent, and check that it counts now.

        Raises:
            UsageError: no registrar's key was given.
            PeerError: `no-certificate`, `certificate-expired`, `wrong-agent`, or it is none of this registrar's.
        """
        return self._run(self._steps.certificate(agent_id))

    def agents(self) -> list[dict[str, Any]]:
        """Return the agents that the coordinator knows."""
        return self._run(self._steps.list("GET", "/api/v1/agents"))

    # -- for operators --------------------------------------------------------------------------------------------

    def overview(self) -> dict[str, Any]:
        """Return how the network stands: live jobs, and the last five minutes."""
        return self._run(self._steps.object("GET", "/api/v1/overview"))

    def served_models(self) -> list[dict[str, Any]]:
        """Return each family with who serves which variant, predicted and measured."""
        return self._run(self._steps.list("GET", "/api/v1/models"))

    def operate(self, agent_id: str, action: str, body: dict[str, Any]) -> dict[str, Any]:
        """Have something done with an agent: `approve`, `revoke`, `drain`, `undrain`, `label` or `reinstate`."""
        content = json.dumps(body).encode()
        return self._run(self._steps.object("POST", f"/api/v1/agents/{agent_id}/{action}", content))

    # -- driving --------------------------------------------------------------------------------------------------

    def _run(self, steps: Steps[T]) -> T:
        try:
            step = next(steps)
            while True:
                if isinstance(step, Wait):
                    time.sleep(step.seconds)
                    step = steps.send(None)
                    continue
                try:
                    reply = self._send(step) if isinstance(step, Send) else step.work()
                except httpx.TransportError as error:
                    step = steps.throw(self._way.unreachable(error))
                except EdgeAgentError as error:
                    step = steps.throw(error)
                else:
                    step = steps.send(reply)
        except StopIteration as end:
            found: T = end.value
            return found

    def _send(self, step: Send) -> Reply:
        timeout = httpx.Timeout(step.seconds, connect=CONNECT_SECONDS)
        headers = {**self._way.accepted(step), **step.headers}
        with self._http.stream(
            step.method, step.path, content=step.content, headers=headers, timeout=timeout
        ) as answer:
            packed = self._way.packs and step.packed
            incoming = Incoming(step, answer.status_code, answer.headers, packed=packed)
            for part in answer.iter_raw():
                if not incoming.add(part):
                    break
            return incoming.reply()


def http_options(base: str, deadline_seconds: float, api_key: str | None, ca_file: Path | None) -> dict[str, Any]:
    """Return what both kinds of httpx's clients are made with.

    Raises:
        SettingsError: the API key's or the authorities' file cannot be read.
    """
    return {
        "base_url": base,
        "timeout": httpx.Timeout(deadline_seconds, connect=CONNECT_SECONDS),
        "limits": httpx.Limits(max_connections=None, max_keepalive_connections=KEPT_CONNECTIONS),
        "trust_env": False,
        "headers": credentials.headers(api_key),
        "verify": credentials.trust(base, ca_file),
    }


def checked_address(base_url: str) -> str:
    """Return an address without the slash at its end.

    Raises:
        UsageError: it is none of HTTP.
    """
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
    return base_url.rstrip("/")
