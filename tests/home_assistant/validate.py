"""Checks a device discovery message on standard input with Home Assistant's own schemas; run by the Python that has it.

Only the schemas are wanted: what else Home Assistant would import (its cloud, cameras, bluetooth) is left out.
"""
# ruff: noqa: ANN001, ANN201, D101, D102, T201, PLC0415

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import json
import sys
from unittest.mock import MagicMock

ABSENT = {
    "hass_nabucasa",
    "PIL",
    "turbojpeg",
    "zeroconf",
    "habluetooth",
    "aiohasupervisor",
    "bluetooth_data_tools",
    "uv",
}


class Absent(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ABSENT:
            return importlib.machinery.ModuleSpec(name, self, is_package=True)
        return None

    def create_module(self, spec):
        module = MagicMock(name=spec.name)
        module.__path__, module.__spec__ = [], spec
        return module

    def exec_module(self, module):
        pass


def main() -> int:
    """Check, and print what is wrong."""
    sys.meta_path.insert(0, Absent())
    from homeassistant.components.mqtt import schemas  # type: ignore[import-not-found]

    document = json.load(sys.stdin)
    schemas.DEVICE_DISCOVERY_SCHEMA(document)
    shared = {name: value for name, value in document.items() if name in schemas.SHARED_OPTIONS}
    checked = []
    for name, given in document["components"].items():
        component = dict(given)
        platform = component.pop("platform")
        if not component:
            continue  # by this it is removed
        own = dict(shared)
        if platform == "button":
            own.pop("state_topic")  # Home Assistant drops what a platform does not know
        whole = {**own, **component, "device": document["device"], "qos": document["qos"]}
        importlib.import_module(f"homeassistant.components.mqtt.{platform}").PLATFORM_SCHEMA_MODERN(whole)
        checked.append(name)
    print(json.dumps(checked))
    return 0


if __name__ == "__main__":
    sys.exit(main())
