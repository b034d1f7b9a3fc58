"""A real agent at rest: its worker is gone, the memory back, nothing lost, and it serves again without measuring."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from agents import Agent, Coordinator, running_agent
from brokers import Client, mosquitto, options
from fakes import job_id

from edge_agent.agent.ask import ask
from edge_agent.agent.control import SOCKET_FILE
from edge_agent.errors import TransportError
from edge_agent.mqtt import Connected
from edge_agent.wire.messages import Birth, Failure, Offers, Result

CONFIG = "config.toml"
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """Run a Mosquitto."""
    with mosquitto(tmp_path, "allow_anonymous true") as found:
        yield found


def pss(agent: Agent) -> int:
    """Return the proportional memory of an agent and all its children, bytes."""
    assert agent.process is not None
    total = 0
    for process in [psutil.Process(agent.process.pid), *psutil.Process(agent.process.pid).children(recursive=True)]:
        total += process.memory_full_info().pss
    return total


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has waited for does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def order(agent: Agent, do: str, **more: object) -> dict[str, Any]:
    """Ask the agent as its owner does."""
    return ask(agent.state, {"do": do, **more})


def serve(coordinator: Coordinator, birth: Birth, number: int) -> None:
    """Have a job computed and settled."""
    coordinator.job(number, birth)
    assert coordinator.hear(Result).statement.job == job_id(number)
    coordinator.settled(number)


def test_pause_frees_the_memory_and_resume_serves_without_a_canary_run(tmp_path: Path, port: int) -> None:
    """The worker is gone when the answer comes; the coordinator has heard that nothing is offered."""
    with running_agent(tmp_path, port) as agent, Coordinator(agent, port) as coordinator:
        birth = coordinator.wait_for_offers()
        serve(coordinator, birth, 1)
        canaries, before, worker = (
            agent.log.count("canary: The worker has stopped"),
            pss(agent),
            agent.status["worker_pid"],
        )
        assert psutil.pid_exists(worker)
        paused = order(agent, "pause")
        assert (paused["mode"], paused["worker_pid"], [r["code"] for r in paused["reasons"]]) == (
            "rest",
            None,
            ["paused"],
        )
        assert not psutil.pid_exists(worker)
        assert before - pss(agent) > 20_000_000
        coordinator.hear(Offers, lambda offers: offers.offers == ())
        assert order(agent, "resume")["mode"] == "work"
        coordinator.hear(Offers, lambda offers: len(offers.offers) > 0)
        serve(coordinator, birth, 2)
        assert agent.log.count("canary: The worker has stopped") == canaries
        assert order(agent, "status")["today"]["digits"]["finished"] == 2
        assert [entry["mode"] for entry in order(agent, "history")["transitions"]] == ["work", "rest"]


def test_what_does_not_finish_in_the_grace_time_is_handed_back_and_nothing_is_lost(tmp_path: Path, port: int) -> None:
    """A worker that hangs, jobs that wait: all of them are answered, and the worker is ended."""
    with running_agent(tmp_path, port, POLICY_GRACE_SECONDS="0.5") as agent, Coordinator(agent, port) as coordinator:
        birth = coordinator.wait_for_offers()
        serve(coordinator, birth, 9)
        worker = agent.status["worker_pid"]
        os.kill(worker, signal.SIGSTOP)
        for number in range(5):
            coordinator.job(number, birth)
        agent.wait_until(lambda: sum(order(agent, "status")["attempts"].values()) == 5)
        order(agent, "pause", seconds=3600)
        answers = [coordinator.hear(Failure).statement for _ in range(5)]
        assert {answer.job for answer in answers} == {job_id(number) for number in range(5)}
        assert {(answer.code, answer.retry) for answer in answers} == {("handed-back", True)}
        agent.wait_until(lambda: not psutil.pid_exists(worker))
        for number in range(5):
            coordinator.settled(number)
        agent.wait_until(lambda: sum(order(agent, "status")["attempts"].values()) == 0)
        order(agent, "resume")
        serve(coordinator, birth, 20)


def test_drain_finishes_what_is_held(tmp_path: Path, port: int) -> None:
    """All of it comes as results; then the worker is gone."""
    with running_agent(tmp_path, port) as agent, Coordinator(agent, port) as coordinator:
        birth = coordinator.wait_for_offers()
        worker = agent.status["worker_pid"]
        os.kill(worker, signal.SIGSTOP)
        for number in range(5):
            coordinator.job(number, birth)
        agent.wait_until(lambda: sum(order(agent, "status")["attempts"].values()) == 5)
        assert order(agent, "drain")["mode"] == "rest"
        os.kill(worker, signal.SIGCONT)
        assert {coordinator.hear(Result).statement.job for _ in range(5)} == {job_id(number) for number in range(5)}
        agent.wait_until(lambda: order(agent, "status")["worker_pid"] is None)


def test_a_paused_agent_stays_paused_through_kill_9(tmp_path: Path, port: int) -> None:
    """The next process offers nothing, not even for a moment, until it is told to resume."""
    with running_agent(tmp_path, port) as agent, Coordinator(agent, port) as coordinator:
        birth = coordinator.wait_for_offers()
        order(agent, "pause")
        coordinator.hear(Offers, lambda offers: offers.offers == ())
        agent.signal(signal.SIGKILL)
        agent.wait()
        with pytest.raises(TransportError, match="no agent runs"):
            order(agent, "status")
        agent.start()
        reborn = coordinator.hear(Birth, lambda b: b.session > birth.session).statement
        coordinator.job(1, reborn)
        failure = coordinator.hear(Failure).statement
        assert (failure.job, failure.code) == (job_id(1), "handed-back")
        assert order(agent, "why")["order"] == "pause"
        order(agent, "resume")
        coordinator.hear(Offers, lambda offers: len(offers.offers) > 0)
        serve(coordinator, reborn, 2)


def test_rules_are_changed_while_it_runs_and_invalid_ones_are_refused(tmp_path: Path, port: int) -> None:
    """SIGHUP: hours that are over end the work, a broken file changes nothing, no hours let it work again."""
    config = tmp_path / CONFIG
    config.write_text("[policy]\n")
    with running_agent(tmp_path, port, CONFIG=str(config)) as agent, Coordinator(agent, port) as coordinator:
        birth = coordinator.wait_for_offers()
        day = DAYS[(time.gmtime().tm_wday + 3) % len(DAYS)]  # neither today nor yesterday nor tomorrow
        config.write_text(f'[policy]\ntime_zone = "UTC"\nwork_hours = ["{day} 10:00-11:00"]\n')
        agent.signal(signal.SIGHUP)
        coordinator.hear(Offers, lambda offers: offers.offers == ())
        assert [reason["code"] for reason in order(agent, "why")["reasons"]] == ["outside-hours"]
        config.write_text('[policy]\nwork_hours = ["at night"]\n')
        agent.signal(signal.SIGHUP)
        agent.wait_for_log("action=rules-refused")
        answer = order(agent, "why")
        assert (answer["mode"], [reason["code"] for reason in answer["reasons"]]) == ("rest", ["outside-hours"])
        assert "at night" in answer["refused_rules"]
        config.write_text("[policy]\n")
        agent.signal(signal.SIGHUP)
        coordinator.hear(Offers, lambda offers: len(offers.offers) > 0)
        assert order(agent, "why")["refused_rules"] is None
        serve(coordinator, birth, 1)


def test_stop_and_kill_leave_no_socket_that_lies(tmp_path: Path, port: int) -> None:
    """After SIGTERM it is gone; after SIGKILL it answers nobody, and the next process takes its place."""
    with running_agent(tmp_path, port) as agent, Coordinator(agent, port) as coordinator:
        coordinator.wait_for_offers()
        agent.signal(signal.SIGKILL)
        agent.wait()
        assert (agent.state / SOCKET_FILE).exists()
        agent.start()
        agent.wait_until(lambda: "control-off" in agent.log or _answers(agent))
        agent.signal(signal.SIGTERM)
        assert agent.wait() == 0
        assert not (agent.state / SOCKET_FILE).exists()


def test_an_agent_whose_terminal_is_closed_stops_as_cleanly_as_ever(tmp_path: Path, port: int) -> None:
    """The hang-up of a window that is gone is no wish to read the rules anew."""
    in_a_window = [sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])"]
    agent = Agent(tmp_path, port)
    agent.start(inside=in_a_window)
    try:
        agent.wait_until(lambda: _answers(agent))
        pid = order(agent, "status")["pid"]
        assert pid != agent.process.pid  # type: ignore[union-attr] # it was started above
        agent.signal(signal.SIGKILL)  # of the window
        agent.wait()
        agent.wait_until(lambda: not runs(pid))
        assert not (agent.state / SOCKET_FILE).exists()
    finally:
        agent.end()


def _answers(agent: Agent) -> bool:
    try:
        return bool(order(agent, "status")["agent_id"])
    except TransportError:
        return False


def test_a_gate_on_the_broker_at_home_opens_and_closes_the_work(tmp_path: Path, port: int) -> None:
    """Only while the roof makes power: closed without a reading, and nothing but that topic opens it."""
    (tmp_path / "home").mkdir()
    with mosquitto(tmp_path / "home", "allow_anonymous true") as home_port:
        gate = {
            "HOME_URL": f"mqtt://127.0.0.1:{home_port}",
            "POLICY_GATES": "roof#watts > 500",
            "POLICY_LOOK_SECONDS": "1",
            "POLICY_DWELL_SECONDS": "0",
        }
        with (
            running_agent(tmp_path, port, **gate) as agent,
            Coordinator(agent, port) as coordinator,
            Client(options(home_port, "roof")) as roof,
        ):
            roof.expect(Connected)
            agent.wait_until(lambda: _answers(agent))
            assert [reason["code"] for reason in order(agent, "why")["reasons"]] == ["gate"]
            for topic in ("roof/watts", "home/agent/resume", f"ea1/home/{agent.key.id}/control"):
                roof.link.publish(topic, b'{"watts": 900, "do": "resume"}', retain=True)
            roof.link.publish("roof", b'{"watts": 499}', retain=True)
            agent.wait_until(lambda: "499" in order(agent, "why")["reasons"][0]["text"])
            roof.link.publish("roof", b'{"watts": 900}', retain=True)
            birth = coordinator.wait_for_offers()
            serve(coordinator, birth, 1)
            roof.link.publish("roof", b'{"watts": 0}', retain=True)
            coordinator.hear(Offers, lambda offers: offers.offers == ())
            assert order(agent, "pause")["worker_pid"] is None
            roof.link.publish("roof", b'{"watts": 1000}', retain=True)
            agent.wait_until(lambda: [r["code"] for r in order(agent, "why")["reasons"]] == ["paused"])
