"""Processes that end with the tests: also when those are killed, and can end nothing any more.

The kernel kills them (prctl(2), PR_SET_PDEATHSIG), once the thread that started them is gone. So one thread starts
all, and stays as long as the tests do; a test may be at work on any other.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import needs

if TYPE_CHECKING:
    from collections.abc import Sequence

_STARTER = ThreadPoolExecutor(1, thread_name_prefix="starter")


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:  # noqa: ANN401 as Popen has them
    """Start a program with these options of `subprocess.Popen`; what it starts itself is its own to end."""
    # Becomes the program, with the same process id; the wish stays with it.
    tied = [needs.tool("setpriv"), "--pdeathsig", "KILL", "--", *command]
    return _STARTER.submit(subprocess.Popen, tied, **options).result()
