"""Small root file systems for tests of the hardware probes."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from hardware.sysfs import Root

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def make(base: Path, files: Mapping[str, str | bytes]) -> Root:
    """Write `files` (path to content; "link:TARGET" makes a symbolic link) below `base` and return it as a root."""
    for rel, content in files.items():
        path = base / rel
        path.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, str) and content.startswith("link:"):
            path.symlink_to(content.removeprefix("link:"))
        else:
            path.write_bytes(content.encode() if isinstance(content, str) else content)
    return Root(base)


def is_root() -> bool:
    """Whether this process may set limits for others."""
    return os.geteuid() == 0
