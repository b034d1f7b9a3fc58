from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import MalformedError, UsageError
from edge_agent.wire.topics import CHANNELS, DOWN_CHANNELS, UP_CHANNELS, Topics

AGENT = "abcdefghijklmnopqrstuvwxyz234567"
TOPICS = Topics("home-1_x")


@pytest.mark.parametrize("channel", CHANNELS)
def test_a_topic_of_every_channel_parses_back(channel: str) -> None:
    """Building and parsing agree for each channel."""
    topic = getattr(TOPICS, channel)(AGENT)
    assert topic == f"ea1/home-1_x/{AGENT}/{channel}"
    assert TOPICS.parse(topic) == (AGENT, channel)
    assert TOPICS.all_agents(channel) == f"ea1/home-1_x/+/{channel}"


def test_the_coordinators_topic_parses_back() -> None:
    """The coordinator has one topic and no id in it."""
    assert TOPICS.coordinator == "ea1/home-1_x/coordinator"
    assert TOPICS.parse(TOPICS.coordinator) == (None, "coordinator")


def test_what_an_agent_tries_out_is_nobody_elses_channel() -> None:
    """Some brokers give away what others subscribed to: it parses, and is no channel that anybody acts on."""
    assert TOPICS.parse(f"{TOPICS.probe(AGENT)}/kept") == (AGENT, "probe")
    assert "probe" not in CHANNELS
    for topic in (TOPICS.probe(AGENT), f"{TOPICS.jobs(AGENT)}/kept", f"{TOPICS.probe(AGENT)}/a/b"):
        with pytest.raises(MalformedError):
            TOPICS.parse(topic)


def test_an_agent_reads_its_down_topics_and_no_other() -> None:
    """Up and down share no channel."""
    assert TOPICS.all_channels(AGENT) == tuple(f"ea1/home-1_x/{AGENT}/{channel}" for channel in DOWN_CHANNELS)
    assert not set(UP_CHANNELS) & set(DOWN_CHANNELS)
    assert repr(TOPICS) == "Topics('home-1_x')"


@pytest.mark.parametrize("network", ["", "Home", "-a", "_a", "a.b", "a/b", "a+", "#", "a" * 33, "a\n", "hé", "a b"])
def test_a_network_that_is_not_one_token_is_refused(network: str) -> None:
    """Such a name would mean another topic, or none."""
    with pytest.raises(UsageError):
        Topics(network)


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "ea1/home-1_x",
        f"ea1/other/{AGENT}/birth",
        f"ea2/home-1_x/{AGENT}/birth",
        f"ea1/home-1_x/{AGENT}/nonsense",
        f"ea1/home-1_x/{AGENT}/birth/more",
        f"/ea1/home-1_x/{AGENT}/birth",
        f"ea1/home-1_x/{AGENT}/birth/",
        f"ea1/home-1_x/{AGENT[:-1]}/birth",
        f"ea1/home-1_x/{AGENT.upper()}/birth",
        f"ea1/home-1_x/{AGENT}\n/birth",
        "ea1/home-1_x/+/birth",
        "ea1/home-1_x/coordinator/birth",
        "ea1/home-1_x/coordinator\n",
        "$SYS/broker/uptime",
    ],
)
def test_a_topic_of_something_else_is_refused(topic: str) -> None:
    """Only this network's topics parse."""
    with pytest.raises(MalformedError):
        TOPICS.parse(topic)


@given(st.text(max_size=80))
def test_any_text_is_refused_or_is_a_topic_that_we_would_build(topic: str) -> None:
    """Nothing but a MalformedError leaves the parser."""
    try:
        agent_id, channel = TOPICS.parse(topic)
    except MalformedError:
        return
    assert topic in (TOPICS.coordinator, f"ea1/home-1_x/{agent_id}/{channel}")


@pytest.mark.parametrize("agent_id", ["", "+", "#", AGENT + "a", AGENT.upper(), AGENT[:-1] + "1", AGENT[:-1] + "/"])
def test_no_topic_is_built_for_something_that_is_no_agent_id(agent_id: str) -> None:
    """A wildcard in place of an id would subscribe to everybody."""
    with pytest.raises(ValueError, match="is not an agent's id"):
        TOPICS.jobs(agent_id)


def test_there_is_no_filter_for_an_unknown_channel() -> None:
    """A typing error does not become a filter that matches nothing."""
    with pytest.raises(ValueError, match="is not a channel"):
        TOPICS.all_agents("births")
