from __future__ import annotations

import random
import ssl
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.errors import SettingsError
from edge_agent.mqtt import Backoff, BrokerAddress, LinkOptions
from edge_agent.mqtt.tls import client_context

PLAIN = BrokerAddress("broker.example", 1883)
TLS = BrokerAddress("broker.example", 8883, tls=True)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("mqtt://broker.example", BrokerAddress("broker.example", 1883)),
        ("mqtts://broker.example", BrokerAddress("broker.example", 8883, tls=True)),
        ("mqtt://10.0.0.7:1999/", BrokerAddress("10.0.0.7", 1999)),
        ("mqtts://[fe80::1]:1", BrokerAddress("fe80::1", 1, tls=True)),
        ("MQTT://Broker:65535", BrokerAddress("broker", 65_535)),
    ],
)
def test_addresses_as_people_write_them(text: str, address: BrokerAddress) -> None:
    """Scheme, host and port are read, with the default ports of MQTT, and written so that they read back."""
    assert BrokerAddress.parse(text) == address
    assert BrokerAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "broker.example",
        "broker.example:1883",
        "http://broker.example",
        "ws://broker.example",
        "mqtt://",
        "mqtt://:1883",
        "mqtt://broker:0",
        "mqtt://broker:65536",
        "mqtt://broker:x",
        "mqtt://broker/topic",
        "mqtt://broker?x=1",
        "mqtt://broker#x",
        "mqtt://bro ker",
        "mqtt://[::1",
        "mqtt://" + "a" * 254,
    ],
)
def test_a_bad_address_says_how_to_write_it(text: str) -> None:
    """An address that is not one names the two schemes in its hint."""
    with pytest.raises(SettingsError) as refused:
        BrokerAddress.parse(text)
    assert "mqtts://" in str(refused.value.hint)


@pytest.mark.parametrize("text", ["mqtt://me:s3cret@broker", "mqtt://me:s3@cret@broker", "http://:s3cret@b"])
def test_a_password_in_the_address_is_refused_and_not_repeated(text: str) -> None:
    """The error is shown and logged, so it must not carry the secret on."""
    with pytest.raises(SettingsError) as refused:
        BrokerAddress.parse(text)
    assert "s3" not in f"{refused.value} {refused.value.hint}"


@given(st.text())
def test_no_text_breaks_the_address_parser(text: str) -> None:
    """Any text is an address or a SettingsError."""
    for candidate in (text, f"mqtt://{text}", f"mqtts://{text}:1"):
        try:
            address = BrokerAddress.parse(candidate)
        except SettingsError:
            continue
        assert BrokerAddress.parse(str(address)) == address


@pytest.mark.parametrize(
    "change",
    [
        {"client_id": ""},
        {"client_id": "a\0b"},
        {"client_id": "\ud800"},
        {"password": "x"},
        {"client_cert": Path("c.pem")},
        {"ca_file": Path("ca.pem")},
        {"keepalive_seconds": 0},
        {"max_packet_bytes": 10},
        {"inbox_messages": 70_000},
        {"outbox_messages": 0},
        {"backoff_initial_seconds": 2.0, "backoff_max_seconds": 1.0},
    ],
)
def test_options_that_cannot_work_are_refused(change: dict[str, Any]) -> None:
    """Contradictions and values outside their range are told before anything connects."""
    with pytest.raises(SettingsError):
        LinkOptions(**({"address": PLAIN, "client_id": "a"} | change))


def test_the_password_is_not_shown() -> None:
    """Options end up in debug logs; the password does not."""
    secret = "s3cret"  # noqa: S105 (that is the point)
    assert secret not in repr(LinkOptions(address=PLAIN, client_id="a", username="u", password=secret))


def test_backoff_draws_from_zero_to_a_bound_that_doubles() -> None:
    """Full jitter: the draws fill the range, the bound doubles up to the maximum, a reset starts afresh."""
    backoff = Backoff(0.2, 30.0, random.Random(3))
    for bound in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0):
        assert 0.0 <= backoff.next_seconds() <= bound
    draws = sorted(backoff.next_seconds() for _ in range(400))
    assert draws[0] < 1.0
    assert draws[-1] > 29.0
    assert 13.0 < sum(draws) / len(draws) < 17.0
    backoff.reset()
    assert backoff.next_seconds() <= 0.2


def test_trust_is_never_switched_off(tmp_path: Path) -> None:
    """The broker's certificate and its host name are always checked."""
    context = client_context(None, None, None)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    with pytest.raises(SettingsError, match="No such file"):
        client_context(tmp_path / "absent.pem", None, None)
    (tmp_path / "empty.pem").write_text("")
    with pytest.raises(SettingsError, match="trusted authorities"):
        client_context(tmp_path / "empty.pem", None, None)
    with pytest.raises(SettingsError, match="client certificate"):
        client_context(None, tmp_path / "empty.pem", tmp_path / "empty.pem")
