"""Where settings come from: layers of which later ones win, and the origin of each effective value.

Defaults, what an enrolment brought, one TOML file, the environment (`EDGE_AGENT_<SECTION>_<KEY>`), flags. An
unknown name is an error that says the closest right one.
"""

from __future__ import annotations

import os
import pwd
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr, ValidationError

from edge_agent.errors import SettingsError
from edge_agent.settings.enrolment import ENROLMENT_FILE, enrolled
from edge_agent.settings.fields import MIB
from edge_agent.settings.keys import ENVIRONMENT_PREFIX, HIDDEN, KEYS, Key, plain
from edge_agent.settings.model import Settings
from edge_agent.spelling import closest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONFIG_VARIABLE = "EDGE_AGENT_CONFIG"
OTHER_VARIABLES = (CONFIG_VARIABLE, "EDGE_AGENT_REFERENCE_DATA", "EDGE_AGENT_REQUIRE_ALL")
"""Variables with our prefix that are no settings: the path of the file, and two that the tests read."""
SYSTEM_CONFIG = Path("/etc/edge-agent/config.toml")
MAX_CONFIG_BYTES = MIB

_BY_VARIABLE = {key.variable: key for key in KEYS.values()}
_SECRETS = {"broker.password": "broker.password_file", "client.api_key": "client.api_key_file"}
"""Settings that only the environment may hold, and which setting names a file for each."""


@dataclass(frozen=True)
class Effective:
    """Checked settings and the origin of each.

    Attributes:
        settings: what holds.
        sources: for every `section.name`: "default", "enrolment FILE", "file PATH", "environment VARIABLE" or
            "flag --NAME".
        file: the TOML file that was read, if any.
    """

    settings: Settings
    sources: Mapping[str, str]
    file: Path | None

    def value(self, dotted: str) -> Any:  # noqa: ANN401 - each setting has a type of its own
        """Return the value of `section.name`."""
        section, _, name = dotted.partition(".")
        return getattr(getattr(self.settings, section), name)

    def shown(self) -> dict[str, Any]:
        """Return every value in a form that JSON holds, secrets replaced by "(set)"."""
        values: dict[str, Any] = {}
        for dotted in KEYS:
            value = self.value(dotted)
            match value:
                case SecretStr():
                    value = HIDDEN
                case Path():
                    value = str(value)
                case tuple():
                    value = list(value)
            values[dotted] = value
        return values


