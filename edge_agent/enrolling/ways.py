"""The two ways to a coordinator: its HTTP address, or the broker. Each says one thing and returns what comes back."""

from __future__ import annotations

import http.client
import json
import logging
import queue
import random
import ssl
import time
import urllib.parse
from typing import Protocol

from edge_agent.enrolling.asking import MAX_ANSWER_BYTES
from edge_agent.errors import EdgeAgentError, RefusedError, TransportError, UsageError
from edge_agent.mqtt import Connected, ConnectFailed, Link, LinkEvent, LinkOptions, Message
from edge_agent.wire.topics import Topics

CALL_SECONDS = 20.0
MEDIA_TYPE = "application/edge-agent+cbor"


class Way(Protocol):
    """How something is said to a coordinator."""

    def ask(self, request: bytes, seconds: float) -> list[bytes]:
        """Say it; return the answers that come within so many seconds, at the first one.

        Raises:
            TransportError: the way is broken.
        """

    def close(self) -> None:
        """Give up the way."""


class OverHttp:
    """The coordinator's HTTP interface.

    Args:
        url: its address.
        context: for TLS.

    Raises:
        UsageError: the address is none.
    """

    def __init__(self, url: str, context: ssl.SSLContext | None = None) -> None:
        self._url = urllib.parse.urlsplit(url)
        self._context = context
        if self._url.scheme not in {"http", "https"} or not self._url.hostname:
            raise UsageError(f"{url[:200]!r} is no address of a coordinator.", hint="Write http://HOST:PORT.")

    def network(self) -> str:
        """Return the network that the coordinator says it coordinates; worth nothing until it has signed something.

        Raises:
            TransportError: it cannot be reached.
        """
        try:
            return str(json.loads(self._call("GET", "/api/v1/identity", None))["network"])
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise TransportError(f"{self._url.geturl()} is no coordinator.", code="unreachable") from error

    def ask(self, request: bytes, seconds: float) -> list[bytes]:  # noqa: ARG002 HTTP answers at once
        """Send it; return the answer.

        Raises:
            TransportError: the coordinator cannot be reached, or has too much to do.
            RefusedError: it does not take it.
        """
        return [self._call("POST", "/api/v1/enrol", request)]

    def _call(self, method: str, path: str, body: bytes | None) -> bytes:
        url = self._url
        try:
            connection = self._connection(url.hostname or "", url.port)
            try:
                headers = {"Content-Type": MEDIA_TYPE} if body is not None else {}
                connection.request(method, url.path.rstrip("/") + path, body, headers)
                response = connection.getresponse()
                answer = response.read(MAX_ANSWER_BYTES + 1)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException, ValueError) as error:
            text = f"The coordinator {url.geturl()} cannot be reached: {error}."
            raise TransportError(text, code="unreachable") from error
        if response.status == http.client.OK:
            return answer
        text = _reason(answer) or f"status {response.status}"
        if response.status in {429, 503}:
            raise TransportError(f"The coordinator has too much to do: {text}", code="timeout")
        raise RefusedError(f"The coordinator does not take it: {text}")

    def _connection(self, host: str, port: int | None) -> http.client.HTTPConnection:
        if self._url.scheme == "http":
            return http.client.HTTPConnection(host, port, timeout=CALL_SECONDS)
        return http.client.HTTPSConnection(host, port, timeout=CALL_SECONDS, context=self._context)

    def close(self) -> None:
        """Nothing stays open."""


def _reason(answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"])[:300]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""


class OverBroker:
    """The broker that coordinator and agents share.

    Args:
        options: of the connection.
        topics: of the network.
        agent_id: whose topics are used.

    Raises:
        SettingsError: a TLS file cannot be used.
    """

    def __init__(self, options: LinkOptions, topics: Topics, agent_id: str) -> None:
        self._events: queue.SimpleQueue[LinkEvent] = queue.SimpleQueue()
        self._topic = topics.enrol(agent_id)
        self._up = False
        quiet = logging.getLogger("edge_agent.enrolling")
        quiet.setLevel(logging.CRITICAL)
        self._link = Link(
            options,
            [topics.enrolled(agent_id)],
            self._events.put,
            will=lambda: None,
            rng=random.Random(),  # noqa: S311 jitter, not a secret
            log=quiet,
        )
        self._link.start()

    def ask(self, request: bytes, seconds: float) -> list[bytes]:
        """Publish it once connected; return what comes back, if anything does.

        Raises:
            TransportError: the broker cannot be reached or does not let us in.
        """
        end = time.monotonic() + seconds
        sent = False
        while True:
            if self._up and not sent:
                try:
                    self._link.publish(self._topic, request)
                    sent = True
                except EdgeAgentError:  # the connection ended just now
                    self._up = False
            try:
                event = self._events.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                if not self._up:
                    raise TransportError("The broker gives no answer.", code="timeout") from None
                return []
            match event:
                case Connected():
                    self._up = True
                case ConnectFailed():
                    code = event.code if event.code in TransportError.codes else None
                    raise TransportError(f"The broker does not let us in: {event.reason}.", code=code)
                case Message() if sent:
                    return [bytes(event.payload)]
                case _:
                    pass

    def close(self) -> None:
        """End the connection."""
        self._link.stop(1.0)
