"""The certificate of the HTTP interface, which may be renewed while it is in use."""

from __future__ import annotations

import ssl
from pathlib import Path

from edge_agent.errors import SettingsError


class Certificate:
    """A certificate chain and its key, in files.

    Args:
        cert_file: PEM, the server's own certificate first.
        key_file: PEM, not encrypted.

    Attributes:
        context: for the server; connections that begin after `renew` use the new certificate.

    Raises:
        SettingsError: a file cannot be read, is encrypted, or does not fit the other.
    """

    def __init__(self, cert_file: Path, key_file: Path) -> None:
        self._files = (cert_file, key_file)
        self._seen = self._stamps()
        self.context = self._loaded()

    def renew(self) -> bool:
        """Take over files that have changed; return whether they had. What cannot be used changes nothing.

        Raises:
            SettingsError: as above; it is not tried again until the files change.
        """
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        self._loaded()  # on its own first: a pair that does not fit would spoil the one in use
        self._load_into(self.context)  # from the files once more: if they change just now, the next look sees it
        return True

    def _loaded(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        self._load_into(context)
        return context

    def _load_into(self, context: ssl.SSLContext) -> None:
        try:
            context.load_cert_chain(*self._files, password=_no_password)
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise SettingsError(
                f"gateway.tls_cert_file {self._files[0]} with gateway.tls_key_file {self._files[1]} is no use: {what}",
                hint="They must be PEM files that belong together, the key not encrypted, and readable by this user.",
            ) from None

    def _stamps(self) -> tuple[tuple[int, int] | None, ...]:
        return tuple(_stamp(file) for file in self._files)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _no_password() -> str:
    # Without it, OpenSSL would ask at the terminal.
    raise ValueError("the key is encrypted")
