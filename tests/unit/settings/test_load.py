"""Settings: four layers and their order, origins, and errors that name the right thing."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from edge_agent import settings
from edge_agent.errors import SettingsError
from edge_agent.settings import KEYS, layers, load

if TYPE_CHECKING:
    from collections.abc import Mapping

HOME = {"HOME": "/home/ada"}


@pytest.fixture(autouse=True)
def _no_system_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A settings file of this machine has no say."""
    monkeypatch.setattr(layers, "SYSTEM_CONFIG", tmp_path / "etc" / "config.toml")


def write(path: Path, text: str) -> Path:
    """Write a settings file and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def refused(environ: Mapping[str, str] | None = None, path: Path | None = None, **flags: Any) -> SettingsError:  # noqa: ANN401
    """Return the error that these layers end in."""
    with pytest.raises(SettingsError) as caught:
        load(path, HOME | (environ or {}), {name.replace("__", "."): value for name, value in flags.items()})
    return caught.value


def test_defaults_hold_when_nothing_is_said() -> None:
    """Every setting has a value, and says that it is a default."""
    effective = load(None, HOME, {})
    assert effective.file is None
    assert set(effective.sources) == set(KEYS)
    assert set(effective.sources.values()) == {"default"}
    assert effective.settings.broker.url == "mqtt://127.0.0.1:1883"
    assert effective.settings.agent.state_dir == Path("/home/ada/.local/state/edge-agent")
    assert effective.settings.coordinator.database == Path(
        "/home/ada/.local/state/edge-agent-coordinator/coordinator.db"
    )


def test_later_layers_win_and_are_named(tmp_path: Path) -> None:
    """File over default, environment over file, flag over environment, each with its origin."""
    file = write(
        tmp_path / "c.toml", '[network]\nname = "file"\n[broker]\nurl = "mqtt://file"\n[log]\nlevel = "error"\n'
    )
    environ = HOME | {"EDGE_AGENT_BROKER_URL": "mqtt://env", "EDGE_AGENT_LOG_LEVEL": "debug"}
    effective = load(file, environ, {"broker.url": "mqtt://flag", "log.format": None})
    held = effective.settings
    assert (held.network.name, held.broker.url, held.log.level, held.log.format) == (
        "file",
        "mqtt://flag",
        "debug",
        "console",
    )
    assert effective.sources["network.name"] == f"file {file}"
    assert effective.sources["broker.url"] == "flag --broker"
    assert effective.sources["log.level"] == "environment EDGE_AGENT_LOG_LEVEL"
    assert effective.sources["log.format"] == "default"
    assert effective.file == file


@pytest.mark.parametrize(
    ("variable", "text", "dotted", "value"),
    [
        ("EDGE_AGENT_AGENT_THREADS", " 3 ", "agent.threads", 3),
        ("EDGE_AGENT_AGENT_MEMORY_SHARE", "0.25", "agent.memory_share", 0.25),
        ("EDGE_AGENT_COORDINATOR_LEASE_SECONDS", "5", "coordinator.lease_seconds", 5),
        ("EDGE_AGENT_AGENT_FAMILIES", "digits, minilm-*,", "agent.families", ("digits", "minilm-*")),
        ("EDGE_AGENT_AGENT_FAMILIES", "", "agent.families", ()),
        ("EDGE_AGENT_BROKER_USERNAME", "", "broker.username", None),
        ("EDGE_AGENT_BROKER_CA_FILE", "~/ca.pem", "broker.ca_file", Path("/home/ada/ca.pem")),
        ("EDGE_AGENT_BROKER_CA_FILE", "/etc/../ca.pem", "broker.ca_file", Path("/ca.pem")),
        ("EDGE_AGENT_BROKER_PROTOCOL", "3.1.1", "broker.protocol", "3.1.1"),
    ],
)
def test_text_becomes_the_right_type(variable: str, text: str, dotted: str, value: object) -> None:
    """Variables are text; numbers, lists, paths and "not set" are read from it."""
    assert load(None, HOME | {variable: text}, {}).value(dotted) == value


def test_relative_paths_start_where_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the file at its folder, in the environment at the current folder."""
    file = write(tmp_path / "etc" / "c.toml", '[broker]\nca_file = "ca.pem"\n')
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    effective = load(file, HOME | {"EDGE_AGENT_AGENT_KEY_FILE": "my.key"}, {})
    assert effective.settings.broker.ca_file == tmp_path / "etc" / "ca.pem"
    assert effective.settings.agent.key_file == tmp_path / "cwd" / "my.key"


