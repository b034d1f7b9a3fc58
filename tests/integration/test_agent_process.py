"""The agent as a process: what it keeps through SIGKILL, how it leaves, and that no trouble with the disk ends it."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import needs
import psutil
import pytest
from agents import Agent, Coordinator, running_agent
from brokers import Cable, mosquitto
from fakes import job_id
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from edge_agent.agent.pipeline import MOST_RUNS
from edge_agent.agent.spooling import SPOOL_FILE
from edge_agent.folders import take
from edge_agent.wire.messages import Birth, Failure, Result

KEEP_ALL = {"AGENT_SPOOL_SECONDS": "0"}
LEAVE_SECONDS = 20.0
"""Far more than the stop may take, and far less than waiting for ever."""


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Run a Mosquitto."""
    with mosquitto(tmp_path, "allow_anonymous true") as found:
        yield found


def spooled(agent: Agent) -> list[tuple[bytes, int]]:
    """Return (job, epoch) of what is on an agent's disk, as another process sees it."""
    path = agent.state / SPOOL_FILE
    if not path.exists():
        return []
    database = sqlite3.connect(path)
    try:
        return database.execute("SELECT job, epoch FROM results ORDER BY number").fetchall()
    except sqlite3.Error:  # it is being made
        return []
    finally:
        database.close()


def test_expensive_result_survives_kill_9_and_is_delivered_until_settled(tmp_path: Path, port: int) -> None:
    """The next process lists it in its first birth and sends the same bytes; the disk forgets it once it is settled."""
    with running_agent(tmp_path, port, **KEEP_ALL) as agent, Coordinator(agent, port) as coordinator:
        birth = coordinator.wait_for_offers()
        coordinator.job(1, birth)
        first = coordinator.hear(Result)
        agent.wait_until(lambda: spooled(agent) == [(job_id(1), 1)])
        agent.signal(signal.SIGKILL)
        agent.wait()
        agent.start()
        reborn = coordinator.hear(Birth, lambda b: b.session > birth.session)
        assert [(held.job, held.epoch) for held in reborn.statement.held] == [(job_id(1), 1)]
        again = coordinator.hear(Result)
        assert again.signed == first.signed
        coordinator.settled(1)
        agent.wait_until(lambda: spooled(agent) == [])
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
        stopped = coordinator.hear(Birth, lambda b: b.state == "stopped")
        assert stopped.statement.held == ()


@pytest.mark.parametrize("damage", ["garbage", "cut", "torn"])
def test_damaged_spool_is_set_aside_and_the_agent_works_on(tmp_path: Path, port: int, damage: str) -> None:
    """It is told in the log, the next result goes to a new file, and the damaged one is kept for its owner."""
    with running_agent(tmp_path, port, **KEEP_ALL) as agent, Coordinator(agent, port) as coordinator:
        birth = coordinator.wait_for_offers()
        coordinator.job(1, birth)
        coordinator.hear(Result)
        agent.wait_until(lambda: spooled(agent) == [(job_id(1), 1)])
        agent.signal(signal.SIGKILL)
        agent.wait()
        path = agent.state / SPOOL_FILE
        whole = path.read_bytes()
        bad = {
            "garbage": b"\xa5" * 5000,
            "cut": whole[: len(whole) // 2],
            "torn": whole[:4096] + bytes(len(whole) - 4096),
        }
        path.write_bytes(bad[damage])
        coordinator.hello()
        agent.start()
        birth = coordinator.wait_for_offers()
        assert birth.held == ()
        assert agent.log.count("action=spool-failed") == 1
        coordinator.job(2, birth)
        coordinator.hear(Result)
        agent.wait_until(lambda: spooled(agent) == [(job_id(2), 1)])
        (aside,) = agent.state.glob(f"{SPOOL_FILE}.damaged-*")
        assert aside.read_bytes() == bad[damage]


def test_newer_spool_is_refused_with_a_clear_error_and_left_as_it_is(tmp_path: Path, port: int) -> None:
    """An older version after an upgrade: status 74, what to do, and nothing changed."""
    agent = Agent(tmp_path, port)
    path = agent.state / SPOOL_FILE
    database = sqlite3.connect(path)
    database.execute("PRAGMA user_version=99")
    database.execute("CREATE TABLE of_the_future (x)")
    database.close()
    before = path.read_bytes()
    agent.start()
    try:
        assert agent.wait() == 74
    finally:
        agent.end()
    assert "has schema 99; this version knows 1" in agent.log
    assert "hint: Run the newer version again" in agent.log
    assert path.read_bytes() == before


def test_the_spans_of_a_run_reach_a_collector_of_traces(tmp_path: Path, port: int) -> None:
    """Where one is set: the attempt here, and the model's run inside it."""
    got: list[bytes] = []

    class Collector(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Collector) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}).start()
        traced = {"TELEMETRY_ENDPOINT": f"http://127.0.0.1:{server.server_address[1]}/v1/traces"}
        with running_agent(tmp_path, port, **traced) as agent, Coordinator(agent, port) as coordinator:
            birth = coordinator.wait_for_offers()
            coordinator.job(1, birth)
            coordinator.hear(Result)
            coordinator.settled(1)
            agent.signal(signal.SIGTERM)
            assert agent.wait() == 0  # what was not sent goes now
        server.shutdown()
    requests = [ExportTraceServiceRequest.FromString(body) for body in got]
    spans = [span for request in requests for span in request.resource_spans[0].scope_spans[0].spans]
    assert {(span.name, span.trace_id) for span in spans} == {
        ("at the machine", job_id(1)),
        ("the model runs", job_id(1)),
    }


