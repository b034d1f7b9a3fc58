"""The control socket: who may use it, what it takes, and that nobody can hold it up."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import socket
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_agent.agent import control
from edge_agent.agent.ask import ask
from edge_agent.agent.asked import OwnerAsked
from edge_agent.agent.control import MAX_REQUEST_BYTES, SOCKET_FILE, ControlSocket, failure, parse_request, short_path
from edge_agent.errors import AccessError, EdgeAgentError, MalformedError, StateError, TransportError, UsageError

WAIT_SECONDS = 30


@contextlib.contextmanager
def serving(folder: Path, answer: dict[str, Any] | None) -> Iterator[queue.SimpleQueue[OwnerAsked]]:
    """Run a control socket whose loop gives this answer to everything; none for a loop that hangs."""
    asked: queue.SimpleQueue[OwnerAsked] = queue.SimpleQueue()

    def put(event: OwnerAsked) -> None:
        asked.put(event)
        if answer is not None:
            event.reply(answer)

    served = ControlSocket(folder, put)
    served.start()
    try:
        yield asked
    finally:
        served.stop()


def raw(folder: Path, request: bytes) -> bytes:
    """Send bytes and return all that comes back."""
    with short_path(folder / SOCKET_FILE) as name, socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(WAIT_SECONDS)
        connection.connect(name)
        connection.sendall(request)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_WR)
        answer = b""
        while more := connection.recv(65_536):
            answer += more
        return answer


def test_a_request_reaches_the_loop_and_its_answer_comes_back(tmp_path: Path) -> None:
    """With who asked, as the kernel says it."""
    with serving(tmp_path, {"ok": True, "mode": "rest"}) as asked:
        assert ask(tmp_path, {"do": "pause", "seconds": 60}) == {"ok": True, "mode": "rest"}
        event = asked.get(timeout=WAIT_SECONDS)
    assert (event.request, event.by) == ({"do": "pause", "seconds": 60}, f"user {os.getuid()}")


def test_only_the_owner_of_the_agent_may_use_the_socket(tmp_path: Path) -> None:
    """Mode 0600 from its first moment, whatever the umask; it goes with the agent."""
    before = os.umask(0)
    try:
        with serving(tmp_path, {"ok": True}):
            mode = (tmp_path / SOCKET_FILE).stat().st_mode
            assert stat.S_ISSOCK(mode)
            assert stat.S_IMODE(mode) == 0o600
    finally:
        os.umask(before)
    assert not (tmp_path / SOCKET_FILE).exists()


def test_a_folder_with_a_long_name_is_no_trouble(tmp_path: Path) -> None:
    """An address of a Unix socket holds 107 bytes; a state directory may have more."""
    folder = tmp_path / ("d" * 120) / ("e" * 120)
    folder.mkdir(parents=True)
    with serving(folder, {"ok": True}):
        assert ask(folder, {"do": "status"}) == {"ok": True}


def test_what_a_killed_agent_left_is_replaced(tmp_path: Path) -> None:
    """A socket without a listener; no agent runs, and the next one starts."""
    left = socket.socket(socket.AF_UNIX)
    with short_path(tmp_path / SOCKET_FILE) as name:
        left.bind(name)
    left.close()
    with pytest.raises(TransportError) as caught:
        ask(tmp_path, {"do": "status"})
    assert caught.value.error_code == "unreachable"
    with serving(tmp_path, {"ok": True}):
        assert ask(tmp_path, {"do": "status"}) == {"ok": True}


def test_a_file_of_that_name_is_left_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The agent says that it goes on without."""
    (tmp_path / SOCKET_FILE).write_text("mine")
    with serving(tmp_path, {"ok": True}):
        assert [record.action for record in caplog.records] == ["control-off"]  # type: ignore[attr-defined] # our extra
    assert (tmp_path / SOCKET_FILE).read_text() == "mine"


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"",
        b"\n",
        b"{\n",
        b'"pause"\n',
        b'{"do": "pause"}',  # without an end
        b'{"do": "format"}\n',
        b'{"do": ["pause"]}\n',
        b'{"do": {"a": 1}}\n',
        b'{"do": "pause", "seconds": -1}\n',
        b'{"do": "pause", "seconds": 0}\n',
        b'{"do": "pause", "seconds": true}\n',
        b'{"do": "pause", "seconds": "60"}\n',
        b'{"do": "pause", "seconds": NaN}\n',
        b'{"do": "pause", "seconds": 1e300}\n',
        b'{"do": "pause", "minutes": 1}\n',
        b'{"do": "resume", "seconds": 1}\n',
        b'{"do": "history", "count": 100000}\n',
        b'{"do": "adjust", "pace": []}\n',
        b'{"do": "adjust", "pace": {}}\n',
        b'{"do": "adjust", "pace": 1}\n',
        b'{"do": "adjust", "pace": "faster"}\n',
        b"[" * 4000 + b"\n",
        b"\xff\xfe\n",
        b"x" * (MAX_REQUEST_BYTES + 1),
    ],
)
def test_hostile_request_is_refused_and_reaches_nobody(tmp_path: Path, request_bytes: bytes) -> None:
    """The answer says what is wrong; the loop never hears of it, and the next one is served."""
    with serving(tmp_path, {"ok": True}) as asked:
        answer = json.loads(raw(tmp_path, request_bytes))
        assert (answer["ok"], answer["error"]["code"]) == (False, "usage")
        assert asked.empty()
        assert ask(tmp_path, {"do": "why"}) == {"ok": True}


