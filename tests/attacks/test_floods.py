"""Floods: ten thousand forged messages cost what few cost, and starve nobody."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest
from fakes import NETWORK, FakeAgent, codes, jobs_for, of_type, outcomes, settled_for
from scenes import Setting

from edge_agent.coordinator.events import Commit, MessageReceived
from edge_agent.coordinator.floods import BURST_SECONDS
from edge_agent.coordinator.inbox import BATCH, Inbox
from edge_agent.coordinator.jobs import JobState
from edge_agent.coordinator.rules import Rules
from edge_agent.mqtt import Message
from edge_agent.notes import BURST_LINES, Journal, Note
from edge_agent.wire import cose
from edge_agent.wire.envelope import seal
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.messages import Progress

FLOOD = 10_000
RATE = 5.0
HEARD = int(RATE * BURST_SECONDS)


class Flooded:
    """A coordinator with an honest agent that holds a job, a second one, and a count of checked signatures."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.here = Setting("honest", "other", rules=Rules(messages_per_second=RATE))
        self.job_id, commands = self.here.script.submit(3)
        self.holder = next(agent for agent in self.here.agents.values() if jobs_for(agent, commands))
        self.other = next(agent for agent in self.here.agents.values() if agent is not self.holder)
        (self.opened,) = jobs_for(self.holder, commands)
        self.journal = Journal(logging.getLogger("edge_agent.test-floods"))
        self.checked = 0
        verify = PublicKey.verify

        def counted(key: PublicKey, signature: bytes, data: bytes) -> None:
            self.checked += 1
            verify(key, signature, data)

        monkeypatch.setattr(PublicKey, "verify", counted)

    def tell(self, event: MessageReceived) -> list[Any]:
        """Handle a message as the daemon does."""
        commands = self.here.script.tell(event)
        for note in of_type(commands, Note):
            self.journal.write(note, self.here.clock.monotonic)
        return commands

    def forged(self, channel: str = "results", victim: FakeAgent | None = None, *, job: bytes = bytes(16)) -> Any:  # noqa: ANN401 an event
        """Make a message whose every part is right but for its signature."""
        victim = victim or self.holder
        made = victim.progress((job, 1)) if channel == "progress" else victim.result(self.opened, job=job)
        altered = bytearray(made.payload)
        altered[cose.sign1_end(made.payload) - 1] ^= 1  # the signature is the end of the signed part
        return MessageReceived(made.topic, bytes(altered))

    def accept(self) -> None:
        """Let the honest answer come through."""
        found = outcomes(self.tell(self.holder.result(self.opened)))
        assert [outcome.state for outcome in found] == [JobState.SUCCEEDED]


@pytest.fixture
def flooded(monkeypatch: pytest.MonkeyPatch) -> Flooded:
    """Return a fresh scene."""
    return Flooded(monkeypatch)


def test_ten_thousand_bad_signatures_starve_nobody(flooded: Flooded, caplog: pytest.LogCaptureFixture) -> None:
    """On the topic of the agent that holds the job: few are checked, all are counted, few are logged, it succeeds."""
    forged = flooded.forged()
    seen = []
    with caplog.at_level(logging.INFO):
        for _ in range(FLOOD):
            commands = flooded.tell(forged)
            seen += codes(commands)
            assert of_type(commands, Commit) == []
    assert len(seen) == FLOOD
    assert set(seen) == {"bad-signature", "rate-limited"}
    assert flooded.checked <= HEARD
    counters = flooded.journal.counters
    assert (counters["refused"], counters["refused:rate-limited"]) == (FLOOD, FLOOD - flooded.checked)
    assert len(caplog.records) <= 2 * BURST_LINES
    flooded.accept()
    assert flooded.here.live == 0


def test_an_eavesdropper_who_names_the_live_job_is_bounded_too(flooded: Flooded) -> None:
    """It costs twice as much, and the agents that it does not attack notice nothing."""
    forged = flooded.forged(job=flooded.job_id)
    for _ in range(FLOOD):
        flooded.tell(forged)
    assert flooded.checked <= 2 * HEARD
    job_id, commands = flooded.here.script.submit(4)
    (opened,) = jobs_for(flooded.other, commands)
    assert [outcome.job_id for outcome in outcomes(flooded.tell(flooded.other.result(opened)))] == [job_id]
    flooded.here.clock.advance(2 / RATE)
    flooded.accept()


