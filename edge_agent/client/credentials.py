"""The client's API key, and whose certificates it trusts: from the call, or from the environment; never from arguments.

The variables are those of the settings `client.api_key`, `client.api_key_file`, `client.ca_file`,
`client.registrar_file` and `client.revocations_file`.
"""

from __future__ import annotations

import os
import re
import ssl
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import SettingsError
from edge_agent.wire.keys import PublicKey

KEY_VARIABLE = "EDGE_AGENT_CLIENT_API_KEY"
KEY_FILE_VARIABLE = "EDGE_AGENT_CLIENT_API_KEY_FILE"
CA_FILE_VARIABLE = "EDGE_AGENT_CLIENT_CA_FILE"
REGISTRAR_FILE_VARIABLE = "EDGE_AGENT_CLIENT_REGISTRAR_FILE"
REVOCATIONS_FILE_VARIABLE = "EDGE_AGENT_CLIENT_REVOCATIONS_FILE"
MAX_KEY_BYTES = 512


def api_key(given: str | None = None) -> str | None:
    """Return the key: the one that is given, else the environment's own, else the first line of the file it names.

    Raises:
        SettingsError: the file cannot be read, or what is there cannot be a key.
    """
    key = given or os.environ.get(KEY_VARIABLE) or None
    file = os.environ.get(KEY_FILE_VARIABLE)
    where = "the API key"
    if key is None and file:
        where = f"the first line of {KEY_FILE_VARIABLE} {file}"
        try:
            with Path(file).expanduser().open("rb") as stream:
                key = stream.readline(MAX_KEY_BYTES + 1).rstrip(b"\r\n").decode("ascii", "replace")
        except OSError as error:
            raise SettingsError(f"{KEY_FILE_VARIABLE} {file} cannot be read: {error.strerror}.") from error
    if key is not None and not re.fullmatch(r"[!-~]{1,512}", key):
        raise SettingsError(
            f"{where} is none: it must be 1 to 512 printable ASCII characters without spaces.",
            hint="The operator makes one with: edge-agent coordinator keys add NAME --out FILE",
        )
    return key


def headers(given: str | None = None) -> dict[str, str]:
    """Return the headers that show the key; none without one."""
    key = api_key(given)
    return {} if key is None else {"Authorization": f"Bearer {key}"}


def trust(base_url: str, ca_file: Path | None = None) -> ssl.SSLContext | bool:
    """Return how the server's certificate is checked.

    Raises:
        SettingsError: the file of authorities cannot be read.
    """
    if not base_url.startswith("https:"):
        return True
    named = os.environ.get(CA_FILE_VARIABLE)
    file = ca_file or (Path(named).expanduser() if named else None)
    try:
        return ssl.create_default_context(cafile=None if file is None else str(file))
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"client.ca_file {file} cannot be used: {error}.") from error


@dataclass(frozen=True, slots=True)
class Pins:
    """The keys that a client was given beforehand, from a source that it trusts.

    Attributes:
        coordinator: must have signed the receipts.
        registrar: must have signed the certificates of the agents.
        revocations_file: where the newest list of revoked keys is kept, so that no older one is ever believed.
    """

    coordinator: PublicKey | None = None
    registrar: PublicKey | None = None
    revocations_file: Path | None = None


def pins(
    coordinator: PublicKey | Path | str | None,
    registrar: PublicKey | Path | str | None,
    revocations_file: Path | str | None = None,
) -> Pins:
    """Return both keys, each as it is given or from its file, and where the list of revoked keys is kept.

    The registrar's key and that file are else those that the environment names.

    Raises:
        KeyFileError: a file holds none.
    """
    kept = revocations_file or os.environ.get(REVOCATIONS_FILE_VARIABLE) or None
    return Pins(
        _public_key(coordinator),
        _public_key(registrar or os.environ.get(REGISTRAR_FILE_VARIABLE) or None),
        Path(kept).expanduser() if kept is not None else None,
    )


def _public_key(given: PublicKey | Path | str | None) -> PublicKey | None:
    return PublicKey.from_file(Path(given).expanduser()) if isinstance(given, str | Path) else given
