"""The small HTTP server: whole files, ranges, and nothing that is not published."""

from __future__ import annotations

import http.client
import logging
import os
import socket
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from edge_agent.errors import TransportError
from edge_agent.models.publishing.layout import Layout
from edge_agent.models.publishing.server import Server

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

DIGEST = "ab" * 32
CONTENT = bytes(range(256)) * 40


@contextmanager
def serving(public: Path) -> Iterator[Server]:
    """Serve a folder on a free port."""
    with Server(("127.0.0.1", 0), public, logging.getLogger("edge_agent.test")) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    """A server of a folder with one model, a timestamp, and things that must not be served."""
    layout = Layout(tmp_path)
    layout.make()
    layout.blob(DIGEST).write_bytes(CONTENT)
    layout.blob(f".{DIGEST}.17").write_bytes(b"half a file")
    (layout.metadata / "timestamp.json").write_bytes(b"{}")
    (layout.keys / "root.key").write_bytes(b"secret")
    (layout.public / "loose").write_bytes(b"loose")
    (layout.blobs / "link").symlink_to(layout.keys / "root.key")
    (layout.blobs / "folder").mkdir()
    os.mkfifo(layout.blobs / "pipe")
    with serving(layout.public) as running:
        yield running


def ask(
    server: Server, path: str, method: str = "GET", headers: Mapping[str, str] | None = None
) -> tuple[int, Mapping[str, str], bytes]:
    """Send one request."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    try:
        connection.request(method, path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    finally:
        connection.close()


def test_a_file_is_served_whole(server: Server) -> None:
    """With its length, and word that it never changes."""
    status, headers, body = ask(server, f"/sha256/{DIGEST}")
    assert (status, body) == (200, CONTENT)
    assert headers["content-length"] == str(len(CONTENT))
    assert headers["accept-ranges"] == "bytes"
    assert "immutable" in headers["cache-control"]


def test_the_timestamp_is_never_taken_from_a_cache(server: Server) -> None:
    """It is the only file that changes under its name."""
    _, headers, body = ask(server, "/metadata/timestamp.json")
    assert (headers["cache-control"], headers["content-type"], body) == ("no-cache", "application/json", b"{}")


def test_head_says_the_same_without_the_bytes(server: Server) -> None:
    """A client sees how large a model is before it fetches it."""
    status, headers, body = ask(server, f"/sha256/{DIGEST}", "HEAD")
    assert (status, headers["content-length"], body) == (200, str(len(CONTENT)), b"")


@pytest.mark.parametrize(
    ("asked", "first", "last"),
    [
        ("bytes=0-0", 0, 0),
        ("bytes=100-199", 100, 199),
        ("bytes=10000-", 10_000, len(CONTENT) - 1),
        ("bytes=10000-999999", 10_000, len(CONTENT) - 1),
        ("bytes=-5", len(CONTENT) - 5, len(CONTENT) - 1),
        ("bytes=-999999", 0, len(CONTENT) - 1),
    ],
)
def test_a_range_is_served(server: Server, asked: str, first: int, last: int) -> None:
    """What is missing after a broken download, and only that."""
    status, headers, body = ask(server, f"/sha256/{DIGEST}", headers={"Range": asked})
    assert (status, body) == (206, CONTENT[first : last + 1])
    assert headers["content-range"] == f"bytes {first}-{last}/{len(CONTENT)}"


@pytest.mark.parametrize("asked", [f"bytes={len(CONTENT)}-", "bytes=9-3", "bytes=-0"])
def test_a_range_outside_the_file_is_refused(server: Server, asked: str) -> None:
    """With the size that there is."""
    status, headers, body = ask(server, f"/sha256/{DIGEST}", headers={"Range": asked})
    assert (status, headers["content-range"], body) == (416, f"bytes */{len(CONTENT)}", b"")


@pytest.mark.parametrize("asked", ["bytes=0-1,5-6", "lines=1-2", "bytes=-", "bytes=a-b"])
def test_a_range_that_is_not_understood_gives_the_whole_file(server: Server, asked: str) -> None:
    """As RFC 9110 allows."""
    status, _, body = ask(server, f"/sha256/{DIGEST}", headers={"Range": asked})
    assert (status, body) == (200, CONTENT)


def test_if_range_guards_against_another_file(server: Server) -> None:
    """With the tag of this file the rest is served, with another one the whole."""
    tag = ask(server, f"/sha256/{DIGEST}", "HEAD")[1]["etag"]
    assert ask(server, f"/sha256/{DIGEST}", headers={"Range": "bytes=1-", "If-Range": tag})[0] == 206
    assert ask(server, f"/sha256/{DIGEST}", headers={"Range": "bytes=1-", "If-Range": '"other"'})[0] == 200


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/sha256/",
        "/sha256",
        "/loose",
        "/../keys/root.key",
        "/sha256/../../keys/root.key",
        "/sha256/%2e%2e/%2e%2e/keys/root.key",
        "/sha256//etc/passwd",
        "/sha256/link",
        "/sha256/folder",
        "/sha256/pipe",
        f"/sha256/.{DIGEST}.17",
        "/sha256/missing",
        "/keys/root.key",
        "/sha256/a\x00b".replace("\x00", "%00"),
    ],
)
def test_what_is_not_published_is_not_there(server: Server, path: str) -> None:
    """Neither listings, nor links, nor half-written files, nor anything outside the folder."""
    assert ask(server, path)[0] == 404


def test_other_methods_are_refused(server: Server) -> None:
    """Nobody writes here."""
    assert ask(server, f"/sha256/{DIGEST}", "PUT")[0] == 501


def test_a_client_that_goes_away_harms_nobody(server: Server) -> None:
    """The next one is served."""
    with socket.create_connection(("127.0.0.1", server.server_address[1])) as rude:
        rude.sendall(b"GET /sha256/" + DIGEST.encode() + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert ask(server, f"/sha256/{DIGEST}")[0] == 200


def test_two_requests_on_one_connection(server: Server) -> None:
    """A refresh keeps its connection."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    for path, status in (("/sha256/missing", 404), (f"/sha256/{DIGEST}", 200), ("/metadata/timestamp.json", 200)):
        connection.request("GET", path)
        response = connection.getresponse()
        response.read()
        assert response.status == status
    connection.close()


def test_a_taken_address_is_told(server: Server, tmp_path: Path) -> None:
    """With what to do."""
    with pytest.raises(TransportError, match="cannot be listened on"):
        Server(("127.0.0.1", server.server_address[1]), tmp_path, logging.getLogger("edge_agent.test"))


def test_the_url_is_one_that_clients_can_use(server: Server, tmp_path: Path) -> None:
    """Also for IPv6, where the machine has it."""
    assert server.url == f"http://127.0.0.1:{server.server_address[1]}/"
    if socket.has_ipv6:
        try:
            with Server(("::1", 0), tmp_path, logging.getLogger("edge_agent.test")) as other:
                assert other.url == f"http://[::1]:{other.server_address[1]}/"
        except TransportError:
            pytest.skip("this machine has no ::1")
