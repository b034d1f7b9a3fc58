"""Both cores, with foreign bytes as their messages: what they must not do is change."""

from __future__ import annotations

from functools import cache
from typing import Final

from fakes import NETWORK, AgentScript, CoordinatorScript, FakeAgent, ManualClock, jobs_for

from edge_agent.agent import events as agent_events
from edge_agent.coordinator.events import MessageReceived
from edge_agent.coordinator.rules import Rules
from edge_agent.wire import cose
from edge_agent.wire.topics import Topics

TOPICS: Final = Topics(NETWORK)


class _Scene:
    """A coordinator whose agent holds a job, and an agent that holds none: foreign bytes change neither."""

    def __init__(self) -> None:
        self.script = CoordinatorScript(ManualClock(), rules=Rules(messages_per_second=1e12))
        self.victim = FakeAgent("agent", self.script.clock)
        self.script.connect()
        self.script.join(self.victim)
        _, commands = self.script.submit(3)
        (self.opened,) = jobs_for(self.victim, commands)
        self.agent = AgentScript()
        self.agent.ready()


@cache
def _scene() -> _Scene:
    return _Scene()


CHANNELS: Final = ("results", "birth", "offers", "progress", "gone", "status", "jobs")
DOWN: Final = ("jobs", "settled", "control", "coordinator")


def _forged(payload: bytes) -> bytes:
    end = cose.sign1_end(payload)
    return payload[: end - 64] + b"forged!!" * 8 + payload[end:]


def core_samples() -> list[bytes]:
    """A byte that chooses the channel, and a message whose signature is none, so that no mutation makes it right."""
    scene = _scene()
    victim = scene.victim
    said = (victim.result(scene.opened), victim.birth(session=9), victim.offers(), victim.progress(), victim.gone(9))
    return [bytes((number,)) + _forged(event.payload) for number, event in enumerate(said)]


def core(data: bytes) -> None:
    """Let the coordinator receive a message of the agent that holds the job."""
    scene, victim = _scene(), _scene().victim
    channel = CHANNELS[data[0] % len(CHANNELS)] if data else "results"
    before = (len(scene.script.core.leasing.jobs), victim.session)
    scene.script.tell(MessageReceived(f"ea1/{NETWORK}/{victim.id}/{channel}", data[1:]))
    if before != (len(scene.script.core.leasing.jobs), victim.session):
        raise AssertionError("foreign bytes changed the coordinator")


def agent_core_samples() -> list[bytes]:
    """As `core_samples`, of what the coordinator says."""
    coordinator = _scene().agent.coordinator
    said = (coordinator.job(1), coordinator.settled(1), coordinator.control("rebirth"), coordinator.hello(999))
    return [bytes((number,)) + _forged(event.payload) for number, event in enumerate(said)]


def agent_core(data: bytes) -> None:
    """Let the agent receive a message of its coordinator."""
    agent = _scene().agent
    channel = DOWN[data[0] % len(DOWN)] if data else "jobs"
    topic = TOPICS.coordinator if channel == "coordinator" else f"ea1/{NETWORK}/{agent.id}/{channel}"
    agent.tell(agent_events.MessageReceived(topic, data[1:]))
    if len(agent.core.attempts):
        raise AssertionError("foreign bytes became an attempt")
