"""Home Assistant: what it is told, when, and what it may ask."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.agent.assistant.assistant import AGAIN_SECONDS, BIRTH_DELAY_SECONDS, Assistant
from edge_agent.agent.assistant.discovery import Control, Device, components, message
from edge_agent.agent.assistant.orders import ORDERS, parse, why_not
from edge_agent.agent.policy import Adjustments, Pace
from edge_agent.clock import Now
from edge_agent.settings import Policy

STATUS: dict[str, Any] = {
    "mode": "rest",
    "order": "pause",
    "pace": "normal",
    "cpu_celsius": 51.23,
    "families": [{"family": "digits", "chosen": "fp32"}, {"family": "none", "chosen": None}],
    "limits": {
        "cpu_share": {"value": 0.5, "highest": 0.8},
        "max_cpu_celsius": {"value": None, "highest": 120.0},
        "max_other_cpu_share": {"value": None, "highest": 1.0},
    },
    "reasons": [{"text": "you paused it", "change": "edge-agent resume"}],
    "obstacles": [],
    "attempts": {"running": 0, "waiting": 0},
    "today": {"digits": {"finished": 3}},
    "account": {
        "watts": 4.5,
        "watts_source": "plug",
        "kwh_ever": 1.25,
        "finished_ever": 1234,
        "cost_today": 0.01,
        "currency": "EUR",
    },
}

# As https://www.home-assistant.io/integrations/mqtt/ documents them: what a component must have, and what it may have.
COMMON = {"unique_id", "name", "icon", "value_template", "entity_category", "device_class", "platform"}
PLATFORMS: dict[str, tuple[set[str], set[str]]] = {
    "sensor": (
        set(),
        {"state_class", "unit_of_measurement", "suggested_display_precision", "options", "json_attributes_template"},
    ),
    "switch": ({"command_topic"}, set()),
    "select": ({"command_topic", "options"}, set()),
    "number": ({"command_topic"}, {"min", "max", "step", "mode", "unit_of_measurement"}),
    "button": ({"command_topic"}, set()),
    "update": (set(), set()),
}


def device(control: Control = "orders", *, thermometer: bool = True) -> Device:
    """Return one."""
    return Device("a" * 32, "Kitchen Pi", "Raspberry Pi 5", "1.2.3", control, thermometer, {"cpu_share": 0.8})


class Scene:
    """An assistant, what it said, and a clock."""

    def __init__(self, control: Control = "orders") -> None:
        self.said: list[tuple[str, bytes]] = []
        self.connected, self.seconds = True, 100.0
        self.assistant = Assistant(device(control), self._publish, lambda: 0.5)

    def _publish(self, topic: str, payload: bytes) -> bool:
        if self.connected:
            self.said.append((topic, payload))
        return self.connected

    @property
    def now(self) -> Now:
        """The moment."""
        return Now(self.seconds, 0)

    def look(self, status: dict[str, Any] | None = None) -> list[str]:
        """Look when it is due; return the last levels of the topics on which something was said."""
        self.said.clear()
        self.assistant.look(self.now, status or STATUS, 88_000_000, "1.3.0")
        return [topic.rpartition("/")[2] for topic, _ in self.said]


# -- the message ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("control", ["orders", "tighten", "off"])
@pytest.mark.parametrize("thermometer", [True, False])
def test_the_discovery_message_is_as_home_assistant_documents_it(control: Control, *, thermometer: bool) -> None:
    """One device, an origin, a list for availability, and components with what each platform knows and no more."""
    document = json.loads(message(device(control, thermometer=thermometer)))
    assert document["device"]["identifiers"] == ["edge-agent-" + "a" * 32]
    assert set(document["origin"]) == {"name", "sw_version", "support_url"}
    (availability,) = document["availability"]
    assert set(availability) == {"topic", "payload_available", "payload_not_available"}
    ids = set()
    for found in document["components"].values():
        if set(found) == {"platform"}:
            continue
        needed, more = PLATFORMS[found["platform"]]
        assert needed <= set(found) <= COMMON | needed | more
        ids.add(found["unique_id"])
    assert len(ids) == sum(len(found) > 1 for found in document["components"].values())


def test_energy_can_be_taken_for_the_energy_dashboard() -> None:
    """Which wants this class, this unit and a sum that only grows."""
    energy = components(device())["energy"]
    assert (energy["device_class"], energy["unit_of_measurement"], energy["state_class"]) == (
        "energy",
        "kWh",
        "total_increasing",
    )


def test_what_may_not_be_asked_is_not_there() -> None:
    """It is named by its platform alone, which removes it where it was there before."""
    assert {"platform": "switch"} in components(device("off")).values()
    assert not any("command_topic" in found for found in components(device("off")).values())
    assert components(device(thermometer=False))["temperature"] == {"platform": "sensor"}


def test_numbers_end_where_the_file_does() -> None:
    """Nobody is offered what would be refused."""
    assert components(device())["cpu_share"]["max"] == 80


# -- when it is said --------------------------------------------------------------------------------------------------


def test_everything_is_said_to_a_broker_that_may_know_nothing() -> None:
    """And again after each connection; then only what changes."""
    scene = Scene()
    for _ in range(2):
        scene.assistant.connected(scene.now)
        assert scene.look() == ["config", "availability", "state"]
        assert scene.assistant.look_at == scene.seconds + AGAIN_SECONDS
    assert scene.look() == []
    assert scene.look({**STATUS, "mode": "work", "order": None}) == ["state"]


def test_it_is_said_again_when_home_assistant_starts_after_a_delay_of_its_own() -> None:
    """Not at once, and not because of what the broker had kept."""
    scene = Scene()
    scene.assistant.connected(scene.now)
    scene.look()
    scene.assistant.heard("homeassistant/status", b"online", retained=True, now=scene.now)
    assert scene.assistant.look_at == scene.seconds + AGAIN_SECONDS
    scene.assistant.heard("homeassistant/status", b"online", retained=False, now=scene.now)
    assert scene.assistant.look_at == scene.seconds + sum(BIRTH_DELAY_SECONDS) / 2
    assert scene.look() == []
    scene.seconds += 8
    assert scene.look() == ["config", "availability", "state"]


def test_what_was_not_taken_is_said_again() -> None:
    """A broker that is away has heard nothing."""
    scene = Scene()
    scene.connected = False
    assert scene.look() == []
    scene.connected = True
    assert scene.look() == ["state"]


def test_a_flood_of_changes_is_said_seldom() -> None:
    """Twice in the same moment is once."""
    scene = Scene()
    scene.look()
    scene.assistant.hurry(scene.now)
    assert scene.assistant.look_at == scene.seconds + 2


def test_leaving_and_forgetting() -> None:
    """The one makes it unavailable, the other takes all back: empty messages remove what a broker keeps."""
    scene = Scene()
    scene.assistant.leave()
    assert scene.said == [(scene.assistant.device.availability_topic, b"offline")]
    scene.said.clear()
    scene.assistant.forget()
    assert {payload for _, payload in scene.said} == {b""}
    assert {topic for topic, _ in scene.said} == set(scene.assistant.device.retained_topics)


def test_the_state_says_all_reasons_and_no_guess() -> None:
    """Unknown is null, which Home Assistant shows as unknown."""
    scene = Scene()
    scene.look({**STATUS, "cpu_celsius": None, "account": {**STATUS["account"], "watts": None}})
    said = json.loads(scene.said[-1][1])
    assert (said["celsius"], said["watts"], said["kwh"], said["jobs"], said["model"]) == (
        None,
        None,
        1.25,
        1234,
        "digits",
    )
    assert (said["state"], said["work"]) == ("resting", "OFF")
    assert said["why"]["reasons"] == ["you paused it"]
    assert said["limits"] == {"cpu_share": 50, "max_cpu_celsius": 120, "max_other_cpu_share": 100}
    assert said["version"] == {"installed_version": "1.2.3", "latest_version": "1.3.0"}


# -- what it may ask --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "payload", "request_"),
    [
        ("work", b"ON", {"do": "resume"}),
        ("work", b"OFF", {"do": "pause"}),
        ("pause", b"PRESS", {"do": "pause", "seconds": 3600.0}),
        ("mode", b"quiet", {"do": "adjust", "pace": "quiet"}),
        ("cpu_share", b"25", {"do": "adjust", "cpu_share": 0.25}),
        ("max_cpu_celsius", b"61.5", {"do": "adjust", "max_cpu_celsius": 61.5}),
    ],
)
def test_orders_as_home_assistant_gives_them(what: str, payload: bytes, request_: dict[str, Any]) -> None:
    """Each is what the owner's commands ask."""
    assert parse(what, payload) == request_


