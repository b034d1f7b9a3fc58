"""Forged, altered, replayed and misplaced messages: each refused with its code, and nothing of ours has changed."""

from __future__ import annotations

import copy
import hashlib
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from fakes import (
    COORDINATOR_KEY,
    NETWORK,
    TOPICS,
    AgentScript,
    CoordinatorScript,
    FakeAgent,
    FakeCoordinator,
    ManualClock,
    codes,
    digits,
    jobs_for,
    key,
    of_type,
    outcomes,
    published,
    scan,
    settled_for,
)

from edge_agent.agent import events as agent_events
from edge_agent.coordinator.events import Command, Commit, MessageReceived
from edge_agent.coordinator.jobs import JobState
from edge_agent.coordinator.presence import GONE_GRACE_SECONDS
from edge_agent.coordinator.retries import BACKOFF_FIRST_SECONDS
from edge_agent.coordinator.store import Store
from edge_agent.coordinator.writer import Writer
from edge_agent.wire import cose
from edge_agent.wire.envelope import CONTENT_TYPE, Opened, seal
from edge_agent.wire.messages import Job, TensorDigest
from edge_agent.wire.tensors import DataType, Tensor, TensorSpec

VARIANTS = [variant.digest_bytes for variant in digits().variants]


class Scene:
    """A coordinator with a real database, two honest agents, and a job that is leased to the first."""

    def __init__(self, folder: Path) -> None:
        self.clock = ManualClock()
        self.script = CoordinatorScript(self.clock)
        self.victim = FakeAgent("agent", self.clock)
        self.other = FakeAgent("other", self.clock)
        self.store = Store(folder / "coordinator.db")
        self.stored: list[Commit] = []
        self.failures: list[Exception] = []
        self.write(self.script.connect())
        self.write(self.script.join(self.victim))
        self.write(self.script.join(self.other, self.other.offer(latency_us=10_000)))
        self.job_id, commands = self.script.submit(3)
        self.write(commands)
        (self.opened,) = jobs_for(self.victim, commands)

    def write(self, commands: Sequence[Command]) -> None:
        """Put all commits into the database."""
        writer = Writer(self.store, self.stored.extend, self.failures.append)
        for commit in of_type(commands, Commit):
            writer.write(commit)
        writer.start()
        writer.stop(20.0)
        assert self.failures == []

    @property
    def state(self) -> Any:  # noqa: ANN401 whatever there is
        """All that an attack must not change: live jobs, agents, and every row of the database."""
        jobs = copy.deepcopy(self.script.core.leasing.jobs)
        agents = copy.deepcopy(self.script.registry.agents)
        with self.store.engine.connect() as connection:
            dump = list(connection.connection.driver_connection.iterdump())  # type: ignore[union-attr] # sqlite3's
        return jobs, agents, dump

    def refuse(self, attack: MessageReceived, *expected: str) -> list[Command]:
        """Let an attack happen; it must be refused with one of these codes, noted, and change nothing."""
        before = self.state
        commands = self.script.tell(attack)
        self.write(commands)
        noted = codes(commands)
        assert len(noted) == 1, noted
        assert noted[0] in expected
        assert outcomes(commands) == []
        assert jobs_for(self.victim, commands) == jobs_for(self.other, commands) == []
        assert self.state == before
        return commands

    def accept(self) -> None:
        """Let the honest answer come: the attack has not harmed it."""
        commands = self.script.tell(self.victim.result(self.opened))
        self.write(commands)
        assert [outcome.state for outcome in outcomes(commands)] == [JobState.SUCCEEDED]
        stored = self.store.job(self.job_id)
        assert stored is not None
        assert (stored.state, stored.outputs) == (JobState.SUCCEEDED, self.victim.outputs(self.opened))


@pytest.fixture
def scene(tmp_path: Path) -> Any:  # noqa: ANN401 a generator of one
    """Return a scene and close its database."""
    scene = Scene(tmp_path)
    yield scene
    scene.store.close()


def _from(agent: FakeAgent, channel: str, payload: bytes) -> MessageReceived:
    return MessageReceived(f"ea1/{NETWORK}/{agent.id}/{channel}", payload)


