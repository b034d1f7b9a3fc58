"""The owner's own broker, as settings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from edge_agent.settings.fields import Section, optional_broker_url
from edge_agent.settings.passwords import read_password


class Home(Section):
    """The broker at home, on which the topics of `policy.gates` are; it may be another than the network's."""

    url: Annotated[str | None, AfterValidator(optional_broker_url)] = Field(
        default=None, description="Address of the broker: `mqtt://HOST[:PORT]`, or `mqtts://HOST[:PORT]` for TLS."
    )
    username: str | None = Field(default=None, description="User name for that broker.")
    password_file: Path | None = Field(default=None, description="File whose first line is the password for it.")
    ca_file: Path | None = Field(
        default=None, description="PEM file of the only authorities to trust for TLS; otherwise the system's."
    )

    def read_password(self) -> str | None:
        """Return the password, or None if none is set.

        Raises:
            SettingsError: the file cannot be read, or does not start with a line of text.
        """
        return read_password(None, self.password_file, "home.password_file")
