"""The client's side of TLS to the broker: whom to trust, what to show, and why a handshake failed."""

from __future__ import annotations

import contextlib
import hashlib
import ssl
from typing import TYPE_CHECKING, Any

from edge_agent.errors import SettingsError

if TYPE_CHECKING:
    from pathlib import Path

    from typing_extensions import Buffer

    from edge_agent.mqtt.options import LinkOptions

_WAITING = (ssl.SSLWantReadError, ssl.SSLWantWriteError)


class HandshakeError(ssl.SSLError):
    """No TLS connection came about, for a reason that OpenSSL does not tell; the message says it in words."""


class Context(ssl.SSLContext):
    """Checks the chain and the name, as always, and one thing more.

    Attributes:
        server_name: the name that must stand in the certificate; None for the one that we connect to.
        pin: SHA-256 of the only certificate that is accepted, or None for any that is valid.
    """

    server_name: str | None = None
    pin: bytes | None = None

    def wrap_socket(self, *arguments: Any, **options: Any) -> ssl.SSLSocket:  # noqa: ANN401 (the standard library's)
        """Wrap as `ssl.SSLContext` does, for the name that is expected."""
        if self.server_name is not None:
            options["server_hostname"] = self.server_name
        return super().wrap_socket(*arguments, **options)


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
            try:
                super().do_handshake(block)
            except ssl.SSLError:
                raise
            except TimeoutError as error:
                raise HandshakeError("no answer came in time; is it a port without TLS?") from error
            except OSError as error:
                raise HandshakeError(f"{explain(error)}; is it a port without TLS?") from error
            self._check_pin()
        except BaseException:
            self.close()
            raise

    def _check_pin(self) -> None:
        pin = getattr(self.context, "pin", None)
        if pin is None:
            return
        found = hashlib.sha256(self.getpeercert(binary_form=True) or b"").digest()
        if found != pin:
            raise HandshakeError(f"its certificate has the SHA-256 {found.hex()}, and {pin.hex()} is pinned")

    def recv(self, buflen: int = 1024, flags: int = 0) -> bytes:
        """Read as `ssl.SSLSocket` does."""
        try:
            return super().recv(buflen, flags)
        except _WAITING:
            raise
        except ssl.SSLError as error:
            self.failure = explain(error)
            raise

    def recv_into(self, buffer: Any, nbytes: int | None = None, flags: int = 0) -> int:  # noqa: ANN401 (a buffer)
        """Read as `ssl.SSLSocket` does."""
        try:
            return super().recv_into(buffer, nbytes, flags)
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


def client_context(
    ca_file: Path | None,
    client_cert: Path | None,
    client_key: Path | None,
    *,
    server_name: str | None = None,
    pin: bytes | None = None,
) -> Context:
    """Return a context that checks the broker's certificate and its name.

    Args:
        ca_file: PEM file of the only authorities to trust; None for the system's.
        client_cert: PEM certificate chain to show, or None.
        client_key: PEM key of that certificate, not encrypted.
        server_name: the name that must stand in the certificate; None for the one that is connected to.
        pin: SHA-256 of the only certificate to accept, which must be valid all the same.

    Raises:
        SettingsError: a file is missing, unreadable or not what it should be.
    """
    try:
        context = Context(ssl.PROTOCOL_TLS_CLIENT)  # which asks for a certificate and checks the name
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if ca_file is None:
            context.load_default_certs(ssl.Purpose.SERVER_AUTH)
        else:
            context.load_verify_locations(cafile=ca_file)
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
    context.server_name, context.pin = server_name, pin
    return context


def options_context(options: LinkOptions) -> Context:
    """Return the context that the options of a link ask for. Raises as `client_context` does."""
    return client_context(
        options.ca_file,
        options.client_cert,
        options.client_key,
        server_name=options.server_name,
        pin=options.server_pin,
    )


def explain(error: Exception) -> str:
    """Say in words what a TLS or file error was about, without OpenSSL's source lines."""
    if isinstance(error, HandshakeError):
        return str(error.args[0])
    if isinstance(error, ssl.SSLCertVerificationError):
        return error.verify_message
    if isinstance(error, ssl.SSLEOFError):
        return "it ended the connection; is it a port without TLS?"
    if isinstance(error, ssl.SSLError) and error.reason:
        return str(error.reason).replace("_", " ").lower()
    strerror: Any = getattr(error, "strerror", None)
    return str(strerror or error or type(error).__name__)
