"""The registrar as a certificate authority for brokers: X.509 (RFC 5280) with Ed25519 (RFC 8410).

A broker that trusts this authority alone knows each agent by a login that nobody else can have: the common name is the
agent's id, and the key is the agent's own.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from edge_agent.wire.keys import PublicKey, SigningKey

AUTHORITY_YEARS = 20


def authority(registrar: SigningKey, now_ms: int) -> bytes:
    """Return the registrar's key as a certificate authority for brokers, self-signed, PEM."""
    name = _registrar_name(registrar.public)
    begin = _time(now_ms) - timedelta(days=1)
    built = _builder(name, name, registrar.public, begin, begin + timedelta(days=365 * AUTHORITY_YEARS))
    built = built.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    built = built.add_extension(_usage(authority=True), critical=True)
    return built.sign(registrar.for_x509(), None).public_bytes(Encoding.PEM)


def broker_certificate(  # noqa: PLR0913 what a certificate says
    registrar: SigningKey, public: PublicKey, name: str, *, now_ms: int, days: float, server_names: tuple[str, ...] = ()
) -> bytes:
    """Return an X.509 certificate by the registrar, DER.

    Args:
        registrar: signs.
        public: whose key it is for.
        name: the common name: the login at the broker.
        now_ms: when it begins.
        days: how long it counts.
        server_names: host names and addresses, for the broker's own; a client's has none.
    """
    begin = _time(now_ms) - timedelta(minutes=5)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    issuer = _registrar_name(registrar.public)
    built = _builder(subject, issuer, public, begin, begin + timedelta(days=days))
    use = ExtendedKeyUsageOID.SERVER_AUTH if server_names else ExtendedKeyUsageOID.CLIENT_AUTH
    built = built.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    built = built.add_extension(_usage(authority=False), critical=True)
    built = built.add_extension(x509.ExtendedKeyUsage([use]), critical=False)
    alternatives = [_alternative(each) for each in server_names or (name,)]
    built = built.add_extension(x509.SubjectAlternativeName(alternatives), critical=False)
    built = built.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(registrar.for_x509().public_key()), critical=False
    )
    return built.sign(registrar.for_x509(), None).public_bytes(Encoding.DER)


def _registrar_name(registrar: PublicKey) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"edge-agent registrar {registrar.fingerprint}")])


def _builder(
    subject: x509.Name, issuer: x509.Name, public: PublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    key = public.for_x509()
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _time(unix_ms: int) -> datetime:
    return datetime.fromtimestamp(unix_ms / 1000, UTC)
