"""The fault-injecting relay does to a connection what it says."""

from __future__ import annotations

import socket
import struct
import threading
import time
from collections.abc import Iterator

import pytest
from harness.proxy import Proxies

PATIENCE_SECONDS = 20.0
NAME = "agent"


@pytest.fixture
def echo() -> Iterator[tuple[str, int]]:
    """A server that gives back what it gets."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                near, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(near,), daemon=True).start()

    def answer(near: socket.socket) -> None:
        with near:
            try:
                while data := near.recv(65_536):
                    near.sendall(data)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield listener.getsockname()
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(PATIENCE_SECONDS)


@pytest.fixture
def proxies(echo: tuple[str, int]) -> Iterator[Proxies]:
    """A relay in front of it."""
    with Proxies(echo, (NAME,), seed=1) as found:
        yield found


def connect(proxies: Proxies) -> socket.socket:
    """Connect through the relay, and know that the way is open."""
    sock = socket.create_connection(("127.0.0.1", proxies.relays[NAME].port), timeout=PATIENCE_SECONDS)
    assert ask(sock, b"x") == b"x"
    return sock


def knock(proxies: Proxies) -> None:
    """Connect and wait for a word."""
    with socket.socket() as sock:
        sock.settimeout(PATIENCE_SECONDS)
        sock.connect(("127.0.0.1", proxies.relays[NAME].port))
        sock.recv(1)


def ask(sock: socket.socket, data: bytes) -> bytes:
    """Send and read as much again."""
    sock.sendall(data)
    got = b""
    while len(got) < len(data):
        part = sock.recv(len(data) - len(got))
        if not part:
            break
        got += part
    return got


def settle(proxies: Proxies) -> None:
    """Return once the relay's thread has done what it was told before."""
    done = threading.Event()
    proxies._loop.call_soon_threadsafe(done.set)
    assert done.wait(PATIENCE_SECONDS)


def test_good_weather_changes_nothing(proxies: Proxies) -> None:
    """Bytes arrive as they were sent, also many of them."""
    data = bytes(range(256)) * 4000
    with connect(proxies) as sock:
        threading.Thread(target=sock.sendall, args=(data,), daemon=True).start()
        got = b""
        while len(got) < len(data):
            got += sock.recv(65_536)
        assert got == data


def test_delay_is_added_in_both_directions_and_does_not_add_up(proxies: Proxies) -> None:
    """A question and its answer take at least twice the delay, ten questions in one go not ten times."""
    with connect(proxies) as sock:
        proxies.change(NAME, delay_seconds=0.1)
        settle(proxies)
        began = time.monotonic()
        assert ask(sock, b"0123456789") == b"0123456789"
        assert time.monotonic() - began >= 0.2


def test_narrow_line_takes_its_time(proxies: Proxies) -> None:
    """8,000 bytes at 80,000 a second take a tenth of one."""
    with connect(proxies) as sock:
        proxies.change(NAME, bytes_per_second=80_000.0)
        settle(proxies)
        began = time.monotonic()
        assert ask(sock, bytes(8000)) == bytes(8000)
        assert time.monotonic() - began >= 0.1


def test_fragments_arrive_whole(proxies: Proxies) -> None:
    """Cuts at random places change no byte."""
    with connect(proxies) as sock:
        proxies.change(NAME, jitter_seconds=0.001)
        settle(proxies)
        for number in range(20):
            data = bytes([number]) * (number + 1)
            assert ask(sock, data) == data


def test_reset_is_seen_as_one(proxies: Proxies) -> None:
    """ECONNRESET, not a clean end."""
    with connect(proxies) as sock:
        proxies.reset(NAME)
        with pytest.raises(ConnectionResetError):
            sock.recv(1)


@pytest.mark.parametrize("weather", [{"swallow_up": True}, {"swallow_down": True}], ids=["up", "down"])
def test_black_hole_swallows_silently(proxies: Proxies, weather: dict[str, bool]) -> None:
    """The connection stays open, and nothing comes back."""
    with connect(proxies) as sock:
        proxies.change(NAME, **weather)
        settle(proxies)
        sock.sendall(b"lost")
        deadline = time.monotonic() + PATIENCE_SECONDS
        while proxies.relays[NAME].swallowed < 4 and time.monotonic() < deadline:
            time.sleep(0.005)  # the relay counts on its own thread
        assert proxies.relays[NAME].swallowed == 4
        proxies.change(NAME)
        settle(proxies)
        assert ask(sock, b"here") == b"here"


def test_half_open_connection_stays_silent(proxies: Proxies) -> None:
    """The far end is gone; the near one neither ends nor answers."""
    with connect(proxies) as sock:
        proxies.half_open(NAME)
        settle(proxies)
        sock.sendall(b"anybody?")
        sock.settimeout(0.2)
        with pytest.raises(TimeoutError):
            sock.recv(1)


def test_refusing_relay_resets_new_connections(proxies: Proxies) -> None:
    """Nobody gets through, and those who were there before stay."""
    with connect(proxies) as early:
        proxies.change(NAME, refuse=True)
        settle(proxies)
        with pytest.raises(ConnectionResetError):
            knock(proxies)
        assert ask(early, b"still here") == b"still here"


def test_flipped_bits_are_few(proxies: Proxies) -> None:
    """One bit of one byte of each chunk, when every chunk is hit."""
    with connect(proxies) as sock:
        proxies.change(NAME, flip_one_in=1)
        settle(proxies)
        got = ask(sock, bytes(64))
        assert 0 < sum(byte.bit_count() for byte in got) <= 2


def test_packet_is_cut_in_its_middle(proxies: Proxies) -> None:
    """A PUBLISH arrives in part, then the connection is reset; the next one passes."""
    publish = struct.pack("!BB", 0x30, 40) + bytes(40)
    with connect(proxies) as sock:
        proxies.change(NAME, cut_publish=True)
        settle(proxies)
        sock.sendall(publish)
        assert len(sock.recv(100)) < len(publish)
        with pytest.raises(ConnectionResetError):
            sock.recv(100)
    with connect(proxies) as sock:
        assert ask(sock, publish) == publish