def test_a_flood_over_many_topics_is_bounded_by_all_together(flooded: Flooded) -> None:
    """Each of sixty agents' topics a little: what names a live job still comes through."""
    for number in range(60):
        flooded.here.join(f"agent {number}")
    flooded.here.clock.advance(BURST_SECONDS)
    flooded.checked = 0
    forged = [flooded.forged("progress", agent) for agent in flooded.here.agents.values()]
    for _ in range(FLOOD // len(forged)):
        for event in forged:
            assert of_type(flooded.tell(event), Commit) == []
    assert flooded.checked <= 20 * HEARD
    flooded.accept()


def test_strangers_with_ever_new_names_are_bounded_and_stop_no_agent(flooded: Flooded) -> None:
    """Births are the only thing that a stranger's signature is checked for; they share one allowance."""
    strangers = [FakeAgent(f"stranger {number}", flooded.here.clock) for number in range(50)]
    births = [stranger.birth() for stranger in strangers]
    flooded.here.script.registry._admit_anyone = False
    flooded.here.script.registry.approved = frozenset(agent.id for agent in flooded.here.agents.values())
    for _ in range(FLOOD // len(births)):
        for birth in births:
            flooded.tell(birth)
    assert flooded.checked <= 4 * HEARD
    assert all(stranger.id not in flooded.here.script.registry.agents for stranger in strangers)
    flooded.accept()


def test_what_a_stranger_says_besides_its_birth_costs_no_signature(flooded: Flooded) -> None:
    """It is refused by its topic alone."""
    stranger = FakeAgent("stranger", flooded.here.clock)
    for event in (stranger.result(flooded.opened), stranger.offers(), stranger.progress(), stranger.gone()):
        assert codes(flooded.tell(event)) == ["not-enrolled"]
    assert flooded.checked == 0
    flooded.accept()


def test_an_enrolled_agent_that_talks_without_end_is_cut_off_alone(flooded: Flooded) -> None:
    """Genuine progress, ten thousand times in a moment."""
    talk = flooded.other.progress()
    heard = sum(codes(flooded.tell(talk)) == [] for _ in range(FLOOD))
    assert heard <= HEARD
    flooded.accept()


def test_a_flood_ends_and_its_topic_is_heard_again(flooded: Flooded) -> None:
    """Nobody is shut out for good by what others did in its name."""
    forged = flooded.forged("progress")
    for _ in range(FLOOD):
        flooded.tell(forged)
    assert codes(flooded.tell(flooded.holder.offers())) == ["rate-limited"]
    flooded.here.clock.advance(1.0)
    assert codes(flooded.tell(flooded.holder.offers())) == []


def test_renewals_of_live_jobs_come_through_a_flood(flooded: Flooded) -> None:
    """Its lease does not run out meanwhile."""
    forged = flooded.forged("progress")
    for _ in range(FLOOD):
        flooded.tell(forged)
    before = flooded.here.job(flooded.job_id).attempts[0].lease_until
    flooded.here.clock.advance(0.001)
    assert codes(flooded.tell(flooded.holder.progress((flooded.job_id, 1)))) == []
    assert flooded.here.job(flooded.job_id).attempts[0].lease_until > before


def test_a_full_topic_crowds_out_nobody_and_the_loop_breathes() -> None:
    """The inbox keeps room for other topics, and gives the loop its turn after each batch."""

    async def script() -> tuple[list[str], list[str], int]:
        handled: list[str] = []
        dropped: list[str] = []
        turns = 0

        def other_work() -> None:
            nonlocal turns
            turns += 1
            if turns < 5:
                loop.call_soon(other_work)

        loop = asyncio.get_running_loop()
        inbox = Inbox(
            loop,
            lambda _: handled.append(""),
            lambda messages: handled.extend(message.topic for message in messages),
            max_messages=1000,
            max_bytes=1 << 20,
            dropped=dropped.append,
        )
        for _ in range(FLOOD):
            inbox.put(Message("flooded", b"x", retain=False))
        inbox.put(Message("honest", b"x", retain=False))
        loop.call_soon(other_work)
        await asyncio.sleep(0)
        first = len(handled)
        for _ in range(FLOOD // BATCH):
            await asyncio.sleep(0)
        assert handled[-1] == "honest"
        return handled, dropped, first if turns else 0

    handled, dropped, first = asyncio.run(script())
    assert first == BATCH
    assert handled.count("flooded") == 500
    assert dropped == ["inbox-crowded"] * (FLOOD - 500)


def test_the_victim_can_be_told_from_the_attacker_by_settlements(flooded: Flooded) -> None:
    """What is not opened is not answered: a flood draws no messages out of us, signed ones least of all."""
    statement = Progress(
        network=NETWORK, issued_ms=0, agent_id=flooded.holder.id, session=flooded.holder.session, held=()
    )
    event = MessageReceived(f"ea1/{NETWORK}/{flooded.holder.id}/progress", seal(flooded.other.key, statement))
    for _ in range(HEARD + 100):
        commands = flooded.tell(event)
        assert settled_for(flooded.holder, commands) == settled_for(flooded.other, commands) == []
    flooded.accept()
