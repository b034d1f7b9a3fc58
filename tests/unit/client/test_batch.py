"""Batches: every row once, whatever is broken off; sources of all forms; in memory only what is under way."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import tied
from gateways import served
from signing import SigningService

from edge_agent.cli import main
from edge_agent.client import Client, rows
from edge_agent.client.batch import Plan, Progress, read_journal, run_batch
from edge_agent.client.rows import count_rows, read_rows
from edge_agent.coordinator.jobs import Blame, JobError, JobState
from edge_agent.errors import InputError, ResourceError, StateError

ROWS = 30


@pytest.fixture
def service() -> SigningService:
    """Return a service that computes and signs."""
    return SigningService()


@pytest.fixture
def base_url(service: SigningService) -> Iterator[str]:
    """Serve it."""
    with served(service) as found:
        yield found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Return JSON lines, each an image of one digit."""
    path = tmp_path / "scans.jsonl"
    path.write_text("".join(json.dumps({"image": [[[[float(n % 10)] * 8] * 8]]}) + "\n" for n in range(ROWS)))
    return path


def labels(path: Path) -> dict[int, Any]:
    """Return what a file of results has for each row; the last line of a row counts."""
    entries = [json.loads(line) for line in path.read_text().splitlines()[1:]]
    return {e["row"]: e["outputs"]["label"]["data"][0] if "outputs" in e else e["error"]["code"] for e in entries}


def run(base_url: str, source: Path, stop: Event | None = None, **changes: Any) -> Progress:  # noqa: ANN401 any field
    """Run a batch of digits."""
    plan = Plan(source, source.with_name("results.jsonl"), "digits", **{"outputs": ("label",), "at_once": 4, **changes})
    with Client(base_url) as client:
        return run_batch(client, plan, lambda now: stop.set() if stop is not None and now.done >= 10 else None, stop)


def test_every_row_gets_its_result_with_its_receipt(base_url: str, source: Path, service: SigningService) -> None:
    """In any order; a second run has nothing to do."""
    assert run(base_url, source) == Progress(ROWS, ROWS, 0)
    results = source.with_name("results.jsonl")
    assert labels(results) == {n: n % 10 for n in range(ROWS)}
    assert all("receipt" in json.loads(line) for line in results.read_text().splitlines()[1:])
    assert {submitted["options"].priority for submitted in service.submitted} == {-10}
    assert run(base_url, source) == Progress(ROWS, ROWS, 0)
    assert len(service.submitted) == ROWS


def test_a_batch_that_was_stopped_goes_on(base_url: str, source: Path, service: SigningService) -> None:
    """Also after a crash in the middle of a line; rows whose answers were lost are not computed again."""
    first = run(base_url, source, Event())
    assert 10 <= first.done < ROWS
    results = source.with_name("results.jsonl")
    whole = results.read_bytes()
    results.write_bytes(whole[: whole.rindex(b'{"row"') + 20])  # what it was writing when it died
    assert run(base_url, source) == Progress(ROWS, ROWS, 0)
    assert labels(results) == {n: n % 10 for n in range(ROWS)}
    assert len(results.read_text().splitlines()) == ROWS + 1
    keys = [submitted["options"].idempotency_key for submitted in service.submitted]
    assert len(keys) == ROWS + 1
    assert len(set(keys)) == ROWS


def test_rows_that_fail_are_told_and_can_be_sent_again(base_url: str, source: Path, service: SigningService) -> None:
    """The others are done all the same."""
    lines = source.read_text().splitlines()
    lines[3], lines[7] = '{"image": [1]}', "{"
    source.write_text("\n".join(lines) + "\n")
    assert run(base_url, source) == Progress(ROWS, ROWS, 2)
    results = source.with_name("results.jsonl")
    assert {row for row, label in labels(results).items() if label == "bad-input"} == {3, 7}
    sent = len(service.submitted)
    assert run(base_url, source, retry_failed=True) == Progress(ROWS, ROWS, 2)
    assert len(service.submitted) == sent
    assert read_journal(results).progress == Progress(ROWS, ROWS, 2)  # type: ignore[union-attr] # it is there


def test_a_row_whose_job_failed_gets_a_new_job(base_url: str, source: Path, service: SigningService) -> None:
    """A job that failed stays so under its key: each retry has another, also after several, and after a restart."""
    blamed = JobError("worker-died", "it died", Blame.AGENT)
    service.change = {"state": JobState.FAILED, "outputs": (), "receipt": None, "error": blamed}
    assert run(base_url, source) == Progress(ROWS, ROWS, ROWS)
    assert run(base_url, source, retry_failed=True) == Progress(ROWS, ROWS, ROWS)
    service.change = {}
    before = dict(service.keys)
    stopped = run(base_url, source, Event(), retry_failed=True)
    assert 10 <= stopped.done < ROWS
    assert run(base_url, source, retry_failed=True) == Progress(ROWS, ROWS, 0)
    assert labels(source.with_name("results.jsonl")) == {n: n % 10 for n in range(ROWS)}
    assert len(before) == 2 * ROWS
    assert len(service.keys) == 3 * ROWS  # no row was computed twice that succeeded