# -- bytes --------------------------------------------------------------------------------------------------------


def test_a_result_that_was_altered_anywhere_is_refused(scene: Scene) -> None:
    """Every byte of the message in turn, each with one bit flipped."""
    good = scene.victim.result(scene.opened)
    before = scene.state
    for position in range(len(good.payload)):
        altered = bytearray(good.payload)
        altered[position] ^= 1 << (position % 8)
        commands = scene.script.tell(MessageReceived(good.topic, bytes(altered)))
        (code,) = codes(commands)
        assert code in {"malformed", "bad-signature", "unknown-key", "wrong-algorithm", "digest-mismatch", "too-large"}
        assert of_type(commands, Commit) == []
        assert published(commands) == []  # the agent still holds its answer, and sends it again
    assert scene.state == before
    scene.accept()


@pytest.mark.parametrize("cut", [0, 1, 10, 100, -1])
def test_a_result_that_was_cut_or_lengthened_is_refused(scene: Scene, cut: int) -> None:
    """A part is not the whole, and more than the whole is not it either."""
    good = scene.victim.result(scene.opened)
    scene.refuse(MessageReceived(good.topic, good.payload[:cut]), "malformed")
    scene.refuse(MessageReceived(good.topic, good.payload + b"\x40"), "malformed")
    scene.accept()


def test_a_message_above_the_limit_is_refused_unread(scene: Scene) -> None:
    """However it begins."""
    good = scene.victim.result(scene.opened)
    long = good.payload + bytes(scene.script.rules.max_message_bytes)
    scene.refuse(MessageReceived(good.topic, long), "too-large")


# -- signers ------------------------------------------------------------------------------------------------------


def test_a_result_that_is_signed_by_another_key_is_refused(scene: Scene) -> None:
    """A stranger's key, an enrolled agent's, and the coordinator's own."""
    statement = scene.victim.result_statement(scene.opened)
    tensors = [tensor.data for tensor in scene.victim.outputs(scene.opened)]
    for signer in (key("stranger"), scene.other.key, COORDINATOR_KEY):
        scene.refuse(_from(scene.victim, "results", seal(signer, statement, tensors)), "unknown-key")
    scene.accept()


def test_a_stranger_who_names_the_victims_key_is_refused(scene: Scene) -> None:
    """The key id in the header is a hint; the signature decides."""
    good = scene.victim.result(scene.opened)
    message = cose.parse_sign1(good.payload[: cose.sign1_end(memoryview(good.payload))], 1 << 20)
    forged = cose.sign1(key("stranger"), message.payload, content_type=CONTENT_TYPE)
    stolen = cose.parse_sign1(forged, 1 << 20).signature
    payload = good.payload.replace(message.signature, stolen)
    scene.refuse(_from(scene.victim, "results", payload), "bad-signature")
    scene.accept()


def test_an_agent_cannot_answer_for_another_one(scene: Scene) -> None:
    """Neither on its own topic, nor on the other's, nor in the other's name."""
    stolen = scene.other.result(scene.opened)  # rightly signed by `other`, for an attempt of the victim
    told = scene.refuse(stolen, "wrong-agent")
    assert [(s.outcome, s.code) for s in settled_for(scene.other, told)] == [("refused", "wrong-agent")]
    scene.refuse(_from(scene.victim, "results", stolen.payload), "unknown-key")
    in_its_name = scene.other.result_statement(scene.opened, agent_id=scene.victim.id)
    tensors = [tensor.data for tensor in scene.victim.outputs(scene.opened)]
    scene.refuse(_from(scene.other, "results", seal(scene.other.key, in_its_name, tensors)), "wrong-agent")
    scene.accept()


def test_a_result_of_an_agent_that_is_not_enrolled_is_refused(scene: Scene) -> None:
    """Who has never been let in has no say."""
    stranger = FakeAgent("stranger", scene.clock)
    scene.refuse(stranger.result(scene.opened), "not-enrolled")
    scene.accept()


# -- statements ---------------------------------------------------------------------------------------------------


