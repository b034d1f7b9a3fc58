"""Runs `edge_agent.models.refresh` as a process of its own, and ends it when it takes too long."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, Any

from edge_agent import errors
from edge_agent.errors import EdgeAgentError, ProcessFailedError, TransportError, UsageError

if TYPE_CHECKING:
    from edge_agent.models.known import Source

_PASSED_ON = (
    "PYTHONPATH",
    "PYTHONHOME",
    "LD_LIBRARY_PATH",
    "HOME",
    "TMPDIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
)
"""How to find Python's packages, the authorities for TLS and the way out; nothing else is passed on."""
TAIL_CHARACTERS = 2000


class Refresher:
    """Refreshes one source, one refresh at a time.

    Args:
        source: with an address and a pinned root.
    """

    def __init__(self, source: Source) -> None:
        self._source = source
        self._lock = threading.Lock()
        self._process: subprocess.Popen[str] | None = None
        self._stopped = False

    def refresh(self) -> None:
        """Ask for news and wait until it is verified and kept, or refused.

        Raises:
            UsageError: there is no address, or no pinned root.
            CatalogueRefusedError, TransportError, StateError: as `refresh.refresh` says.
            TransportError: also when it took longer than the source allows.
            ProcessFailedError: the process could not be run, or was ended by `stop`.
        """
        if self._source.url is None or self._source.root_file is None:
            raise UsageError(
                "No catalogue is set, so there is nothing to refresh.",
                hint="Set catalogue.url and catalogue.root_file, or use --catalogue URL --catalogue-root FILE.",
            )
        request = {
            "url": self._source.url,
            "root_file": str(self._source.root_file),
            "folder": str(self._source.folder.absolute()),
        }
        _raise_what_it_says(self._run(json.dumps(request)))

    def stop(self) -> None:
        """End what is going on, and refuse what comes after."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.kill()

    def _run(self, request: str) -> str:
        # -P: the folder that we were started in is no place to import from.
        command = [sys.executable, "-P", "-m", "edge_agent.models.refresh"]
        with self._lock:
            if self._stopped:
                raise ProcessFailedError("the refresh of the catalogue was called off")
            try:
                self._process = subprocess.Popen(
                    command,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                    env={name: os.environ[name] for name in _PASSED_ON if name in os.environ},
                    process_group=0,  # a Ctrl-C at the terminal is for us
                )
            except OSError as error:
                raise ProcessFailedError(f"the refresh of the catalogue cannot be started: {error.strerror}") from error
        process = self._process
        with process:
            try:
                answer, complaint = process.communicate(request, self._source.fetch_seconds)
            except subprocess.TimeoutExpired:
                raise TransportError(
                    f"The catalogue {self._source.url} was not there within {self._source.fetch_seconds:g} s.",
                    code="timeout",
                    hint="Is the network up? catalogue.fetch_seconds says how long a refresh may take.",
                ) from None
            finally:
                process.kill()  # without effect on one that has ended
                with self._lock:
                    self._process = None
        if process.returncode != 0:
            tail = complaint.strip()[-TAIL_CHARACTERS:]
            raise ProcessFailedError(
                f"the refresh of the catalogue ended with {process.returncode}: {tail or 'killed'}"
            )
        return answer


def _raise_what_it_says(answer: str) -> None:
    try:
        found: dict[str, Any] = json.loads(answer)
    except ValueError as error:
        raise ProcessFailedError("the refresh of the catalogue gave no answer") from error
    told = found.get("error")
    if told is None:
        return
    kind = getattr(errors, str(told["class"]), EdgeAgentError)
    if not (isinstance(kind, type) and issubclass(kind, EdgeAgentError)):
        kind = EdgeAgentError
    raise kind(told["message"], hint=told["hint"], code=told["code"])