def test_every_change_of_the_owners_is_in_the_log_with_who_wanted_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Another pace is a change like a pause; whoever only looks is told at the most talkative level."""
    caplog.set_level("INFO", "edge_agent.agent.control")
    with serving(tmp_path, {"ok": True}):
        for do in ("pause", "drain", "resume", "adjust", "status", "why"):
            ask(tmp_path, {"do": do})
    asked = [record for record in caplog.records if record.message.startswith("Asked to")]
    assert [record.message for record in asked] == [f"Asked to {do}" for do in ("pause", "drain", "resume", "adjust")]
    assert {record.peer_uid for record in asked} == {os.getuid()}  # type: ignore[attr-defined] # our extra


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_refused(line: bytes) -> None:
    """Nothing else comes out of reading them."""
    with contextlib.suppress(UsageError):
        assert parse_request(line)["do"]


def test_a_client_that_says_nothing_is_sent_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever comes after it is served."""
    monkeypatch.setattr(control, "REQUEST_SECONDS", 0.05)
    with serving(tmp_path, {"ok": True}):
        with short_path(tmp_path / SOCKET_FILE) as name, socket.socket(socket.AF_UNIX) as silent:
            silent.settimeout(WAIT_SECONDS)
            silent.connect(name)
            assert b"no request came" in silent.recv(4096)
        monkeypatch.setattr(control, "REQUEST_SECONDS", WAIT_SECONDS)
        assert ask(tmp_path, {"do": "status"}) == {"ok": True}


def test_a_client_that_goes_away_harms_nobody(tmp_path: Path) -> None:
    """It does not read its answer."""
    with serving(tmp_path, {"ok": True, "much": "x" * 1_000_000}) as asked:
        with short_path(tmp_path / SOCKET_FILE) as name, socket.socket(socket.AF_UNIX) as rude:
            rude.connect(name)
            rude.sendall(b'{"do": "status"}\n')
            asked.get(timeout=WAIT_SECONDS)
        assert ask(tmp_path, {"do": "status"})["ok"]


def test_a_loop_that_hangs_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its late answer is nobody else's."""
    monkeypatch.setattr(control, "ANSWER_SECONDS", 0.05)
    with serving(tmp_path, None) as asked:
        with pytest.raises(EdgeAgentError, match="gave no answer"):
            ask(tmp_path, {"do": "status"})
        late = asked.get(timeout=WAIT_SECONDS)
        answers: list[dict[str, Any]] = []
        monkeypatch.setattr(control, "ANSWER_SECONDS", WAIT_SECONDS)
        second = threading.Thread(target=lambda: answers.append(ask(tmp_path, {"do": "why"})))
        second.start()
        event = asked.get(timeout=WAIT_SECONDS)
        late.reply({"ok": True, "whose": "the first"})
        event.reply({"ok": True, "whose": "the second"})
        second.join(WAIT_SECONDS)
    assert answers == [{"ok": True, "whose": "the second"}]


def test_a_request_while_the_agent_stops_is_answered(tmp_path: Path) -> None:
    """With the code that says so."""
    asked: queue.SimpleQueue[OwnerAsked] = queue.SimpleQueue()
    served = ControlSocket(tmp_path, asked.put)
    served.start()
    caught: list[EdgeAgentError] = []

    def wait() -> None:
        try:
            ask(tmp_path, {"do": "status"})
        except EdgeAgentError as error:
            caught.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    asked.get(timeout=WAIT_SECONDS)
    served.stop()
    thread.join(WAIT_SECONDS)
    assert [error.error_code for error in caught] == ["stopping"]


# -- the other end ----------------------------------------------------------------------------------------------------


def test_where_no_agent_runs_the_error_says_how_to_find_one(tmp_path: Path) -> None:
    """Also where there is not even a folder."""
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(TransportError) as caught:
            ask(folder, {"do": "status"})
        assert caught.value.error_code == "unreachable"
        assert "--state DIR" in caught.value.hint


def test_a_socket_of_another_user_is_told_apart_from_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses; the error says as whom to run."""

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with pytest.raises(AccessError, match="another user") as caught:
        ask(tmp_path, {"do": "status"})
    assert caught.value.exit_status == 77


@pytest.mark.parametrize("answer", [b"", b"no\n", b"[]\n", b'{"ok": 1}\n', b'{"ok": false}\n', b"[" * 100_000])
def test_what_answers_otherwise_is_no_agent(tmp_path: Path, answer: bytes) -> None:
    """Nothing of it is believed."""
    with short_path(tmp_path / SOCKET_FILE) as name, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()

        def once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(100)
                connection.sendall(answer)

        thread = threading.Thread(target=once)
        thread.start()
        with pytest.raises(MalformedError):
            ask(tmp_path, {"do": "status"})
        thread.join(WAIT_SECONDS)


@pytest.mark.parametrize("error", [UsageError("no"), StateError("full"), TransportError("bye", code="stopping")])
def test_an_error_of_the_agent_comes_out_as_what_it_is(tmp_path: Path, error: EdgeAgentError) -> None:
    """Class, code and hint."""
    with serving(tmp_path, failure(error)), pytest.raises(type(error)) as caught:
        ask(tmp_path, {"do": "status"})
    assert (caught.value.error_code, caught.value.message, caught.value.hint) == (
        error.error_code,
        error.message,
        error.hint,
    )