def _input(number: int, salt: bytes) -> dict[str, Any]:
    return {"inputs": (TensorDigest.of(scan(number), salt),)}


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("unknown-job", lambda _: {"job": bytes(16)}),
        ("wrong-job", lambda _: {"epoch": 2}),
        ("wrong-model", lambda _: {"variant": VARIANTS[1]}),
        ("wrong-model", lambda _: {"variant": hashlib.sha256(b"mine").digest()}),
        ("wrong-model", lambda _: {"family": "letters"}),
        ("wrong-input", lambda job: _input(4, job.salt)),
        ("wrong-input", lambda _: _input(3, bytes(32))),
        ("wrong-input", lambda _: {"inputs": ()}),
        ("not-fresh", lambda _: {"finished_ms": 0}),
        ("wrong-network", lambda _: {"network": "elsewhere"}),
    ],
)
def test_a_signed_result_for_something_else_is_refused(
    scene: Scene, code: str, changes: Callable[[Job], dict[str, Any]]
) -> None:
    """Another job, epoch, model, input, time or network: the signature is right, the answer is not."""
    attack = scene.victim.result(scene.opened, **changes(scene.opened.statement))
    told = settled_for(scene.victim, scene.refuse(attack, code))
    if code != "wrong-network":  # what cannot be opened is not answered
        assert [s.outcome for s in told] == ["unknown" if code == "unknown-job" else "refused"]
        assert [s.code for s in told] == [code]
    scene.accept()


def test_the_answer_to_another_job_does_not_answer_this_one(scene: Scene) -> None:
    """A result that is right for one job is not turned into that of another."""
    _, commands = scene.script.submit(5)
    scene.write(commands)
    (another,) = jobs_for(scene.victim, commands)
    attack = scene.victim.result(another, job=scene.job_id)
    scene.refuse(attack, "wrong-input")
    scene.accept()


def _tensor(name: str, datatype: DataType, shape: tuple[int, ...], fill: bytes) -> Tensor:
    spec = TensorSpec(name, datatype, shape)
    return Tensor(spec, (fill * (spec.byte_count or 0))[: spec.byte_count])


LOGITS = _tensor("logits", DataType.FP32, (1, 10), struct.pack("<f", 1.0))
LABEL = _tensor("label", DataType.INT64, (1,), bytes(8))


@pytest.mark.parametrize(
    "outputs",
    [
        (),
        (LOGITS,),
        (LABEL, LOGITS),
        (LOGITS, LABEL, LABEL),
        (LOGITS, _tensor("label", DataType.INT32, (1,), bytes(4))),
        (LOGITS, _tensor("label", DataType.INT64, (1, 1), bytes(8))),
        (_tensor("logits", DataType.FP32, (1, 10**6), bytes(4)), LABEL),
        (_tensor("logits", DataType.FP32, (2, 10), bytes(4)), _tensor("label", DataType.INT64, (2,), bytes(8))),
        (_tensor("logits", DataType.FP32, (0, 10), b""), _tensor("label", DataType.INT64, (0,), b"")),
    ],
    ids=["none", "missing", "order", "twice", "type", "rank", "huge", "batch of two", "batch of none"],
)
def test_a_result_with_outputs_of_another_form_is_refused(scene: Scene, outputs: tuple[Tensor, ...]) -> None:
    """Names, order, types and shapes are those of the family and of the input's batch."""
    statement = scene.victim.result_statement(
        scene.opened, outputs=tuple(TensorDigest.of(tensor) for tensor in outputs)
    )
    payload = seal(scene.victim.key, statement, [tensor.data for tensor in outputs])
    scene.refuse(_from(scene.victim, "results", payload), "wrong-output")
    scene.accept()


def test_outputs_that_are_not_those_that_were_signed_are_refused(scene: Scene) -> None:
    """The tensors travel beside the signature, and are held against it."""
    statement = scene.victim.result_statement(scene.opened)
    logits, label = scene.victim.outputs(scene.opened)
    for tensors, code in (
        ([LOGITS.data, label.data], "digest-mismatch"),
        ([logits.data, LABEL.data], "digest-mismatch"),
        ([logits.data[:-4], label.data], "malformed"),
        ([label.data, logits.data], "malformed"),
    ):
        scene.refuse(_from(scene.victim, "results", seal(scene.victim.key, statement, tensors)), code)
    scene.accept()


