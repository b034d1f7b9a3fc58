"""`edge-agent jobs`, and the options of `edge-agent submit` and `edge-agent coordinator`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from http_coordinators import HttpCoordinator

from edge_agent.cli import main
from edge_agent.coordinator.store import Store

JOB = "5f0c1e6fd3c04a0f8d5d8d8e7c6b5a49"
SCAN = Path(__file__).resolve().parents[3] / "examples" / "scan.json"
AGENT = "7xq2lmp4czk3vwtyb5ahd6nfogr2sjue"


def test_jobs_are_listed_with_who_is_to_blame(coordinator: HttpCoordinator, capsys: pytest.CaptureFixture[str]) -> None:
    """A table for people, JSON for scripts."""
    failed = {"code": "poison", "blame": "requester"}
    jobs = [
        {"job_id": JOB, "model": "digits", "state": "failed", "attempts": 2, "client": "reports", "error": failed},
        {"job_id": "0" * 32, "model": "digits", "state": "queued", "attempts": 0, "client": "me"},
    ]
    coordinator.answers["GET /api/v1/jobs"] = jobs
    assert main(["jobs", "--coordinator", coordinator.url, "--client", "me", "--limit", "7"]) == 0
    shown = capsys.readouterr().out
    assert JOB in shown
    assert "poison (requester)" in shown
    assert coordinator.asked == [("GET", "/api/v1/jobs?limit=7&client=me", {})]
    assert main(["jobs", "list", "--coordinator", coordinator.url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == jobs
    coordinator.answers.clear()
    coordinator.answers["GET /api/v1/jobs"] = []
    assert main(["jobs", "--coordinator", coordinator.url]) == 0
    assert "edge-agent submit" in capsys.readouterr().out


def test_one_job_is_shown_and_its_receipt_kept(
    coordinator: HttpCoordinator, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """How it stands, as JSON."""
    coordinator.answers[f"GET /api/v1/jobs/{JOB}"] = {"job_id": JOB, "state": "succeeded"}
    coordinator.answers["GET /api/v1/log/bundle"] = b"signed"
    receipt = tmp_path / "scan.receipt"
    assert main(["jobs", "show", JOB, "--coordinator", coordinator.url, "--receipt", str(receipt)]) == 0
    assert json.loads(capsys.readouterr().out)["state"] == "succeeded"
    assert receipt.read_bytes() == b"signed"


@pytest.mark.parametrize(("state", "words"), [("cancelled", "is cancelled"), ("succeeded", "had ended before")])
def test_a_job_is_cancelled(
    coordinator: HttpCoordinator, capsys: pytest.CaptureFixture[str], state: str, words: str
) -> None:
    """Or it is said that it was over."""
    coordinator.answers[f"DELETE /api/v1/jobs/{JOB}"] = {"job_id": JOB, "state": state}
    assert main(["jobs", "cancel", JOB, "--coordinator", coordinator.url]) == 0
    assert words in capsys.readouterr().out
    assert coordinator.asked == [("DELETE", f"/api/v1/jobs/{JOB}", {})]


@pytest.mark.parametrize(
    "arguments",
    [
        ["list", JOB],
        ["show"],
        ["show", JOB[:-1]],
        ["cancel", JOB.upper()],
        ["cancel", JOB, "--receipt", "x"],
        ["cancel", "../agents"],
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_asked(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With what is right instead."""
    assert main(["jobs", *arguments]) == 64
    assert "edge-agent: error:" in capsys.readouterr().err


def test_every_option_of_a_job_has_a_flag(coordinator: HttpCoordinator, capsys: pytest.CaptureFixture[str]) -> None:
    """What `submit` is given stands in the request."""
    coordinator.answers["POST /api/v1/models/digits/jobs"] = {"job_id": JOB}
    flags = ["--deadline", "5", "--priority", "-3", "--max-attempts", "2", "--idempotency-key", "k", "--client", "me"]
    flags += ["--labels", "region=eu, kitchen", "--owner", "ada", "--class", "0" * 32]
    command = ["submit", "digits", "--input", str(SCAN), "--coordinator", coordinator.url, "--async", *flags]
    assert main(command) == 0
    assert capsys.readouterr().out.strip() == JOB
    ((_, _, sent),) = coordinator.asked
    assert sent["parameters"] == {
        "deadline_seconds": 5.0,
        "priority": -3,
        "max_attempts": 2,
        "labels": "kitchen,region=eu",
        "owner": "ada",
        "class": "0" * 32,
        "client": "me",
    }


def test_an_option_out_of_bounds_is_told_before_the_job_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is reached for."""
    assert main(["submit", "digits", "--input", str(SCAN), "--priority", "101"]) == 65
    assert "priority" in capsys.readouterr().err


def test_an_agent_is_admitted_as_somebodys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The owner stands in the database and in the list; `revoke` takes none."""
    Store(tmp_path / "coordinator.db").close()
    state = ["--state", str(tmp_path)]
    assert main(["coordinator", "approve", AGENT, "--owner", "ada", *state]) == 0
    assert "as one of ada's" in capsys.readouterr().out
    assert main(["coordinator", "agents", "--json", *state]) == 0
    (agent,) = json.loads(capsys.readouterr().out)
    assert (agent["agent_id"], agent["owner"], agent["approved"]) == (AGENT, "ada", True)
    assert main(["coordinator", "agents", *state]) == 0
    assert "ada" in capsys.readouterr().out
    for wrong in (["revoke", AGENT, "--owner", "ada"], ["approve", AGENT, "--owner", ""]):
        assert main(["coordinator", *wrong, *state]) == 64


@pytest.mark.parametrize(
    ("action", "flag"),
    [("approve", "reason"), ("approve", "list"), ("reinstate", "reason"), ("reinstate", "owner"), ("tokens", "list")],
)
def test_a_flag_of_another_action_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], action: str, flag: str
) -> None:
    """What would not be done is not passed over in silence, and nobody is admitted."""
    Store(tmp_path / "coordinator.db").close()
    given = [] if action == "tokens" else [AGENT]
    state = ["--state", str(tmp_path)]
    assert main(["coordinator", action, *given, f"--{flag}", "x", *state]) == 64
    assert f"--{flag} goes with" in capsys.readouterr().err
    assert main(["coordinator", "agents", "--json", *state]) == 0
    assert json.loads(capsys.readouterr().out) == []