@given(st.sampled_from([*ORDERS, "else"]), st.binary(max_size=80))
def test_any_bytes_are_an_order_or_refused(what: str, payload: bytes) -> None:
    """And never raise."""
    found = parse(what, payload)
    assert isinstance(found, str | dict)


@pytest.mark.parametrize("payload", [b"", b"nan", b"inf", b"101", b"4", b"-5", b"1e9", b"0x20", b"on"])
def test_what_is_no_limit_is_refused(payload: bytes) -> None:
    """Numbers out of range, and what is none."""
    assert isinstance(parse("cpu_share", payload), str)


def test_an_order_that_the_broker_had_kept_is_none() -> None:
    """Else whoever once published it would decide for ever, at each connection anew."""
    assistant = Scene().assistant
    topic = assistant.device.order_topic("work")
    assert assistant.heard(topic, b"ON", retained=True, now=Now(0, 0)) is None
    assert assistant.heard(topic, b"ON", retained=False, now=Now(0, 0)) == "work"


def test_whoever_may_only_tighten_cannot_loosen() -> None:
    """Neither by resuming, nor by the mode, nor by a limit."""
    own, now, quiet = Policy(), Adjustments(), Adjustments(Pace.QUIET)
    assert why_not({"do": "resume"}, "tighten", own, now, now)
    assert why_not({"do": "adjust", "pace": "normal"}, "tighten", own, quiet, now)
    assert why_not({"do": "adjust", "pace": "quiet"}, "tighten", own, now, quiet) is None
    assert why_not({"do": "pause"}, "tighten", own, now, now) is None
    assert why_not({"do": "adjust", "pace": "normal"}, "orders", own, quiet, now) is None
    assert why_not({"do": "pause"}, "off", own, now, now)


@pytest.mark.parametrize("control", ["orders", "tighten"])
def test_no_limit_goes_above_the_file(control: Control) -> None:
    """However much may be asked."""
    own = Policy(cpu_share=0.5)
    asked = {"do": "adjust", "cpu_share": 0.6}
    why = why_not(asked, control, own, Adjustments(), Adjustments(cpu_share=0.6))
    assert why is not None
    assert "your file" in why


def test_who_may_ask_nothing_is_not_listened_to() -> None:
    """Only to the moment at which Home Assistant starts."""
    assert Scene("off").assistant.topics == ("homeassistant/status",)
    assert len(Scene("tighten").assistant.topics) == 1 + len(ORDERS)
