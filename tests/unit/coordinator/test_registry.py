"""Admission, presence by session, and offers: what an agent's announcements change, and what they must not."""

from __future__ import annotations

import pytest
from fakes import MACHINE, NETWORK, START_MS, klass
from fakes import key as make_key

from edge_agent.coordinator.registry import Agent, Presence, Registry
from edge_agent.errors import RefusedError
from edge_agent.wire.job_options import ANYWHERE
from edge_agent.wire.messages import Birth, Gone, Offer, Offers

KEY = make_key("agent").public
OTHER = make_key("other").public
VARIANT = bytes(32)


def _birth(session: int, state: str = "online") -> Birth:
    return Birth(
        network=NETWORK,
        issued_ms=START_MS,
        agent_id=KEY.id,
        public_key=KEY.raw,
        sealing_key=None,
        hybrid_key=None,
        session=session,
        state=state,  # type: ignore[arg-type] # checked by the model
        coordinator_session=None,
        held=(),
        versions=(1,),
        software="test",
        machine=MACHINE,
    )


def _gone(session: int) -> Gone:
    return Gone(network=NETWORK, issued_ms=START_MS, agent_id=KEY.id, session=session)


def _offers(session: int, sequence: int, *families: str) -> Offers:
    offers = tuple(
        Offer(
            family=family,
            variant=VARIANT,
            variant_name="v",
            klass=klass(VARIANT),
            latency_us=1,
            max_in_flight=1,
            loaded=True,
        )
        for family in families
    )
    return Offers(
        network=NETWORK, issued_ms=START_MS, agent_id=KEY.id, session=session, sequence=sequence, offers=offers
    )


@pytest.fixture
def registry() -> Registry:
    """Return a registry that admits anyone and knows one agent in its fifth session, which offers two families."""
    registry = Registry(admit_anyone=True)
    registry.birth(_birth(5), KEY, 0.0)
    registry.offers(_offers(5, 2, "a", "b"), 0.0)
    return registry


def _refused(code: str) -> pytest.RaisesExc[RefusedError]:
    return pytest.RaisesExc(RefusedError, check=lambda error: error.error_code == code)


def test_only_admitted_agents_are_taken_note_of() -> None:
    """Without the operator's word an agent does not exist; with it, it does."""
    registry = Registry(admit_anyone=False)
    with _refused("not-enrolled"):
        registry.birth(_birth(1), KEY, 0.0)
    assert registry.agents == {}
    registry.approved = frozenset({KEY.id})
    registry.birth(_birth(1), KEY, 0.0)
    assert registry.get(KEY.id).presence is Presence.ONLINE
    registry.approved = frozenset()
    with _refused("not-enrolled"):
        registry.get(KEY.id)


def test_an_agent_that_was_never_here_is_not_enrolled(registry: Registry) -> None:
    """Nobody speaks before their birth."""
    with _refused("not-enrolled"):
        registry.get(OTHER.id)


def test_a_new_session_withdraws_the_offers_of_the_old_one(registry: Registry) -> None:
    """What a session offers ends with it, and sequences begin anew."""
    agent, new = registry.birth(_birth(6), KEY, 10.0)
    assert new
    assert agent.offers == {}
    assert agent.sequence == 0
    assert agent.last_offered == {"a": 10.0, "b": 10.0}


def test_a_birth_that_is_repeated_changes_nothing(registry: Registry) -> None:
    """The same birth again is no new session and withdraws nothing."""
    agent, new = registry.birth(_birth(5), KEY, 10.0)
    assert not new
    assert set(agent.offers) == {"a", "b"}


@pytest.mark.parametrize("state", ["online", "stopped"])
def test_a_birth_of_an_older_session_is_refused(registry: Registry, state: str) -> None:
    """What a broker kept from an earlier life does not change the present one."""
    with _refused("stale-session"):
        registry.birth(_birth(4, state), KEY, 10.0)
    agent = registry.get(KEY.id)
    assert (agent.session, agent.presence, set(agent.offers)) == (5, Presence.ONLINE, {"a", "b"})


