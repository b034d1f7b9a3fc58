"""The probe of a broker, step by step, and what is said of what it found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge_agent.mqtt.abilities import Abilities
from edge_agent.mqtt.probe import PATIENCE_SECONDS, WAIT_SECONDS, Ask, Keep, Leave, Probe

END = [Keep("probe/kept", b""), Leave(("probe/kept", "probe/+"))]


def asked() -> Probe:
    """Return a probe whose message is kept and that has asked for it."""
    probe = Probe("probe", 0.0)
    assert probe.begin() == [Keep("probe/kept", b"kept")]
    assert probe.on_acknowledged() == [Ask("probe/kept")]
    return probe


def test_a_broker_that_can_everything() -> None:
    """Two questions, two answers, and the message is taken back."""
    probe = asked()
    assert probe.on_subscribed(0.1, granted=True) == []
    assert probe.on_message(retain=True) == [Ask("probe/+")]
    assert probe.on_subscribed(0.2, granted=True) == []
    assert probe.on_message(retain=True) == END
    assert (probe.retained, probe.retained_by_wildcard, probe.done) == (True, True, True)


def test_a_message_that_comes_before_the_suback_counts() -> None:
    """Some brokers do it in this order."""
    probe = asked()
    assert probe.on_message(retain=True) == [Ask("probe/+")]
    assert probe.on_message(retain=True) == END
    assert (probe.retained, probe.retained_by_wildcard) == (True, True)


def test_a_broker_that_keeps_nothing() -> None:
    """A live copy of the message says nothing; after a second without a kept one the answer is no."""
    probe = asked()
    probe.on_subscribed(0.1, granted=True)
    assert probe.on_message(retain=False) == []
    assert probe.on_time(0.1 + WAIT_SECONDS - 0.01) == []
    assert probe.on_time(0.1 + WAIT_SECONDS) == END
    assert (probe.retained, probe.retained_by_wildcard) == (False, False)


def test_a_broker_that_gives_kept_messages_by_name_only() -> None:
    """RabbitMQ before 4.0."""
    probe = asked()
    probe.on_subscribed(0.1, granted=True)
    probe.on_message(retain=True)
    probe.on_subscribed(0.2, granted=True)
    assert probe.on_time(0.2 + WAIT_SECONDS) == END
    assert (probe.retained, probe.retained_by_wildcard) == (True, False)


def test_topics_that_we_may_not_use_tell_nothing() -> None:
    """Access control is no lack of the broker's."""
    probe = asked()
    assert probe.on_subscribed(0.1, granted=False) == END
    silent = Probe("probe", 0.0)
    assert silent.on_time(PATIENCE_SECONDS) == END
    for found in (probe, silent):
        assert (found.retained, found.retained_by_wildcard) == (None, None)


@given(
    st.lists(
        st.tuples(st.sampled_from(["acknowledged", "granted", "refused", "kept", "live", "time"]), st.floats(0.0, 2.0)),
        max_size=12,
    )
)
def test_whatever_a_broker_says_the_probe_ends_and_cleans_up_once(events: list[tuple[str, float]]) -> None:
    """In any order, repeated or never."""
    probe, now = Probe("probe", 0.0), 0.0
    did = probe.begin()
    for event, seconds in [*events, ("time", PATIENCE_SECONDS), ("kept", 0.0), ("time", 1.0)]:
        now += seconds
        match event:
            case "acknowledged":
                did += probe.on_acknowledged()
            case "granted" | "refused":
                did += probe.on_subscribed(now, granted=event == "granted")
            case "kept" | "live":
                did += probe.on_message(retain=event == "kept")
            case _:
                did += probe.on_time(now)
    assert probe.done
    assert did[-2:] == END
    assert did.count(END[0]) == 1
    assert not (probe.retained_by_wildcard and not probe.retained)


def test_what_is_lacking_is_said_in_words() -> None:
    """Only what is known, and only what we would use."""
    assert Abilities("5", 1000, 20, 2, retained=True, retained_by_wildcard=True, wildcards=True).lacking(1000) == ()
    lacking = Abilities("3.1.1", 999, 20, 0, retained=False, wildcards=False).lacking(1000)
    assert [text.split(" (")[0] for text in lacking] == [
        "MQTT 5",
        "packets above 999 bytes",
        "QoS 1",
        "retained messages",
        "subscriptions with wildcards, which a coordinator needs",
    ]
    assert Abilities("5", retained=True, retained_by_wildcard=False).lacking(1) == (
        "retained messages for subscriptions with wildcards",
    )
