"""What a client checks of a result by itself, and what that means in words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from edge_agent.client.revocations import RevocationsSeen
from edge_agent.errors import InputError, RefusedError
from edge_agent.wire.identity import Certificate
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.receipts import VerifiedReceipt, verify_receipt
from edge_agent.wire.standing import check_belonged
from edge_agent.wire.tensors import Tensor

_QUORUM = re.compile(r"quorum\(([2-5])\)")


def quorum(machines: int) -> str:
    """Return the mode in which so many machines of different owners must agree, 2 to 5.

    Raises:
        InputError: another number.
    """
    if not 2 <= machines <= 5:
        raise InputError("a quorum has 2 to 5 machines")
    return f"quorum({machines})"


@dataclass(frozen=True, slots=True)
class Verified:
    """A result whose receipt was checked here: both signatures, and that it is for these inputs and these outputs.

    Attributes:
        receipt: what was signed, by whom.
        pinned: whether the coordinator's key was given beforehand, rather than asked of the coordinator itself.
        state: `signed`, or what the coordinator says of machines that agreed: `rechecked`, `quorum`.
        receipt_bytes: to be kept: `edge-agent verify` checks it again, offline.
        certificate: of the agent, if the registrar's key was given: by that key, and it counted then.
        registrar: that key.
        revocations: what it was held against besides, if the registrar's key was given.
    """

    receipt: VerifiedReceipt
    pinned: bool
    state: str
    receipt_bytes: bytes
    certificate: Certificate | None = None
    registrar: PublicKey | None = None
    revocations: RevocationsSeen | None = None

    @property
    def agent_id(self) -> str:
        """Of the agent that signed the result."""
        return self.receipt.agent.id

    @property
    def owner(self) -> str | None:
        """Whose the agent is, as the registrar signed; None where it named nobody, or nothing was checked."""
        return self.certificate.owner if self.certificate is not None else None

    def means(self) -> list[str]:
        """Say what is proven and what is not, one sentence each."""
        result = self.receipt.result
        when = datetime.fromtimestamp(self.receipt.accepted_ms / 1000, UTC).isoformat(timespec="seconds")
        model = f"{result.family} (model file {result.variant.hex()[:16]}…)"
        found = [
            (
                f"Proven: the agent {self.agent_id} signed exactly these outputs for exactly these inputs, run with "
                f"{model}, and answers for it with its key."
            ),
            (
                f"Proven: the coordinator {self.receipt.coordinator.id} accepted that for the job {result.job.hex()} "
                f"at {when}."
            ),
        ]
        if self.certificate is not None and self.registrar is not None:
            whose = f", a machine of {self.owner}" if self.owner else ""
            found.append(
                f"Proven: the registrar {self.registrar.id} let that agent into the network{whose}; no coordinator "
                "can invent one."
            )
        else:
            found.append(
                "Not proven: that there is such a machine, and whose it is. A stolen coordinator can invent agents; "
                "give registrar_key to have their certificates checked."
            )
        if self.revocations is not None:
            found.append(_on_revocations(self.revocations))
        if not self.pinned:
            found.append(
                "Not proven: that this coordinator is the one you mean. Its key came over the same connection; give "
                "coordinator_key to pin it."
            )
        if self.state == "signed":
            found.append(
                "Not proven: that the agent computed what it signed. Ask for mode='rechecked' or quorum(n) to have "
                "others compute it, too."
            )
        else:
            found.append(
                f"Said by the coordinator: machines of other owners computed the same ({self.state}). That is its "
                "word; its ledger and its log show what it said to others."
            )
        return found


def check(  # noqa: PLR0913 all that a receipt is about, by name
    receipt: bytes,
    coordinator: PublicKey,
    *,
    pinned: bool,
    job_id: str,
    family: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Tensor],
    state: str,
) -> Verified:
    """Check a receipt against what was sent and what came back.

    Raises:
        PeerError: as `verify_receipt`; `wrong-job`, `wrong-model`, `wrong-input` or `wrong-output`.
    """
    found = verify_receipt(receipt, coordinator)
    if found.result.job.hex() != job_id:
        raise RefusedError(f"the receipt is for the job {found.result.job.hex()}, not {job_id}", code="wrong-job")
    if found.result.family != family:
        raise RefusedError(f"the receipt is for {found.result.family}, not {family}", code="wrong-model")
    found.check_inputs(inputs)
    found.check_outputs(outputs)
    return Verified(found, pinned, state, receipt)


def _on_revocations(seen: RevocationsSeen) -> str:
    if seen.problem or seen.issued_ms is None:
        return f"Not proven: that the agent's key was not revoked: {seen.problem}."
    when = datetime.fromtimestamp(seen.issued_ms / 1000, UTC).isoformat(timespec="seconds")
    return (
        f"Said by the coordinator: the agent's key is not among the {seen.count} that were revoked by {when}. Nobody "
        "between can hide one for long; who runs the coordinator can."
    )


def check_agent(receipt: VerifiedReceipt, agents: Sequence[str]) -> None:
    """Return if the result is by one of these agents, where any are named.

    Raises:
        RefusedError: `wrong-agent`.
    """
    if agents and receipt.agent.id not in agents:
        raise RefusedError(
            f"the result is by the agent {receipt.agent.id}, and another one was asked for", code="wrong-agent"
        )


def certified(verified: Verified, registrar: PublicKey, *, now_ms: int | None, owner: str | None) -> Verified:
    """Check that the registrar let the agent in, and return what is known of it now.

    Args:
        verified: a result.
        registrar: the key that must have signed the agent's certificate.
        now_ms: when the certificate must count besides when the coordinator says that it accepted the result: who
            stole the key of an agent that is gone could date its results back. None for a result of long ago.
        owner: whose machine it must be, if that was asked for.

    Raises:
        RefusedError: `no-certificate`, `certificate-expired`, `wrong-agent`, `wrong-owner`.
        PeerError: the certificate is none of this registrar's.
    """
    certificate = check_belonged(verified.receipt, registrar)
    if now_ms is not None:
        check_belonged(verified.receipt, registrar, at_ms=now_ms)
    if owner is not None and certificate.owner != owner:
        whose = f"{certificate.owner}'s" if certificate.owner else "nobody's"
        raise RefusedError(
            f"the result is by {whose} machine, as the registrar signed, and one of {owner} was asked for",
            code="wrong-owner",
        )
    return replace(verified, certificate=certificate, registrar=registrar)


def check_mode(mode: str, state: str) -> None:
    """Return if the coordinator says that it did what the mode asks for.

    Raises:
        RefusedError: `unverified`: it says less, as one does that does not know the mode.
    """
    enough = {"signed"} if mode == "signed" else {"rechecked", "quorum"} if mode == "rechecked" else {"quorum"}
    if mode != "signed" and state not in enough:
        raise RefusedError(
            f"the mode {mode} was asked for, but the coordinator says of the result: {state[:40]}",
            code="unverified",
            hint="Is the coordinator of this version? Nothing was given out as verified that is not.",
        )


def is_mode(mode: str) -> bool:
    """Whether there is such a mode."""
    return mode in {"signed", "rechecked"} or _QUORUM.fullmatch(mode) is not None