def test_too_large_a_job_is_answered(tmp_path: Path, port: int) -> None:
    """Above the owner's limit, but within what is read: the coordinator hears it at once."""
    with (
        running_agent(tmp_path, port, LIMITS_MAX_INLINE_BYTES="65536", LIMITS_MAX_OUTPUT_BYTES="65536") as agent,
        Coordinator(agent, port) as coordinator,
    ):
        birth = coordinator.wait_for_offers()
        coordinator.job(1, birth, data=bytes(100_000))
        failure = coordinator.hear(Failure).statement
        assert (failure.job, failure.code, failure.retry) == (job_id(1), "too-large", True)
        coordinator.job(2, birth)
        assert coordinator.hear(Result).statement.job == job_id(2)


# -- a worker that dies -----------------------------------------------------------------------------------------------


def test_a_worker_that_is_killed_over_a_variant_three_times_has_it_withdrawn(tmp_path: Path, port: int) -> None:
    """Each death costs the attempt that it was at and no other; the reason of the withdrawal is in the status."""
    with running_agent(tmp_path, port) as agent, Coordinator(agent, port) as coordinator:
        birth = coordinator.wait_for_offers()
        first = chosen(agent)
        for number in range(3):
            agent.wait_until(lambda: serves(agent) == first)
            os.kill(agent.status["worker_pid"], signal.SIGSTOP)
            coordinator.job(number, birth)
            coordinator.hello()  # answered when the job is with the worker
            coordinator.hear(Birth, lambda b: len(b.held) == 1)
            os.kill(agent.status["worker_pid"], signal.SIGKILL)
            failure = coordinator.hear(Failure).statement
            assert (failure.job, failure.code, failure.retry) == (job_id(number), "worker-died", True)
            coordinator.settled(number)
        agent.wait_until(lambda: serves(agent) not in {None, first})
        (family,) = agent.status["families"]
        reasons = {lost["variant"]: lost["why"] for lost in family["lost"]}
        assert "the worker ended over it 3 times within 1 h" in reasons[first]
        assert "SIGKILL" in reasons[first]
        assert agent.log.count("action=withdrawn") == 1
        birth = coordinator.wait_for_offers_again()
        coordinator.job(7, birth)
        assert coordinator.hear(Result).statement.job == job_id(7)
        assert set(agent.status["containment"]) == {"in_force", "missing"}


def chosen(agent: Agent) -> str:
    """Return the variant that serves the only family there is, once it is known."""
    agent.wait_until(lambda: bool(agent.status["families"]) and agent.status["families"][0]["chosen"] is not None)
    found: str = agent.status["families"][0]["chosen"]
    return found


