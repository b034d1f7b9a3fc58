"""Checks of the machine: Python, architecture, memory."""

from __future__ import annotations

import platform
import sys
from typing import TYPE_CHECKING

from edge_agent.doctor.findings import Finding, failed, ok, warning

if TYPE_CHECKING:
    from edge_agent.doctor.context import Context

TESTED_PYTHONS = ((3, 11), (3, 14))
ARCHITECTURES = ("x86_64", "aarch64")
LEAST_BUDGET_BYTES = 64 * 1024 * 1024


def python(_context: Context) -> Finding:
    """The program runs on a Python and an architecture that it is tested on."""
    version, machine = sys.version_info[:2], platform.machine()
    facts = {"python": platform.python_version(), "architecture": machine, "bits": 64 if sys.maxsize > 2**32 else 32}
    text = f"Python {facts['python']} on {machine}, {platform.libc_ver()[0] or 'unknown C library'}"
    if facts["bits"] != 64 or machine not in ARCHITECTURES:
        return failed(text, "onnxruntime comes for 64-bit x86 and ARM only: install a 64-bit system.", facts=facts)
    low, high = TESTED_PYTHONS
    if not low <= version < high:
        return warning(text, f"It is tested on Python {low[0]}.{low[1]} to {high[0]}.{high[1] - 1}.", facts)
    return ok(text, facts)


def memory(context: Context) -> Finding:
    """There is memory for models."""
    share = context.settings.agent.memory_share
    budget = context.machine.memory.budget_bytes
    if budget is None:
        why = context.machine.unknown.get("memory.budget_bytes", "it cannot be read")
        return warning(f"free memory is not known: {why}", "256 MiB are taken for granted; see `edge-agent profile`.")
    usable = int(budget * share)
    text = f"{usable / 1e6:.0f} MB for models: {share:.0%} (agent.memory_share) of {budget / 1e6:.0f} MB"
    facts = {"budget_bytes": budget, "usable_bytes": usable}
    if usable < LEAST_BUDGET_BYTES:
        mend = "End other programs, or raise agent.memory_share or the cgroup's limit."
        return failed(text, mend, "does-not-fit", facts)
    return ok(text, facts)
