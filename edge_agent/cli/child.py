"""Runs a command of `edge-agent` that ends when its supervisor does: `python -m edge_agent.cli.child PID ARGS…`.

A supervisor that is killed cannot clean up; the kernel tells its children instead (prctl(2), PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def end_with_parent(parent_pid: int) -> None:
    """Ask for SIGTERM when the parent dies; end at once if it is dead already."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != parent_pid:
        sys.exit(0)


if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    from edge_agent.cli import main

    sys.exit(main(sys.argv[2:]))
