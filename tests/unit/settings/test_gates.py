"""Gates as people write them, and the broker that they are on."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.connection import home_link_options
from edge_agent.errors import SettingsError
from edge_agent.settings import Gate, load, parse_gate

HOME = {"HOME": "/home/ada"}


@pytest.mark.parametrize(
    ("text", "gate"),
    [
        ("home/roof/watts > 500", ("home/roof/watts", (), ">", 500.0, 900.0, False)),
        ("zigbee2mqtt/plug#power.now <= -1.5", ("zigbee2mqtt/plug", ("power", "now"), "<=", -1.5, 900.0, False)),
        ("a >= 1 within 60", ("a", (), ">=", 1.0, 60.0, False)),
        ("a < 1 within 60 else open", ("a", (), "<", 1.0, 60.0, True)),
        ("a < 1 else closed", ("a", (), "<", 1.0, 900.0, False)),
    ],
)
def test_gates_as_people_write_them(text: str, gate: tuple[object, ...]) -> None:
    """Closed without a reading, unless it is said otherwise."""
    assert parse_gate(text) == Gate(text, *gate)  # type: ignore[arg-type] # the fields in their order


@pytest.mark.parametrize(
    "text",
    [
        "",
        "home/roof/watts",
        "home/roof/watts>500",
        "home/+/watts > 500",
        "home/# > 500",
        "a b > 500",
        "a > many",
        "a > nan",
        "a == 5",
        "a > 5 within 0",
        "a > 5 else maybe",
        "a# > 5",
        "a#b..c > 5",
        "a\0b > 5",
        "a > 5\n",
    ],
)
def test_what_is_no_gate_is_refused(text: str) -> None:
    """No wildcards: one gate, one topic."""
    with pytest.raises(ValueError, match="must be like"):
        parse_gate(text)


@given(st.text(max_size=60))
def test_any_text_is_a_gate_or_refused(text: str) -> None:
    """Nothing else comes out of reading it."""
    with contextlib.suppress(ValueError):
        assert parse_gate(text).text == text


@pytest.mark.parametrize(
    ("operator", "below", "at", "above"),
    [(">", False, False, True), (">=", False, True, True), ("<", True, False, False), ("<=", True, True, False)],
)
def test_each_operator(operator: str, *, below: bool, at: bool, above: bool) -> None:
    """At both sides of the number, and on it."""
    gate = parse_gate(f"a {operator} 5")
    assert (gate.lets(4.9), gate.lets(5.0), gate.lets(5.1)) == (below, at, above)


def test_gates_need_the_broker_that_they_are_on(tmp_path: Path) -> None:
    """The network's broker is not asked: it may be a stranger's."""
    file = tmp_path / "config.toml"
    file.write_text('[policy]\ngates = ["roof/watts > 500"]\n')
    with pytest.raises(SettingsError, match=r"home\.url"):
        load(file, HOME, {})


def test_the_broker_at_home_has_a_login_of_its_own(tmp_path: Path) -> None:
    """Its password is in a file; an address with one in it is refused, and not shown."""
    (tmp_path / "password").write_text("secret\nmore\n")
    file = tmp_path / "config.toml"
    file.write_text('[home]\nurl = "mqtt://192.0.2.9"\nusername = "agent"\npassword_file = "password"\n')
    options = home_link_options(load(file, HOME, {}).settings, "someone")
    assert options is not None
    assert (str(options.address), options.username, options.password) == ("mqtt://192.0.2.9:1883", "agent", "secret")
    file.write_text('[home]\nurl = "mqtt://me:secret@192.0.2.9"\n')
    with pytest.raises(SettingsError) as caught:
        load(file, HOME, {})
    assert "secret" not in caught.value.message
    (tmp_path / "password").unlink()
    file.write_text('[home]\nurl = "mqtt://192.0.2.9"\nusername = "agent"\npassword_file = "password"\n')
    with pytest.raises(SettingsError, match=r"home\.password_file"):
        home_link_options(load(file, HOME, {}).settings, "someone")


def test_without_a_broker_at_home_there_is_no_link() -> None:
    """Nothing listens."""
    assert home_link_options(load(None, HOME, {}).settings, "someone") is None
