"""Agent certificates: made and checked.

A certificate says, signed with the registrar's key, that an agent belongs to the network and to an owner, for 30 days
at most. Whoever takes over the coordinator, but not the registrar, can invent no agents.
"""

from __future__ import annotations

from dataclasses import dataclass

from edge_agent.errors import RefusedError, SignatureRefusedError
from edge_agent.wire import cose
from edge_agent.wire.envelope import open_envelope, seal
from edge_agent.wire.identity import MAX_IDENTITY_BYTES, Certificate
from edge_agent.wire.keys import PublicKey, SigningKey

MAX_LIFETIME_MS = 30 * 86_400_000
CLOCK_SLACK_MS = 300_000
"""A certificate may begin so far in the future of whoever checks it: clocks differ."""


@dataclass(frozen=True, slots=True)
class CheckedCertificate:
    """A certificate whose signature and time were checked; only `OpenedCertificate.at` makes one."""

    statement: Certificate
    signed: bytes

    @property
    def agent(self) -> PublicKey:
        """The agent's key."""
        return PublicKey.from_bytes(self.statement.agent_key)


@dataclass(frozen=True, slots=True)
class OpenedCertificate:
    """A certificate whose signature was checked, and not yet its time; only `open_certificate` makes one."""

    statement: Certificate
    signed: bytes

    def at(self, at_ms: int, agent_id: str | None = None) -> CheckedCertificate:
        """Return it as one that counts at a time.

        Args:
            at_ms: Unix milliseconds.
            agent_id: whose it must be.

        Raises:
            RefusedError: `certificate-expired`, also when it does not count yet; `wrong-agent`.
        """
        if agent_id is not None and self.statement.agent_id != agent_id:
            raise RefusedError("The certificate is another agent's.", code="wrong-agent")
        if not self.statement.issued_ms - CLOCK_SLACK_MS <= at_ms < self.statement.not_after_ms:
            raise RefusedError("The certificate did not count at that time.", code="certificate-expired")
        return CheckedCertificate(self.statement, self.signed)


def issue(  # noqa: PLR0913 what a certificate says
    registrar: SigningKey,
    *,
    network: str,
    agent: PublicKey,
    sealing_key: bytes | None,
    owner: str | None,
    now_ms: int,
    lifetime_ms: int = MAX_LIFETIME_MS,
) -> bytes:
    """Sign a certificate.

    Raises:
        ValueError: for longer than 30 days.
    """
    if lifetime_ms > MAX_LIFETIME_MS:
        raise ValueError("an agent certificate counts for 30 days at most")
    statement = Certificate(
        network=network,
        issued_ms=now_ms,
        agent_id=agent.id,
        agent_key=agent.raw,
        sealing_key=sealing_key,
        login=agent.id,
        owner=owner,
        not_after_ms=now_ms + lifetime_ms,
    )
    return seal(registrar, statement)


def open_certificate(data: bytes, registrar: PublicKey, *, network: str) -> OpenedCertificate:
    """Check all of a certificate that never changes: its signature, and for how long it is made.

    Args:
        data: the COSE_Sign1.
        registrar: the key that must have signed it.
        network: that it must be for.

    Raises:
        PeerError: as `open_envelope`.
        RefusedError: `certificate-expired` when it is made for too long.
    """
    try:
        opened = open_envelope(
            data, registrar, Certificate, network=network, max_bytes=MAX_IDENTITY_BYTES + cose.MAX_OVERHEAD_BYTES
        )
    except SignatureRefusedError as error:
        raise SignatureRefusedError(
            f"The agent's certificate is not by the registrar {registrar.id}: {error.message}",
            code=error.error_code,
            hint="Is that the registrar of this network? Ask its operator; nothing of the agent was believed.",
        ) from error
    if opened.statement.not_after_ms - opened.statement.issued_ms > MAX_LIFETIME_MS:
        raise RefusedError("The certificate is made for more than 30 days.", code="certificate-expired")
    return OpenedCertificate(opened.statement, opened.signed)


def check_certificate(
    data: bytes, registrar: PublicKey, *, network: str, at_ms: int, agent_id: str | None = None
) -> CheckedCertificate:
    """Check a certificate.

    Args:
        data: the COSE_Sign1.
        registrar: the key that must have signed it.
        network: that it must be for.
        at_ms: when it must count, Unix milliseconds.
        agent_id: whose it must be.

    Raises:
        PeerError: as `open_envelope`.
        RefusedError: as `open_certificate` and `OpenedCertificate.at`.
    """
    return open_certificate(data, registrar, network=network).at(at_ms, agent_id)
