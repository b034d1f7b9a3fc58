"""The registrar as the coordinator knows it: its public key, and the secret one where it lies here. Pure.

Where the secret key lies elsewhere, the coordinator can let nobody in by itself: it collects requests and takes the
certificates that come back.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from edge_agent.coordinator.events import AgentCertificates
from edge_agent.errors import PeerError
from edge_agent.wire.broker_certificates import broker_certificate
from edge_agent.wire.certificates import MAX_LIFETIME_MS, OpenedCertificate, issue, open_certificate
from edge_agent.wire.identity import Certificate
from edge_agent.wire.keys import PublicKey, SigningKey

RENEW_SHARE = 3
"""A certificate is renewed when a third of its life is left."""
DAY_MS = 86_400_000
KEPT_CERTIFICATES = 20_000
"""Of so many the signature is checked once only: two for each agent that is kept in mind by default."""


@dataclass(frozen=True, slots=True)
class Registrar:
    """Who says which agents belong to the network.

    Attributes:
        public: the key that certificates must be signed with.
        key: the secret one; None when it lies elsewhere.
        network: that certificates are for.
        lifetime_ms: of the certificates that are made here, 30 days at most.
    """

    public: PublicKey
    key: SigningKey | None
    network: str
    lifetime_ms: int = MAX_LIFETIME_MS

    def certify(self, agent: PublicKey, sealing_key: bytes | None, owner: str | None, now_ms: int) -> AgentCertificates:
        """Sign both certificates of an agent.

        Raises:
            ValueError: the secret key is not here.
        """
        if self.key is None:
            raise ValueError("the registrar's secret key is not here")
        signed = issue(
            self.key,
            network=self.network,
            agent=agent,
            sealing_key=sealing_key,
            owner=owner,
            now_ms=now_ms,
            lifetime_ms=self.lifetime_ms,
        )
        x509 = broker_certificate(self.key, agent, agent.id, now_ms=now_ms, days=self.lifetime_ms / DAY_MS)
        return AgentCertificates(signed, x509)

    def check(self, signed: bytes | None, agent_id: str, now_ms: int) -> Certificate | None:
        """Return what a certificate says, or None if it does not count now."""
        if signed is None:
            return None
        try:
            return _opened(signed, self.public, self.network).at(now_ms, agent_id).statement
        except PeerError:
            return None


@lru_cache(maxsize=KEPT_CERTIFICATES)
def _opened(signed: bytes, registrar: PublicKey, network: str) -> OpenedCertificate:
    """Check a certificate's signature, once: all of them are looked at every second."""
    return open_certificate(signed, registrar, network=network)


def wants_renewal(certificate: Certificate, now_ms: int) -> bool:
    """Whether so much of its life is over that a new one is due."""
    life = certificate.not_after_ms - certificate.issued_ms
    return certificate.not_after_ms - now_ms < life // RENEW_SHARE