@pytest.mark.parametrize("end", ["gone", "stopped"])
def test_the_birth_of_a_session_that_ended_brings_nobody_back(registry: Registry, end: str) -> None:
    """A retained birth that arrives after the session's end is refused; a stop may be repeated."""
    if end == "gone":
        registry.gone(_gone(5), 1.0)
    else:
        registry.birth(_birth(5, "stopped"), KEY, 1.0)
    with _refused("stale-session"):
        registry.birth(_birth(5), KEY, 2.0)
    agent, _ = registry.birth(_birth(5, "stopped"), KEY, 2.0)
    assert agent.presence is Presence.STOPPED
    assert registry.offering("a") == []


@pytest.mark.parametrize("session", [4, 6])
def test_a_will_of_another_session_marks_nobody_as_gone(registry: Registry, session: int) -> None:
    """Late or invented wills say nothing of the present session."""
    with _refused("stale-session"):
        registry.gone(_gone(session), 1.0)
    assert registry.get(KEY.id).presence is Presence.ONLINE
    assert len(registry.offering("a")) == 1


def test_a_will_after_a_clean_stop_leaves_the_agent_stopped(registry: Registry) -> None:
    """Stopped is known better than gone."""
    registry.birth(_birth(5, "stopped"), KEY, 1.0)
    assert registry.gone(_gone(5), 2.0).presence is Presence.STOPPED


def test_offers_replace_those_before_and_old_ones_are_refused(registry: Registry) -> None:
    """The newest sequence counts, in whatever order they arrive."""
    registry.offers(_offers(5, 3, "b"), 7.0)
    with _refused("stale-session"):
        registry.offers(_offers(5, 2, "a", "b"), 8.0)
    agent = registry.get(KEY.id)
    assert set(agent.offers) == {"b"}
    assert agent.last_offered["a"] == 7.0


@pytest.mark.parametrize("session", [4, 6])
def test_offers_of_another_session_are_refused(registry: Registry, session: int) -> None:
    """Offers belong to the session that was announced."""
    with _refused("stale-session"):
        registry.offers(_offers(session, 9, "c"), 1.0)
    assert set(registry.get(KEY.id).offers) == {"a", "b"}


def test_offers_of_an_agent_that_is_not_online_are_refused(registry: Registry) -> None:
    """Late offers of an ended session are not taken."""
    registry.gone(_gone(5), 1.0)
    with _refused("stale-session"):
        registry.offers(_offers(5, 9, "a"), 2.0)
    assert registry.offering("a") == []


def test_who_is_no_longer_admitted_offers_nothing() -> None:
    """Revoking an admission ends its use at once."""
    registry = Registry(admit_anyone=False)
    registry.approved = frozenset({KEY.id})
    registry.birth(_birth(1), KEY, 0.0)
    registry.offers(_offers(1, 1, "a"), 0.0)
    assert len(registry.offering("a")) == 1
    registry.approved = frozenset()
    assert registry.offering("a") == []


def test_a_short_absence_is_remembered(registry: Registry) -> None:
    """A family counts as offered for a while after it was withdrawn."""
    assert registry.may_serve("a", None, ANYWHERE, None, 1e9)
    registry.gone(_gone(5), 20.0)
    assert registry.may_serve("a", None, ANYWHERE, None, 20.0)
    assert not registry.may_serve("a", None, ANYWHERE, None, 20.1)
    assert not registry.may_serve("never", None, ANYWHERE, None, 0.0)


def test_a_restored_agent_is_gone_until_it_speaks_and_keeps_its_session(registry: Registry) -> None:
    """After our own restart we know who served what, and which sessions are history."""
    registry.restore(OTHER.id, OTHER, 9, ["a"], 50.0)
    agent = registry.get(OTHER.id)
    assert agent == Agent(OTHER.id, OTHER, session=9, last_offered={"a": 50.0})
    assert agent.presence is Presence.GONE
    assert registry.may_serve("a", None, ANYWHERE, None, 50.0)