# -- replays ------------------------------------------------------------------------------------------------------


def test_a_result_that_is_replayed_after_it_was_accepted_changes_nothing(scene: Scene) -> None:
    """It is settled as unknown, so that an honest agent stops sending it; the stored result stays."""
    good = scene.victim.result(scene.opened)
    scene.accept()
    for _ in range(3):
        told = scene.refuse(good, "unknown-job")
        assert [s.outcome for s in settled_for(scene.victim, told)] == ["unknown"]


def test_a_result_of_an_older_epoch_is_refused(scene: Scene) -> None:
    """Who lost the lease has lost the job, even if the job is back with the same agent."""
    good = scene.victim.result(scene.opened)
    failed = scene.script.tell(scene.victim.failure(scene.opened.statement))
    scene.write(failed)
    retried = scene.script.tick_until(BACKOFF_FIRST_SECONDS)
    scene.write(retried)
    (again,) = jobs_for(scene.other, retried)
    told = scene.refuse(good, "stale-epoch")
    assert [(s.epoch, s.code) for s in settled_for(scene.victim, told)] == [(1, "stale-epoch")]
    assert [o.agent_id for o in outcomes(scene.script.tell(scene.other.result(again)))] == [scene.other.id]


def test_a_result_for_a_job_that_waits_for_its_next_attempt_is_refused(scene: Scene) -> None:
    """Between two attempts nobody holds the job."""
    good = scene.victim.result(scene.opened)
    scene.write(scene.script.tell(scene.other.gone(), scene.victim.gone()))
    scene.write(scene.script.tick_until(GONE_GRACE_SECONDS))
    assert scene.script.core.leasing.jobs[scene.job_id].state is JobState.QUEUED
    scene.refuse(good, "stale-epoch")


def test_a_job_cannot_be_ended_by_a_failure_of_someone_else(scene: Scene) -> None:
    """A failure ends a job as a result does, and is checked as one."""
    stolen = scene.other.failure(scene.opened.statement, retry=False)
    scene.refuse(stolen, "wrong-agent")
    scene.refuse(_from(scene.victim, "results", stolen.payload), "unknown-key")
    scene.accept()


# -- presence -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", ["birth", "gone", "offers", "progress", "status"])
def test_nobody_speaks_of_the_presence_of_another(scene: Scene, channel: str) -> None:
    """Signed by another key, on the victim's topic or in its own name on its own topic."""
    words = {
        "birth": scene.other.birth(session=9),
        "gone": scene.other.gone(),
        "offers": scene.other.offers(),
        "progress": scene.other.progress((scene.job_id, 1)),
        "status": scene.other.status(),
    }
    scene.refuse(_from(scene.victim, channel, words[channel].payload), "unknown-key")
    scene.accept()


def test_a_birth_with_another_key_does_not_take_an_identity_over(scene: Scene) -> None:
    """The id is the hash of the key, and the first key stays."""
    thief = FakeAgent("thief", scene.clock)
    birth = thief.birth()
    scene.refuse(_from(scene.victim, "birth", birth.payload), "unknown-key")
    unknown = FakeAgent("nobody yet", scene.clock)
    scene.refuse(_from(unknown, "birth", birth.payload), "wrong-agent")
    scene.accept()


def test_retained_words_of_older_sessions_change_nothing(scene: Scene) -> None:
    """Births, wills, offers and progress that a broker kept or an attacker recorded."""
    old_session = [
        scene.victim.birth(),
        scene.victim.birth(state="stopped"),
        scene.victim.gone(),
        scene.victim.offers_nothing(),
        scene.victim.progress((scene.job_id, 1)),
    ]
    scene.victim.session = 2
    scene.write(scene.script.tell(scene.victim.birth(held=[(scene.job_id, 1)], answers=100), scene.victim.offers()))
    for message in old_session:
        scene.refuse(message, "stale-session")
    scene.script.tick_until(GONE_GRACE_SECONDS + 1.0)
    scene.accept()


def test_offers_of_an_older_sequence_change_nothing(scene: Scene) -> None:
    """A recorded offer does not bring back what was withdrawn, nor the other way round."""
    recorded = scene.victim.offers_nothing()
    scene.write(scene.script.tell(scene.victim.offers()))
    scene.refuse(recorded, "stale-session")
    scene.accept()


