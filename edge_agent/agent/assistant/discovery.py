"""The device discovery message of Home Assistant for this agent. Pure.

One device, with `origin`, `components` and a list for `availability`, as Home Assistant's MQTT integration specifies it
(https://www.home-assistant.io/integrations/mqtt/#device-discovery-payload). All components read one state topic.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from edge_agent.agent.policy import LIMITS, Pace

Control = Literal["off", "tighten", "orders"]
SUPPORT_URL = "https://github.com/edge-agent/edge-agent"
ONLINE, OFFLINE = "online", "offline"
STATES = ("working", "ready", "resting", "unable")
_WHY = "{{ value_json.why | tojson }}"


@dataclass(frozen=True, slots=True)
class Device:
    """What is told of this machine.

    Attributes:
        agent_id: of the agent.
        name: as people call it.
        model: of the board.
        version: of the agent.
        control: what may be asked of it.
        thermometer: whether the CPU's temperature is known.
        highest: value of each limit that the owner's file allows.
        prefix: of discovery topics, as Home Assistant is set up.
    """

    agent_id: str
    name: str
    model: str
    version: str
    control: Control
    thermometer: bool
    highest: Mapping[str, float]
    prefix: str = "homeassistant"

    @property
    def base(self) -> str:
        """Under which all topics of this agent are."""
        return f"edge-agent/{self.agent_id}"

    @property
    def discovery_topic(self) -> str:
        """Of the message that describes the device; retained."""
        return f"{self.prefix}/device/edge-agent-{self.agent_id}/config"

    @property
    def state_topic(self) -> str:
        """Of what it does; retained."""
        return f"{self.base}/state"

    @property
    def availability_topic(self) -> str:
        """Of whether the agent runs; retained, and the will."""
        return f"{self.base}/availability"

    @property
    def birth_topic(self) -> str:
        """On which Home Assistant says that it has started."""
        return f"{self.prefix}/status"

    def order_topic(self, what: str) -> str:
        """Return the topic of an order."""
        return f"{self.base}/set/{what}"

    @property
    def retained_topics(self) -> tuple[str, ...]:
        """All on which the broker keeps something for us."""
        return (self.discovery_topic, self.availability_topic, self.state_topic)


def message(device: Device) -> bytes:
    """Return the discovery message."""
    document = {
        "device": {
            "identifiers": [f"edge-agent-{device.agent_id}"],
            "name": device.name,
            "manufacturer": "edge-agent",
            "model": device.model,
            "sw_version": device.version,
            "serial_number": device.agent_id,
        },
        "origin": {"name": "edge-agent", "sw_version": device.version, "support_url": SUPPORT_URL},
        "availability": [
            {"topic": device.availability_topic, "payload_available": ONLINE, "payload_not_available": OFFLINE}
        ],
        "availability_mode": "all",
        "state_topic": device.state_topic,
        "qos": 1,
        "components": components(device),
    }
    return json.dumps(document, ensure_ascii=False).encode()


def components(device: Device) -> dict[str, dict[str, Any]]:
    """Return every component by its id; one that is not there now is named by its platform alone, which removes it."""
    wanted = {**_sensors(), **(_controls(device) if device.control != "off" else {})}
    if not device.thermometer:
        wanted.pop("temperature")
        wanted.pop("max_cpu_celsius", None)
    known = {**_sensors(), **_controls(device)}
    unique = f"edge-agent-{device.agent_id}"
    return {
        name: {"unique_id": f"{unique}-{name}", **found} if name in wanted else {"platform": found["platform"]}
        for name, found in known.items()
    }


def _sensor(name: str, template: str, **more: Any) -> dict[str, Any]:  # noqa: ANN401 whatever the platform takes
    return {"platform": "sensor", "name": name, "value_template": template, **more}


def _sensors() -> dict[str, dict[str, Any]]:
    return {
        "state": _sensor(
            "State",
            "{{ value_json.state }}",
            device_class="enum",
            options=list(STATES),
            icon="mdi:chip",
            json_attributes_template=_WHY,
        ),
        "temperature": _sensor(
            "CPU temperature",
            "{{ value_json.celsius }}",
            device_class="temperature",
            unit_of_measurement="°C",
            state_class="measurement",
            suggested_display_precision=0,
        ),
        "power": _sensor(
            "Power",
            "{{ value_json.watts }}",
            device_class="power",
            unit_of_measurement="W",
            state_class="measurement",
            suggested_display_precision=1,
        ),
        "energy": _sensor(
            "Energy of the work",
            "{{ value_json.kwh }}",
            device_class="energy",
            unit_of_measurement="kWh",
            state_class="total_increasing",
            suggested_display_precision=3,
        ),
        "jobs": _sensor("Jobs", "{{ value_json.jobs }}", state_class="total_increasing", icon="mdi:check-all"),
        "model": _sensor("Model", "{{ value_json.model }}", icon="mdi:brain"),
        "memory": _sensor(
            "Memory",
            "{{ value_json.memory_mb }}",
            device_class="data_size",
            unit_of_measurement="MB",
            state_class="measurement",
            suggested_display_precision=0,
        ),
        "update": {
            "platform": "update",
            "name": "Version",
            "entity_category": "diagnostic",
            "value_template": "{{ value_json.version | tojson }}",
        },
    }


def _controls(device: Device) -> dict[str, dict[str, Any]]:
    return {
        "work": {
            "platform": "switch",
            "name": "Work allowed",
            "value_template": "{{ value_json.work }}",
            "command_topic": device.order_topic("work"),
            "icon": "mdi:play-pause",
        },
        "mode": {
            "platform": "select",
            "name": "Mode",
            "value_template": "{{ value_json.mode }}",
            "command_topic": device.order_topic("mode"),
            "options": list(Pace),
        },
        "pause": {
            "platform": "button",
            "name": "Pause for an hour",
            "command_topic": device.order_topic("pause"),
            "icon": "mdi:timer-pause",
        },
        "cpu_share": _number(device, "cpu_share", "CPU share", "%", 5, 100),
        "max_other_cpu_share": _number(device, "max_other_cpu_share", "Other programs, at most", "%", 5, 100),
        "max_cpu_celsius": _number(device, "max_cpu_celsius", "CPU temperature, at most", "°C", 1, 1),
    }


def _number(device: Device, name: str, words: str, unit: str, step: int, factor: int) -> dict[str, Any]:  # noqa: PLR0913, PLR0917
    highest = round(factor * min(LIMITS[name].highest, device.highest.get(name, LIMITS[name].highest)))
    return {
        "platform": "number",
        "name": words,
        "value_template": f"{{{{ value_json.limits.{name} }}}}",
        "command_topic": device.order_topic(name),
        "min": round(factor * LIMITS[name].lowest),
        "max": highest,
        "step": step,
        "mode": "slider",
        "unit_of_measurement": unit,
        "entity_category": "config",
    }
