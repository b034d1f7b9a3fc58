"""Between agent and worker: what is sealed is opened on the way there, and sealed on the way back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from fakes import NETWORK, answer_to, scan

from edge_agent.agent import workers
from edge_agent.agent.events import RunModel, StopWorker
from edge_agent.agent.unsealing import Unsealing, halves_of, hybrid_key
from edge_agent.errors import PeerError, WorkerError
from edge_agent.inference.events import RunDone, RunFailed, WorkerDied, WorkerEvent
from edge_agent.inference.handle import Request, Worker
from edge_agent.models.store import Store
from edge_agent.wire.hpke import HYBRID, X25519, PublicHalf, SecretHalf
from edge_agent.wire.sealing import SEALED, Question, open_answer, seal_question
from edge_agent.wire.sealing_key import SealingKey
from edge_agent.wire.tensors import Tensor

AGENT = "a" * 32
OURS = SecretHalf(X25519PrivateKey.from_private_bytes(b"\1" * 32))
THEIRS = SecretHalf(X25519PrivateKey.from_private_bytes(b"\2" * 32))
SALT = bytes(32)
IMAGE = scan(3)


def run(token: int, *inputs: Tensor) -> RunModel:
    """Return a run as the core wants it."""
    return RunModel(token, bytes(32), inputs, (), 1 << 20)


def sealed(reply: PublicHalf = THEIRS.public) -> Tensor:
    """Return sealed inputs."""
    question = Question("digits", (IMAGE,), ("label",), SALT, (reply,))
    return seal_question(question, OURS.public, network=NETWORK, agent_id=AGENT)


@pytest.fixture
def between() -> Unsealing:
    """Return what an agent with a sealing key has."""
    return Unsealing((OURS,), NETWORK, AGENT)


def test_a_plain_run_is_left_as_it_is(between: Unsealing) -> None:
    """Both ways."""
    plain, done = run(1, IMAGE), RunDone(1, answer_to(IMAGE), 5)
    assert between.opened(plain) is plain
    assert between.closed(done) is done


def test_a_sealed_run_is_opened_and_its_answer_sealed(between: Unsealing) -> None:
    """The worker sees the inputs and the wanted outputs; what comes back can be read by the asker alone."""
    asked = sealed()
    opened = between.opened(run(7, asked))
    assert (opened.inputs, opened.outputs, opened.token) == ((IMAGE,), ("label",), 7)
    done = between.closed(RunDone(7, answer_to(IMAGE), 5))
    assert isinstance(done, RunDone)
    answer = open_answer(done.outputs, (THEIRS,), asked=asked, salt=SALT, network=NETWORK, agent_id=AGENT)
    assert answer == answer_to(IMAGE)
    again = RunDone(7, answer_to(IMAGE), 5)
    assert between.closed(again) is again


def test_a_sealed_run_that_is_a_view_of_its_message_is_opened(between: Unsealing) -> None:
    """As `attach` gives large inputs to the agent."""
    asked = sealed()
    view = replace(asked, data=cast("bytes", memoryview(asked.data)))
    assert between.opened(run(7, view)).inputs == (IMAGE,)
    between.forget()


@pytest.mark.parametrize(
    "inputs", [(IMAGE, sealed()), (Tensor(sealed().spec, bytes(len(sealed().data))),)], ids=["two", "zeros"]
)
def test_what_cannot_be_opened_is_refused(between: Unsealing, inputs: tuple[Tensor, ...]) -> None:
    """And not run."""
    assert inputs[-1].spec.name == SEALED
    with pytest.raises(PeerError):
        between.opened(run(1, *inputs))


def test_an_agent_opens_both_suites_and_its_hybrid_key_is_new_at_each_start() -> None:
    """The plain one stays what it was."""
    key = SealingKey.generate(b"\1" * 32)
    first, second = halves_of(key), halves_of(key)
    assert [half.suite for half in first] == [HYBRID, X25519]
    assert first[1].public == second[1].public == PublicHalf(X25519, key.public)
    assert hybrid_key(first) not in {None, hybrid_key(second)}
    assert (halves_of(None), hybrid_key(first[1:])) == ((), None)
    question = Question("digits", (IMAGE,), (), SALT, (THEIRS.public,))
    asked = seal_question(question, first[0].public, network=NETWORK, agent_id=AGENT)
    assert Unsealing(first, NETWORK, AGENT).opened(run(1, asked)).inputs == (IMAGE,)
    with pytest.raises(PeerError):
        Unsealing(second, NETWORK, AGENT).opened(run(1, asked))


class Idle:
    """In the place of the worker's handle: takes runs while it is up, and never answers."""

    up = True
    pid = 1

    def __init__(self, *_: object, **__: object) -> None:
        self.runs: list[int] = []

    def run_all(self, requests: Sequence[Request]) -> list[Request]:
        """Take runs."""
        if not self.up:
            raise WorkerError("No worker was started.", code="worker-start")
        self.runs += [request.token for request in requests]
        return []

    full = staticmethod(Worker.full)

    def stop(self, _: float) -> None:
        """End without an event."""


