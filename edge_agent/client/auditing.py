"""Watching a coordinator's log from outside: every tree head must continue all that were seen before.

A coordinator can show a forked or a rewritten log only to somebody who has no tree head of the other one. Who keeps
what they saw, and compares it with what others saw, finds it out, and holds two statements signed with one key.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from edge_agent.client.http import Client
from edge_agent.errors import InputError, LogForkedError, MalformedError, PeerError, RefusedError, StateError
from edge_agent.wire import merkle
from edge_agent.wire.bundles import MAX_BUNDLE_BYTES, Bundle, is_bundle, verify_tree_head
from edge_agent.wire.keys import PublicKey
from edge_agent.wire.messages import TreeHead

MAX_HEADS_BYTES: Final = 64 * 1024 * 1024
"""Of a file with tree heads: about 90,000 of them."""


@dataclass(frozen=True, slots=True)
class SeenHead:
    """A tree head that was verified, with its signature and where it was seen."""

    where: str
    statement: TreeHead
    signed: bytes


Prover = Callable[[int, int], Sequence[bytes]]
"""Gives the consistency proof between two sizes."""


def fetch_head(client: Client, coordinator: PublicKey, *, network: str | None = None) -> SeenHead:
    """Fetch the current tree head and verify it.

    Raises:
        PeerError: as `verify_tree_head`; `malformed` when the answer is none.
        TransportError: `unreachable`.
    """
    answer = _object(client.get("/api/v1/log"))
    signed = _hex(answer.get("tree_head"))
    return SeenHead("the coordinator", verify_tree_head(signed, coordinator, network=network).statement, signed)


def fetch_proof(client: Client, old: int, new: int) -> list[bytes]:
    """Fetch the consistency proof between two sizes, unverified but bounded.

    Raises:
        PeerError: `malformed`.
        TransportError: `unreachable`.
    """
    path = _object(client.get(f"/api/v1/log/consistency?from={old}&to={new}")).get("path")
    if not isinstance(path, list) or len(path) > merkle.MAX_CONSISTENCY_PATH:
        raise MalformedError("The coordinator's answer holds no proof of consistency.")
    return [_hex(entry) for entry in path]


def check_continues(seen: SeenHead, current: SeenHead, prove: Prover) -> None:
    """Return if the current log starts with the one that was seen before.

    Args:
        seen: before.
        current: now.
        prove: asked only where the sizes differ and a proof is needed.

    Raises:
        LogForkedError: `log-shortened` or `log-forked`.
    """
    old, new = seen.statement, current.statement
    if old.network != new.network:
        raise InputError(f"The tree head in {seen.where} is of the network {old.network}, not {new.network}.")
    if new.size < old.size:
        raise LogForkedError(
            f"The log was shortened: {current.where} shows {new.size} receipts, {seen.where} has {old.size}.",
            code="log-shortened",
        )
    try:
        path = () if old.size in {0, new.size} else prove(old.size, new.size)
        merkle.check_consistency(old.size, old.root, new.size, new.root, path)
    except RefusedError as error:
        raise LogForkedError(
            f"The log was forked: its {new.size} receipts at {current.where} do not begin with the {old.size} of the "
            f"tree head in {seen.where}."
        ) from error


# -- what was seen, in files ----------------------------------------------------------------------------------------


def read_head(path: Path, coordinator: PublicKey, *, network: str | None = None) -> SeenHead | None:
    """Return the last tree head of a file, or that of a receipt bundle; None if the file is not there yet.

    Raises:
        InputError: it cannot be read, is too long, or holds something else.
        PeerError: as `verify_tree_head`.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_HEADS_BYTES + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", hint="Check its name and permissions.") from error
    if len(data) > MAX_HEADS_BYTES:
        raise InputError(f"{path} is longer than {MAX_HEADS_BYTES} bytes.", hint="Keep its last line in a new file.")
    try:
        if is_bundle(data) and len(data) <= MAX_BUNDLE_BYTES:
            signed = Bundle.decode(data).tree_head
        else:
            lines = data.splitlines()
            if not lines:
                return None
            signed = _hex(_object(lines[-1]).get("tree_head"))
        return SeenHead(str(path), verify_tree_head(signed, coordinator, network=network).statement, signed)
    except PeerError as error:
        error.hint = f"Is {path} a file of tree heads or a receipt bundle, and of this coordinator?"
        raise


def append_head(path: Path, head: SeenHead, seen_ms: int) -> None:
    """Append a tree head to a file, and wait until it is on the disk.

    Raises:
        StateError: it cannot be written.
    """
    try:
        with path.open("ab") as file:
            file.write(_line(head, seen_ms))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise StateError(
            f"{path} cannot be written: {error.strerror}", hint="Look at the disk and the folder."
        ) from error


def write_evidence(beside: Path, heads: Sequence[SeenHead], seen_ms: int) -> Path:
    """Write tree heads that contradict each other to a new file; return its name.

    Raises:
        StateError: it cannot be written.
    """
    for number in range(1, 1000):
        path = beside.with_name(f"{beside.name}.forked-{number}")
        try:
            with path.open("xb") as file:
                file.write(b"".join(_line(head, seen_ms) for head in heads))
                os.fsync(file.fileno())
        except FileExistsError:
            continue
        except OSError as error:
            raise StateError(f"{path} cannot be written: {error.strerror}") from error
        return path
    raise StateError(f"There are 999 files of evidence beside {beside} already.", hint="Move them away.")


def _line(head: SeenHead, seen_ms: int) -> bytes:
    about = {"seen_ms": seen_ms, "size": head.statement.size, "root": head.statement.root.hex()}
    return json.dumps(about | {"tree_head": head.signed.hex()}).encode() + b"\n"


def _object(data: bytes) -> dict[str, Any]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise MalformedError("What should be a JSON object about a log is none.")
    return found


def _hex(value: object) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) and value.isascii() else b""
    except ValueError:
        return b""
