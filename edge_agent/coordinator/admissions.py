"""Takes enrolments as they come, over the broker or HTTP: bounded, checked, decided in the database, answered signed.

Everything here may block on the database and is called on a thread; only `allows` is cheap and comes first.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from edge_agent.clock import Now
from edge_agent.coordinator import identities
from edge_agent.coordinator.buckets import Bucket
from edge_agent.coordinator.enrolment import REUSED, Decision, decide, succeed
from edge_agent.coordinator.events import AgentCertificates
from edge_agent.coordinator.registrar import Registrar
from edge_agent.coordinator.schema import agents
from edge_agent.coordinator.statements import revocations_of
from edge_agent.coordinator.store import Store
from edge_agent.errors import RefusedError, ResourceError, SignatureRefusedError
from edge_agent.notes import Note
from edge_agent.wire import cose, successions
from edge_agent.wire.envelope import announced_key, open_envelope, peek_key_id, seal
from edge_agent.wire.identity import MAX_IDENTITY_BYTES, Enrol, Enrolled, Succession
from edge_agent.wire.keys import PublicKey, SigningKey

MAX_REQUEST_BYTES = MAX_IDENTITY_BYTES + cose.MAX_OVERHEAD_BYTES
ALL_A_SECOND, ALL_AT_ONCE = 10.0, 60.0
"""So many enrolments are looked at; the database and the log could be filled otherwise."""
ONE_A_SECOND, ONE_AT_ONCE = 1.0, 12.0
"""Of one source: an address, or a topic."""
MAX_SOURCES = 4096
LIST_SECONDS = 1.0
"""So long one list of revoked keys is given out, since anybody may ask; who is revoked is out by then."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What an agent that is let in is told besides.

    Attributes:
        broker_url: where agents reach the broker.
        broker_ca: whom to trust about the broker's certificate, PEM; None: the system's authorities.
    """

    broker_url: str | None = None
    broker_ca: bytes | None = None


class Limiter:
    """Token buckets, one for all and one for each source; a source that is not remembered any more starts afresh."""

    def __init__(self) -> None:
        self._all = Bucket.full(ALL_A_SECOND, ALL_AT_ONCE, 0.0)
        self._sources: OrderedDict[str, Bucket] = OrderedDict()

    def allows(self, source: str, monotonic: float) -> bool:
        """Whether one more may be looked at; if so, it is counted."""
        one = self._sources.get(source) or Bucket.full(ONE_A_SECOND, ONE_AT_ONCE, monotonic)
        if not (one.has_one(monotonic) and self._all.has_one(monotonic)):
            return False
        self._all.take()
        one.take()
        self._sources[source] = one
        self._sources.move_to_end(source)
        if len(self._sources) > MAX_SOURCES:
            self._sources.popitem(last=False)
        return True


class Admissions:
    """Answers enrolments.

    Args:
        store: the open database.
        key: the coordinator's, signs the answers.
        network: ours.
        registrar: makes certificates; None where none are asked for.
        terms: what agents are told besides.
        clock: reads both clocks.
        tell: called, on any thread, with each line for the log.
        changed: called, on any thread, when somebody was let in.
    """

    def __init__(  # noqa: PLR0913 each is a seam of its own
        self,
        store: Store,
        key: SigningKey,
        network: str,
        *,
        registrar: Registrar | None,
        terms: Terms,
        clock: Callable[[], Now],
        tell: Callable[[Note], None],
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.registrar = registrar
        self._store = store
        self._key = key
        self._network = network
        self._terms = terms
        self._clock = clock
        self._tell = tell
        self._changed = changed
        self._limiter = Limiter()
        self._lock = threading.Lock()
        self._list_lock = threading.Lock()
        self._list, self._listed_at = b"", float("-inf")

    def answer(self, payload: bytes, source: str, topic_agent: str | None = None) -> tuple[str, bytes]:
        """Decide on a request; return the id of the agent and the signed answer.

        Args:
            payload: as it came.
            source: where it came from, to be limited and named in the log.
            topic_agent: the agent whose topic it came on, if it did.

        Raises:
            ResourceError: `queue-full`: too many of them.
            PeerError: it is no request that its sender signed; nothing has changed.
            StateError: the database cannot be used.
        """
        with self._lock:
            if not self._limiter.allows(source, self._clock().monotonic):
                raise ResourceError("more enrolments come than are looked at", code="queue-full")
        if successions.is_one(payload, MAX_REQUEST_BYTES):
            return self._succession(payload, source, topic_agent)
        key = announced_key(payload, MAX_REQUEST_BYTES)
        if topic_agent not in {None, key.id}:
            raise RefusedError("the request is signed by another key than the topic names", code="wrong-agent")
        opened = open_envelope(payload, key, Enrol, network=self._network, max_bytes=MAX_REQUEST_BYTES)
        now = self._clock()

        def change(connection: Connection) -> tuple[Decision, AgentCertificates | None]:
            decision = decide(
                connection, opened, network=self._network, coordinator=self._key.public, now_ms=now.wall_ms
            )
            if decision.state in {"open", "waiting"} and identities.approved_agent(connection, key.id) is not None:
                decision = Decision("admitted", nonce=decision.nonce)  # the operator was faster
            return self._certified(connection, decision, key.id, now)

        decision, certificates = self._store.write(change)
        self._report(decision, key.id, source)
        return key.id, self._sign(key.id, decision, certificates, opened.statement.commitment, now)

    def _succession(self, payload: bytes, source: str, topic_agent: str | None) -> tuple[str, bytes]:
        agent_id = peek_key_id(payload, MAX_REQUEST_BYTES)
        if topic_agent not in {None, agent_id}:
            raise RefusedError("the request is signed by another key than the topic names", code="wrong-agent")
        raw = self._store.read(
            lambda connection: connection.scalar(sa.select(agents.c.public_key).where(agents.c.id == agent_id))
        )
        if raw is None:
            raise SignatureRefusedError("the key that would be replaced is not known here", code="unknown-key")
        key = PublicKey.from_bytes(raw)
        opened = open_envelope(payload, key, Succession, network=self._network, max_bytes=MAX_REQUEST_BYTES)
        new = successions.check(opened.statement)
        now = self._clock()

        def change(connection: Connection) -> tuple[Decision, AgentCertificates | None]:
            return self._certified(connection, succeed(connection, opened, now.wall_ms), new.id, now)

        decision, certificates = self._store.write(change)
        self._report(decision, agent_id, source, successor=new.id)
        return agent_id, self._sign(new.id, decision, certificates, None, now)

    def _certified(
        self, connection: Connection, decision: Decision, agent_id: str, now: Now
    ) -> tuple[Decision, AgentCertificates | None]:
        if decision.state != "admitted" or self.registrar is None:
            return decision, None
        standing = identities.standing(connection, self.registrar, now.wall_ms, only=agent_id)
        certificates = standing.certificates.get(agent_id)
        if certificates is None:
            return Decision("waiting", "registrar", nonce=decision.nonce, first=decision.first), None
        return decision, certificates

    def _sign(
        self,
        agent_id: str,
        decision: Decision,
        certificates: AgentCertificates | None,
        commitment: bytes | None,
        now: Now,
    ) -> bytes:
        registrar = self.registrar.public.raw if self.registrar is not None else None
        inside = decision.state == "admitted"
        answer = Enrolled(
            network=self._network,
            issued_ms=now.wall_ms,
            agent_id=agent_id,
            coordinator_key=self._key.public.raw,
            state=decision.state,
            code=decision.code,
            commitment=commitment,
            nonce=decision.nonce,
            certificate=certificates.signed if certificates is not None else None,
            x509=certificates.x509 if certificates is not None else None,
            registrar_key=registrar if inside else None,
            broker_url=self._terms.broker_url if inside else None,
            broker_ca=self._terms.broker_ca if inside else None,
        )
        return seal(self._key, answer)

    def _report(self, decision: Decision, agent_id: str, source: str, successor: str | None = None) -> None:
        fields = (("agent_id", agent_id), ("source", source[:64]))
        if decision.state == "refused":
            text = f"Refused the enrolment of agent {agent_id} from {source[:64]}: {decision.code}"
            if decision.code == REUSED:
                text += "; somebody has a copy of a token that was used already. See: edge-agent coordinator tokens"
            self._tell(Note(logging.WARNING, text, "enrol-refused", (*fields, ("code", decision.code or ""))))
            return
        if not decision.first:
            return
        if decision.code == "registrar":
            text = f"Agent {agent_id} waits for the registrar; see: edge-agent coordinator requests --help"
        elif decision.state == "waiting":
            text = (
                f"Agent {agent_id} asks to be let in and shows the code {decision.shown}; if its owner sees the same: "
                f"edge-agent coordinator approve {decision.shown}"
            )
        elif successor is not None:
            text = f"Agent {agent_id} goes on as {successor}; the old key counts no more"
        else:
            text = f"Enrolled agent {agent_id} by its token"
        self._tell(Note(logging.INFO, text, f"enrol-{decision.state}", fields))
        if decision.state == "admitted":
            self._changed()

    def revocations(self) -> bytes:
        """Return the signed list of the keys that count no more, as they were `LIST_SECONDS` ago or later.

        Raises:
            StateError: the database cannot be used.
        """
        with self._list_lock:
            now = self._clock()
            if now.monotonic >= self._listed_at + LIST_SECONDS:
                revoked = self._store.read(identities.revoked_keys)
                self._list = seal(self._key, revocations_of(revoked, self._network, now.wall_ms))
                self._listed_at = now.monotonic
            return self._list
