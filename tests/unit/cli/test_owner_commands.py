"""`edge-agent status`, `why`, `pause`, `resume`, `drain`, `history`: what they ask, what they show, how they fail."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_agent.agent.asked import OwnerAsked
from edge_agent.agent.control import ControlSocket
from edge_agent.agent.policy import clientele
from edge_agent.cli import main
from edge_agent.cli.owner import span_seconds
from edge_agent.errors import UsageError
from edge_agent.settings import Policy

HOT = {
    "code": "hot",
    "text": "the CPU is at 80 °C (policy.max_cpu_celsius is 70)",
    "change": "it cools down",
    "unknowable": False,
}
NIGHT = {"code": "outside-hours", "text": "it is Wed 12:00", "change": "Wed 22:00, in 10 h", "unknowable": False}
COUNT = {"finished": 3, "failed": 1, "handed_back": 2, "busy_us": 1_500_000}
COMMANDS = ["status", "why", "pause", "resume", "drain", "history"]


def answer(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 any member
    """Return what an agent says that works and is idle."""
    found: dict[str, Any] = {
        "ok": True,
        "agent_id": "7xq2lmp4czk3vwtyb5ahd6nfogr2sjue",
        "pid": 4000,
        "worker_pid": 4001,
        "machine": "a board",
        "network": "home",
        "coordinator_id": "aaaabbbbccccdddd",
        "connected": True,
        "offers": ["digits"],
        "families": [{"family": "digits", "chosen": "int8-static", "loaded": True}],
        "attempts": {"waiting": 0, "running": 0, "unsettled": 0},
        "obstacles": [],
        "mode": "work",
        "since_ms": 1_800_000_000_000,
        "now_ms": 1_800_000_600_000,
        "order": None,
        "order_not_kept": None,
        "reasons": [],
        "notes": [],
        "refused_rules": None,
        "refused_order": None,
        "refused_control": None,
        "clientele": clientele(Policy()),
        "pace": "normal",
        "threads": 4,
        "account": {
            "kwh_today": 0.0125,
            "cost_today": 0.0039,
            "currency": "EUR",
            "watts": 6.5,
            "watts_source": "plug",
            "watts_why": None,
            "accepted_today": 3,
            "credit_today": 12,
        },
        "cpu_celsius": 48.4,
        "cpu_celsius_why": None,
        "today": {},
    }
    return {**found, **changes}


class FakeAgent:
    """Answers on a control socket, and keeps what it was asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[dict[str, Any]] = []
        self.answer = answer()
        self.socket = ControlSocket(folder, self._put)

    def _put(self, event: OwnerAsked) -> None:
        self.asked.append(dict(event.request))
        event.reply(self.answer)

    def run(self, *arguments: str) -> int:
        """Run a command that asks it."""
        return main([*arguments, "--state", str(self.folder)])


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    """Return one that runs."""
    found = FakeAgent(tmp_path)
    found.socket.start()
    yield found
    found.socket.stop()


