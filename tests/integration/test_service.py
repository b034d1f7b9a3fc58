"""The agent under a service manager: what it says to it, and that a hang starves the watchdog."""

from __future__ import annotations

import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from agents import running_agent
from brokers import mosquitto

HEAR_SECONDS = 60.0
PERIOD_SECONDS = 1.5


class Manager:
    """Listens as systemd does."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def hear(self, word: str, seconds: float = HEAR_SECONDS) -> str:
        """Wait for a message that begins with `word`."""
        self._socket.settimeout(seconds)
        while True:
            if (message := self._socket.recv(4096).decode()).startswith(word):
                return message

    def hears_nothing(self, seconds: float) -> bool:
        """Drop what waits, and say whether nothing comes for so long."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            pass
        self._socket.settimeout(seconds)
        try:
            self._socket.recv(4096)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    """Give a service manager with a watchdog to every process that is started."""
    path = tmp_path / "notify"
    monkeypatch.setenv("NOTIFY_SOCKET", str(path))
    monkeypatch.setenv("WATCHDOG_USEC", str(int(PERIOD_SECONDS * 1e6)))
    found = Manager(path)
    yield found
    found.close()


def test_service_manager_hears_start_reload_hang_and_end(tmp_path: Path, manager: Manager) -> None:
    """READY, a status, RELOADING before READY again, no feeding while it hangs, STOPPING."""
    with mosquitto(tmp_path, "allow_anonymous true") as port, running_agent(tmp_path, port) as agent:
        manager.hear("READY=1")
        assert "serving digits" in manager.hear("STATUS=serving digits")
        manager.hear("WATCHDOG=1")
        agent.signal(signal.SIGHUP)
        manager.hear("RELOADING=1")
        manager.hear("READY=1")
        agent.signal(signal.SIGSTOP)
        assert manager.hears_nothing(PERIOD_SECONDS)
        agent.signal(signal.SIGCONT)
        manager.hear("WATCHDOG=1")
        agent.signal(signal.SIGTERM)
        assert "EXTEND_TIMEOUT_USEC=" in manager.hear("STOPPING=1")
        assert agent.wait() == 0


def test_service_manager_of_an_agent_without_a_broker_hears_that_it_is_ready(tmp_path: Path, manager: Manager) -> None:
    """A network that is down is no reason to end, or to undo an upgrade; the link still makes progress."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with running_agent(tmp_path, nobody.getsockname()[1]) as agent:
            manager.hear("READY=1")
            manager.hear("WATCHDOG=1")
            assert "the broker is not reached" in manager.hear("STATUS=")
            agent.signal(signal.SIGTERM)
            manager.hear("STOPPING=1")
