"""One valid statement of every kind, with keys that are the same in every run."""

from __future__ import annotations

import hashlib

from edge_agent.wire.identity import Certificate, Enrol, Enrolled, Revocations, Revoked, Succession
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.merkle import leaf_hash
from edge_agent.wire.messages import (
    Birth,
    Control,
    Failure,
    Gone,
    HeldAttempt,
    Hello,
    Job,
    Machine,
    Offer,
    Offers,
    Progress,
    Receipt,
    Result,
    Settled,
    SettledAttempt,
    Statement,
    TensorDigest,
    TreeHead,
    VariantClass,
)
from edge_agent.wire.pledges import CheckKey, LedgerHead
from edge_agent.wire.sealing_key import SealingKey
from edge_agent.wire.status import FitReport, Reason, Status
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

NETWORK = "home"
NOW_MS = 1_800_000_000_000
AGENT = SigningKey.generate(hashlib.sha256(b"agent").digest())
OTHER_AGENT = SigningKey.generate(hashlib.sha256(b"other agent").digest())
COORDINATOR = SigningKey.generate(hashlib.sha256(b"coordinator").digest())
REGISTRAR = SigningKey.generate(hashlib.sha256(b"registrar").digest())
JOB_ID = bytes(range(16))
SALT = hashlib.sha256(b"salt").digest()
VARIANT = hashlib.sha256(b"variant").digest()
CLASS = VariantClass(
    variant=VARIANT,
    runtime="onnxruntime 1.32.0",
    provider="CPUExecutionProvider",
    isa="x86_64+avx512_vnni",
)
INPUT = Tensor(TensorSpec("image", DataType.FP32, (1, 2)), bytes.fromhex("0000803f0000c07f"))
OUTPUT = Tensor(TensorSpec("label", DataType.INT64, (1,)), bytes.fromhex("0700000000000000"))


def birth() -> Birth:
    """The agent is here and holds one attempt."""
    return Birth(
        network=NETWORK,
        issued_ms=NOW_MS,
        agent_id=AGENT.public.id,
        public_key=AGENT.public.raw,
        sealing_key=SealingKey.generate(hashlib.sha256(b"sealing").digest()).public,
        hybrid_key=bytes(range(64)) * 19,
        session=3,
        state="online",
        coordinator_session=None,
        held=(HeldAttempt(job=JOB_ID, epoch=1),),
        versions=(1,),
        software="edge-agent/0.1.0",
        machine=Machine(isa="aarch64+asimddp", board="Raspberry Pi 5", cpus=4, memory_mib=8_192, labels=("kitchen",)),
    )


def job() -> Job:
    """One input of two numbers, one of them NaN."""
    return Job(
        network=NETWORK,
        issued_ms=NOW_MS,
        job=JOB_ID,
        epoch=1,
        agent_id=AGENT.public.id,
        session=3,
        family="digits",
        variant=VARIANT,
        inputs=(TensorDigest.of(INPUT, SALT),),
        salt=SALT,
        outputs=("label",),
        lease_ms=30_000,
        max_output_bytes=1_000_000,
    )


def result() -> Result:
    """What the agent answers to `job()`."""
    return Result(
        network=NETWORK,
        issued_ms=NOW_MS,
        job=JOB_ID,
        epoch=1,
        agent_id=AGENT.public.id,
        family="digits",
        variant=VARIANT,
        klass=CLASS,
        inputs=(TensorDigest.of(INPUT, SALT),),
        outputs=(TensorDigest.of(OUTPUT),),
        received_ms=NOW_MS,
        finished_ms=NOW_MS + 5,
        run_us=420,
    )


def status() -> Status:
    """The machine is too hot; one variant was predicted and measured, another only predicted."""
    fit = FitReport(
        family="digits",
        variant_name="int8-static",
        served=True,
        predicted_us=290,
        predicted_bytes=1_000_000,
        measured_us=310,
        measured_bytes=1_100_000,
        why="the fastest",
    )
    other = fit.model_copy(
        update={"variant_name": "fp32", "served": False, "measured_us": None, "measured_bytes": None}
    )
    return Status(
        network=NETWORK,
        issued_ms=NOW_MS,
        agent_id=AGENT.public.id,
        session=3,
        sequence=1,
        mode="rest",
        reasons=(Reason(code="hot", text="the CPU is at 84 °C"),),
        celsius=84,
        cpu_percent=97,
        fits=(fit, other),
    )