@pytest.mark.parametrize("code", ["queue-full", "quota-exhausted"])
def test_a_coordinator_that_is_full_is_waited_for(
    base_url: str, source: Path, service: SigningService, code: str
) -> None:
    """Beyond the client's own patience; a day's jobs that are used up are no fault of any row."""
    service.refuses = ResourceError("full", code=code, retry_after_seconds=0.01)
    told: list[str] = []
    waited = Event()

    def wait(self: Event, timeout: float | None = None) -> bool:
        service.refuses = None
        waited.set()
        return False

    plan = Plan(source, source.with_name("results.jsonl"), "digits", at_once=1)
    with Client(base_url, deadline_seconds=0.01, on_retry=lambda error: told.append(error.error_code)) as client:
        client.inputs("digits")
        stop = type("Stop", (Event,), {"wait": wait})()
        assert run_batch(client, plan, stop=stop) == Progress(ROWS, ROWS, 0)
    assert waited.is_set()
    assert set(told) == {code}


def test_results_of_another_batch_are_left_alone(base_url: str, source: Path) -> None:
    """Nor is a file overwritten that holds something else."""
    run(base_url, source)
    results = source.with_name("results.jsonl")
    before = results.read_bytes()
    source.write_text(source.read_text() + '{"image": []}\n')
    with pytest.raises(InputError, match="another batch"):
        run(base_url, source)
    assert results.read_bytes() == before
    results.write_text("my letter to grandmother\n")
    with pytest.raises(InputError, match="no file of results"):
        run(base_url, source)
    assert results.read_text() == "my letter to grandmother\n"
    results.write_bytes(before[:20])  # of one that died as it began
    source.write_text("")
    assert run(base_url, source) == Progress(0, 0, 0)
    with Client(base_url) as client, pytest.raises(StateError):
        run_batch(client, Plan(source, source.parent / "none" / "x", "digits"))


def test_arrays_and_folders(tmp_path: Path, base_url: str) -> None:
    """Row by row, without reading the rest; files by their names."""
    images = np.stack([np.full((1, 8, 8), n, np.float32) for n in range(5)])
    archive, folder = tmp_path / "a" / "scans.npz", tmp_path / "scans"
    archive.parent.mkdir()
    folder.mkdir()
    np.savez_compressed(archive, image=images)
    for number in range(5):
        np.save(folder / f"{number}.npy", images[number])
    (folder / "5.json").write_text(json.dumps({"image": images[4].tolist()}))
    (folder / "6.txt").write_text("a letter")
    assert run(base_url, archive) == Progress(5, 5, 0)
    assert labels(archive.with_name("results.jsonl")) == {n: n for n in range(5)}
    assert run(base_url, folder) == Progress(7, 7, 1)
    assert labels(folder.with_name("results.jsonl")) == {0: 0, 1: 1, 2: 2, 3: 3, 4: 4, 5: 4, 6: "bad-input"}


def test_sources_that_are_none(tmp_path: Path) -> None:
    """Told with what is wrong."""
    cut, ragged, objects = tmp_path / "cut.npz", tmp_path / "ragged.npz", tmp_path / "objects.npz"
    cut.write_bytes(b"PK\x03\x04 no more")
    np.savez(ragged, a=np.zeros(3), b=np.zeros(4))
    np.savez(objects, a=np.array([None], dtype=object))
    for path in (cut, ragged, objects):
        with pytest.raises(InputError):
            count_rows(path)
        with pytest.raises(InputError):
            list(read_rows(path, ()))


def test_a_line_that_is_too_long_is_one_row(base_url: str, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It fails by itself, with what comes of the rest of it, and the rows after it keep their numbers."""
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 5000)
    lines = source.read_text().splitlines()
    lines[2], lines[4], lines[6] = "[" + "1," * 10_000 + "1]", "", " " * 7000
    source.write_text("\n".join(lines))
    assert count_rows(source) == len(list(read_rows(source, ()))) == ROWS - 1
    assert run(base_url, source) == Progress(ROWS - 1, ROWS - 1, 2)
    expected = [n % 10 for n in range(ROWS) if n != 4]
    expected[2] = expected[5] = "bad-input"  # type: ignore[call-overload] # a label, or what went wrong
    assert labels(source.with_name("results.jsonl")) == dict(enumerate(expected))


def test_the_command_goes_on_where_it_was_killed(
    tmp_path: Path, base_url: str, source: Path, service: SigningService, capsys: pytest.CaptureFixture[str]
) -> None:
    """By SIGKILL in the middle, in a process of its own; every row has one job."""
    results = tmp_path / "results.jsonl"
    source.write_text(source.read_text() * 20)
    arguments = ["batch", "run", str(source), "--model", "digits", "--output", str(results), "--coordinator", base_url]
    process = tied.start([sys.executable, "-m", "edge_agent.cli", *arguments], stderr=subprocess.PIPE)
    assert process.stderr is not None
    for line in process.stderr:
        if b"rows" in line and not line.startswith("… 0 of".encode()):
            break
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stderr.close()
    assert main(["batch", "status", str(results), "--json"]) == 0
    assert 0 < json.loads(capsys.readouterr().out)["done"] < 20 * ROWS
    assert main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "rows": 20 * ROWS,
        "done": 20 * ROWS,
        "failed": 0,
        "unheard": 0,
    }
    assert labels(results) == {n: n % ROWS % 10 for n in range(20 * ROWS)}
    assert len(service.keys) == 20 * ROWS


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "none.jsonl", "--model", "digits", "--output", "x"],
        ["run", "x.jsonl"],
        ["run", "x", "--model", "digits", "--output", "y", "--at-once", "0"],
        ["run", "x", "--model", "digits", "--output", "y", "--idempotency-key", "k"],
        ["status", "none"],
    ],
    ids=" ".join,
)
def test_wrong_use_is_told(arguments: list[str]) -> None:
    """Before anything is sent."""
    assert main(["batch", *arguments]) in {64, 65}
