"""Nothing remote loosens the owner's rules: not the genuine coordinator, not a broker that plays old words again."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from fakes import COORDINATOR_KEY, NETWORK, TOPICS, AgentScript, job_id, key, of_type

from edge_agent.agent.events import (
    Command,
    LinkDown,
    LinkUp,
    LoadModel,
    MessageReceived,
    PlanRequested,
    RestRequested,
    RunCanary,
    RunModel,
    StartWorker,
    WorkRequested,
)
from edge_agent.notes import Note
from edge_agent.wire.envelope import seal
from edge_agent.wire.keys import SigningKey
from edge_agent.wire.messages import Birth, Control, Failure, Offers


@pytest.fixture
def paused() -> AgentScript:
    """Return an agent that served, and rests by its owner's rules."""
    agent = AgentScript()
    agent.ready()
    agent.tell(RestRequested("you paused it", 5.0))
    assert agent.core.resting.left
    return agent


def control(agent: AgentScript, command: str, signer: SigningKey = COORDINATOR_KEY) -> MessageReceived:
    """Make a control message, by the genuine coordinator or another."""
    statement = Control(
        network=NETWORK,
        issued_ms=agent.clock.now.wall_ms,
        agent_id=agent.id,
        command=command,  # type: ignore[arg-type] # checked by the model
        job=None,
        epoch=None,
    )
    return MessageReceived(TOPICS.control(agent.id), seal(signer, statement))


def assert_still_rests(agent: AgentScript, commands: Iterable[Command]) -> None:
    """Nothing was started, loaded, run, measured or offered, and no attempt is held; the owner can still resume."""
    commands = [*commands, *agent.tick_until(3600)]
    for kind in (StartWorker, LoadModel, RunModel, RunCanary):
        assert of_type(commands, kind) == []
    assert [opened.statement.offers for opened in agent.said(commands, Offers) if opened.statement.offers] == []
    assert agent.core.attempts.unfinished() == 0
    assert agent.core.resting.left
    assert len(of_type(agent.tell(WorkRequested()), StartWorker)) == 1


def test_jobs_for_a_paused_agent_are_handed_back_and_wake_nobody(paused: AgentScript) -> None:
    """Signed by the pinned key, for the right session and variant, a hundred of them."""
    commands = [command for number in range(100) for command in paused.tell(paused.coordinator.job(number))]
    failures = [opened.statement for opened in paused.said(commands, Failure)]
    assert {(failure.code, failure.retry) for failure in failures} == {("handed-back", True)}
    assert [failure.job for failure in failures] == [job_id(number) for number in range(100)]
    assert_still_rests(paused, commands)


@pytest.mark.parametrize("command", ["rebirth", "not-enrolled", "no-room"])
def test_control_messages_of_the_genuine_coordinator_do_not_resume(paused: AgentScript, command: str) -> None:
    """It may ask for a birth as often as it likes: it hears that nothing is offered."""
    commands = [found for _ in range(20) for found in paused.tell(control(paused, command))]
    assert (len(paused.said(commands, Birth)) > 0) == (command == "rebirth")
    assert_still_rests(paused, commands)


@pytest.mark.parametrize("command", ["resume", "work", "start", "pause"])
def test_there_is_no_control_message_for_the_owners_orders(paused: AgentScript, command: str) -> None:
    """The protocol has no word for it, so none can be signed."""
    with pytest.raises(ValueError, match="command"):
        control(paused, command)


def test_an_attempt_to_loosen_is_refused_logged_and_shown_to_the_owner(paused: AgentScript) -> None:
    """Signed by the pinned key, but with a word that the protocol does not have."""

    class Loosening(Control):
        command: str  # type: ignore[assignment]

    statement = Loosening(network=NETWORK, issued_ms=0, agent_id=paused.id, command="resume", job=None, epoch=None)
    message = MessageReceived(TOPICS.control(paused.id), seal(COORDINATOR_KEY, statement))
    commands = paused.tell(message)
    assert any("Refused a message" in note.sentence for note in of_type(commands, Note))
    assert TOPICS.control(paused.id) in paused.core.refused_control
    assert_still_rests(paused, commands)


def test_control_messages_of_a_stranger_are_refused(paused: AgentScript) -> None:
    """As always."""
    commands = paused.tell(control(paused, "rebirth", key("stranger")))
    assert paused.said(commands, Birth) == []
    assert_still_rests(paused, commands)


def test_another_coordinator_session_and_a_reconnect_do_not_resume(paused: AgentScript) -> None:
    """A broker that is restarted, a coordinator that comes back, retained messages that are given again."""
    commands = paused.tell(LinkDown("the cable"), LinkUp(2), paused.coordinator.hello(77), paused.coordinator.hello(77))
    commands += paused.tell(LinkUp(3), PlanRequested())
    assert_still_rests(paused, commands)


def test_words_from_before_the_pause_do_not_resume_when_they_are_played_again() -> None:
    """Jobs, hellos and settlements that a hostile broker kept."""
    agent = AgentScript()
    agent.ready()
    kept = [agent.coordinator.hello(5), agent.coordinator.job(1), agent.coordinator.settled(1)]
    (run,) = of_type(agent.tell(*kept[:2]), RunModel)
    agent.run_done(run)
    agent.tell(kept[2], RestRequested("you paused it", 5.0))
    commands = [found for message in kept * 5 for found in agent.tell(message)]
    assert_still_rests(agent, commands)
