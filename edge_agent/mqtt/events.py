"""What a link tells its sink: frozen values, and nothing in them has been checked but their shape."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from edge_agent.mqtt.abilities import Abilities
    from edge_agent.mqtt.packets import Protocol


MAX_USER_PROPERTIES = 16


@dataclass(frozen=True, slots=True)
class Connected:
    """The broker let us in and granted every subscription; `publish` works from here on.

    Attributes:
        connection: counts the connections of this link from 1.
        protocol: the MQTT version in use.
        max_packet_bytes: the largest packet that `publish` accepts: the smaller of both sides' limits.
        receive_maximum: how many unacknowledged messages the broker allows us; None where it did not say.
        retain_available: whether the broker keeps retained messages.
    """

    connection: int
    protocol: Protocol
    max_packet_bytes: int
    receive_maximum: int | None = None
    retain_available: bool = True


@dataclass(frozen=True, slots=True)
class Disconnected:
    """A connection that had been given as `Connected` has ended; the link tries again by itself.

    Attributes:
        connection: the number that its `Connected` had.
        reason: a sentence for people.
        code: a code of `TransportError`, "too-large", or "stopped" after `Link.stop`.
        lost: tokens of messages that were accepted and not acknowledged, in the order of `publish`. Some may
            have arrived. Nobody will send them again but the caller.
    """

    connection: int
    reason: str
    code: str
    lost: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """An attempt to connect did not get as far as `Connected`.

    Attributes:
        reason: a sentence for people.
        code: a code of `TransportError`: unreachable, timeout, tls, broker-refused or transport.
        retry_seconds: how long the link waits before the next attempt.
    """

    reason: str
    code: str
    retry_seconds: float


@dataclass(frozen=True, slots=True)
class Message:
    """A message from the broker; nothing about its content has been checked.

    Attributes:
        topic: as the broker gave it.
        payload: the bytes.
        retain: whether it is an old message that the broker had kept.
        response_topic: where an answer is wanted; this and what follows only with MQTT 5.
        correlation: to be given back with the answer.
        user_properties: names and values, at most `MAX_USER_PROPERTIES` of them.
    """

    topic: str
    payload: bytes
    retain: bool
    response_topic: str | None = None
    correlation: bytes | None = None
    user_properties: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Published:
    """The broker acknowledged a QoS 1 message. That is no proof that anybody got it.

    Attributes:
        token: what `publish` returned.
    """

    token: int


@dataclass(frozen=True, slots=True)
class PublishRefused:
    """The broker acknowledged a QoS 1 message with a refusal (MQTT 5 only; 3.1.1 has no way to say so).

    Attributes:
        topic: of the message.
        token: what `publish` returned.
        reason: the name of MQTT's reason code, such as "Not authorized".
    """

    topic: str
    token: int
    reason: str


@dataclass(frozen=True, slots=True)
class Probed:
    """What the broker can do, once it is known, and again when it has changed."""

    abilities: Abilities


LinkEvent: TypeAlias = Probed | Connected | Disconnected | ConnectFailed | Message | Published | PublishRefused
