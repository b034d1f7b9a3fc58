"""The local control socket: how the owner's commands reach a running agent.

A Unix socket in the state directory, mode 0600: who may use it is the file system's to say. One line of JSON is asked,
one is answered, then the connection ends. A thread of its own waits for connections, one at a time; what is asked goes
through the agent's queue like everything else, so that the loop is never waited for by more than this thread.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import queue
import socket
import stat
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from edge_agent.agent.asked import OwnerAsked
from edge_agent.agent.policy import LIMITS, Pace
from edge_agent.errors import EdgeAgentError, TransportError, UsageError

SOCKET_FILE = "control.sock"
MAX_REQUEST_BYTES = 4096
MAX_ANSWER_BYTES = 4 * 1024 * 1024
REQUEST_SECONDS = 2.0
"""Whoever connects has said what it wants by then, or is sent away: others wait."""
ANSWER_SECONDS = 10.0
MAX_PAUSE_SECONDS = 366 * 86_400
MAX_HISTORY = 200
BACKLOG = 8

log = logging.getLogger("edge_agent.agent.control")

_FIELDS: Mapping[str, frozenset[str]] = {
    "status": frozenset(),
    "why": frozenset(),
    "account": frozenset(),
    "history": frozenset({"count"}),
    "pause": frozenset({"seconds"}),
    "drain": frozenset({"seconds"}),
    "resume": frozenset(),
    "adjust": frozenset({"pace", *LIMITS}),
}
"""What can be asked, and the further members of each request; all of them may be left out."""


def parse_request(line: bytes) -> dict[str, Any]:
    """Read one request.

    Raises:
        UsageError: it is not one.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError("the request is not JSON") from error
    if not isinstance(request, dict) or not isinstance(request.get("do"), str) or request["do"] not in _FIELDS:
        raise UsageError(f"the request must be an object whose `do` is one of {', '.join(_FIELDS)}")
    unknown = set(request) - {"do"} - _FIELDS[request["do"]]
    if unknown:
        raise UsageError(f"{request['do']} takes no {min(unknown)[:64]!r}")
    _check_number(request, "seconds", MAX_PAUSE_SECONDS)
    _check_number(request, "count", MAX_HISTORY)
    for limit in LIMITS.values():
        _check_number(request, limit.name, limit.highest)
        if request.get(limit.name) is not None and request[limit.name] < limit.lowest:
            raise UsageError(f"{limit.name} must be at least {limit.lowest:g}")
    if (pace := request.get("pace")) is not None and not (isinstance(pace, str) and pace in {*Pace}):
        raise UsageError(f"pace must be one of {', '.join(Pace)}")
    return request


def _check_number(request: Mapping[str, Any], name: str, most: float) -> None:
    value = request.get(name)
    if value is None:
        return
    # A comparison, and nothing that would make a float of it: an integer may have thousands of digits.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most:
        raise UsageError(f"{name} must be a number above 0, at most {most:g}")


class ControlSocket:
    """Listens for the owner.

    Args:
        folder: the state directory.
        put: gives a request to the agent's loop, which calls its `reply` once.
    """

    def __init__(self, folder: Path, put: Callable[[OwnerAsked], None]) -> None:
        self._folder = folder
        self._put = put
        self._listener: socket.socket | None = None
        self._replies: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to listen; where that is not possible, say so and go on without."""
        try:
            self._listener = _listen(self._folder)
        except OSError as error:
            text = "Without a control socket (%s): `edge-agent status` and its kin do not work"
            log.warning(text, error, extra={"action": "control-off"})
            return
        self._thread = threading.Thread(target=self._serve, args=(self._listener,), name="control", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; the file goes, too."""
        listener, self._listener = self._listener, None
        self._stopping.set()
        if listener is None:
            return
        with contextlib.suppress(OSError):
            (self._folder / SOCKET_FILE).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)  # wakes the thread
        listener.close()
        self._replies.put(failure(TransportError("the agent is stopping", code="stopping")))
        if self._thread is not None:
            self._thread.join(REQUEST_SECONDS)

    def _serve(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                self._stopping.wait(0.1)  # too many open files, for example: that passes
                continue
            with connection:
                try:
                    self._talk(connection)
                except OSError as error:
                    log.debug("Whoever asked went away: %s", error, extra={"action": "control"})
                except Exception:  # the owner must be able to ask again, whatever that was
                    log.exception("Could not serve a request", extra={"action": "control"})

    def _talk(self, connection: socket.socket) -> None:
        pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
        fields = {"action": "control", "peer_uid": uid, "peer_pid": pid}
        try:
            request = parse_request(_read_line(connection))
            changes = request["do"] in {"pause", "drain", "resume", "adjust"}
            log.log(logging.INFO if changes else logging.DEBUG, "Asked to %s", request["do"], extra=fields)
            answer = self._ask(request, f"user {uid}")
        except EdgeAgentError as error:
            log.warning("Refused a request on the control socket: %s", error.message, extra=fields)
            answer = failure(error)
        connection.settimeout(REQUEST_SECONDS)
        connection.sendall(json.dumps(answer).encode() + b"\n")

    def _ask(self, request: dict[str, Any], by: str) -> dict[str, Any]:
        replies = self._replies = queue.SimpleQueue()  # a late answer to an earlier request must not be this one's
        self._put(OwnerAsked(request, by, replies.put))
        try:
            return replies.get(timeout=ANSWER_SECONDS)
        except queue.Empty:
            raise EdgeAgentError(f"the agent's loop gave no answer within {ANSWER_SECONDS:g} s") from None


def failure(error: EdgeAgentError) -> dict[str, Any]:
    """Return the answer that says what went wrong."""
    return {"ok": False, "error": {"code": error.error_code, "message": error.message, "hint": error.hint}}


def _listen(folder: Path) -> socket.socket:
    path = folder / SOCKET_FILE
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{SOCKET_FILE} is there and is no socket")
        path.unlink()  # the state directory is ours alone, so whoever made it is gone
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        os.fchmod(listener.fileno(), 0o600)  # what bind gives to the file, so that it is never open to others
        with short_path(path) as name:
            listener.bind(name)
        listener.listen(BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


@contextlib.contextmanager
def short_path(path: Path) -> Iterator[str]:
    """Give a name for a socket that is short enough whatever the folder is: an address holds 107 bytes (unix(7))."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _read_line(connection: socket.socket) -> bytes:
    """Read up to the first line's end.

    Raises:
        UsageError: it did not come in time, or is too long.
    """
    end, line = time.monotonic() + REQUEST_SECONDS, b""
    while not line.endswith(b"\n"):
        connection.settimeout(max(0.001, end - time.monotonic()))
        try:
            more = connection.recv(MAX_REQUEST_BYTES + 1 - len(line))
        except TimeoutError:
            raise UsageError(f"no request came within {REQUEST_SECONDS:g} s") from None
        if not more:
            raise UsageError("the request is cut")
        line += more
        if len(line) > MAX_REQUEST_BYTES:
            raise UsageError(f"the request is longer than {MAX_REQUEST_BYTES} bytes")
    return line
