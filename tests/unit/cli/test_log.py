"""`edge-agent log audit`, and receipts with their proof in `edge-agent verify` and `edge-agent submit`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import wire_samples
from http_coordinators import HttpCoordinator
from receipt_logs import Log, bundle, head, log_of, receipt

from edge_agent.cli import main
from edge_agent.cli.submit import fetch_receipt
from edge_agent.errors import RefusedError

RECEIPTS = [receipt(number) for number in range(9)]


class Desk:
    """A folder with the coordinator's key and what was seen, and the log that the coordinator shows.

    Attributes:
        log: what tree heads are of.
        proofs_of: what proofs are of, if that is another one.
        head: the tree head, if it is another one.
        raw: the answer to everything, if any.
    """

    def __init__(self, folder: Path, coordinator: HttpCoordinator, capsys: pytest.CaptureFixture[str]) -> None:
        self.log = log_of(RECEIPTS[:5])
        self.proofs_of: Log | None = None
        self.head: bytes | None = None
        self.raw: bytes | None = None
        self.folder = folder
        self.coordinator = coordinator
        coordinator.answers |= {"GET /api/v1/log": self._newest, "GET /api/v1/log/consistency": self._proof}
        self.capsys = capsys
        self.key = folder / "coordinator.pub"
        self.heads = folder / "heads.jsonl"
        wire_samples.COORDINATOR.public.write(self.key)

    def _newest(self, _: object) -> object:
        return {"tree_head": (self.head or head(self.log)).hex()} if self.raw is None else self.raw

    def _proof(self, asked: Mapping[str, list[str]]) -> object:
        path = (self.proofs_of or self.log).consistency(int(asked["from"][0]), int(asked["to"][0]))
        return {"path": [entry.hex() for entry in path]} if self.raw is None else self.raw

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
def desk(tmp_path: Path, coordinator: HttpCoordinator, capsys: pytest.CaptureFixture[str]) -> Desk:
    """Nothing seen yet."""
    return Desk(tmp_path, coordinator, capsys)


def test_a_log_that_grows_is_followed(desk: Desk) -> None:
    """Each larger tree head is kept; the same one again is not."""
    status, out, _ = desk.audit()
    assert (status, desk.sizes) == (0, [5])
    assert "has 5 receipts" in out
    assert "first look" in out
    assert desk.audit()[0] == 0
    desk.log = log_of(RECEIPTS)
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
    desk.log = log_of(RECEIPTS)
    status, out, _ = desk.audit("--compare", mine, theirs)
    assert status == 0
    assert f"continues the 3 that {mine}" in out
    assert f"continues the 5 that {theirs}" in out


def test_an_empty_log_is_where_every_log_begins(desk: Desk) -> None:
    """No proof is needed."""
    desk.log = Log()
    assert desk.audit()[0] == 0
    desk.log = log_of(RECEIPTS)
    assert desk.audit()[0] == 0
    assert desk.sizes == [0, 9]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b'{"tree_head": 3}', b'{"tree_head": "zz"}', b"[" * 100_000])
def test_what_is_no_tree_head_is_refused(desk: Desk, raw: bytes) -> None:
    """And nothing is written."""
    desk.raw = raw
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
    desk.log = log_of([receipt(100), *RECEIPTS[1:]])
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
    desk.log = log_of(RECEIPTS[:4])
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
    desk.log = log_of(RECEIPTS)
    desk.proofs_of = log_of([receipt(300), *RECEIPTS[1:]])
    assert desk.audit()[0] == 1
    assert desk.sizes == [5]


def test_a_tree_head_by_another_key_is_refused(desk: Desk) -> None:
    """It is no evidence against this coordinator."""
    desk.head = head(desk.log, wire_samples.AGENT)
    assert desk.audit()[0] == 76
    assert not desk.heads.exists()
    assert desk.evidence() == []
