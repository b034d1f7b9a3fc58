"""The client's side of TLS to the broker: whom to trust, what to show, and why a handshake failed."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Any

from edge_agent.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

_WAITING = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class TlsSocket(ssl.SSLSocket):
    """A TLS socket that closes itself when its handshake fails and remembers why it broke later.

    With TLS 1.3 a broker refuses a client certificate only after the client's handshake is over, so that the
    first write or read fails; whoever calls them may report no more than "connection lost".

    Attributes:
        failure: the TLS error that ended the connection, in words.
    """

    failure: str | None = None

    def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 (the standard library's)
        """Shake hands, or close the socket and raise what `ssl.SSLSocket` raises."""
        try:
            super().do_handshake(block)
        except BaseException:
            self.close()
            raise

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Read as `ssl.SSLSocket` does."""
        try:
            return super().recv(buflen, flags)
        except _WAITING:
            raise
        except ssl.SSLError as error:
            self.failure = explain(error)
            raise

    def send(self, data: Buffer, flags: int = 0) -> int:
        """Write as `ssl.SSLSocket` does."""
        try:
            return super().send(data, flags)
        except _WAITING:
            raise
        except OSError as error:
            # The broker has gone already; why it went may still wait to be read.
            with contextlib.suppress(OSError):
                self.recv(1)
            if self.failure is None and isinstance(error, ssl.SSLError):
                self.failure = explain(error)
            raise


def client_context(ca_file: Path | None, client_cert: Path | None, client_key: Path | None) -> ssl.SSLContext:
    """Return a context that checks the broker's certificate and its host name.

    Args:
        ca_file: PEM file of the only authorities to trust; None for the system's.
        client_cert: PEM certificate chain to show, or None.
        client_key: PEM key of that certificate, not encrypted.

    Raises:
        SettingsError: a file is missing, unreadable or not what it should be.
    """
    try:
        context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise SettingsError(
            f"the file of trusted authorities {ca_file} cannot be used: {explain(error)}",
            hint="broker.ca_file must be a readable PEM file with the certificate of the authority.",
        ) from error
    if client_cert is not None and client_key is not None:
        try:
            # The password keeps OpenSSL from asking for one on a terminal that a daemon does not have.
            context.load_cert_chain(client_cert, client_key, password="")
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"the client certificate {client_cert} and key {client_key} cannot be used: {explain(error)}",
                hint="Both must be readable PEM files that belong together; the key must not be encrypted.",
            ) from error
    context.sslsocket_class = TlsSocket
    return context


def explain(error: Exception) -> str:
    """Say in words what a TLS or file error was about, without OpenSSL's source lines."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLError) and error.reason:
        return str(error.reason).replace("_", " ").lower()
    strerror: Any = getattr(error, "strerror", None)
    return str(strerror or error or type(error).__name__)
