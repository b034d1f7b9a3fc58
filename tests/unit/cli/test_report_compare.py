"""`edge-agent report --compare` against a served coordinator: what it has, what it forgot, what it changed."""

from __future__ import annotations

import json
from argparse import Namespace
from dataclasses import replace
from pathlib import Path

import pytest
from fakes import COORDINATOR_KEY, NETWORK, answer_to, scan
from gateways import JOB, FakeService, served
from signing import AGENT, signed_receipt

from edge_agent.agent.own_copy import NO_BLOCK, Block, Entry, seal
from edge_agent.cli.report_compare import compare_with
from edge_agent.settings import load
from edge_agent.wire.ledger import WORK, LedgerEntry
from edge_agent.wire.receipts import receipt_leaf, result_in

FORGOTTEN = bytes(16)


class Books:
    """A ledger with one entry, for one receipt."""

    def __init__(self, receipt: bytes, amount: int) -> None:
        self._entry = LedgerEntry(1, "result", WORK, "owner:me", amount, receipt_leaf(receipt), 0)

    async def entries(self, *, after: int, limit: int, owner: str | None) -> list[LedgerEntry]:
        """Give what comes after."""
        return [self._entry][after:limit]


def test_a_job_that_the_coordinator_forgot_is_counted_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Jobs are kept for some hours there, the own copy for years: most of it is missing, and that is no error."""
    AGENT.public.write(tmp_path / "agent.pub")
    COORDINATOR_KEY.public.write(tmp_path / "coordinator.pub")
    environment = {"EDGE_AGENT_AGENT_STATE_DIR": str(tmp_path), "EDGE_AGENT_NETWORK_NAME": NETWORK}
    settings = load(None, environment, {}).settings
    receipt = signed_receipt(JOB, (scan(3),), answer_to(scan(3)))
    entries = (Entry.of(FORGOTTEN, 1, b"of long ago"), Entry.of(JOB, 1, result_in(receipt)))
    block = seal(AGENT, NETWORK, Block(1, NO_BLOCK, 0, 1, 0, entries))
    service = FakeService()
    assert service.stored is not None
    service.stored = replace(service.stored, receipt=receipt)
    service.books = Books(receipt, 12)  # type: ignore[attr-defined] # where there is a database
    with served(service) as base_url:
        args = Namespace(config=None, coordinator=base_url, jobs=200, json=True)
        assert compare_with(args, settings, [block], AGENT.public.id) == 0
        found = json.loads(capsys.readouterr().out)
        args.json = False
        assert compare_with(args, settings, [block], AGENT.public.id) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (found["same"], found["missing"], found["altered"]) == (1, [FORGOTTEN.hex()], [])
    (credit,) = found["credit"]
    assert (credit["results"], credit["credited"], credit["amount"]) == (1, 1, 12)
    assert lines[-1].split() == [credit["day"], credit["family"], "1", "1", "12"]
