"""The shape of the code: import directions, what the agent carries, sizes of modules."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import needs
import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted(p for package in ("edge_agent", "hardware") for p in (ROOT / package).rglob("*.py"))
MAX_LINES = 400


def test_imports_run_downward() -> None:
    """import-linter keeps every contract of pyproject.toml."""
    needs.module("importlinter")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_agent_daemon_carries_nothing_heavy() -> None:
    """Importing everything that `edge-agent run` runs loads no numpy, no onnxruntime, no coordinator code."""
    code = (
        "import sys, json; import edge_agent.cli.run, edge_agent.agent.assemble, hardware;"
        "hardware.profile(); print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(json.loads(done.stdout))
    heavy = {"numpy", "onnxruntime", "onnx", "asyncio", "sqlalchemy", "fastapi", "uvicorn", "httpx", "rich", "amqtt"}
    assert {"paho.mqtt.client", "edge_agent.agent.daemon"} <= loaded
    assert loaded & heavy == set()
    assert [name for name in loaded if name.startswith("edge_agent.coordinator")] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_is_read_in_one_sitting(path: Path) -> None:
    """No module is longer than 400 lines."""
    assert len(path.read_text().splitlines()) <= MAX_LINES


def test_every_import_of_onnxruntime_comes_after_the_opt_out() -> None:
    """A file that imports onnxruntime sets ORT_DISABLE_TELEMETRY above that import."""
    opt_out = "ORT_DISABLE_TELEMETRY"
    importing = 0
    for path in [*MODULES, *(ROOT / "benchmarks").glob("*.py")]:
        lines = path.read_text().splitlines()
        at = [n for n, line in enumerate(lines) if line.strip().startswith(("import onnxruntime", "from onnxruntime"))]
        if at:
            importing += 1
            set_at = [n for n, line in enumerate(lines) if opt_out in line and not line.strip().startswith("#")]
            runs_under_worker = "# imported by the worker" in "\n".join(lines)
            assert runs_under_worker or (set_at and set_at[0] < at[0]), path
    assert importing
