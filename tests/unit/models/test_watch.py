"""The eye that a running process keeps on its catalogue."""

from __future__ import annotations

import logging
import queue
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kept import NOW_MS, keep, names, source

from edge_agent.errors import TransportError
from edge_agent.models import watch as watching
from edge_agent.models.known import Known, known
from edge_agent.models.watch import JITTER, RETRY_FIRST_SECONDS, Watch, pause_seconds

LOG = logging.getLogger("edge_agent.test.watch")
PATIENCE_SECONDS = 30.0


class Refreshes:
    """Stands for the process that refreshes: each refresh waits for what the test lets it do."""

    def __init__(self) -> None:
        self.begun: queue.Queue[None] = queue.Queue()
        self.steps: queue.Queue[Callable[[], None]] = queue.Queue()
        self.stopped = threading.Event()

    def refresh(self) -> None:
        """Do what comes next."""
        self.begun.put(None)
        self.steps.get(timeout=PATIENCE_SECONDS)()

    def stop(self) -> None:
        """Note it."""
        self.stopped.set()


@contextmanager
def running(
    monkeypatch: pytest.MonkeyPatch, folder: Path, files: Callable[[], int] | None = None
) -> Iterator[tuple[Refreshes, queue.Queue[Known]]]:
    """Watch, with refreshes that the test decides on; the next one comes at once."""
    refreshes, news = Refreshes(), queue.Queue[Known]()
    monkeypatch.setattr(watching, "Refresher", lambda _: refreshes)
    monkeypatch.setattr(watching, "pause_seconds", lambda *_: 0.0)
    own = source(folder, grace_seconds=1e9)
    eye = Watch(own, known(own, NOW_MS), LOG, random.Random(1), files)
    eye.start(news.put)
    try:
        yield refreshes, news
    finally:
        refreshes.steps.put(lambda: None)
        eye.stop()
    assert refreshes.stopped.is_set()


def test_news_are_told_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """At the start and after each refresh that changed the families; not when nothing changed."""
    with running(monkeypatch, tmp_path) as (refreshes, news):
        refreshes.steps.put(lambda: keep(tmp_path / "state", "a") and None)
        assert names(news.get(timeout=PATIENCE_SECONDS).catalogue) == ["digits", "a"]
        refreshes.steps.put(lambda: keep(tmp_path / "state", "a", expires_ms=NOW_MS + 1) and None)
        refreshes.steps.put(lambda: keep(tmp_path / "state", "a", "b") and None)
        assert names(news.get(timeout=PATIENCE_SECONDS).catalogue) == ["digits", "a", "b"]
        assert news.empty()


def test_a_failure_is_logged_and_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """With its code and what to do; what was known stays."""
    keep(tmp_path / "state", "a")

    def fail() -> None:
        raise TransportError("Nobody is there.", code="unreachable", hint="Plug it in.")

    with running(monkeypatch, tmp_path) as (refreshes, news):
        refreshes.steps.put(fail)
        for _ in range(2):
            refreshes.begun.get(timeout=PATIENCE_SECONDS)
        assert news.empty()
    found = [record for record in caplog.records if getattr(record, "code", None) == "unreachable"]
    assert [record.getMessage() for record in found] == [
        "The catalogue could not be refreshed: Nobody is there. Plug it in."
    ]


def test_expiry_is_said_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not with every look."""
    keep(tmp_path / "state", "a", expires_ms=1000)
    with running(monkeypatch, tmp_path) as (refreshes, _):
        for _ in range(3):
            refreshes.steps.put(lambda: None)
            refreshes.begun.get(timeout=PATIENCE_SECONDS)
    assert len([r for r in caplog.records if "expired on 1970-01-01" in r.getMessage()]) == 1


def test_what_others_fetched_is_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A refresh, or new model files, by the command line while the process waits."""
    changed = [1]
    refreshes, news = Refreshes(), queue.Queue[Known]()
    monkeypatch.setattr(watching, "Refresher", lambda _: refreshes)
    monkeypatch.setattr(Watch, "look_seconds", 0.005)
    own = source(tmp_path, grace_seconds=1e9)
    eye = Watch(own, known(own, NOW_MS), LOG, random.Random(1), lambda: changed[0])
    refreshes.steps.put(lambda: None)
    eye.start(news.put)
    try:
        keep(tmp_path / "state", "a")
        assert names(news.get(timeout=PATIENCE_SECONDS).catalogue) == ["digits", "a"]
        changed[0] += 1
        assert names(news.get(timeout=PATIENCE_SECONDS).catalogue) == ["digits", "a"]
        assert news.empty()
    finally:
        eye.stop()
    assert names(eye.known.catalogue) == ["digits", "a"]


def test_without_an_address_only_files_are_looked_at(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is refreshed, and so nothing is sent anywhere."""
    refreshes, news, changed = Refreshes(), queue.Queue[Known](), [1]
    monkeypatch.setattr(watching, "Refresher", lambda _: refreshes)
    monkeypatch.setattr(Watch, "look_seconds", 0.005)
    own = source(tmp_path, url=None, root_file=None)
    eye = Watch(own, known(own, NOW_MS), LOG, random.Random(1), lambda: changed[0])
    eye.start(news.put)
    changed[0] += 1
    assert names(news.get(timeout=PATIENCE_SECONDS).catalogue) == ["digits"]
    eye.stop()
    assert refreshes.begun.empty()


@pytest.mark.parametrize("failures", [0, 1, 2, 5, 9, 1000])
@pytest.mark.parametrize("jitter", [-1.0, 0.0, 1.0])
def test_pauses(failures: int, jitter: float) -> None:
    """After a failure it is tried again sooner, later and later, and never more often than once a minute or so."""
    found = pause_seconds(21_600.0, failures, jitter)
    right = min(21_600.0, RETRY_FIRST_SECONDS * 2.0 ** min(failures - 1, 32)) if failures else 21_600.0
    assert found == pytest.approx(right * (1 + JITTER * jitter))
    assert pause_seconds(60.0, failures, 0.0) == 60.0
