"""What fields of settings are made of: their types, their flags, and how a value is checked."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

MIB = 1024 * 1024


@dataclass(frozen=True)
class Flag:
    """The command-line flag that sets a field, on the commands that have it.

    Attributes:
        name: with its dashes.
        metavar: what stands for the value in `--help`.
    """

    name: str
    metavar: str


@dataclass(frozen=True)
class Derived:
    """How the default of a field is found when it depends on the machine or on another field, in words."""

    text: str


def parse_host_port(text: str) -> tuple[str, int]:
    """Split `HOST:PORT` or `[IPV6]:PORT`; port 0 means any free one.

    Raises:
        ValueError: it is something else.
    """
    match = re.fullmatch(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([A-Za-z0-9._-]+)):([0-9]{1,5})", text)
    if match is None or int(match[3]) > 65535:
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:8420 or [::1]:8420")
    return match[1] or match[2], int(match[3])


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens on a host; a name but `localhost` is looked at by nobody."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def http_address(text: str) -> str:
    """Check the address of an HTTP interface."""
    parse_host_port(text)
    return text


def broker_url(text: str) -> str:
    """Check the address of a broker."""
    # Addresses end up in logs and on screens, so a password must never be part of one.
    if "@" in text:
        raise ValueError("must not carry a user or password: use broker.username and broker.password_file")
    if not re.fullmatch(r"mqtts?://[^\s/?#]+/?", text):
        raise ValueError("must be mqtt://HOST[:PORT] or mqtts://HOST[:PORT]")
    return text


def optional_broker_url(text: str | None) -> str | None:
    """Check the address of a broker that need not be there."""
    return None if text is None else broker_url(text)


Seconds = Annotated[float, Field(gt=0, le=86_400 * 365, allow_inf_nan=False)]
SecondsOrNever = Annotated[float, Field(ge=0, le=86_400 * 365, allow_inf_nan=False)]
MessageBytes = Annotated[int, Field(ge=65_536, le=255 * MIB)]
OwnerName = Annotated[str, Field(pattern=r"^[ -~]{1,64}$")]
Label = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._=-]{0,63}$")]
FamilyPattern = Annotated[str, Field(pattern=r"^[a-z0-9*?][a-z0-9._*?-]{0,63}$")]
FamilyValue = Annotated[str, Field(pattern=r"^[a-z0-9*?][a-z0-9._*?-]{0,63}=[0-9]{1,6}(\.[0-9]{1,6})?$")]
Weight = Annotated[str, Field(pattern=r"^(quality|speed|memory|energy)=[0-9]{1,6}(\.[0-9]{1,6})?$")]


def pairs(texts: tuple[str, ...]) -> tuple[tuple[str, float], ...]:
    """Split each `NAME=NUMBER`."""
    split = (text.partition("=") for text in texts)
    return tuple((name, float(number)) for name, _, number in split)


def weigh_something(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Check weights: each once, and not all of them 0."""
    if len(dict(pairs(texts))) < len(texts):
        raise ValueError("must say each weight once")
    if not any(number for _, number in pairs(texts)):
        raise ValueError("must have a weight above 0, for example quality=1, speed=1")
    return texts


class Section(BaseModel):
    """What all sections are: frozen, strict, and without unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)
