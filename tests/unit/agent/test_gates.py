"""Readings of gates: what messages say, how old they are, and what a broker cannot make of them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.agent import gates as module
from edge_agent.agent.gates import MAX_PAYLOAD_BYTES, Gates, parse_reading
from edge_agent.agent.policy import Reading
from edge_agent.clock import Now
from edge_agent.mqtt import BrokerAddress, Connected, Disconnected, LinkEvent, LinkOptions, Message
from edge_agent.settings import parse_gate

ROOF = parse_gate("roof/watts > 500 within 60")
PRICE = parse_gate("grid#price.now < 0.2")
OPTIONS = LinkOptions(address=BrokerAddress("127.0.0.1", 1), client_id="someone")


class FakeLink:
    """Stands for the link to the broker at home."""

    made: list[FakeLink]

    def __init__(self, options: LinkOptions, topics: list[str], sink: Callable[[LinkEvent], None], **_: object) -> None:
        self.options, self.topics, self.say = options, topics, sink
        self.state = "new"
        self.made.append(self)

    def start(self) -> None:
        """Begin."""
        self.state = "started"

    def stop(self, _seconds: float) -> bool:
        """End."""
        self.state = "stopped"
        return True


class Scene:
    """Gates that listen, a link that the test plays, and a clock."""

    def __init__(self) -> None:
        self.seconds = 100.0
        self.gates = Gates(lambda: self.seconds)
        self.gates.listen([ROOF, PRICE], OPTIONS)
        (self.link,) = FakeLink.made

    def hear(self, topic: str, payload: bytes, *, retain: bool = False) -> None:
        """Let the broker give a message."""
        self.link.say(Message(topic, payload, retain))

    @property
    def roof(self) -> Reading:
        """The reading of the gate on the roof."""
        return self.gates.read([ROOF, PRICE], Now(self.seconds, 0))[ROOF.text]


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    """Return one with two gates."""
    FakeLink.made = []
    monkeypatch.setattr(module, "Link", FakeLink)
    return Scene()


@pytest.mark.parametrize(
    ("payload", "member", "number"),
    [
        (b"512.5", (), 512.5),
        (b" -3 \n", (), -3.0),
        (b"1e3", (), 1000.0),
        (b"ON", (), 1.0),
        (b"off", (), 0.0),
        (b"true", (), 1.0),
        (b'{"power": 12}', ("power",), 12.0),
        (b'{"price": {"now": "0.19"}}', ("price", "now"), 0.19),
        (b'{"state": true}', ("state",), 1.0),
    ],
)
def test_numbers_as_home_automation_says_them(payload: bytes, member: tuple[str, ...], number: float) -> None:
    """Plain, as words, or in JSON objects."""
    assert parse_reading(payload, member) == number


@pytest.mark.parametrize(
    ("payload", "member"),
    [
        (b"", ()),
        (b"unavailable", ()),
        (b"nan", ()),
        (b"inf", ()),
        (b"1_000", ()),
        (b"9" * 400, ()),
        (b"\xff", ()),
        (b'{"power": 1}', ()),
        (b"1", ("power",)),
        (b"{", ("power",)),
        (b"[1]", ("power",)),
        (b'{"power": null}', ("power",)),
        (b'{"power": NaN}', ("power",)),
        (b'{"power": 1' + b"0" * 400 + b"}", ("power",)),
        (b'{"power": 1}', ("watts",)),
        (b'{"power": "x"}', ("power", "y")),
        (b"[" * 100_000, ("power",)),
    ],
)
def test_what_is_no_number_is_no_reading(payload: bytes, member: tuple[str, ...]) -> None:
    """The reason says what is wrong with it."""
    assert isinstance(parse_reading(payload, member), str)


@given(st.binary(max_size=100), st.lists(st.text(max_size=5), max_size=2))
def test_any_bytes_are_a_number_or_none(payload: bytes, member: list[str]) -> None:
    """Nothing else comes out of reading them."""
    assert isinstance(parse_reading(payload, member), float | str)


def test_the_last_message_counts_until_it_is_stale(scene: Scene) -> None:
    """Then there is no reading, and the reason says how old it is."""
    assert scene.roof.pending
    scene.hear("roof/watts", b"900")
    assert scene.roof == Reading(900.0)
    scene.hear("roof/watts", b"400")
    scene.seconds += 60
    assert scene.roof == Reading(400.0)
    scene.seconds += 0.1
    assert scene.roof.value is None
    assert "60 s old" in scene.roof.why
    assert not scene.roof.pending


def test_what_the_broker_kept_gets_no_younger_when_it_is_given_again(scene: Scene) -> None:
    """At each connection; only another number is news."""
    scene.hear("roof/watts", b"900", retain=True)
    scene.seconds += 61
    scene.hear("roof/watts", b"900", retain=True)
    assert scene.roof.value is None
    scene.hear("roof/watts", b"901", retain=True)
    assert scene.roof.value == 901.0


def test_a_topic_that_was_not_asked_for_is_no_reading(scene: Scene) -> None:
    """Some brokers give away what others subscribed to."""
    scene.hear("roof/watts2", b"900")
    scene.hear("roof", b"900")
    assert scene.roof.value is None


def test_a_message_of_megabytes_is_no_reading(scene: Scene) -> None:
    """It is not kept, and what was said before counts no more."""
    scene.hear("roof/watts", b"900")
    scene.hear("roof/watts", b"9" * (MAX_PAYLOAD_BYTES + 1))
    assert scene.roof.value is None


def test_a_broker_that_is_away_is_said(scene: Scene) -> None:
    """While a reading is fresh, it counts all the same."""
    scene.link.say(Disconnected(1, "the cable", "transport"))
    assert "the cable" in scene.roof.why
    scene.hear("roof/watts", b"900")
    assert scene.roof.value == 900.0
    scene.seconds += 100
    assert "the cable" in scene.roof.why
    scene.link.say(Connected(2, "5", 1000))
    assert "the cable" not in scene.roof.why


def test_the_link_follows_the_rules(scene: Scene) -> None:
    """Others topics, another link; the same ones, the same; none, none at all."""
    assert (scene.link.topics, scene.link.state) == (["grid", "roof/watts"], "started")
    scene.gates.listen([PRICE, ROOF], OPTIONS)
    assert len(FakeLink.made) == 1
    scene.hear("roof/watts", b"900")
    scene.gates.listen([ROOF], OPTIONS)
    assert (scene.link.state, FakeLink.made[1].topics) == ("stopped", ["roof/watts"])
    assert scene.roof.pending
    scene.gates.listen([], OPTIONS)
    assert [link.state for link in FakeLink.made] == ["stopped", "stopped"]


def test_a_broker_that_cannot_be_used_is_said_and_the_gate_stays_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """For example a TLS file that is none."""
    tls = LinkOptions(address=BrokerAddress("127.0.0.1", 1, tls=True), client_id="x", ca_file=Path("/none.pem"))
    gates = Gates(lambda: 0.0)
    gates.listen([ROOF], tls)
    reading = gates.read([ROOF], Now(0.0, 0))[ROOF.text]
    assert reading.value is None
    assert "none.pem" in reading.why
