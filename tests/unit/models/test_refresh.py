"""Refreshing from other places than a well-behaved HTTP server, and the process that does it."""

from __future__ import annotations

import http.server
import json
import threading
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
from repositories import Operator

from edge_agent.errors import (
    CatalogueRefusedError,
    EdgeAgentError,
    ProcessFailedError,
    StateError,
    TransportError,
    UsageError,
)
from edge_agent.models import refresher
from edge_agent.models.known import Source, known
from edge_agent.models.refresh import answer, refresh
from edge_agent.models.refresher import Refresher

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    """An operator who publishes `a` now, by the machine's own clock."""
    made = Operator(tmp_path / "repository", now=datetime.now(UTC))
    made.publish("a")
    return made


def now_ms() -> int:
    """The present moment."""
    return int(datetime.now(UTC).timestamp() * 1000)


def test_a_catalogue_on_a_disk(operator: Operator, tmp_path: Path) -> None:
    """A file URL works as well; a next root that is not there is no error."""
    url = operator.public.as_uri() + "/"
    root = operator.root_file.read_bytes()
    assert refresh(url, root, tmp_path / "state", now_ms()).catalogue == 1
    operator.publish("b")
    record = refresh(url, root, tmp_path / "state", now_ms())
    assert (record.catalogue, record.versions["targets"]) == (2, 2)
    source = Source(tmp_path / "state", url, operator.root_file)
    assert [family.name for family in known(source, now_ms()).catalogue.families] == ["digits", "a", "b"]


def test_an_empty_disk_is_told(operator: Operator, tmp_path: Path) -> None:
    """As an address where nobody is."""
    with pytest.raises(TransportError, match="cannot be fetched") as error:
        refresh((tmp_path / "nothing").as_uri() + "/", operator.root_file.read_bytes(), tmp_path / "state", now_ms())
    assert error.value.error_code == "unreachable"


def test_another_machines_file_is_refused(operator: Operator, tmp_path: Path) -> None:
    """A file URL names a file of this machine."""
    with pytest.raises(TransportError, match="file of this machine"):
        refresh("file://elsewhere/catalogue/", operator.root_file.read_bytes(), tmp_path / "state", now_ms())


def test_a_redirect_on_the_same_scheme_is_followed(operator: Operator, tmp_path: Path) -> None:
    """A mirror may have moved; what it gives is checked all the same."""

    class Moved(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *arguments: Any) -> None:  # noqa: ANN401 as the base has it
            super().__init__(*arguments, directory=str(operator.public))

        def do_GET(self) -> None:
            if self.path.startswith("/old/"):
                self.send_response(301)
                self.send_header("Location", self.path.removeprefix("/old"))
                self.send_header("Content-Length", "0")
                self.end_headers()
            else:
                super().do_GET()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Moved) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/old/"
        try:
            assert refresh(url, operator.root_file.read_bytes(), tmp_path / "state", now_ms()).catalogue == 1
        finally:
            server.shutdown()
            thread.join()


def test_what_a_killed_refresh_left_is_swept(operator: Operator, tmp_path: Path) -> None:
    """Half-written files do not add up."""
    url, root, state = operator.public.as_uri() + "/", operator.root_file.read_bytes(), tmp_path / "state"
    refresh(url, root, state, now_ms())
    before = {path.name for path in state.rglob("*")}
    (state / ".incoming-x").mkdir()
    (state / ".incoming-x" / "part").write_bytes(b"x")
    (state / ".verified.json.17").write_bytes(b"x")
    (state / "metadata" / "tmpabc").write_bytes(b"x")
    refresh(url, root, state, now_ms())
    assert {path.name for path in state.rglob("*")} == before


def test_a_folder_that_cannot_be_written_is_told(operator: Operator, tmp_path: Path) -> None:
    """It is ours, not the catalogue's fault."""
    (tmp_path / "state").write_bytes(b"a file in the way")
    with pytest.raises(StateError):
        refresh(operator.public.as_uri() + "/", operator.root_file.read_bytes(), tmp_path / "state", now_ms())


def test_the_process_answers_with_the_error(operator: Operator, tmp_path: Path) -> None:
    """Class, code, message and hint come back as they were raised there."""
    other = Operator(tmp_path / "other", seed=2, now=datetime.now(UTC))
    other.publish()
    url, state = operator.public.as_uri() + "/", tmp_path / "state"
    told = answer({"url": url, "root_file": str(other.root_file), "folder": str(state)})["error"]
    assert (told["class"], told["code"]) == ("CatalogueRefusedError", "catalogue-refused")
    with pytest.raises(CatalogueRefusedError) as error:
        Refresher(Source(state, url, other.root_file)).refresh()
    assert (error.value.message, error.value.hint) == (told["message"], told["hint"])


def test_the_process_inherits_no_secrets(operator: Operator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets what finds Python's packages and the way out, and nothing of the rest."""
    monkeypatch.setenv("EDGE_AGENT_BROKER_PASSWORD", "secret")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    seen: list[dict[str, str]] = []
    real = refresher.subprocess.Popen

    def popen(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 whatever it is called with
        seen.append(options["env"])
        return real(*arguments, **options)

    monkeypatch.setattr(refresher.subprocess, "Popen", popen)
    Refresher(Source(tmp_path / "state", operator.public.as_uri() + "/", operator.root_file)).refresh()
    assert "EDGE_AGENT_BROKER_PASSWORD" not in seen[0]
    assert seen[0]["HTTPS_PROXY"] == "http://127.0.0.1:9"


@pytest.mark.parametrize("said", ["", "nonsense", "["])
def test_a_process_that_says_nothing_is_told(said: str) -> None:
    """As a failure of ours, not as a catalogue that is in order."""
    with pytest.raises(ProcessFailedError, match="no answer"):
        refresher._raise_what_it_says(said)


def test_an_error_of_a_class_that_is_none_is_still_an_error() -> None:
    """Whatever the process was made to say, it names no other thing of the module."""
    told = {"error": {"class": "annotations", "code": "internal", "message": "so it is", "hint": "h"}}
    with pytest.raises(EdgeAgentError, match="so it is"):
        refresher._raise_what_it_says(json.dumps(told))


def test_without_an_address_there_is_nothing_to_refresh(tmp_path: Path) -> None:
    """And no process is started."""
    with pytest.raises(UsageError, match="No catalogue is set"):
        Refresher(Source(tmp_path)).refresh()
