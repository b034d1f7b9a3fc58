"""Asks a running agent on this machine: the other end of `control`."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from edge_agent.agent.control import ANSWER_SECONDS, MAX_ANSWER_BYTES, SOCKET_FILE, short_path
from edge_agent.errors import AccessError, EdgeAgentError, MalformedError, StateError, TransportError, UsageError

PATIENCE_SECONDS = ANSWER_SECONDS + 5.0
_ERRORS: tuple[type[EdgeAgentError], ...] = (UsageError, StateError, TransportError)


def ask(state_dir: Path, request: dict[str, Any]) -> dict[str, Any]:
    """Ask the agent that uses a state directory; return its answer.

    Raises:
        TransportError: `unreachable`: none runs there; `timeout`: it does not answer.
        AccessError: the directory or the socket is another user's.
        MalformedError: what answers is no agent of this version.
        EdgeAgentError: the agent refused; of the class and code that it says.
    """
    answer = _exchange(state_dir / SOCKET_FILE, json.dumps(request).encode() + b"\n")
    try:
        document = json.loads(answer)
        if document["ok"] is True:
            found: dict[str, Any] = document
            return found
        code, message, hint = (str(document["error"][name]) for name in ("code", "message", "hint"))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise MalformedError(f"what listens in {state_dir} does not answer as an agent does") from error
    kind = next((kind for kind in _ERRORS if code in {kind.code, *kind.codes}), EdgeAgentError)
    raise kind(message, hint=hint, code=code if code in {kind.code, *kind.codes} else None)


def _exchange(path: Path, request: bytes) -> bytes:
    where = f"the agent in {path.parent}"
    try:
        with short_path(path) as name, socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE_SECONDS)
            connection.connect(name)
            connection.sendall(request)
            answer = bytearray()
            while more := connection.recv(65_536):
                answer += more
                if len(answer) > MAX_ANSWER_BYTES:
                    raise MalformedError(f"{where} says more than {MAX_ANSWER_BYTES} bytes")
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        raise TransportError(
            f"no agent runs with the state directory {path.parent}",
            code="unreachable",
            hint="Start one with `edge-agent run`, or name the state directory of the one that runs with --state DIR.",
        ) from error
    except PermissionError as error:
        raise AccessError(f"{where} belongs to another user") from error
    except TimeoutError as error:
        raise TransportError(f"{where} gives no answer", code="timeout") from error
    except OSError as error:
        raise TransportError(f"{where} cannot be asked: {error.strerror}") from error
    return bytes(answer)
