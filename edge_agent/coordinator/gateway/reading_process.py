"""The process that reads long requests: `python -m edge_agent.coordinator.gateway.reading_process SOCKET FILE LIMIT`.

It is asked over a socket of packets, one question after the other, and ends when that is closed. The text lies in a
file in memory that both processes have; what it was read into is written over it. What a text may cost is bounded by
the memory that this process may take, whatever is in it.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import sys
from pathlib import Path
from typing import Any

from edge_agent.coordinator.gateway import embeddings
from edge_agent.coordinator.gateway.json_numbers import in_binary_form
from edge_agent.coordinator.gateway.reading import BESIDE, EMBEDDINGS, MAX_PACKET_BYTES, TOO_MUCH, write
from edge_agent.errors import EdgeAgentError
from edge_agent.wire import strict_json
from edge_agent.wire.oip_binary import split
from edge_agent.wire.oip_json import OutputForm, body_of, request_from_json


def request_body(text: bytes, json_length: str | None) -> tuple[bytes, int | None]:
    """Return a request in the binary form.

    Raises:
        InputError: it is not one.
    """
    quick = in_binary_form(text) if json_length is None else None
    if quick is not None:
        return quick
    front, tail = split(text, json_length)
    given = strict_json.read(front)
    request = request_from_json(given, tail)
    message: dict[str, object] = {"parameters": request.parameters}
    if isinstance(given, dict):
        message |= {name: given[name] for name in BESIDE if isinstance(given.get(name), str)}
    if request.id is not None:
        message["id"] = request.id
    message["outputs"] = [
        {"name": name, "parameters": {"binary_data": request.form.is_binary(name)}} for name in request.outputs
    ]
    return body_of(message, "inputs", request.inputs, OutputForm(binary=True))


def embeddings_body(text: bytes) -> tuple[bytes, int | None]:
    """Return what a request of OpenAI's interface for embeddings asks for, and nothing else of it.

    Raises:
        InputError: it is not one.
    """
    wish = embeddings.wish_from(strict_json.read(text))
    message = {"model": wish.model, "input": wish.texts, "dimensions": wish.dimensions, "encoding_format": wish.form}
    return strict_json.written(message), None


def answer(question: dict[str, Any], file: int) -> dict[str, object]:
    """Answer a question; the body, if there is one, is written into the file."""
    try:
        text = os.pread(file, question["bytes"], 0)
        if question["kind"] == EMBEDDINGS:
            body, length = embeddings_body(text)
        else:
            body, length = request_body(text, question["json_length"])
        write(file, body)
    except EdgeAgentError as error:
        return {"error": error.message[:4000], "code": error.error_code, "hint": error.hint}
    except (MemoryError, OSError):
        return {"error": TOO_MUCH}
    return {"bytes": len(body), "json_length": length}


def serve(connection: socket.socket, file: int) -> None:
    """Answer until nobody asks any more."""
    while packet := connection.recv(MAX_PACKET_BYTES):
        connection.send(json.dumps(answer(json.loads(packet), file)).encode())


def main() -> None:
    """Take the limit, and serve."""
    fd, file, more_bytes = map(int, sys.argv[1:])
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + more_bytes, now + more_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=fd) as connection:
        serve(connection, file)


if __name__ == "__main__":
    main()
