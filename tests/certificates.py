"""Certificates made for a test: authorities, servers and clients, good ones and bad ones."""

from __future__ import annotations

import datetime as dt
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Issue = Callable[..., "Identity"]
HOUR = dt.timedelta(hours=1)


class Identity(NamedTuple):
    """A certificate with its key, as files and as what can sign others."""

    cert: Path
    key: Path
    certificate: x509.Certificate
    private: ec.EllipticCurvePrivateKey

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate, in hexadecimal."""
        return self.certificate.fingerprint(hashes.SHA256()).hex()


def issuer(folder: Path) -> Issue:
    """Return a function that makes certificates in a folder."""

    def issue(
        name: str, signer: Identity | None = None, address: str = "127.0.0.1", *, hours: tuple[int, int] = (-1, 1)
    ) -> Identity:
        """Make one for an address or a DNS name; without a signer, an authority. `hours` from now it is valid."""
        private = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        try:
            alternative: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(address))
        except ValueError:
            alternative = x509.DNSName(address)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(signer.certificate.subject if signer else subject)
            .public_key(private.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + hours[0] * HOUR)
            .not_valid_after(now + hours[1] * HOUR)
            .add_extension(x509.BasicConstraints(ca=signer is None, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)
        )
        if not signer:  # this and the other one by RFC 5280, as Python 3.13 wants it
            builder = builder.add_extension(_signs_certificates(), critical=True)
        else:
            whose = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.private.public_key())
            builder = builder.add_extension(whose, critical=False)
        certificate = builder.sign(signer.private if signer else private, hashes.SHA256())
        cert, key = folder / f"{name}.crt", folder / f"{name}.key"
        cert.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return Identity(cert, key, certificate, private)

    return issue


def _signs_certificates() -> x509.KeyUsage:
    names = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
    no = dict.fromkeys((*names, "decipher_only"), False)
    # Those that sign themselves serve with it, too.
    return x509.KeyUsage(**no, digital_signature=True, key_cert_sign=True, crl_sign=True)


def listener(authority: Identity, server: Identity, *, ask_clients: bool = False) -> tuple[str, ...]:
    """Return Mosquitto's configuration for TLS on its one port."""
    files = (f"cafile {authority.cert}", f"certfile {server.cert}", f"keyfile {server.key}")
    return ("allow_anonymous true", f"require_certificate {str(ask_clients).lower()}", *files)
