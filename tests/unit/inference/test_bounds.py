"""The watcher on a worker's memory, where it has no control group."""

from __future__ import annotations

import queue
import subprocess
import sys
from collections.abc import Iterator

import pytest

from edge_agent.inference import bounds
from edge_agent.inference.bounds import Bounds, proportional_bytes, resident_bytes

MIB = 1024 * 1024
HOLDS = 64
PROGRAM = f"import sys; held = bytearray(b'x') * ({HOLDS} << 20); print(flush=True); sys.stdin.read()"


@pytest.fixture
def greedy(monkeypatch: pytest.MonkeyPatch) -> Iterator[subprocess.Popen[bytes]]:
    """Give a process that holds 64 MiB."""
    monkeypatch.setattr(bounds, "ALLOWANCE_BYTES", 0)
    monkeypatch.setattr(bounds, "LOOK_SECONDS", 0.01)
    process = subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def test_worker_that_holds_too_much_is_ended_with_the_reason(greedy: subprocess.Popen[bytes]) -> None:
    """Both numbers are in it."""
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    held = Bounds(None, 32 * MIB, 1, ended.put)
    held.hold(greedy.pid)
    reason = ended.get(timeout=30)
    assert "its limit is 32 MiB" in reason
    assert HOLDS <= int(reason.split()[2]) < HOLDS + 64
    assert not held.in_group
    held.let_go()


def test_worker_below_its_limit_is_left_alone(greedy: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """However often it is looked at; and pages that others have too do not count in full."""
    looked: queue.SimpleQueue[int] = queue.SimpleQueue()
    real = bounds.resident_bytes

    def counted(pid: int) -> int:
        looked.put(pid)
        return real(pid)

    monkeypatch.setattr(bounds, "resident_bytes", counted)
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    held = Bounds(None, 512 * MIB, 1, ended.put)
    held.hold(greedy.pid)
    for _ in range(3):
        assert looked.get(timeout=30) == greedy.pid
    held.let_go()
    assert ended.empty()
    assert HOLDS * MIB <= proportional_bytes(greedy.pid) <= resident_bytes(greedy.pid)


def test_a_process_that_is_gone_holds_nothing() -> None:
    """The watcher of a dead process is no danger to whoever has its number next: it reads 0 and ends with it."""
    process = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True
    )
    assert proportional_bytes(int(process.stdout)) == 0
