"""What an agent was told when it enrolled: the layer of settings above the defaults, so that it runs without others.

`edge-agent enrol` writes `enrolment.toml` into the agent's state directory. It can only set what is listed here.
"""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Final

from edge_agent.errors import SettingsError

ENROLMENT_FILE: Final = "enrolment.toml"
MAX_ENROLMENT_BYTES: Final = 8192
TEXTS: Final = ("network.name", "broker.url")
PATHS: Final = ("broker.ca_file", "broker.client_cert_file", "broker.client_key_file")


def enrolled(state_dir: object) -> dict[str, object]:
    """Return the settings that an enrolment brought; none where there was no enrolment.

    Raises:
        SettingsError: the file is not what `edge-agent enrol` writes.
    """
    if not isinstance(state_dir, Path):
        return {}
    file = state_dir / ENROLMENT_FILE
    try:
        with file.open("rb") as stream:
            text = stream.read(MAX_ENROLMENT_BYTES + 1)
    except OSError:  # not there, or not ours to read: then it is not our agent's
        return {}
    try:
        document = tomllib.loads(text[:MAX_ENROLMENT_BYTES].decode())
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(f"{file} is damaged: {error}.", hint="Run `edge-agent enrol` again.") from error
    found: dict[str, object] = {}
    for section, content in document.items():
        for name, value in content.items() if isinstance(content, dict) else ():
            dotted = f"{section}.{name}"
            if dotted in TEXTS and isinstance(value, str):
                found[dotted] = value
            elif dotted in PATHS and isinstance(value, str):
                found[dotted] = state_dir / value
            else:
                raise SettingsError(f"{file} has {dotted[:64]!r}, which no enrolment sets.")
    return found


def text_of(values: dict[str, str]) -> str:
    """Return the file for settings of `TEXTS` and `PATHS`; paths are names inside the state directory."""
    lines = ["# Written by `edge-agent enrol`. Your own settings file wins over it."]
    for section in ("network", "broker"):
        mine = {name: value for name, value in values.items() if name.startswith(f"{section}.")}
        if mine:
            lines += ["", f"[{section}]"]
            lines += [f"{name.partition('.')[2]} = {json.dumps(value)}" for name, value in mine.items()]
    return "\n".join(lines) + "\n"
