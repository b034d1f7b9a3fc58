"""TLS to a real Mosquitto: what is wrong is told with the code `tls`, and nothing is ever tried in the clear."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest
from brokers import PATIENCE_SECONDS, Client, mosquitto, options
from certificates import Identity, Issue, issuer, listener

from edge_agent.mqtt import BrokerAddress, Connected, ConnectFailed, LinkOptions, Message


@pytest.fixture(scope="module")
def issue(tmp_path_factory: pytest.TempPathFactory) -> Issue:
    """Return a function that makes certificates."""
    return issuer(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def ours(issue: Issue) -> Identity:
    """Return our private authority."""
    return issue("our-authority")


def tls_options(port: int, **changes: object) -> LinkOptions:
    """Return options for TLS on that port."""
    return options(port, address=BrokerAddress("127.0.0.1", port, tls=True), **changes)


def refused(opts: LinkOptions, *told: str) -> None:
    """Assert that a connection fails again and again with `tls` and these words, and that nothing else happens."""
    with Client(opts, ["t"]) as client:
        for _ in range(2):
            failed = client.expect(ConnectFailed)
            assert failed.code == "tls", failed
            for words in told:
                assert words in failed.reason
        assert not client.link.connected


def test_tls_with_a_private_authority_and_client_certificates(tmp_path: Path, issue: Issue, ours: Identity) -> None:
    """Good certificates connect; a stranger's and a missing one are told as what they are."""
    theirs = issue("other-authority")
    server, client_identity, stranger = issue("server", ours), issue("client", ours), issue("stranger", theirs)
    good = {"ca_file": ours.cert, "client_cert": client_identity.cert, "client_key": client_identity.key}
    with mosquitto(tmp_path, *listener(ours, server, ask_clients=True)) as port:
        with Client(tls_options(port, **good), ["t"]) as client:
            assert client.expect(Connected).protocol == "5"
            payload = bytes(range(256)) * 8000
            client.link.publish("t", payload)
            assert client.skip_to(Message).payload == payload
        refused(tls_options(port, **good | {"ca_file": theirs.cert}), "certificate of the broker", "self-signed")
        for identity in (None, stranger):
            files = {"client_cert": identity.cert, "client_key": identity.key} if identity else {}
            with Client(tls_options(port, ca_file=ours.cert, **files)) as client:
                failed = client.expect(ConnectFailed)
                # The broker's alert can be overtaken by the reset of the connection, so the code may vary.
                assert failed.code in {"tls", "broker-refused"}
                assert "client certificate" in failed.reason
        with Client(options(port)) as client:
            failed = client.expect(ConnectFailed)
            assert failed.code == "broker-refused"
            assert "mqtts://" in failed.reason


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("another authority", "unable to get local issuer certificate"),
        ("another address", "IP address mismatch"),
        ("expired", "certificate has expired"),
        ("not valid yet", "certificate is not yet valid"),
        ("signed by itself", "self-signed certificate"),
    ],
)
def test_a_certificate_that_is_wrong(tmp_path: Path, issue: Issue, ours: Identity, fault: str, told: str) -> None:
    """Each is told by its cause, by the broker's address, and again at the next attempt."""
    name = fault.replace(" ", "-")
    server = {
        "another authority": lambda: issue(name, issue("strange-authority")),
        "another address": lambda: issue(name, ours, "10.9.9.9"),
        "expired": lambda: issue(name, ours, hours=(-5, -1)),
        "not valid yet": lambda: issue(name, ours, hours=(1, 5)),
        "signed by itself": lambda: issue(name),
    }[fault]()
    trusted = issue("unused-authority") if fault in {"another authority", "signed by itself"} else ours
    with mosquitto(tmp_path, *listener(ours, server)) as port:
        refused(tls_options(port, ca_file=trusted.cert), f"mqtts://127.0.0.1:{port}", told)


def test_the_expected_name_can_be_another_than_the_address(tmp_path: Path, issue: Issue, ours: Identity) -> None:
    """A broker that is reached by its number, and whose certificate has its name."""
    server = issue("named", ours, "broker.example")
    with mosquitto(tmp_path, *listener(ours, server)) as port:
        with Client(tls_options(port, ca_file=ours.cert, server_name="broker.example")) as client:
            client.expect(Connected)
        refused(tls_options(port, ca_file=ours.cert), "IP address mismatch")
        refused(tls_options(port, ca_file=ours.cert, server_name="other.example"), "ostname mismatch")


def test_a_pinned_certificate_is_the_only_one(tmp_path: Path, issue: Issue, ours: Identity) -> None:
    """Another one by the same authority is refused, and a pin makes no bad certificate good."""
    server, other = issue("pinned", ours), issue("successor", ours)
    expired = issue("pinned-expired", ours, hours=(-5, -1))
    for identity, pinned, told in (
        (server, server, None),
        (other, server, server.fingerprint),
        (expired, expired, "certificate has expired"),
    ):
        with mosquitto(tmp_path, *listener(ours, identity)) as port:
            opts = tls_options(port, ca_file=ours.cert, server_pin=bytes.fromhex(pinned.fingerprint))
            if told is None:
                with Client(opts) as client:
                    client.expect(Connected)
            else:
                refused(opts, told)


def test_a_self_signed_certificate_is_trusted_by_itself_and_by_nothing_less(tmp_path: Path, issue: Issue) -> None:
    """Whoever has no authority names the certificate itself as one."""
    alone, other = issue("alone"), issue("alone-too")
    with mosquitto(tmp_path, *listener(alone, alone)) as port:
        with Client(tls_options(port, ca_file=alone.cert)) as client:
            client.expect(Connected)
        refused(tls_options(port, ca_file=other.cert))
        refused(tls_options(port))


def test_a_port_without_tls_is_told_and_never_spoken_to_in_the_clear(tmp_path: Path, ours: Identity) -> None:
    """A Mosquitto without TLS; and a listener whose every byte is looked at."""
    with mosquitto(tmp_path, "allow_anonymous true") as port:
        refused(tls_options(port, ca_file=ours.cert), "is it a port without TLS?")
    with socket.create_server(("127.0.0.1", 0)) as server:
        heard: list[bytes] = []

        def listen() -> None:
            for answer in (b"\x20\x02\x00\x00", b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"):
                connection, _ = server.accept()
                with connection:
                    connection.settimeout(PATIENCE_SECONDS)
                    heard.append(connection.recv(65_536))
                    connection.sendall(answer)

        thread = threading.Thread(target=listen)
        thread.start()
        with Client(tls_options(server.getsockname()[1], ca_file=ours.cert)) as client:
            assert [client.expect(ConnectFailed).code for _ in range(3)] == ["tls"] * 3
            thread.join(PATIENCE_SECONDS)
    assert [data[:2] for data in heard] == [b"\x16\x03"] * 3, "TLS handshake records, and no CONNECT"


def test_a_port_that_answers_nothing_to_the_handshake_is_told(ours: Identity) -> None:
    """It might be a port without TLS, or a network that swallows everything."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        opts = tls_options(silent.getsockname()[1], ca_file=ours.cert, connect_timeout_seconds=0.2)
        refused(opts, "no answer came in time")
