"""Which catalogue a process goes by, from its settings."""

from __future__ import annotations

import logging
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from edge_agent.models.known import Known, Source, known
from edge_agent.models.watch import Watch
from edge_agent.settings import Settings

FOLDER = "catalogue"
"""In a state directory: what was verified."""


def source_of(settings: Settings, state_dir: Path) -> Source:
    """Return where the catalogue comes from, for the process that keeps its state in `state_dir`."""
    own = settings.catalogue
    return Source(
        folder=state_dir / FOLDER,
        url=own.url,
        root_file=own.root_file,
        refresh_seconds=own.refresh_seconds,
        fetch_seconds=own.fetch_seconds,
        grace_seconds=own.expired_grace_hours * 3600,
        public=own.public_models == "on",
    )


def known_now(source: Source) -> Known:
    """Return what is known without asking anybody.

    Raises:
        StateError: the program's own files are damaged.
    """
    return known(source, time.time_ns() // 1_000_000)


def watch(source: Source, known: Known, log: logging.Logger, files: Callable[[], int] | None = None) -> Watch | None:
    """Return what keeps an eye on a published catalogue and on the files of models, or None if there is neither.

    Args:
        source: of the catalogue.
        known: what the process begins with.
        log: of the process.
        files: says when the files of models last changed.
    """
    if source.url is None and files is None:
        return None
    return Watch(source, known, log, random.Random(os.urandom(16)), files)  # noqa: S311 jitter, not a secret
