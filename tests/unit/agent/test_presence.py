"""What an agent says of itself: who, which session, and what it holds."""

from __future__ import annotations

from typing import TypeVar

from fakes import MACHINE, MAX_BYTES, NETWORK, TOPICS, ManualClock, chosen_variant, key, klass

from edge_agent.agent.events import Publish
from edge_agent.agent.presence import Presence
from edge_agent.wire.envelope import open_envelope
from edge_agent.wire.messages import MAX_HELD, Birth, Gone, Offer, Offers, Progress

KEY = key("agent")
NOW = ManualClock().now
PRESENCE = Presence(KEY, TOPICS, MACHINE)
S = TypeVar("S", Birth, Gone, Offers, Progress)
HELD = [(bytes([number]) * 16, number) for number in (1, 2)]


def _open(command: Publish, kind: type[S]) -> S:
    return open_envelope(command.payload, KEY.public, kind, network=NETWORK, max_bytes=MAX_BYTES).statement


def test_a_birth_names_the_key_the_session_and_what_is_held() -> None:
    """Retained, so that a coordinator that comes later hears it."""
    said = PRESENCE.birth("online", 7, 100, HELD, NOW)
    birth = _open(said, Birth)
    assert (said.topic, said.retain) == (TOPICS.birth(KEY.public.id), True)
    assert (birth.agent_id, birth.public_key, birth.machine) == (KEY.public.id, KEY.public.raw, MACHINE)
    assert (birth.session, birth.coordinator_session, birth.state) == (7, 100, "online")
    assert [(attempt.job, attempt.epoch) for attempt in birth.held] == HELD


def test_more_than_a_birth_can_list_is_cut() -> None:
    """An agent that holds very much is not silenced by it: what is not listed is leased again."""
    many = [(number.to_bytes(16, "big"), 1) for number in range(MAX_HELD + 5)]
    assert len(_open(PRESENCE.birth("online", 1, None, many, NOW), Birth).held) == MAX_HELD
    assert len(_open(PRESENCE.progress(1, many, NOW), Progress).held) == MAX_HELD


def test_a_clean_stop_is_a_birth_of_the_same_session() -> None:
    """Which holds nothing any more."""
    birth = _open(PRESENCE.birth("stopped", 7, None, (), NOW), Birth)
    assert (birth.state, birth.session, birth.held) == ("stopped", 7, ())


def test_a_will_is_of_the_session_that_it_was_made_for() -> None:
    """Retained: a coordinator that comes later hears of it, and a later session is not harmed."""
    said = PRESENCE.gone(7, NOW)
    assert (said.topic, said.retain) == (TOPICS.gone(KEY.public.id), True)
    assert _open(said, Gone).session == 7


def test_offers_carry_their_place_in_the_session() -> None:
    """Not retained: what was offered once says nothing of now."""
    variant = chosen_variant()
    offer = Offer(
        family="digits",
        variant=variant,
        variant_name="fp32",
        klass=klass(variant),
        latency_us=1,
        max_in_flight=1,
        loaded=True,
    )
    said = PRESENCE.offers(7, 3, [offer], NOW)
    offers = _open(said, Offers)
    assert not said.retain
    assert (offers.session, offers.sequence, offers.offers) == (7, 3, (offer,))
