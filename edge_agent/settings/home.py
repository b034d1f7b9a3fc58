"""The owner's own broker, as settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from edge_agent.settings.fields import Section, optional_broker_url
from edge_agent.settings.passwords import read_password


class Home(Section):
    """The broker at home, for `policy.gates`, `[energy]` and Home Assistant; it may be another than the network's."""

    url: Annotated[str | None, AfterValidator(optional_broker_url)] = Field(
        default=None, description="Address of the broker: `mqtt://HOST[:PORT]`, or `mqtts://HOST[:PORT]` for TLS."
    )
    username: str | None = Field(default=None, description="User name for that broker.")
    password_file: Path | None = Field(default=None, description="File whose first line is the password for it.")
    assistant: Literal["off", "on"] = Field(
        default="off", description="Whether Home Assistant sees this machine there, as a device (docs/home.md)."
    )
    control: Literal["off", "tighten", "orders"] = Field(
        default="orders",
        description="What may be asked there: nothing (`off`), only what makes it work less (`tighten`), or what the "
        "owner's commands can, within the rules of this file (`orders`).",
    )
    discovery_prefix: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,64}$")] = Field(
        default="homeassistant", description="Under which Home Assistant looks for devices."
    )
    name: Annotated[str | None, Field(max_length=64, pattern=r"^[ -~À-ɏ]+$")] = Field(
        default=None, description="What the device is called there; otherwise by the machine's host name."
    )
    ca_file: Path | None = Field(
        default=None, description="PEM file of the only authorities to trust for TLS; otherwise the system's."
    )

    def read_password(self) -> str | None:
        """Return the password, or None if none is set.

        Raises:
            SettingsError: the file cannot be read, or does not start with a line of text.
        """
        return read_password(None, self.password_file, "home.password_file")
