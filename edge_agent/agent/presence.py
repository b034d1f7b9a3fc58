"""What an agent says of itself: birth, clean stop, will, offers and held attempts, signed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice
from typing import Any, Literal

from edge_agent import __version__
from edge_agent.agent.events import Publish
from edge_agent.clock import Now
from edge_agent.wire.envelope import seal
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import (
    MAX_HELD,
    PROTOCOL_VERSIONS,
    WITH_TERMS,
    Birth,
    Gone,
    HeldAttempt,
    Machine,
    Offer,
    Offers,
    Progress,
)
from edge_agent.wire.terms import Terms
from edge_agent.wire.topics import Topics

SOFTWARE = f"edge-agent/{__version__}"


class Presence:
    """Signs presence with the agent's key for one network.

    Args:
        key: the agent's.
        topics: of the network.
        machine: the few facts that a birth carries.
        sealing_key: what inputs for the agent are sealed to, 32 bytes.
        hybrid_key: the same in the hybrid suite, 1216 bytes, for this run of the agent.
    """

    def __init__(
        self,
        key: SigningKey,
        topics: Topics,
        machine: Machine,
        sealing_key: bytes | None = None,
        hybrid_key: bytes | None = None,
    ) -> None:
        self.key = key
        self.topics = topics
        self.agent_id = key.public.id
        self._machine = machine
        self._sealing_key = sealing_key
        self._hybrid_key = hybrid_key

    def birth(
        self,
        state: Literal["online", "stopped"],
        session: int,
        coordinator_session: int | None,
        held: Iterable[tuple[bytes, int]],
        now: Now,
    ) -> Publish:
        """Say that this session is there (or stopped), whose hello it answers and what it holds. Retained."""
        birth = Birth(
            network=self.topics.network,
            issued_ms=now.wall_ms,
            agent_id=self.agent_id,
            public_key=self.key.public.raw,
            sealing_key=self._sealing_key,
            hybrid_key=self._hybrid_key,
            session=session,
            state=state,
            coordinator_session=coordinator_session,
            held=_held(held),
            versions=PROTOCOL_VERSIONS,
            software=SOFTWARE,
            machine=self._machine,
        )
        return Publish(self.topics.birth(self.agent_id), seal(self.key, birth), retain=True)

    def gone(self, session: int, now: Now) -> Publish:
        """Make the will of a session: the broker publishes it when the connection breaks. Retained."""
        gone = Gone(network=self.topics.network, issued_ms=now.wall_ms, agent_id=self.agent_id, session=session)
        return Publish(self.topics.gone(self.agent_id), seal(self.key, gone), retain=True)

    def offers(
        self, session: int, sequence: int, offers: Sequence[Offer], now: Now, terms: Terms | None = None
    ) -> Publish:
        """Say what is offered now, and for whom; replaces what was offered before."""
        more: dict[str, Any] = {} if terms is None else {"v": WITH_TERMS, "terms": terms}
        statement = Offers(
            network=self.topics.network,
            issued_ms=now.wall_ms,
            agent_id=self.agent_id,
            session=session,
            sequence=sequence,
            offers=tuple(offers),
            **more,
        )
        return Publish(self.topics.offers(self.agent_id), seal(self.key, statement))

    def progress(self, session: int, held: Iterable[tuple[bytes, int]], now: Now) -> Publish:
        """Renew the leases of these attempts."""
        statement = Progress(
            network=self.topics.network,
            issued_ms=now.wall_ms,
            agent_id=self.agent_id,
            session=session,
            held=_held(held),
        )
        return Publish(self.topics.progress(self.agent_id), seal(self.key, statement))


def _held(attempts: Iterable[tuple[bytes, int]]) -> tuple[HeldAttempt, ...]:
    # What does not fit is leased again elsewhere: too much work, but no harm.
    return tuple(HeldAttempt(job=job, epoch=epoch) for job, epoch in islice(attempts, MAX_HELD))
