"""The rule by which a watchdog is fed, and what a service manager is told."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.supervisor import Supervisor
from edge_agent.watchdog import Part, stuck

PID = 77
PERIOD = 30.0
IDLE = Part("store", None, 10.0)


class Ear:
    """A service manager's socket."""

    def __init__(self, path: Path) -> None:
        self.environ = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(int(PERIOD * 1e6)), "WATCHDOG_PID": str(PID)}
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.setblocking(False)

    def heard(self) -> list[str]:
        """Return all that was said since the last call."""
        found = []
        while True:
            try:
                found.append(self._socket.recv(4096).decode())
            except BlockingIOError:
                return found

    def close(self) -> None:
        """Listen no more."""
        self._socket.close()


@pytest.fixture
def ear(tmp_path: Path) -> Iterator[Ear]:
    """Give a service manager that listens."""
    found = Ear(tmp_path / "notify")
    yield found
    found.close()


def test_one_part_that_hangs_is_enough_to_starve_the_watchdog() -> None:
    """Whichever of them it is, and it is named."""
    for name in ("network", "worker", "store"):
        parts = [Part(other, 100.0 if other == name else 149.0, 45.0) for other in ("network", "worker", "store")]
        assert stuck(parts, 145.0) == ""
        assert stuck(parts, 146.0) == f"{name} for 46 s"


def test_a_part_that_owes_nothing_is_never_stuck() -> None:
    """An idle store and a sleeping worker make no progress, and need none."""
    assert stuck([IDLE, Part("worker", None, 0.0)], 1e9) == ""


@given(
    parts=st.lists(st.tuples(st.none() | st.floats(0, 1e6), st.floats(0, 1e3)), max_size=5),
    now=st.floats(0, 1e6),
)
def test_the_watchdog_is_fed_exactly_while_nobody_is_late(parts: list[tuple[float | None, float]], now: float) -> None:
    """Stated the other way round, over many moments."""
    named = [Part(f"part{number}", since, patience) for number, (since, patience) in enumerate(parts)]
    late = [
        part.name for part in named if part.owes_since is not None and now - part.owes_since > part.patience_seconds
    ]
    text = stuck(named, now)
    assert bool(text) is bool(late)
    assert all(name in text for name in late)


def test_hang_of_the_network_is_told_once_and_the_watchdog_starves(ear: Ear) -> None:
    """And it is fed again when the part moves after all."""
    watched = Supervisor(ear.environ, PID)
    watched.feed([Part("network", 5.0, 20.0), IDLE], 10.0)
    assert ear.heard() == ["WATCHDOG=1"]
    watched.feed([Part("network", 5.0, 20.0), IDLE], 30.0)
    watched.feed([Part("network", 5.0, 20.0), IDLE], 45.0)
    assert ear.heard() == ["STATUS=no progress of network for 25 s"]
    watched.feed([Part("network", 60.0, 20.0), IDLE], 61.0)
    assert ear.heard() == ["WATCHDOG=1"]


def test_the_watchdog_is_fed_three_times_a_period_and_no_more(ear: Ear) -> None:
    """However often the loop turns."""
    watched = Supervisor(ear.environ, PID)
    for tenth in range(int(PERIOD * 10)):
        watched.feed([], 1000.0 + tenth / 10)
    assert ear.heard() == ["WATCHDOG=1"] * 3
    assert watched.due == 1000.0 + PERIOD


def test_what_is_said_at_start_reload_and_end(ear: Ear) -> None:
    """In sd_notify's words; the status only when it changes."""
    watched = Supervisor(ear.environ, PID)
    watched.ready("serving digits")
    watched.status("serving digits")
    watched.status("two\nlines\tno more")
    watched.reloading()
    watched.stopping(12.5)
    ready, status, reloading, stopping = ear.heard()
    assert ready == "READY=1\nSTATUS=serving digits"
    assert status == "STATUS=two lines no more"
    assert reloading.startswith("RELOADING=1\nMONOTONIC_USEC=")
    assert reloading.rpartition("=")[2].isdecimal()
    assert stopping == "STOPPING=1\nEXTEND_TIMEOUT_USEC=12500000"


@pytest.mark.parametrize(
    "changed",
    [{"WATCHDOG_PID": "1"}, {"WATCHDOG_USEC": "soon"}, {"WATCHDOG_USEC": "0"}, {"WATCHDOG_USEC": "٣"}],
    ids=["of-another-process", "no-number", "zero", "other-digits"],
)
def test_a_watchdog_that_is_not_ours_is_not_fed(ear: Ear, changed: dict[str, str]) -> None:
    """All else is told all the same."""
    watched = Supervisor({**ear.environ, **changed}, PID)
    assert watched.due is None
    watched.feed([], 1.0)
    watched.ready()
    assert ear.heard() == ["READY=1"]


@pytest.mark.parametrize("address", ["", "/nowhere/at/all", "@nobody-listens-here"])
def test_without_a_service_manager_nothing_happens(address: str) -> None:
    """A started-by-hand agent works as well."""
    watched = Supervisor({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "1000"}, PID)
    watched.ready("works")
    watched.feed([], 1.0)
    watched.stopping(1.0)


def test_an_abstract_socket_is_reached() -> None:
    """As containers have it."""
    name = f"edge-agent-test-{id(object())}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(f"\0{name}")
        Supervisor({"NOTIFY_SOCKET": f"@{name}"}, PID).ready()
        heard.settimeout(5)
        assert heard.recv(100) == b"READY=1"
