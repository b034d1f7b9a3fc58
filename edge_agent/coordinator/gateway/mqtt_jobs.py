"""Jobs of plain MQTT 5 clients: a request on their own topic, the answer where they want it, with their own mark.

It has a link to the broker of its own, so that no flood of clients reaches the agents' one. Every request shows an API
key of the scope `mqtt`, which opens nothing else: whoever runs the broker can read it. Answers go to topics below the
client's own alone, since a coordinator that published wherever it is told could be made to speak to the lamps at home.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from edge_agent.coordinator.access import Access, Caller, Scope
from edge_agent.coordinator.gateway.answers import Problem, outcome_parameters, problem_of
from edge_agent.coordinator.gateway.intake import Intake
from edge_agent.coordinator.gateway.jobs import no_json_form
from edge_agent.coordinator.gateway.reading import LONG_BYTES
from edge_agent.coordinator.gateway.submission import Order, digest_of, ended, in_name_of, place
from edge_agent.coordinator.inbox import Inbox
from edge_agent.coordinator.service import Service
from edge_agent.errors import DeniedError, EdgeAgentError, InputError, ResourceError, TransportError
from edge_agent.mqtt import Link, LinkOptions, Message
from edge_agent.wire import strict_json
from edge_agent.wire.job_options import options_from
from edge_agent.wire.oip_json import AS_JSON, body_of, request_from_json
from edge_agent.wire.topics import Topics

log = logging.getLogger("edge_agent.coordinator.mqtt")

KEY_PROPERTY = "api-key"
KEY_MEMBER = "api_key"
"""In the request itself, for tools that take properties from their command line alone, where others see them."""
MAX_KEYLESS_BYTES = LONG_BYTES
"""A request that shows its key so is read before it is known whose it is."""
MAX_UNDER_WAY = 256
"""Requests of all clients together; more are told that the queue is full."""
MAX_CORRELATION_BYTES = 1024
EXPIRY_SECONDS = 300
"""So long a broker need keep an answer for a client that is away."""
DENIALS_PER_SECOND = 10
"""So many requests without a right key are answered; of more, nothing is heard."""
STOP_SECONDS = 2.0


class MqttJobs:
    """Takes jobs from the broker and answers them.

    Args:
        service: the running coordinator.
        access: knows the API keys.
        intake: the memory for requests, shared with HTTP.
        options: of the link.
        wait_seconds: how long a client is kept waiting that names no deadline.
    """

    def __init__(
        self, service: Service, access: Access, intake: Intake, options: LinkOptions, *, wait_seconds: float
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._service = service
        self._access = access
        self._intake = intake
        self._options = options
        self._wait_seconds = wait_seconds
        self._topics = Topics(service.network)
        self._under_way: set[asyncio.Task[None]] = set()
        self._denials: tuple[int, int] = (0, 0)

    async def run(self) -> None:
        """Do it until cancelled."""
        loop = asyncio.get_running_loop()
        inbox = Inbox(
            loop,
            lambda _: None,  # the link itself logs what else happens
            self._on_messages,
            max_messages=self._options.inbox_messages,
            max_bytes=2 * self._intake.max_request_bytes,
            dropped=lambda name: self.counters.update([name]),
        )
        rng = random.Random(os.urandom(16))  # noqa: S311 jitter, not a secret
        self._link = Link(self._options, [self._topics.client_jobs], inbox.put, will=lambda: None, rng=rng, log=log)
        self._link.start()
        try:
            await loop.create_future()
        finally:
            for task in self._under_way:
                task.cancel()
            await asyncio.to_thread(self._link.stop, STOP_SECONDS)

    def _on_messages(self, messages: Sequence[Message]) -> None:
        for message in messages:
            if message.retain:
                continue  # it would come again with every connection
            task = asyncio.get_running_loop().create_task(self._on_message(message))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    async def _on_message(self, message: Message) -> None:
        try:
            name = self._topics.client_of(message.topic)
        except EdgeAgentError:
            self._drop("topic")
            return
        where = message.response_topic
        if where is None or not self._topics.takes_results(where, name):
            self._drop("response-topic")  # with nowhere to say so
            return
        if len(message.correlation or b"") > MAX_CORRELATION_BYTES:
            self._drop("correlation")
            return
        try:
            caller = self._admit(message, name)
            if caller is None:
                return
            if len(self._under_way) > MAX_UNDER_WAY:
                raise ResourceError(f"{MAX_UNDER_WAY} requests are under way over MQTT", code="queue-full")
            answer = await self._run(message.payload, caller)
        except EdgeAgentError as error:
            answer = problem_of(error)
        except asyncio.CancelledError:
            self._say(message, problem_of(_stopping()))
            raise
        self._say(message, answer)

    def _admit(self, message: Message, name: str) -> Caller | None:
        """Return whose request it is; None if it is to be passed over."""
        try:
            caller = self._caller(message, name)
        except DeniedError:
            if self._may_deny():
                raise
            self._drop("denied")
            return None
        self._access.charge_request(caller)
        return caller

    def _caller(self, message: Message, name: str) -> Caller:
        token = dict(message.user_properties).get(KEY_PROPERTY)
        if token is None and len(message.payload) <= MAX_KEYLESS_BYTES:
            token = _key_inside(message.payload)
        caller = self._access.caller(token or "")
        if caller.key_id is None:
            text = f"the request shows no API key, in the user property {KEY_PROPERTY} or in its member {KEY_MEMBER}"
            hint = f"A request of more than {MAX_KEYLESS_BYTES} bytes needs the user property."
            raise DeniedError(text, hint=hint)
        if Scope.MQTT not in caller.scopes:
            raise DeniedError("jobs over MQTT need a key with the scope mqtt", code="forbidden")
        if caller.name != name:
            raise DeniedError(f"the key is of {caller.name}, the topic of {name}", code="forbidden")
        return caller

    def _may_deny(self) -> bool:
        """Whether one more denial is answered in this second."""
        second = int(asyncio.get_running_loop().time())
        count = self._denials[1] + 1 if self._denials[0] == second else 1
        self._denials = second, count
        return count <= DENIALS_PER_SECOND

    async def _run(self, payload: bytes, caller: Caller) -> dict[str, Any] | Problem:
        if len(payload) > self._intake.max_request_bytes:
            raise self._intake.too_long()
        with self._intake.holding(len(payload)):
            given, tail = await self._intake.reader.message(payload)
            if not isinstance(given, dict):
                raise InputError("the request must be a JSON object with model_name and inputs")
            given.pop(KEY_MEMBER, None)
            family, version = given.pop("model_name", None), given.pop("model_version", None)
            if not isinstance(family, str) or not isinstance(version, str | None):
                raise InputError("the request must name a family in model_name")
            request = request_from_json(given, tail)
            entry = self._service.catalogue.family(family)
            options = in_name_of(caller, options_from(request.parameters), None)
            order = Order(entry.name, tuple(request.outputs), digest_of(entry, version), options)
            accepted = await place(self._service, self._access, caller, order, tuple(request.inputs))
            inline = request.parameters.get("receipt_inline") is True
            request_id = request.id
            del request, given, tail
        end = await ended(self._service, accepted.job_id, options, self._wait_seconds)
        if isinstance(end, Problem):
            return end
        served = entry.variant(end.variant) if end.variant else None
        about: dict[str, Any] = {"model_name": entry.name, "model_version": served.name if served else ""}
        about["parameters"] = outcome_parameters(end, inline=inline)
        if request_id is not None:
            about["id"] = request_id
        try:
            return {"body": body_of(about, "outputs", end.outputs, AS_JSON)[0]}
        except InputError as error:
            raise no_json_form(error) from error

    def _say(self, message: Message, answer: dict[str, Any] | Problem) -> None:
        try:
            self._publish(message, answer)
        except EdgeAgentError as error:
            self._drop(f"answer-{error.error_code}")
            if error.error_code == "too-large":
                self._publish(message, problem_of(error))

    def _publish(self, message: Message, answer: dict[str, Any] | Problem) -> None:
        if isinstance(answer, Problem):
            body = strict_json.written({"error": answer.message, **answer.details()})
            about = [("status", str(answer.status)), ("code", answer.code)]
            about += [("retry-after", answer.headers["Retry-After"])] if "Retry-After" in answer.headers else []
        else:
            body, about = answer["body"], [("status", "200")]
        assert message.response_topic is not None  # noqa: S101 looked at before anything else
        self._link.publish(
            message.response_topic,
            body,
            content_type="application/json",
            expiry_seconds=EXPIRY_SECONDS,
            correlation=message.correlation,
            user_properties=tuple(about),
        )

    def _drop(self, why: str) -> None:
        self.counters[f"dropped-{why}"] += 1
        if self.counters[f"dropped-{why}"] == 1:
            log.warning("Passed over a request of an MQTT client (%s)", why, extra={"action": "mqtt-dropped"})


def _key_inside(payload: bytes) -> str | None:
    with suppress(EdgeAgentError):
        given = strict_json.read(payload)
        token = given.get(KEY_MEMBER) if isinstance(given, dict) else None
        return token if isinstance(token, str) else None
    return None


def _stopping() -> EdgeAgentError:
    return TransportError("the coordinator is stopping", code="stopping", hint="Send it again in a few seconds.")
