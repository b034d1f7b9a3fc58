"""The agent's side of an enrolment, without sockets: what to say, and what an answer means. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from edge_agent.errors import MalformedError, RefusedError, SignatureRefusedError
from edge_agent.wire import cose
from edge_agent.wire.certificates import check_certificate
from edge_agent.wire.envelope import announced_key, open_envelope, seal
from edge_agent.wire.identity import MAX_ENROLLED_BYTES, Enrol, Enrolled
from edge_agent.wire.keys import PublicKey, SigningKey
from edge_agent.wire.tokens import Token, code, commitment

MAX_ANSWER_BYTES = MAX_ENROLLED_BYTES + cose.MAX_OVERHEAD_BYTES

_HINTS = {
    "token-unknown": "Was it copied whole, and is it from this coordinator? Ask its operator for another one.",
    "token-expired": "Ask the operator for another one: edge-agent coordinator token --ttl 1h",
    "token-used": "A token lets one machine in. If you did not use it, somebody else did: tell the operator.",
    "revoked": "A revoked key stays so. Move agent.key away, and the next enrolment makes a new one.",
}


@dataclass(slots=True)
class Asking:
    """One enrolment of one agent.

    Args:
        key: the agent's.
        sealing_key: its public sealing key, 32 bytes.
        network: to get into.
        opening: 32 random bytes.
        token: None to wait for the operator.
        pinned: the coordinator's key, where it was pinned before.
    """

    key: SigningKey
    sealing_key: bytes | None
    network: str
    opening: bytes
    token: Token | None = None
    pinned: PublicKey | None = None
    coordinator: PublicKey | None = field(default=None, init=False)
    _nonce: bytes | None = field(default=None, init=False)

    def request(self, now_ms: int) -> bytes:
        """Return what is to be said now: the opening only once the coordinator's nonce is known."""
        token = self.token
        statement = Enrol(
            network=self.network,
            issued_ms=now_ms,
            agent_id=self.key.public.id,
            public_key=self.key.public.raw,
            sealing_key=self.sealing_key,
            commitment=commitment(self.opening),
            opening=self.opening if self._nonce is not None else None,
            token=token.id if token is not None else None,
            proof=token.proof(self.key.public) if token is not None else None,
        )
        return seal(self.key, statement)

    def answer(self, data: bytes) -> Enrolled | None:
        """Take an answer; None for one that is not for this request.

        Raises:
            SignatureRefusedError: `unknown-key`: another coordinator answers than the token or the pinned key names,
                or than answered before.
            RefusedError: the coordinator refuses; its code says why.
            PeerError: it is no answer.
        """
        key = announced_key(data, MAX_ANSWER_BYTES)
        self._check_coordinator(key)
        said = open_envelope(data, key, Enrolled, network=self.network, max_bytes=MAX_ANSWER_BYTES).statement
        if said.agent_id != self.key.public.id or said.commitment != commitment(self.opening):
            return None
        self.coordinator = key
        if said.state == "refused":
            reason = said.code or "refused"
            known = reason in RefusedError.codes
            hint = _HINTS.get(reason)
            raise RefusedError(f"The coordinator refuses: {reason}.", code=reason if known else None, hint=hint)
        if said.nonce is not None and self._nonce is None:
            self._nonce = said.nonce
        elif said.nonce not in {None, self._nonce}:
            raise MalformedError("The coordinator changed its part of the code on the way.")
        if said.state == "admitted":
            self._check_certificate(said)
        return said

    @property
    def code(self) -> str | None:
        """What the operator must see, too; None while it is not known."""
        if self.coordinator is None or self._nonce is None:
            return None
        return code(self.network, self.coordinator, self.key.public, self.opening, self._nonce)

    def _check_coordinator(self, key: PublicKey) -> None:
        wanted = self.token.coordinator_id if self.token is not None else None
        for expected in (wanted, self.pinned and self.pinned.id, self.coordinator and self.coordinator.id):
            if expected is not None and key.id != expected:
                raise SignatureRefusedError(
                    f"The coordinator {key.id} answers, but {expected} is expected.",
                    code="wrong-coordinator",
                    hint="Somebody in between may play the coordinator. Nothing was told to it but your public key.",
                )

    def _check_certificate(self, said: Enrolled) -> None:
        if said.certificate is None or said.registrar_key is None:
            return
        check_certificate(
            said.certificate,
            PublicKey.from_bytes(said.registrar_key),
            network=self.network,
            at_ms=said.issued_ms,
            agent_id=self.key.public.id,
        )