@pytest.mark.parametrize("channel", ["jobs", "settled", "control"])
def test_what_only_the_coordinator_says_is_refused_from_anyone(scene: Scene, channel: str) -> None:
    """Nothing is expected from agents on the topics that they read."""
    scene.refuse(_from(scene.victim, channel, scene.victim.gone().payload), "wrong-kind")


@pytest.mark.parametrize("channel", ["birth", "gone", "offers", "progress", "status", "results"])
def test_a_statement_of_another_kind_is_refused(scene: Scene, channel: str) -> None:
    """What is signed for one channel means nothing on another."""
    words = {
        "birth": scene.victim.gone(),
        "gone": scene.victim.progress(),
        "offers": scene.victim.gone(),
        "progress": scene.victim.gone(),
        "status": scene.victim.gone(),
        "results": scene.victim.gone(),
    }
    scene.refuse(_from(scene.victim, channel, words[channel].payload), "wrong-kind")
    scene.accept()


@pytest.mark.parametrize("topic", ["", "ea1/home", "ea1/home/x/birth", f"ea1/elsewhere/{'a' * 32}/birth", "\x00"])
def test_foreign_topics_are_refused(scene: Scene, topic: str) -> None:
    """A broker that sends what nobody subscribed to changes nothing."""
    scene.refuse(MessageReceived(topic, scene.victim.gone().payload), "malformed")


# -- against the agent --------------------------------------------------------------------------------------------


def _attacks_on_an_agent(agent: AgentScript) -> list[agent_events.MessageReceived]:
    impostor = FakeCoordinator(agent.key.public, agent.clock, key("impostor"))
    return [
        impostor.job(9),
        impostor.settled(1),
        impostor.control("cancel", 1, 1),
        impostor.control("rebirth"),
        impostor.hello(999),
    ]


def test_an_agent_obeys_nobody_but_the_coordinator_it_has_pinned() -> None:
    """Jobs, settlements, commands and hellos of an impostor are refused, and nothing is said or dropped."""
    agent = AgentScript()
    agent.ready()
    agent.tell(agent.coordinator.job(1))
    before = (agent.core.attempts.keys(), agent.core.coordinator_session)
    for attack in _attacks_on_an_agent(agent):
        commands = agent.tell(attack)
        assert codes(commands) == ["unknown-key"]
        assert published(commands) == []
        assert (agent.core.attempts.keys(), agent.core.coordinator_session) == before


def test_an_agent_refuses_an_altered_job_at_every_byte() -> None:
    """Whatever was changed on the way is not computed, and nobody is told a lie about it."""
    agent = AgentScript()
    agent.ready()
    good = agent.coordinator.job(1)
    for position in range(0, len(good.payload), 3):
        altered = bytearray(good.payload)
        altered[position] ^= 1 << (position % 8)
        commands = agent.tell(agent_events.MessageReceived(good.topic, bytes(altered)))
        assert len(codes(commands)) == 1
        assert of_type(commands, agent_events.RunModel) == []
        assert len(agent.core.attempts) == 0
    assert len(of_type(agent.tell(good), agent_events.RunModel)) == 1


def test_a_job_of_another_network_or_agent_is_refused() -> None:
    """A coordinator that serves two networks cannot have its jobs mixed up by the broker."""
    agent = AgentScript()
    agent.ready()
    agent.coordinator.network = "elsewhere"
    assert codes(agent.tell(agent.coordinator.job(1))) == ["wrong-network"]
    agent.coordinator.network = NETWORK
    other = FakeCoordinator(key("other").public, agent.clock)
    theirs = agent_events.MessageReceived(TOPICS.jobs(agent.id), other.job(1).payload)
    assert codes(agent.tell(theirs)) == ["wrong-agent"]
    assert len(agent.core.attempts) == 0


def test_opened_jobs_are_typed(scene: Scene) -> None:
    """The scene's job is what the coordinator leased: the attacks above attack the right thing."""
    opened: Opened[Job] = scene.opened
    assert (opened.statement.job, opened.statement.agent_id) == (scene.job_id, scene.victim.id)
