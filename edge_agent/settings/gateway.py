"""Who may use the coordinator's HTTP interface, and how it is encrypted, as settings; and what our own client uses."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from edge_agent.settings.fields import Flag, Section, http_address, optional_broker_url
from edge_agent.settings.passwords import read_password


def _origin(text: str) -> str:
    if text != "*" and not re.fullmatch(
        r"https?://[a-z0-9.-]+(:[0-9]{1,5})?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?", text
    ):
        raise ValueError("must be `*` or an origin as browsers send it, such as https://club.example")
    return text


def _address(text: str | None) -> str | None:
    return None if text is None else http_address(text)


class Gateway(Section):
    """Who may use the HTTP interface, and how it is encrypted; and gRPC beside it."""

    grpc: Annotated[str | None, AfterValidator(_address), Flag("--grpc", "HOST:PORT")] = Field(
        default=None,
        description="`HOST:PORT` of the Open Inference Protocol over gRPC; port 0 takes a free one. Needs the extra "
        "`grpc`.",
    )
    mqtt_clients: Literal["off", "on"] = Field(
        default="off",
        description="Whether plain MQTT 5 clients may submit jobs through the broker, with API keys of the scope "
        "`mqtt`.",
    )
    mqtt_url: Annotated[str | None, AfterValidator(optional_broker_url)] = Field(
        default=None,
        description="Where the broker listens for plain MQTT clients, and for the gateway to meet them, if that is not "
        "`broker.url`: a broker that takes logins for client ids must not see the coordinator's login twice.",
    )
    mqtt_username: str | None = Field(default=None, description="User name there.")
    mqtt_password_file: Path | None = Field(default=None, description="File whose first line is the password there.")
    auth: Literal["auto", "required", "off"] = Field(
        default="auto",
        description="Whether callers need an API key: `auto` asks for one unless `coordinator.http` is on loopback. "
        "Behind a proxy on the same machine, say `required`.",
    )
    requests_per_minute: Annotated[int, Field(ge=1, le=10_000_000)] = Field(
        default=6000, description="Calls that a new key may make in a minute, unless it is made with another number."
    )
    jobs_per_day: Annotated[int, Field(ge=1, le=10**12)] = Field(
        default=100_000,
        description="Jobs that a new key may submit in a day (UTC), unless it is made with another number.",
    )
    cors_origins: Annotated[tuple[Annotated[str, AfterValidator(_origin)], ...], Field(max_length=64)] = Field(
        default=(),
        description="Web pages from these origins may call the interface; `*` stands for all. Calls from pages "
        "of others are refused.",
    )
    tls_cert_file: Path | None = Field(
        default=None,
        description="PEM certificate chain of the HTTP interface; needs `gateway.tls_key_file`. Read again when it "
        "changes.",
    )
    tls_key_file: Path | None = Field(default=None, description="PEM key of that certificate, not encrypted.")

    @model_validator(mode="after")
    def _certificate_and_key_go_together(self) -> Self:
        if (self.tls_cert_file is None) != (self.tls_key_file is None):
            raise ValueError("gateway.tls_cert_file and gateway.tls_key_file must be set together")
        return self


class Client(Section):
    """What commands that call a coordinator use; the Python client reads the same variables."""

    coordinator: Annotated[str, Field(pattern=r"^https?://[^\s/?#@]+/?$")] = Field(
        default="http://127.0.0.1:8420", description="Address of the coordinator, unless `--coordinator` says another."
    )
    api_key: SecretStr | None = Field(
        default=None,
        description="The API key itself; only from the environment, never shown, wins over the file.",
    )
    api_key_file: Path | None = Field(default=None, description="File whose first line is the API key.")
    ca_file: Path | None = Field(
        default=None, description="PEM file of the only authorities to trust for TLS; otherwise the system's."
    )
    registrar_file: Path | None = Field(
        default=None,
        description="The registrar's public key (PEM): results count only if the agents that signed them have its "
        "certificates.",
    )
    revocations_file: Path | None = Field(
        default=None,
        description="Where the newest list of revoked keys is kept, with the registrar's key: an older one is refused "
        "from then on. One file for each coordinator.",
    )

    def read_api_key(self) -> str | None:
        """Return the key, or None if none is set.

        Raises:
            SettingsError: the file cannot be read, or does not start with a line of text.
        """
        return read_password(self.api_key, self.api_key_file, "client.api_key_file")
