"""The examples of docs/client.md, run as they stand against a gateway whose results are really signed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fakes import COORDINATOR_KEY
from gateways import served
from signing import SigningService

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "client.md").read_text()
EXAMPLES = re.findall(r"```python\n(.+?)```", PAGE, re.DOTALL)
SAID = ["[3]", "Proven: the agent", "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9]", "5 of 5"]


@pytest.mark.parametrize("number", range(len(SAID)))
def test_example(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It does what the page says; the address alone is another."""
    assert len(EXAMPLES) == len(SAID)
    monkeypatch.chdir(tmp_path)
    COORDINATOR_KEY.public.write(tmp_path / "coordinator.pub")
    with served(SigningService()) as base_url:
        exec(EXAMPLES[number].replace("http://127.0.0.1:8420", base_url), {"__name__": "example"})  # noqa: S102 ours
    assert SAID[number] in capsys.readouterr().out
    assert (tmp_path / "scan.receipt").exists() == ("scan.receipt" in EXAMPLES[number])
