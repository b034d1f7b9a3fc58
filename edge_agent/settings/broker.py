"""How the network's broker is reached, as settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, SecretStr

from edge_agent.settings.fields import Flag, broker_url
from edge_agent.settings.fields import Section as _Section
from edge_agent.settings.passwords import read_password

FINGERPRINT_PATTERN = r"^[0-9A-Fa-f]{2}(:?[0-9A-Fa-f]{2}){31}$"


class Broker(_Section):
    """How the broker is reached."""

    url: Annotated[str, AfterValidator(broker_url), Flag("--broker", "URL")] = Field(
        default="mqtt://127.0.0.1:1883",
        description="Address of the broker: `mqtt://HOST[:PORT]`, or `mqtts://HOST[:PORT]` for TLS.",
    )
    username: str | None = Field(default=None, description="User name for the broker's own access control.")
    password_file: Path | None = Field(
        default=None, description="File whose first line is the password for the broker."
    )
    password: SecretStr | None = Field(
        default=None,
        description="The password itself; only from the environment, never shown, wins over the file.",
    )
    ca_file: Path | None = Field(
        default=None, description="PEM file of the only authorities to trust for TLS; otherwise the system's."
    )
    client_cert_file: Path | None = Field(
        default=None, description="PEM certificate to show to the broker; needs `broker.client_key_file`."
    )
    client_key_file: Path | None = Field(default=None, description="PEM key of that certificate, not encrypted.")
    server_name: Annotated[str, Field(pattern=r"^[A-Za-z0-9.:_-]{1,253}$")] | None = Field(
        default=None, description="Name that must stand in the broker's certificate; otherwise the address's host."
    )
    server_fingerprint: Annotated[str, Field(pattern=FINGERPRINT_PATTERN)] | None = Field(
        default=None,
        description="SHA-256 of the broker's certificate in hexadecimal: no other is accepted, and it must be valid.",
    )
    protocol: Literal["auto", "5", "3.1.1"] = Field(
        default="auto", description="MQTT version; `auto` tries 5 and falls back to 3.1.1."
    )
    keepalive_seconds: Annotated[int, Field(ge=1, le=65_535)] = Field(
        default=30, description="A link that is silent for about twice this long counts as dead."
    )
    retry_max_seconds: Annotated[float, Field(ge=0.2, le=3600, allow_inf_nan=False)] = Field(
        default=3.0,
        description="Longest wait before the broker is tried again; many agents on one broker may want more.",
    )

    def read_password(self) -> str | None:
        """Return the password from the environment or else from `password_file`, or None if neither is set.

        Raises:
            SettingsError: the file cannot be read, or does not start with a line of text.
        """
        return read_password(self.password, self.password_file, "broker.password_file")