def serves(agent: Agent) -> str | None:
    """Return the variant that a worker serves right now; None if none does."""
    status = agent.status
    (family,) = status["families"]
    up = family["loaded"] and status["worker_pid"] and psutil.pid_exists(status["worker_pid"])
    return family["chosen"] if up else None


# -- the end ----------------------------------------------------------------------------------------------------------


def hang_worker(agent: Agent) -> None:
    """Hold the worker: it neither answers nor ends when asked to."""
    agent.wait_until(lambda: (agent.state / "status.json").exists() and bool(agent.status["worker_pid"]))
    os.kill(agent.status["worker_pid"], signal.SIGSTOP)


def hang_working_worker(agent: Agent, coordinator: Coordinator) -> Birth:
    """Hold the worker once it has proved to work; return the agent's birth."""
    birth = coordinator.wait_for_offers()
    coordinator.job(9, birth)
    coordinator.hear(Result)
    coordinator.settled(9)
    hang_worker(agent)
    return birth


def test_stop_with_a_hung_worker_hands_everything_back(tmp_path: Path, port: int) -> None:
    """What waits is handed back at once, what hangs by the last birth; two signals are one, and the status is 0."""
    settings = {"AGENT_STOP_SECONDS": "2", "AGENT_MAX_IN_FLIGHT": "32"}
    with running_agent(tmp_path, port, **settings) as agent, Coordinator(agent, port) as coordinator:
        birth = hang_working_worker(agent, coordinator)
        for number in range(MOST_RUNS + 5):
            coordinator.job(number, birth)
        coordinator.hello()  # answered after the jobs were taken on, in the order of the queue
        held = coordinator.hear(Birth, lambda b: len(b.held) == MOST_RUNS + 5).statement.held
        agent.signal(signal.SIGTERM)
        agent.signal(signal.SIGINT)
        # How many the worker was given depends on how fast it has been: two at least, and so many at most.
        handed_back = {coordinator.hear(Failure).statement.job for _ in range(5)}
        stopped = coordinator.hear(Birth, lambda b: b.state == "stopped").statement
        assert agent.wait(LEAVE_SECONDS) == 0
        assert len(handed_back) == 5
        assert handed_back < {attempt.job for attempt in held} - {job_id(0), job_id(1)}
        assert stopped.held == ()
        assert agent.log.count("action=stopping") == 1


def test_stop_while_models_are_measured(tmp_path: Path, port: int) -> None:
    """Nothing is held, so nothing is waited for but the worker's last two seconds."""
    with running_agent(tmp_path, port) as agent, Coordinator(agent, port) as coordinator:
        hang_worker(agent)
        coordinator.hear(Birth)
        agent.signal(signal.SIGTERM)
        assert agent.wait(LEAVE_SECONDS) == 0
        assert coordinator.hear(Birth, lambda b: b.state == "stopped").statement.held == ()


def test_stop_while_it_still_starts(tmp_path: Path) -> None:
    """Another process has the state directory for the moment: the wait for it ends with 0, and nothing is left."""
    agent = Agent(tmp_path, 1)
    with take(agent.state):
        agent.start()
        try:
            family = psutil.Process(agent.process.pid) if agent.process else None
            assert family is not None
            agent.wait_until(lambda: any(path.endswith("/lock") for path in open_files(family)))
            agent.signal(signal.SIGTERM)
            assert agent.wait(LEAVE_SECONDS) == 0
        finally:
            agent.end()


def open_files(process: psutil.Process) -> list[str]:
    """Return what a process has open; nothing once it is gone."""
    with contextlib.suppress(psutil.Error):
        return [file.path for file in process.open_files()]
    return []


