"""Passwords for brokers: from the environment, or the first line of a file; never shown."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.errors import SettingsError

if TYPE_CHECKING:
    from pydantic import SecretStr

MAX_PASSWORD_BYTES = 4096


def read_password(password: SecretStr | None, file: Path | None, setting: str) -> str | None:
    """Return the password itself or else that in the file, or None if neither is set.

    Args:
        password: wins over the file.
        file: whose first line it is.
        setting: that names the file, for errors.

    Raises:
        SettingsError: the file cannot be read, or does not start with a line of text.
    """
    if password is not None:
        return password.get_secret_value()
    if file is None:
        return None
    try:
        with file.open("rb") as stream:
            first = stream.readline(MAX_PASSWORD_BYTES + 1).rstrip(b"\r\n")
        found = first.decode()
    except OSError as error:
        raise SettingsError(f"{setting} {file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError:
        # Without the cause: it would carry the bytes of the password.
        raise SettingsError(f"{setting} {file} is not UTF-8 text.") from None
    if not found or len(first) > MAX_PASSWORD_BYTES:
        raise SettingsError(
            f"The first line of {setting} {file} is empty or longer than {MAX_PASSWORD_BYTES} bytes.",
            hint="Put the password alone on the first line of the file.",
        )
    return found