def load(path: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Effective:
    """Read all layers and check them.

    Args:
        path: the TOML file; None takes `EDGE_AGENT_CONFIG`, else the first of the default paths that exists.
        environ: the environment.
        flags: values by `section.name`; None means that the flag was not given.

    Raises:
        SettingsError: an unknown name, a wrong value, or a file that cannot be read; it says which and where.
    """
    file = _find_file(path, environ)
    values: dict[str, object] = {}
    sources = dict.fromkeys(KEYS, "default")

    if file is not None:
        for dotted, value in _read_file(file).items():
            values[dotted] = _from_toml(KEYS[dotted], value, file.parent, environ)
            sources[dotted] = f"file {file}"
    for key, text in _read_environment(environ):
        values[key.dotted] = _from_text(key, text, environ)
        sources[key.dotted] = f"environment {key.variable}"
    for dotted, value in flags.items():
        if value is None:
            continue
        flag_key = KEYS[dotted]
        values[dotted] = _from_text(flag_key, value, environ) if isinstance(value, str) else value
        sources[dotted] = f"flag {flag_key.flag.name if flag_key.flag else dotted}"

    _add_derived_defaults(values, environ)
    for dotted, value in enrolled(values["agent.state_dir"]).items():
        if sources[dotted] == "default":
            values[dotted] = value
            sources[dotted] = f"enrolment {ENROLMENT_FILE}"
    nested: dict[str, dict[str, object]] = {section: {} for section in Settings.model_fields}
    for dotted, value in values.items():
        key = KEYS[dotted]
        nested[key.section][key.name] = value
    try:
        settings = Settings.model_validate(nested)
    except ValidationError as error:
        raise _explained(error, values, sources) from None
    return Effective(settings, sources, file)


# -- the layers ----------------------------------------------------------------------------------------------


def default_paths(environ: Mapping[str, str]) -> tuple[Path, ...]:
    """Return where the file is looked for when nobody names it, in this order."""
    home = _xdg(environ, "XDG_CONFIG_HOME", ".config")
    return (SYSTEM_CONFIG,) if home is None else (SYSTEM_CONFIG, home / "edge-agent" / "config.toml")


def _find_file(path: Path | None, environ: Mapping[str, str]) -> Path | None:
    if path is None and environ.get(CONFIG_VARIABLE):
        path = Path(environ[CONFIG_VARIABLE])
    if path is not None:
        return Path(os.path.abspath(path.expanduser()))  # noqa: PTH100 - resolve() would follow links
    for candidate in default_paths(environ):
        try:
            candidate.stat()
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # Someone else's home may be closed to a service; what cannot be looked at is not there for it.
            continue
        return candidate
    return None


def _read_file(file: Path) -> dict[str, object]:
    try:
        with file.open("rb") as stream:
            data = stream.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise SettingsError(
                f"The settings file {file} is longer than {MAX_CONFIG_BYTES} bytes.",
                hint="Is it the right file? See docs/settings.md.",
            )
        document = tomllib.loads(data.decode())
    except OSError as error:
        raise SettingsError(
            f"The settings file {file} cannot be read: {error.strerror}.",
            hint=f"Check the path and its permissions, or take {CONFIG_VARIABLE} or --config away.",
        ) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise SettingsError(
            f"The settings file {file} is not TOML: {str(error) or 'nested too deep'}.",
            hint='TOML looks like this: [broker] on one line, url = "mqtt://127.0.0.1:1883" on the next.',
        ) from error
    values: dict[str, object] = {}
    for section, content in document.items():
        if section not in Settings.model_fields:
            raise _unknown(section, file)
        if not isinstance(content, dict):
            raise SettingsError(
                f"In {file}, {section} is a value but must be a section.",
                hint=f"Write [{section}] on a line.",
            )
        for name, value in content.items():
            dotted = f"{section}.{name}"
            if dotted not in KEYS:
                raise _unknown(dotted, file)
            if dotted in _SECRETS:
                raise SettingsError(
                    f"In {file}, {dotted} is set, but this file is no place for a secret.",
                    hint=f"Put it into a file named by {_SECRETS[dotted]}, or into {KEYS[dotted].variable}.",
                )
            values[dotted] = value
    return values


def _read_environment(environ: Mapping[str, str]) -> Iterator[tuple[Key, str]]:
    for variable, text in environ.items():
        if not variable.startswith(ENVIRONMENT_PREFIX) or variable in OTHER_VARIABLES:
            continue
        key = _BY_VARIABLE.get(variable)
        if key is None:
            close = closest(variable, (*_BY_VARIABLE, *OTHER_VARIABLES))
            raise SettingsError(
                f"The environment variable {variable[:100]} is no setting.",
                hint=f"Did you mean {close}?" if close else "docs/settings.md lists all that there are.",
            )
        yield key, text


def _unknown(name: str, file: Path) -> SettingsError:
    """Say what is meant by a name that does not exist: a key here, the same key elsewhere, or a section."""
    section, dot, key_name = name.partition(".")
    if dot:
        here = {key.name: key.dotted for key in KEYS.values() if key.section == section}
        elsewhere = [key.dotted for key in KEYS.values() if key.name == key_name]
        near = closest(key_name, tuple(here))
        close = here[near] if near else elsewhere[0] if elsewhere else closest(name, tuple(KEYS))
    else:
        close = closest(section, tuple(Settings.model_fields))
        if close is None:
            close = next((key.dotted for key in KEYS.values() if key.name == section), None)
    kind = "setting" if dot else "section"
    return SettingsError(
        f"In {file}, {name[:100]!r} is no {kind}.",
        hint=f"Did you mean {close}?" if close else "docs/settings.md lists all that there are.",
    )


# -- values --------------------------------------------------------------------------------------------------


def _from_toml(key: Key, value: object, folder: Path, environ: Mapping[str, str]) -> object:
    if isinstance(value, list) and key.is_a(tuple):
        return tuple(value)
    if isinstance(value, str) and key.is_a(Path):
        return _path(value, folder, environ)
    return value


def _from_text(key: Key, text: str, environ: Mapping[str, str]) -> object:
    """Turn text into the setting's type; what is no such thing stays text, which the model refuses."""
    if key.dotted in _SECRETS:
        return text or None
    text = text.strip()
    if not text and key.is_a(type(None)):
        return None
    if key.is_a(Path):
        return _path(text, Path.cwd(), environ)
    if key.is_a(tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return _number(key, text)


def _number(key: Key, text: str) -> object:
    for number in (int, float):
        if key.is_a(number) and re.fullmatch(r"[+-]?[0-9][0-9.eE_+-]*", text):
            try:
                return number(text)
            except ValueError:
                return text
    return text


def _path(text: str, folder: Path, environ: Mapping[str, str]) -> object:
    """Return an absolute path; `~` is the home folder, relative paths start at `folder`."""
    if not text or "\0" in text:
        return text  # the model says what is wrong with it
    if text == "~" or text.startswith("~/"):
        home = _home(environ)
        if home is not None:
            return home / text[2:]
    return Path(os.path.abspath(folder / text))  # noqa: PTH100 - resolve() would follow links


def _home(environ: Mapping[str, str]) -> Path | None:
    if environ.get("HOME"):
        return Path(environ["HOME"])
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:  # a container's user without an entry
        return None


def _xdg(environ: Mapping[str, str], variable: str, below_home: str) -> Path | None:
    """Return a base folder as the XDG Base Directory Specification has it; relative ones are ignored."""
    given = Path(environ.get(variable, ""))
    if given.is_absolute():
        return given
    home = _home(environ)
    return None if home is None else home / below_home


def _add_derived_defaults(values: dict[str, object], environ: Mapping[str, str]) -> None:
    for section, folder in (("agent", "edge-agent"), ("coordinator", "edge-agent-coordinator")):
        dotted = f"{section}.state_dir"
        if dotted not in values:
            # systemd gives a list, separated by colons, of which the first is the main one.
            given = environ.get("STATE_DIRECTORY", "").partition(":")[0]
            base = _xdg(environ, "XDG_STATE_HOME", ".local/state")
            if not given and base is None:
                raise SettingsError(
                    f"There is no home folder to keep {dotted} in.",
                    hint=f"Set {KEYS[dotted].variable} to a folder that this user can write to.",
                )
            values[dotted] = Path(given) if given or base is None else base / folder
    for dotted, state_dir, name in (
        ("agent.key_file", "agent.state_dir", "agent.key"),
        ("agent.sealing_key_file", "agent.state_dir", "sealing.key"),
        ("agent.coordinator_key_file", "agent.state_dir", "coordinator.pub"),
        ("coordinator.key_file", "coordinator.state_dir", "coordinator.key"),
        ("coordinator.registrar_key_file", "coordinator.state_dir", "registrar.key"),
        ("coordinator.database", "coordinator.state_dir", "coordinator.db"),
        ("models.dir", "agent.state_dir", "models"),
    ):
        base_value = values[state_dir]
        if dotted not in values and isinstance(base_value, Path):
            values[dotted] = base_value / name


def _explained(error: ValidationError, values: Mapping[str, object], sources: Mapping[str, str]) -> SettingsError:
    problems: list[str] = []
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        dotted = ".".join(str(part) for part in problem["loc"][:2])
        message = problem["msg"].removeprefix("Value error, ")
        message = re.sub(r"^(Input|String|Tuple) should ", "must ", message)
        message = message.replace("be an instance of Path", "be a path, not empty")
        if problem["type"] == "missing":
            continue  # a derived default whose folder is itself wrong, which is reported
        if dotted not in KEYS:
            problems.append(message)
            continue
        # The broker's address may have a password in it, by mistake.
        hidden = dotted in {*_SECRETS, "broker.url", "home.url", "client.coordinator"}
        shown = dotted if hidden else f"{dotted} = {plain(values.get(dotted))[:100]!r}"
        problems.append(f"{shown} ({sources[dotted]}): {message}")
    return SettingsError("; ".join(problems) + ".", hint="docs/settings.md says what each setting may be.")