def test_what_today_took_is_said_with_its_source_or_why_it_is_unknown(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """And what was refused from outside stands beside it."""
    assert agent.run("status") == 0
    shown = capsys.readouterr().out
    assert "earned    12 Mmac of credit for 3 accepted results, by this machine's count" in shown
    assert "12.50 Wh for 0.0039 EUR beyond the idle machine; the machine draws 6.5 W (plug)" in shown
    unknown = {**agent.answer["account"], "kwh_today": None, "watts": None, "watts_why": "nothing measures it"}
    agent.answer = answer(account=unknown, refused_order="an order (work) was refused: no")
    assert agent.run("status") == 0
    shown = capsys.readouterr().out
    assert "unknown watts: nothing measures it" in shown
    assert "refused   an order (work) was refused: no" in shown


def test_for_whom_it_works_is_said_by_status_why_and_history(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the history says nothing of it where it was for everybody, or nobody wrote it down yet."""
    agent.answer = answer(clientele=clientele(Policy(clients="mine", my_clients=("ada", "phone"))))
    assert agent.run("status") == 0
    assert "works     only for ada, phone" in capsys.readouterr().out
    assert agent.run("why") == 0
    assert "When it works, it works only for ada, phone." in capsys.readouterr().out
    entry = {"at_ms": 1, "mode": "work", "by": "your new rules", "reasons": []}
    works = [{"works": "only for ada"}, {"works": "for everybody"}, {}]
    agent.answer = {**answer(), "transitions": [{**entry, **each} for each in works]}
    assert agent.run("history") == 0
    first, *others = capsys.readouterr().out.splitlines()
    assert first.endswith("work, by your new rules (only for ada)")
    assert all(line.endswith("work, by your new rules") for line in others)


def test_status_is_one_screen(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """What, for whom, with what, how warm, how much today."""
    agent.answer = answer(
        today={"digits": COUNT, "letters": COUNT}, attempts={"waiting": 2, "running": 1, "unsettled": 0}
    )
    assert agent.run("status") == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) <= 24
    for text in (
        "works on 1 jobs, 2 wait",
        "network home, coordinator aaaabbbbccccdddd, connected",
        "digits (int8-static, loaded)",
        "48 °C",
        "6 jobs in 3.0 s of computing, 2 failed, 4 handed back (digits 3, letters 3)",
    ):
        assert text in shown


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "ready for jobs"),
        ({"mode": "rest", "worker_pid": None, "reasons": [HOT]}, "rests since"),
        ({"mode": "rest", "reasons": [HOT]}, "as soon as what runs is finished"),
        (
            {"obstacles": [{"code": "no-broker", "text": "the broker is not reached", "change": "x"}]},
            "may work, but cannot",
        ),
        (
            {
                "obstacles": [
                    {"code": "revoked", "text": "the operator revoked this agent's key: stolen", "change": "new"}
                ]
            },
            "the operator revoked this agent's key: stolen\n  until: new",
        ),
        ({"connected": False}, "not connected to the broker"),
        ({"cpu_celsius": None, "cpu_celsius_why": "no sensor"}, "unknown: no sensor"),
        ({"refused_rules": "policy.battery = 'x'"}, "new rules were refused"),
        ({"notes": [HOT]}, "worked on all the same"),
        ({"families": []}, "none yet"),
    ],
)
def test_status_says_what_is_special(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], text: str
) -> None:
    """In words."""
    agent.answer = answer(**changes)
    assert agent.run("status") == 0
    assert text in capsys.readouterr().out


def test_why_shows_all_reasons_and_what_would_change_each(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """Not just the first, and what is in the way beside the rules."""
    broker = {"code": "no-broker", "text": "the broker is not reached", "change": "edge-agent doctor"}
    agent.answer = answer(mode="rest", reasons=[HOT, NIGHT], obstacles=[broker], notes=[HOT], refused_rules="no")
    assert agent.run("why") == 0
    shown = capsys.readouterr().out
    for reason in (HOT, NIGHT, broker):
        assert f"- {reason['text']}\n  until: {reason['change']}\n" in shown
    assert "passed over" in shown
    assert "New rules were refused" in shown
    agent.answer = answer()
    assert agent.run("why") == 0
    assert capsys.readouterr().out == "Your rules let it work.\n"


@pytest.mark.parametrize(
    ("arguments", "request_"),
    [
        (["pause"], {"do": "pause"}),
        (["pause", "2h"], {"do": "pause", "seconds": 7200.0}),
        (["drain", "90s"], {"do": "drain", "seconds": 90.0}),
        (["resume"], {"do": "resume"}),
        (["history"], {"do": "history", "count": 20}),
        (["history", "--count", "7"], {"do": "history", "count": 7}),
        (["status"], {"do": "status"}),
        (["why"], {"do": "why"}),
    ],
)
def test_what_is_asked(agent: FakeAgent, arguments: list[str], request_: dict[str, Any]) -> None:
    """And `--json` gives the answer as one object."""
    agent.answer = {**answer(), "transitions": []}
    assert agent.run(*arguments) == 0
    assert agent.run(*arguments, "--json") == 0
    assert agent.asked == [request_, request_]


@pytest.mark.parametrize("command", COMMANDS)
def test_json_is_one_object_without_the_envelope(
    agent: FakeAgent, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Names stay as they are in docs/policy.md."""
    agent.answer = {**answer(), "transitions": [{"at_ms": 1, "mode": "rest", "by": "you", "reasons": [HOT]}]}
    assert agent.run(command, "--json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert "ok" not in shown
    assert "mode" in shown


def test_pause_and_resume_say_how_things_stand_then(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """Also when other rules still hold after resume."""
    agent.answer = answer(mode="rest", worker_pid=None, reasons=[NIGHT], order_not_kept="the disk is full")
    agent.run("pause")
    agent.run("drain")
    agent.run("resume")
    shown = capsys.readouterr().out
    assert shown.count("It rests since") == 2
    assert "It still rests since" in shown
    assert shown.count(NIGHT["text"]) == 3
    assert shown.count("Note: the disk is full.") == 3
    agent.answer = answer()
    agent.run("resume")
    assert capsys.readouterr().out == "The order is taken back. Your rules let it work.\n"


def test_history_shows_when_who_and_why(agent: FakeAgent, capsys: pytest.CaptureFixture[str]) -> None:
    """Newest first, as the agent gives it."""
    agent.answer = {
        "ok": True,
        "transitions": [{"at_ms": 1_800_000_000_000, "mode": "rest", "by": "user 7", "reasons": [HOT]}],
    }
    agent.run("history")
    shown = capsys.readouterr().out
    assert "rest, by user 7" in shown
    assert f"  - {HOT['text']}" in shown
    agent.answer = {"ok": True, "transitions": []}
    agent.run("history")
    assert capsys.readouterr().out == "It has worked all the time.\n"


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("30m", 1800), ("45", 2700), ("2h", 7200), ("1d", 86_400), ("1.5h", 5400)]
)
def test_spans_of_time(text: str, seconds: float) -> None:
    """A number alone means minutes."""
    assert span_seconds(text) == seconds


@pytest.mark.parametrize("text", ["", "0", "-1", "2 h", "h", "1w", "1e5", "400d", "nan", "٣m"])
def test_what_is_no_span_of_time(text: str) -> None:
    """The hint shows how to write one."""
    with pytest.raises(UsageError) as caught:
        span_seconds(text)
    assert "2h" in caught.value.hint


@pytest.mark.parametrize("command", COMMANDS)
def test_without_a_running_agent_the_error_says_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    """Status 69, as for everything that nobody answers at."""
    assert main([command, "--state", str(tmp_path)]) == 69
    shown = capsys.readouterr().err
    assert "no agent runs" in shown
    assert "--state DIR" in shown


@pytest.mark.parametrize("arguments", [["history", "--count", "0"], ["history", "--count", "201"], ["pause", "soon"]])
def test_wrong_arguments_are_told_before_anybody_is_asked(agent: FakeAgent, arguments: list[str]) -> None:
    """Status 64."""
    assert agent.run(*arguments) == 64
    assert agent.asked == []
