"""Whatever ends the tests, the brokers that they started end, too."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from brokers import PATIENCE_SECONDS

TESTS = Path(__file__).resolve().parents[1]
KINDS = """
import sys, threading
from pathlib import Path
sys.path.insert(0, {tests!r})
from broker_processes import KINDS

broker = KINDS[{name!r}](Path({folder!r}))
starting = threading.Thread(target=broker.start)
starting.start()
starting.join()
print(broker._process.pid, flush=True)
sys.stdin.read()
"""
CONFIGURED = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
from brokers import _start_mosquitto
from needs import tool

print(_start_mosquitto(tool("mosquitto"), Path({folder!r}), ())[0].pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize(
    ("program", "name"),
    [(KINDS, "mosquitto"), (KINDS, "nats-server"), (KINDS, "amqtt"), (CONFIGURED, "")],
    ids=["mosquitto", "nats-server", "amqtt", "configured"],
)
def test_killed_tests_leave_no_broker_behind(tmp_path: Path, program: str, name: str) -> None:
    """It outlives the thread that asked for it, and not the process."""
    code = program.format(tests=str(TESTS), name=name, folder=str(tmp_path))
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as tests:
        assert tests.stdout is not None
        broker = os.pidfd_open(int(tests.stdout.readline()))
        try:
            assert select.select([broker], [], [], 0) == ([], [], [])
            tests.kill()
            assert select.select([broker], [], [], PATIENCE_SECONDS) == ([broker], [], [])
        finally:
            os.close(broker)