@pytest.mark.parametrize("kind", ["refuses", "answers nothing"])
def test_stop_before_the_first_connection(tmp_path: Path, kind: str) -> None:
    """A broker that is not there, or that is a black hole, keeps nobody from leaving."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        agent = Agent(tmp_path, 1)
        agent.start("mqtt://127.0.0.1:1" if kind == "refuses" else f"mqtt://127.0.0.1:{silent.getsockname()[1]}")
        try:
            agent.wait_for_log("action=starting")
            agent.signal(signal.SIGTERM)
            assert agent.wait(LEAVE_SECONDS) == 0
        finally:
            agent.end()


def test_stop_with_a_broker_that_swallows_everything(tmp_path: Path, port: int) -> None:
    """The answer cannot get through; the time is over all the same, and the status is 0."""
    with Cable(port) as cable:
        agent = Agent(tmp_path, cable.port, AGENT_STOP_SECONDS="1")
        agent.start()
        try:
            with Coordinator(agent, port) as coordinator:
                birth = hang_working_worker(agent, coordinator)
                coordinator.job(1, birth)
                coordinator.hello()
                coordinator.hear(Birth, lambda b: len(b.held) == 1)
                cable.clog()
                agent.signal(signal.SIGTERM)
                assert agent.wait(LEAVE_SECONDS) == 0
        finally:
            agent.end()


def test_stop_while_the_broker_is_away_waits_for_it_and_hands_back_when_it_returns(tmp_path: Path, port: int) -> None:
    """The connection is cut at the moment of the signal; the next one takes the answers."""
    with Cable(port) as cable:
        agent = Agent(tmp_path, cable.port, AGENT_STOP_SECONDS="6", AGENT_MAX_IN_FLIGHT="32")
        agent.start()
        try:
            with Coordinator(agent, port) as coordinator:
                birth = hang_working_worker(agent, coordinator)
                for number in range(MOST_RUNS + 1):
                    coordinator.job(number, birth)
                coordinator.hello()
                coordinator.hear(Birth, lambda b: len(b.held) == MOST_RUNS + 1)
                cable.cut()
                agent.signal(signal.SIGTERM)
                assert coordinator.hear(Failure, lambda said: said.job == job_id(MOST_RUNS))
                assert coordinator.hear(Birth, lambda b: b.state == "stopped").statement.session > birth.session
                assert agent.wait(LEAVE_SECONDS) == 0
        finally:
            agent.end()


# -- the disk ---------------------------------------------------------------------------------------------------------


def small_disk(agent: Agent, then: str) -> list[str]:
    """Return the command that runs another one with the state directory on a disk of its own, 256 KiB large."""
    unshare = needs.tool("unshare")
    able = subprocess.run([unshare, "-rm", "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True, check=False)
    if able.returncode:
        needs.absent(f"mounting in a namespace of its own is not allowed here: {able.stderr.decode().strip()}")
    state = agent.state
    script = (
        f"set -e; cp -a {state} {state}.keys; mount -t tmpfs -o size=256k,mode=700 none {state}; "
        f'cp -a {state}.keys/. {state}; {then}; exec "$@"'
    )
    return [unshare, "-rm", "sh", "-c", script, "sh"]


@pytest.mark.parametrize(
    ("then", "told"),
    [
        ("head -c 1000000 /dev/zero > STATE/filler || true", "No space left on device"),
        ("touch STATE/lock; mount -o remount,ro STATE", "Read-only file system"),
    ],
    ids=["full", "read-only"],
)
def test_agent_works_on_a_disk_that_takes_nothing(tmp_path: Path, port: int, then: str, told: str) -> None:
    """Session, status and spool are not written; jobs are done, the reasons are told, and a stop ends with 0."""
    agent = Agent(tmp_path, port, **KEEP_ALL)
    agent.start(inside=small_disk(agent, then.replace("STATE", str(agent.state))))
    try:
        with Coordinator(agent, port) as coordinator:
            birth = coordinator.wait_for_offers()
            for number in range(3):
                coordinator.job(number, birth)
                assert coordinator.hear(Result).statement.job == job_id(number)
            agent.wait_for_log("action=spool-failed")
            for number in range(3):
                coordinator.settled(number)
            assert told in agent.log
            assert "action=session-not-kept" in agent.log
            assert "action=sealing-key-not-kept" in agent.log
            assert "action=status-not-written" in agent.log
            agent.signal(signal.SIGTERM)
            assert coordinator.hear(Birth, lambda b: b.state == "stopped").statement.session == birth.session
            assert agent.wait(LEAVE_SECONDS) == 0
    finally:
        agent.end()
