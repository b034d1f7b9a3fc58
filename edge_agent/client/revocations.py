"""What a client knows of revoked keys: the newest list that the coordinator has shown it, and never an older one.

The list is signed by the coordinator, or by the registrar. So nobody between can forge one; an old one may be shown
again, or none. An older one than was seen is refused, for the life of the client or, with a file, for longer; that
there is none, or none that is fresh, is said with each result, which then proves less.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import EdgeAgentError, PeerError, RefusedError, StateError
from edge_agent.folders import alone_with, write_atomically
from edge_agent.wire.identity import Revocations
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.receipts import VerifiedReceipt
from edge_agent.wire.standing import MAX_LIST_BYTES, check_not_revoked, open_revocations

ASK_SECONDS = 30.0
"""A list is asked for again when the one that is known was fetched so long ago."""
PATIENCE_SECONDS = 5.0
"""So long one is asked for, retries included."""
FRESH_MS = 600_000
"""A list that was made so long ago, or in the future, by the client's clock, is not fresh: clocks differ, too."""


@dataclass(frozen=True, slots=True)
class RevocationsSeen:
    """What a result was held against.

    Attributes:
        issued_ms: when the list was made, Unix milliseconds, as its signer says; None if there was none.
        count: of the keys in it.
        problem: why there is none, or none that is fresh; empty if all is well.
    """

    issued_ms: int | None
    count: int
    problem: str = ""


class KnownRevocations:
    """The newest list of one coordinator's network; used by several threads.

    Args:
        file: where it is kept from one client to the next, and for others beside it; None for nowhere.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._turn = threading.Lock()  # of who takes a list: may be kept as long as the file takes
        self._lock = threading.Lock()  # of when to ask
        self._newest: Revocations | None = None
        self._due = float("-inf")
        self._problem = ""

    def claim(self, now: float) -> bool:
        """Whether it is time to ask, at this monotonic second: then it is the caller's turn, and nobody else's.

        Never waits for who takes a list.
        """
        with self._lock:
            if now < self._due:
                return False
            if self._newest is not None:  # until it is here, the others go by the one that is known
                self._due = now + PATIENCE_SECONDS
            return True

    def take(self, data: bytes, signers: Sequence[PublicKey], network: str, now: float) -> None:
        """Take a list that was fetched now.

        Args:
            data: as it came.
            signers: the keys of which one must have signed it.
            network: that it must be for.
            now: monotonic seconds.

        Raises:
            PeerError: it is none of theirs, or of another network; `old-revocations`: it lacks what was seen before.
            StateError: the file cannot be read or written, or another process does not let go of it.
        """
        with self._turn, self._alone():
            kept = self._recall(signers, network)
            said = open_revocations(data, signers, network=network)
            for before in (kept, self._newest):  # neither need continue the other, if the file was put back
                _check_continues(before, said)
            self._newest = _newer(self._newest, said)
            if _newer(kept, said) is said:
                self._keep(data)
            self._ask_again("", now + ASK_SECONDS)

    def miss(self, error: EdgeAgentError, signers: Sequence[PublicKey], network: str, now: float) -> None:
        """No list came; what was seen before holds on.

        Raises:
            PeerError, StateError: as `take`, of the file.
        """
        with self._turn:
            self._recall(signers, network)
            self._ask_again(error.message, now + PATIENCE_SECONDS)

    def check(self, receipt: VerifiedReceipt, now_ms: int) -> RevocationsSeen:
        """Return what a result is held against.

        Raises:
            RefusedError: `revoked`: its agent, or its coordinator, before it was accepted.
        """
        newest, problem = self._newest, self._problem
        if newest is None:
            return RevocationsSeen(None, 0, f"there is no list of revoked keys ({problem})")
        check_not_revoked(receipt, newest)
        return RevocationsSeen(newest.issued_ms, len(newest.revoked), _stale(newest, now_ms, problem))

    def why_revoked(self, agent_id: str) -> str | None:
        """Return why an agent's key counts no more, by the newest list; None if it does, or nobody knows."""
        entries = self._newest.revoked if self._newest is not None else ()
        return next((entry.reason for entry in entries if entry.id == agent_id), None)

    def _ask_again(self, problem: str, due: float) -> None:
        with self._lock:
            self._problem, self._due = problem, due

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """From reading the file to writing it, nobody else does: of two lists the older one would stay."""
        if self._file is None:
            yield
            return
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(alone_with(self._file))
            except OSError as error:
                raise _not_kept(self._file, error) from error
            yield

    def _recall(self, signers: Sequence[PublicKey], network: str) -> Revocations | None:
        """Read what is kept by now; nothing in the file is believed that is not signed."""
        if self._file is None:
            return None
        try:
            with self._file.open("rb") as stream:
                data = stream.read(MAX_LIST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StateError(f"The list of revoked keys in {self._file} cannot be read: {error.strerror}.") from error
        if not data:
            return None
        try:
            kept = open_revocations(data, signers, network=network)
        except PeerError as error:
            raise StateError(
                f"{self._file} holds no list of revoked keys of this coordinator: {error.message}",
                hint="Name another file for each coordinator; delete it if the coordinator's key was changed.",
            ) from error
        self._newest = _newer(self._newest, kept)
        return kept

    def _keep(self, data: bytes) -> None:
        if self._file is None:
            return
        try:
            write_atomically(self._file, data)
        except OSError as error:
            raise _not_kept(self._file, error) from error


def _not_kept(file: Path, error: OSError) -> StateError:
    return StateError(f"The list of revoked keys cannot be kept in {file}: {error.strerror}.")


def _newer(one: Revocations | None, other: Revocations) -> Revocations:
    """Return the other, unless the one tells as much and was made no earlier."""
    if one is None or (other.number, other.issued_ms) > (one.number, one.issued_ms):
        return other
    return one


def _check_continues(before: Revocations | None, said: Revocations) -> None:
    """Refuse a list that lacks a key that an earlier one had, or dates it later: nothing is ever taken out of it."""
    if before is None:
        return
    since_ms = {entry.id: entry.since_ms for entry in said.revoked}
    gone = {entry.id for entry in before.revoked} - since_ms.keys()
    if not gone and any(since_ms[entry.id] > entry.since_ms for entry in before.revoked):
        raise RefusedError(
            "A list of revoked keys is shown that dates one of them later than was seen before: less would be refused.",
            code="old-revocations",
            hint="Ask the coordinator's operator; `edge-agent coordinator revoke --list` sets the earlier moment.",
        )
    if gone or said.number < before.number:
        raise RefusedError(
            f"An older list of revoked keys is shown than was seen before: {said.number} keys, after {before.number}.",
            code="old-revocations",
            hint="Somebody holds back who was revoked, or the coordinator goes on from a backup: ask its operator.",
        )


def _stale(list_: Revocations, now_ms: int, problem: str) -> str:
    if abs(now_ms - list_.issued_ms) <= FRESH_MS:
        return ""
    text = f"the newest list of revoked keys was made {round((now_ms - list_.issued_ms) / 60_000)} minutes ago"
    return f"{text} by this machine's clock" + (f" ({problem})" if problem else "")