def offers() -> Offers:
    """One variant of one family, for anybody."""
    offer = Offer(
        family="digits",
        variant=VARIANT,
        variant_name="int8-static",
        klass=CLASS,
        latency_us=310,
        max_in_flight=2,
        loaded=True,
    )
    here = {"network": NETWORK, "issued_ms": NOW_MS}
    return Offers(**here, agent_id=AGENT.public.id, session=3, sequence=0, offers=(offer,))


def one_of_each() -> list[tuple[SigningKey, Statement, tuple[bytes, ...]]]:
    """Return signer, statement and tensors for every kind of statement."""
    here = {"network": NETWORK, "issued_ms": NOW_MS}
    agent = AGENT.public.id
    held = (HeldAttempt(job=JOB_ID, epoch=1),)
    return [
        (AGENT, birth(), ()),
        (AGENT, Gone(**here, agent_id=agent, session=3), ()),
        (AGENT, offers(), ()),
        (AGENT, Progress(**here, agent_id=agent, session=3, held=held), ()),
        (AGENT, result(), (OUTPUT.data,)),
        (
            AGENT,
            Failure(
                **here,
                job=JOB_ID,
                epoch=1,
                agent_id=agent,
                code="worker-died",
                message="The worker was killed.",
                blame="agent",
                retry=True,
                retry_after_ms=0,
            ),
            (),
        ),
        (
            COORDINATOR,
            Hello(
                **here,
                coordinator_key=COORDINATOR.public.raw,
                session=9,
                software="edge-agent/0.1.0",
                versions=(1,),
            ),
            (),
        ),
        (COORDINATOR, job(), (INPUT.data,)),
        (
            COORDINATOR,
            Settled(
                **here,
                agent_id=agent,
                settled=(SettledAttempt(job=JOB_ID, epoch=1, outcome="refused", code="wrong-output"),),
            ),
            (),
        ),
        (COORDINATOR, Control(**here, agent_id=agent, command="cancel", job=JOB_ID, epoch=1), ()),
        (
            COORDINATOR,
            Receipt(**here, result=b"\xd2\x84", certificate=None, agent_key=AGENT.public.raw, accepted_ms=NOW_MS),
            (),
        ),
        (COORDINATOR, TreeHead(**here, size=1, root=leaf_hash(b"one")), ()),
        (AGENT, status(), ()),
        (
            AGENT,
            Enrol(
                **here,
                agent_id=agent,
                public_key=AGENT.public.raw,
                sealing_key=None,
                commitment=bytes(32),
                opening=None,
                token=bytes(16),
                proof=bytes(32),
            ),
            (),
        ),
        (
            AGENT,
            Succession(
                **here,
                agent_id=agent,
                new_key=OTHER_AGENT.public.raw,
                new_sealing_key=None,
                consent=bytes(64),
            ),
            (),
        ),
        (
            COORDINATOR,
            Enrolled(
                **here,
                agent_id=agent,
                coordinator_key=COORDINATOR.public.raw,
                state="waiting",
                code=None,
                commitment=bytes(32),
                nonce=bytes(32),
                certificate=b"\xd2\x84",
                x509=b"\x30",
                registrar_key=REGISTRAR.public.raw,
                broker_url="mqtts://broker.example:8883",
                broker_ca=b"-----BEGIN CERTIFICATE-----",
            ),
            (),
        ),
        (
            REGISTRAR,
            Certificate(
                **here,
                agent_id=agent,
                agent_key=AGENT.public.raw,
                sealing_key=bytes(32),
                login=agent,
                owner="ada",
                not_after_ms=NOW_MS + 1,
            ),
            (),
        ),
        (
            COORDINATOR,
            Revocations(**here, number=1, revoked=(Revoked(id=agent, since_ms=NOW_MS, reason="stolen"),)),
            (),
        ),
        (COORDINATOR, LedgerHead(**here, size=1, chain=leaf_hash(b"one")), ()),
        (COORDINATOR, CheckKey(**here, period=20_000, commitment=leaf_hash(b"one")), ()),
    ]