@pytest.mark.parametrize(
    ("environ", "state_dir"),
    [
        ({"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "XDG_STATE_HOME": "/x"}, "/var/lib/a"),
        ({"XDG_STATE_HOME": "/x"}, "/x/edge-agent"),
        ({"XDG_STATE_HOME": "relative"}, "/home/ada/.local/state/edge-agent"),
        ({"EDGE_AGENT_AGENT_STATE_DIR": "/y", "STATE_DIRECTORY": "/z"}, "/y"),
    ],
)
def test_state_directory_follows_systemd_then_xdg(environ: dict[str, str], state_dir: str) -> None:
    """A service uses its own directory, a person the XDG one; the key lies in it."""
    agent = load(None, HOME | environ, {}).settings.agent
    assert agent.state_dir == Path(state_dir)
    assert agent.key_file == Path(state_dir) / "agent.key"
    assert agent.coordinator_key_file == Path(state_dir) / "coordinator.pub"


def test_no_home_is_an_error_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container's user without an entry in the user database has to be told where to keep things."""

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(layers.pwd, "getpwuid", unknown)
    with pytest.raises(SettingsError, match="no home folder"):
        load(None, {}, {})
    folders = {"EDGE_AGENT_AGENT_STATE_DIR": "/a", "EDGE_AGENT_COORDINATOR_STATE_DIR": "/c"}
    assert load(None, folders, {}).settings.agent.state_dir == Path("/a")


def test_the_file_is_looked_for_in_order(tmp_path: Path) -> None:
    """The given one, the variable's, the system's, the user's."""
    given_file = write(tmp_path / "given.toml", '[network]\nname = "given"\n')
    named = write(tmp_path / "named.toml", '[network]\nname = "named"\n')
    system = write(layers.SYSTEM_CONFIG, '[network]\nname = "system"\n')
    user = write(tmp_path / "xdg" / "edge-agent" / "config.toml", '[network]\nname = "user"\n')
    environ = HOME | {"XDG_CONFIG_HOME": str(tmp_path / "xdg")}
    with_variable = environ | {"EDGE_AGENT_CONFIG": str(named)}
    assert load(given_file, with_variable, {}).file == given_file
    assert load(None, with_variable, {}).settings.network.name == "named"
    assert load(None, environ, {}).file == system
    system.unlink()
    assert load(None, environ, {}).file == user
    user.unlink()
    assert load(None, environ, {}).file is None


@pytest.mark.parametrize(
    ("name", "closest"),
    [
        ("EDGE_AGENT_BROKER_ULR", "EDGE_AGENT_BROKER_URL"),
        ("EDGE_AGENT_STATE_DIR", "EDGE_AGENT_AGENT_STATE_DIR"),
        ("EDGE_AGENT_CONFIG_FILE", "EDGE_AGENT_CONFIG"),
    ],
)
def test_unknown_variable_names_the_closest(name: str, closest: str) -> None:
    """A slip in a variable's name is not silently ignored."""
    error = refused({name: "x"})
    assert name in str(error)
    assert error.hint == f"Did you mean {closest}?"


def test_variables_of_others_are_left_alone() -> None:
    """Only our prefix is ours, and three of our variables are no settings."""
    others = {"EDGE_AGENTS_HOME": "x", "PATH": "/bin", "EDGE_AGENT_REQUIRE_ALL": "1", "EDGE_AGENT_REFERENCE_DATA": "x"}
    assert load(None, HOME | others, {}).sources["broker.url"] == "default"


@pytest.mark.parametrize(
    ("text", "wrong", "closest"),
    [
        ("[broker]\nulr = 'x'", "broker.ulr", "broker.url"),
        ("[brokr]\nurl = 'x'", "brokr", "broker"),
        ("[agent]\nurl = 'x'", "agent.url", "broker.url"),
        ("lease_seconds = 3", "lease_seconds", "coordinator.lease_seconds"),
        ("[coordinator]\nLease_Seconds = 3", "coordinator.Lease_Seconds", "coordinator.lease_seconds"),
    ],
)
def test_unknown_name_in_the_file_names_the_closest(tmp_path: Path, text: str, wrong: str, closest: str) -> None:
    """A key that is misspelt, in the wrong section or without one is an error that says the right one."""
    file = write(tmp_path / "c.toml", text)
    error = refused(path=file)
    assert repr(wrong) in str(error)
    assert str(file) in str(error)
    assert error.hint == f"Did you mean {closest}?"


def test_unknown_name_like_nothing_points_to_the_list(tmp_path: Path) -> None:
    """Without a close name there is no guess."""
    error = refused(path=write(tmp_path / "c.toml", "[zzzzzz]\nqqqq = 1"))
    assert error.hint == "docs/settings.md lists all that there are."


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[broker", "is not TOML"),
        ("broker = 3", "must be a section"),
        ("[agent]\nthreads = '3'", "agent.threads = '3'"),
        ("[agent]\nthreads = true", "agent.threads = 'True'"),
        ("[agent]\nthreads = 1.5", "must be a valid integer"),
        ("[agent]\nfamilies = 'digits'", "agent.families"),
        ("[agent]\nfamilies = [1]", "agent.families"),
        ("[broker]\nca_file = 1", "broker.ca_file"),
        ("[broker]\nca_file = ''", "must be a path, not empty"),
        ("[broker]\nprotocol = 5", "must be 'auto', '5' or '3.1.1'"),
        ("[broker]\nkeepalive_seconds = 0", "greater than or equal to 1"),
        ("[coordinator]\nhttp = 'localhost'", "must be HOST:PORT"),
        ("[coordinator]\nlease_seconds = inf", "must be a finite number"),
        ("[limits]\nmax_inline_bytes = 70000", "must not be above limits.max_inline_bytes"),
        ("[coordinator]\njob_deadline_seconds = 1e6", "must not be above coordinator.max_job_deadline_seconds"),
        ("[network]\nname = 'Home'", "must match pattern"),
        ('[network]\nname = "home\\n"', "must match pattern"),
        ("[agent]\nstate_dir = 3", "agent.state_dir = '3'"),
    ],
)
def test_wrong_value_in_the_file_says_what_and_where(tmp_path: Path, text: str, problem: str) -> None:
    """Types are strict in the file, and the message has the name, the origin and the rule."""
    file = write(tmp_path / "c.toml", text)
    error = refused(path=file)
    assert problem in str(error)
    assert error.exit_status == 78


def test_all_wrong_values_are_named_at_once() -> None:
    """Nobody has to run it again for each."""
    error = refused({"EDGE_AGENT_AGENT_THREADS": "x"}, log__level="loud")
    assert "agent.threads = 'x' (environment EDGE_AGENT_AGENT_THREADS)" in str(error)
    assert "log.level = 'loud' (flag --log-level): must be 'debug'" in str(error)


def test_files_that_cannot_be_read_are_errors(tmp_path: Path) -> None:
    """Missing, a folder, not UTF-8, nested without end, too long: each says which file."""
    missing = tmp_path / "missing.toml"
    assert "No such file" in str(refused(path=missing))
    assert "No such file" in str(refused({"EDGE_AGENT_CONFIG": str(missing)}))
    assert "directory" in str(refused(path=tmp_path))
    bad = tmp_path / "bad.toml"
    bad.write_bytes(b"\xff\xfe")
    assert "is not TOML" in str(refused(path=bad))
    assert "is not TOML" in str(refused(path=write(bad, "x = " + "[" * 100_000)))
    assert "longer than" in str(refused(path=write(bad, "#" * (layers.MAX_CONFIG_BYTES + 1))))


class TestSecrets:
    """The broker's password comes from a file or the environment, and is never shown."""

    def test_from_the_environment(self) -> None:
        """It is taken as it is, spaces included, and shown as set."""
        effective = load(None, HOME | {"EDGE_AGENT_BROKER_PASSWORD": " hunter2 "}, {})
        assert effective.settings.broker.read_password() == " hunter2 "
        assert effective.shown()["broker.password"] == settings.HIDDEN
        assert settings.plain(effective.value("broker.password")) == settings.HIDDEN
        assert "hunter2" not in repr(effective)

    def test_empty_in_the_environment_is_not_set(self) -> None:
        """Unset and empty are the same, as in most service managers."""
        assert load(None, HOME | {"EDGE_AGENT_BROKER_PASSWORD": ""}, {}).settings.broker.read_password() is None

    def test_from_a_file(self, tmp_path: Path) -> None:
        """The first line, without its end; the environment wins over it."""
        file = write(tmp_path / "p", "hunter2\r\nnot this\n")
        environ = HOME | {"EDGE_AGENT_BROKER_PASSWORD_FILE": str(file)}
        assert load(None, environ, {}).settings.broker.read_password() == "hunter2"
        assert (
            load(None, environ | {"EDGE_AGENT_BROKER_PASSWORD": "other"}, {}).settings.broker.read_password() == "other"
        )

    @pytest.mark.parametrize("content", [b"", b"\nhunter2", b"\xffhunter2", b"hunter2" * 1000])
    def test_from_a_file_that_holds_none(self, tmp_path: Path, content: bytes) -> None:
        """An empty, undecodable or endless first line is an error that does not repeat it."""
        file = tmp_path / "p"
        file.write_bytes(content)
        broker = load(None, HOME | {"EDGE_AGENT_BROKER_PASSWORD_FILE": str(file)}, {}).settings.broker
        with pytest.raises(SettingsError) as caught:
            broker.read_password()
        assert "hunter2" not in str(caught.value)
        assert caught.value.__cause__ is None

    def test_from_a_missing_file(self, tmp_path: Path) -> None:
        """The setting and the file are named."""
        broker = load(None, HOME | {"EDGE_AGENT_BROKER_PASSWORD_FILE": str(tmp_path / "p")}, {}).settings.broker
        with pytest.raises(SettingsError, match=r"broker\.password_file .* No such file"):
            broker.read_password()

    def test_not_in_the_settings_file(self, tmp_path: Path) -> None:
        """The file is copied, mailed and committed: no place for it."""
        error = refused(path=write(tmp_path / "c.toml", "[broker]\npassword = 'hunter2'"))
        assert "hunter2" not in str(error)
        assert "broker.password_file" in error.hint

    def test_not_in_the_address(self) -> None:
        """An address with a password is refused without being repeated."""
        error = refused({"EDGE_AGENT_BROKER_URL": "mqtt://ada:hunter2@host"})
        assert "hunter2" not in str(error)
        assert "broker.password_file" in str(error)


@given(
    st.dictionaries(st.sampled_from(sorted(key.variable for key in KEYS.values())), st.text(max_size=20)),
)
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_text_is_taken_or_refused(environ: dict[str, str]) -> None:
    """Whatever the environment holds, there is a checked value or one of our errors."""
    try:
        effective = load(None, HOME | environ, {})
    except SettingsError:
        return
    assert all(effective.sources[KEYS_BY_VARIABLE[name]] == f"environment {name}" for name in environ)


KEYS_BY_VARIABLE = {key.variable: key.dotted for key in KEYS.values()}


@given(st.binary(max_size=200))
@hypothesis_settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_in_the_file_are_taken_or_refused(tmp_path: Path, content: bytes) -> None:
    """A damaged file is one of our errors."""
    file = tmp_path / "any.toml"
    file.write_bytes(content)
    try:
        effective = load(file, HOME, {})
    except SettingsError:
        return
    assert effective.file == file


@pytest.mark.parametrize(
    ("text", "parts"),
    [("127.0.0.1:8420", ("127.0.0.1", 8420)), ("[::1]:0", ("::1", 0)), ("pi-4.local:65535", ("pi-4.local", 65535))],
)
def test_host_and_port_are_split(text: str, parts: tuple[str, int]) -> None:
    """Names, IPv4 and IPv6 in brackets."""
    assert settings.parse_host_port(text) == parts


@pytest.mark.parametrize("text", ["", ":1", "host", "host:", "host:65536", "::1:80", "[::1]", "a b:1", "h:1\n", "h:-1"])
def test_other_addresses_are_refused(text: str) -> None:
    """Anything that is not one host and one port."""
    with pytest.raises(ValueError, match="must be HOST:PORT"):
        settings.parse_host_port(text)


@pytest.mark.parametrize(
    "address", ["http://[bad/", "http://host:99999/", "ftp://host/", "https://user@host/", "https://h/?q"]
)
def test_a_catalogue_at_an_invalid_address_is_told(tmp_path: Path, address: str) -> None:
    """Before anything is asked; the message names the setting."""
    with pytest.raises(SettingsError, match=r"catalogue\.url"):
        load(None, HOME, {"catalogue.url": address, "catalogue.root_file": str(tmp_path)})


def test_the_link_to_plain_mqtt_clients_may_be_another(tmp_path: Path) -> None:
    """With its own address and login, and without the coordinator's certificate."""
    from edge_agent.connection import gateway_link_options  # noqa: PLC0415 used here alone

    password = tmp_path / "password"
    password.write_text("secret\n")
    environ = {"HOME": str(tmp_path), "EDGE_AGENT_BROKER_USERNAME": "coordinator"}
    same = gateway_link_options(load(None, environ, {}).settings, "me")
    assert (str(same.address), same.username) == ("mqtt://127.0.0.1:1883", "coordinator")
    environ |= {
        "EDGE_AGENT_GATEWAY_MQTT_URL": "mqtt://127.0.0.1:1884",
        "EDGE_AGENT_GATEWAY_MQTT_USERNAME": "gateway",
        "EDGE_AGENT_GATEWAY_MQTT_PASSWORD_FILE": str(password),
    }
    other = gateway_link_options(load(None, environ, {}).settings, "me")
    assert (str(other.address), other.username, other.password) == ("mqtt://127.0.0.1:1884", "gateway", "secret")
    assert (other.client_cert, other.client_key) == (None, None)
