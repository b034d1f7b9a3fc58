"""`edge-agent log audit`, and receipts with their proof in `edge-agent verify` and `edge-agent submit`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import pytest
import wire_samples
from receipt_logs import Log, bundle, head, log_of, receipt

from edge_agent.cli import main
from edge_agent.cli.submit import fetch_receipt
from edge_agent.errors import RefusedError

RECEIPTS = [receipt(number) for number in range(9)]


class Coordinator(ThreadingHTTPServer):
    """Serves the log that the test gives it."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.log = log_of(RECEIPTS[:5])
        self.proofs_of: Log | None = None
        self.head: bytes | None = None
        self.raw: bytes | None = None

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Coordinator

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        log = self.server.log
        if self.server.raw is not None:
            content = self.server.raw
        elif url.path == "/api/v1/log":
            content = json.dumps({"tree_head": (self.server.head or head(log)).hex()}).encode()
        else:
            asked = parse_qs(url.query)
            path = (self.server.proofs_of or log).consistency(int(asked["from"][0]), int(asked["to"][0]))
            content = json.dumps({"path": [entry.hex() for entry in path]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 as the base class has it
        """Say nothing."""


@pytest.fixture
def coordinator() -> Iterator[Coordinator]:
    """Return one that runs."""
    server = Coordinator()
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


class Desk:
    """A folder with the coordinator's key and what was seen."""

    def __init__(self, folder: Path, coordinator: Coordinator, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.coordinator = coordinator
        self.capsys = capsys
        self.key = folder / "coordinator.pub"
        self.heads = folder / "heads.jsonl"
        wire_samples.COORDINATOR.public.write(self.key)

    def audit(self, *more: object) -> tuple[int, str, str]:
        """Run the command and return status, output and errors."""
        where = ["--coordinator", self.coordinator.url, "--coordinator-key", str(self.key), "--heads", str(self.heads)]
        status = main(["log", "audit", *where, *map(str, more)])
        captured = self.capsys.readouterr()
        return status, captured.out, captured.err

    @property
    def sizes(self) -> list[int]:
        """Of the tree heads in the file."""
        return [json.loads(line)["size"] for line in self.heads.read_text().splitlines()]

    def evidence(self) -> list[int]:
        """The sizes in the files beside it."""
        return [
            json.loads(line)["size"]
            for path in sorted(self.folder.glob("heads.jsonl.forked-*"))
            for line in path.read_text().splitlines()
        ]


@pytest.fixture
def desk(tmp_path: Path, coordinator: Coordinator, capsys: pytest.CaptureFixture[str]) -> Desk:
    """Nothing seen yet."""
    return Desk(tmp_path, coordinator, capsys)


def test_a_log_that_grows_is_followed(desk: Desk) -> None:
    """Each larger tree head is kept; the same one again is not."""
    status, out, _ = desk.audit()
    assert (status, desk.sizes) == (0, [5])
    assert "has 5 receipts" in out
    assert "first look" in out
    assert desk.audit()[0] == 0
    desk.coordinator.log = log_of(RECEIPTS)
    status, out, _ = desk.audit()
    assert (status, desk.sizes) == (0, [5, 9])
    assert "continues the 5" in out
    found = json.loads(desk.audit("--json")[1])
    assert (found["consistent"], found["size"], found["continues"][0]["size"]) == (True, 9, 9)


def test_receipts_and_what_others_saw_are_compared(desk: Desk) -> None:
    """A bundle's tree head is one that somebody saw."""
    mine, theirs = desk.folder / "my.receipt", desk.folder / "their.jsonl"
    mine.write_bytes(bundle(log_of(RECEIPTS[:3]), RECEIPTS, 1))
    desk.audit()
    desk.heads.rename(theirs)
    desk.coordinator.log = log_of(RECEIPTS)
    status, out, _ = desk.audit("--compare", mine, theirs)
    assert status == 0
    assert f"continues the 3 that {mine}" in out
    assert f"continues the 5 that {theirs}" in out


def test_an_empty_log_is_where_every_log_begins(desk: Desk) -> None:
    """No proof is needed."""
    desk.coordinator.log = Log()
    assert desk.audit()[0] == 0
    desk.coordinator.log = log_of(RECEIPTS)
    assert desk.audit()[0] == 0
    assert desk.sizes == [0, 9]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"tree_head": 3}', b'{"tree_head": "zz"}', b"[" * 100_000])
def test_what_is_no_tree_head_is_refused(desk: Desk, raw: bytes) -> None:
    """And nothing is written."""
    desk.coordinator.raw = raw
    status, _, err = desk.audit()
    assert status == 76
    assert "hint: " in err
    assert not desk.heads.exists()


@pytest.mark.parametrize("content", [b"no json\n", b"{}\n", b"\xa1\x00\x00", b'{"tree_head": "00"}\n'])
def test_a_file_that_holds_no_tree_heads_is_refused(desk: Desk, content: bytes) -> None:
    """It is named, and stays as it is."""
    desk.heads.write_bytes(content)
    status, _, err = desk.audit()
    assert status == 76
    assert str(desk.heads) in err
    assert desk.heads.read_bytes() == content


def test_files_that_are_not_there(desk: Desk) -> None:
    """Ours may be missing, one that is to be compared may not."""
    status, _, err = desk.audit("--compare", desk.folder / "missing")
    assert status == 65
    assert "missing" in err


def test_the_network_can_be_insisted_on(desk: Desk) -> None:
    """A log of another one is refused."""
    assert desk.audit("--network", "club")[0] == 76
    assert desk.audit("--network", "home")[0] == 0


def verify(desk: Desk, data: bytes, *more: str) -> tuple[int, str, str]:
    """Run `edge-agent verify`."""
    path = desk.folder / "job.receipt"
    path.write_bytes(data)
    status = main(["verify", str(path), "--coordinator-key", str(desk.key), *more])
    captured = desk.capsys.readouterr()
    return status, captured.out, captured.err


def test_verify_says_that_a_receipt_is_in_the_log(desk: Desk) -> None:
    """Of which size and when; and what that does not prove."""
    data = bundle(log_of(RECEIPTS), RECEIPTS, 4)
    status, out, _ = verify(desk, data)
    assert status == 0
    lines = out.splitlines()
    assert any(line.startswith("proven ") and "number 5 of the 9 receipts" in line for line in lines)
    assert any(line.startswith("not proven ") and "same log to everybody" in line for line in lines)
    assert not any("without its proof" in line for line in lines)
    log = json.loads(verify(desk, data, "--json")[1])["log"]
    assert (log["index"], log["size"], log["issued_ms"]) == (4, 9, wire_samples.NOW_MS)


def test_verify_says_that_a_plain_receipt_proves_nothing_of_a_log(desk: Desk) -> None:
    """It stays valid."""
    status, out, _ = verify(desk, RECEIPTS[0])
    assert status == 0
    assert "not proven  That it is in the coordinator's log" in out
    assert json.loads(verify(desk, RECEIPTS[0], "--json")[1])["log"] is None


class OlderClient:
    """A client of a coordinator whose log begins after this job."""

    def __init__(self, code: str) -> None:
        self.error = RefusedError("This receipt is not in the log.", code=code)

    def receipt_bundle(self, _job_id: str) -> bytes:
        """Refuse."""
        raise self.error

    def receipt(self, _job_id: str) -> bytes:
        """Give the plain one."""
        return RECEIPTS[0]


def test_a_receipt_from_before_the_log_comes_without_its_proof(capsys: pytest.CaptureFixture[str]) -> None:
    """Which is said; any other refusal stays one."""
    assert fetch_receipt(OlderClient("not-logged"), "00") == RECEIPTS[0]  # type: ignore[arg-type] # as much as is asked
    assert "without a proof" in capsys.readouterr().err
    with pytest.raises(RefusedError):
        fetch_receipt(OlderClient("unknown-job"), "00")  # type: ignore[arg-type] # as above


def test_a_forked_log_ends_with_1_and_keeps_the_evidence(desk: Desk) -> None:
    """A rewritten leaf: both tree heads are kept, and what was seen before stays as it was."""
    desk.audit()
    before = desk.heads.read_bytes()
    desk.coordinator.log = log_of([receipt(100), *RECEIPTS[1:]])
    status, out, err = desk.audit()
    assert (status, out) == (1, "")
    assert "The log was forked" in err
    assert "heads.jsonl.forked-1" in err
    assert desk.heads.read_bytes() == before
    assert desk.evidence() == [5, 9]
    assert desk.audit()[0] == 1
    assert desk.evidence() == [5, 9, 5, 9]


def test_a_shortened_log_ends_with_1(desk: Desk) -> None:
    """A rollback."""
    desk.audit()
    desk.coordinator.log = log_of(RECEIPTS[:4])
    status, _, err = desk.audit()
    assert status == 1
    assert "The log was shortened" in err
    assert desk.sizes == [5]


def test_a_log_that_others_see_differently_ends_with_1(desk: Desk) -> None:
    """A receipt from another view of the log, of the same size or a smaller one."""
    other = log_of([*RECEIPTS[:2], receipt(200), *RECEIPTS[3:5]])
    theirs = desk.folder / "their.receipt"
    theirs.write_bytes(bundle(other, [*RECEIPTS[:2], receipt(200), *RECEIPTS[3:5]], 1))
    status, _, err = desk.audit("--compare", theirs)
    assert status == 1
    assert str(theirs) in err
    assert not desk.heads.exists()


def test_a_coordinator_that_cannot_prove_it_ends_with_1(desk: Desk) -> None:
    """Proofs of another log are none of this one."""
    desk.audit()
    desk.coordinator.log = log_of(RECEIPTS)
    desk.coordinator.proofs_of = log_of([receipt(300), *RECEIPTS[1:]])
    assert desk.audit()[0] == 1
    assert desk.sizes == [5]


def test_a_tree_head_by_another_key_is_refused(desk: Desk) -> None:
    """It is no evidence against this coordinator."""
    desk.coordinator.head = head(desk.coordinator.log, wire_samples.AGENT)
    assert desk.audit()[0] == 76
    assert not desk.heads.exists()
    assert desk.evidence() == []
