"""What is said about identities: enrolment, agent certificates, revocations, and the change of a key.

The registrar is the operator's key that says which agents belong to the network. It can lie away from coordinator and
broker; `certificates` makes and checks what it signs, `tokens` the proofs in enrolments.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field, StringConstraints, model_validator

from edge_agent.wire.keys import SIGNATURE_BYTES, key_id
from edge_agent.wire.statements import (
    AgentId,
    Bytes16,
    Bytes32,
    Code,
    Count,
    Part,
    Party,
    ShortText,
    Statement,
)

MAX_IDENTITY_BYTES = 1_024
MAX_ENROLLED_BYTES = 24_576
MAX_REVOCATIONS_BYTES = 262_144
MAX_REVOKED = 1_024
MAX_CERTIFICATE_BYTES = 1_280
MAX_X509_BYTES = 4_096
MAX_AUTHORITIES_BYTES = 16_384

SignedBytes: TypeAlias = Annotated[bytes, Field(min_length=1, max_length=MAX_CERTIFICATE_BYTES)]
X509Bytes: TypeAlias = Annotated[bytes, Field(min_length=1, max_length=MAX_X509_BYTES)]
Authorities: TypeAlias = Annotated[bytes, Field(min_length=1, max_length=MAX_AUTHORITIES_BYTES)]
Signature: TypeAlias = Annotated[bytes, Field(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)]
Address: TypeAlias = Annotated[str, StringConstraints(pattern=r"^mqtts?://[!-~]{1,250}$")]


class Certificate(Statement):
    """This agent belongs to the network, and to this owner, until then. Signed by the registrar.

    Every receipt carries one, so what follows from the key is not said: its id, and the login if that is the id.

    Attributes:
        login: under which the broker knows it; X.509 certificates for the broker carry the same.
        sealing_key: what inputs for it may be sealed to.
        not_after_ms: `issued_ms` is when it begins to count.
    """

    signed_by: ClassVar[Party] = "registrar"
    max_statement_bytes: ClassVar[int] = MAX_IDENTITY_BYTES

    kind: Literal["certificate"] = "certificate"
    agent_id: AgentId
    agent_key: Bytes32
    sealing_key: Bytes32 | None
    login: ShortText
    owner: ShortText | None
    not_after_ms: Count

    @model_validator(mode="before")
    @classmethod
    def _follow(cls, said: object) -> object:
        raw = said.get("agent_key") if isinstance(said, dict) else None
        if not isinstance(said, dict) or not isinstance(raw, bytes):
            return said
        return {"agent_id": key_id(raw), "login": key_id(raw), **said}

    def said(self) -> dict[str, Any]:
        """Leave out what follows from the key."""
        said = super().said()
        del said["agent_id"]
        if self.login == self.agent_id:
            del said["login"]
        return said

    @model_validator(mode="after")
    def _check(self) -> Certificate:
        if key_id(self.agent_key) != self.agent_id:
            raise ValueError("agent_id is not the id of agent_key")
        if self.not_after_ms <= self.issued_ms:
            raise ValueError("it ends before it begins")
        return self


class Enrol(Statement):
    """Let me in: with the proof of a token, or with a commitment that the code for the operator comes from.

    Attributes:
        commitment: SHA-256 of `opening`, which is said only after the coordinator's nonce is known.
        token: which token, without showing it.
        proof: that we know the token, for this key and no other.
    """

    max_statement_bytes: ClassVar[int] = MAX_IDENTITY_BYTES

    kind: Literal["enrol"] = "enrol"
    agent_id: AgentId
    public_key: Bytes32
    sealing_key: Bytes32 | None
    commitment: Bytes32
    opening: Bytes32 | None
    token: Bytes16 | None
    proof: Bytes32 | None

    @model_validator(mode="after")
    def _check(self) -> Enrol:
        if key_id(self.public_key) != self.agent_id:
            raise ValueError("agent_id is not the id of public_key")
        if (self.token is None) != (self.proof is None):
            raise ValueError("token and proof go together")
        return self


class Enrolled(Statement):
    """The answer to an enrolment, and to an agent that is here: what it needs to work in this network.

    Attributes:
        state: `open` asks for the opening of the commitment; `waiting`: for the operator.
        code: why it was refused.
        commitment: of the enrolment that this answers; none when nobody asked.
        nonce: the coordinator's part of the code that both sides show.
        certificate: the signed certificate of the agent.
        x509: the same for the broker, DER: a client certificate of the agent's key.
        broker_ca: whom to trust about the broker's own certificate, PEM; none: the system's authorities.
    """

    signed_by: ClassVar[Party] = "coordinator"
    max_statement_bytes: ClassVar[int] = MAX_ENROLLED_BYTES

    kind: Literal["enrolled"] = "enrolled"
    agent_id: AgentId
    coordinator_key: Bytes32
    state: Literal["admitted", "open", "waiting", "refused"]
    code: Code | None
    commitment: Bytes32 | None
    nonce: Bytes32 | None
    certificate: SignedBytes | None
    x509: X509Bytes | None
    registrar_key: Bytes32 | None
    broker_url: Address | None
    broker_ca: Authorities | None


class Succession(Statement):
    """From now on I am this key: signed with the old one, and inside it with the new one."""

    max_statement_bytes: ClassVar[int] = MAX_IDENTITY_BYTES

    kind: Literal["succession"] = "succession"
    agent_id: AgentId
    new_key: Bytes32
    new_sealing_key: Bytes32 | None
    consent: Signature


class Revoked(Part):
    """A key that counts no more: an agent's, or a coordinator's."""

    id: AgentId
    since_ms: Count
    reason: ShortText


class Revocations(Statement):
    """These keys count no more. All of them, so that the newest list says everything; `number` grows.

    Signed by the coordinator, or by the registrar with the same meaning.
    """

    signed_by: ClassVar[Party] = "coordinator"
    max_statement_bytes: ClassVar[int] = MAX_REVOCATIONS_BYTES

    kind: Literal["revocations"] = "revocations"
    number: Count
    revoked: Annotated[tuple[Revoked, ...], Field(max_length=MAX_REVOKED, strict=False)]