@pytest.mark.parametrize("end", [StopWorker(), StopWorker(at_once=True), None], ids=["stop", "at-once", "exit"])
def test_the_plaintext_of_a_run_goes_with_a_worker_that_is_stopped(
    between: Unsealing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, end: StopWorker | None
) -> None:
    """Such a worker says nothing more: not what it computed, and not that it died."""
    monkeypatch.setattr(workers, "Worker", Idle)
    monkeypatch.setattr(workers.control_group, "enter", lambda: (None, "not here"))
    made = workers.Workers(lambda _: None, Store((tmp_path,)), 1, 0, between)
    made.do(run(7, sealed()))
    made.flush()
    if end is None:
        made.end()
    else:
        made.do(end)
    late = RunDone(7, answer_to(IMAGE), 5)
    assert between.closed(late) is late


def test_the_plaintext_of_a_run_that_no_worker_takes_is_not_kept(
    between: Unsealing, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It fails at once."""
    monkeypatch.setattr(workers, "Worker", Idle)
    monkeypatch.setattr(Idle, "up", False)
    monkeypatch.setattr(workers.control_group, "enter", lambda: (None, "not here"))
    said: list[WorkerEvent] = []
    made = workers.Workers(said.append, Store((tmp_path,)), 1, 0, between)
    made.do(run(7, sealed()))
    made.flush()
    assert said == [RunFailed(7, "worker-start", "No worker was started.", "agent")]
    late = RunDone(7, answer_to(IMAGE), 5)
    assert between.closed(late) is late


def test_an_agent_without_a_key_takes_no_sealed_jobs() -> None:
    """It says so."""
    with pytest.raises(PeerError, match="takes no sealed jobs"):
        Unsealing((), NETWORK, AGENT).opened(run(1, sealed()))


def test_an_answer_that_nobody_could_read_is_a_failure_of_the_asker(between: Unsealing) -> None:
    """A key for the reply that is none."""
    between.opened(run(1, sealed(PublicHalf(1, bytes(32)))))
    failed = between.closed(RunDone(1, answer_to(IMAGE), 5))
    assert isinstance(failed, RunFailed)
    assert (failed.token, failed.blame, failed.code) == (1, "requester", "wrong-input")


@pytest.mark.parametrize(
    "end", [RunFailed(1, "model-run", "no", "model"), WorkerDied(9, "worker-died", "", ())], ids=["failed", "died"]
)
def test_what_ended_is_forgotten(between: Unsealing, end: WorkerEvent) -> None:
    """Nothing piles up, whatever happens to the runs."""
    between.opened(run(1, sealed()))
    assert between.closed(end) is end
    assert between._runs == {}
