"""Models as onnxruntime has optimised them, made once on this machine, so that a session is there sooner.

Beside the store's files, a pair for each variant, under the variant's digest:

    optimised/abcd….ort     onnxruntime's own format: the graph as it came out of its optimisers
    optimised/abcd….json    what it was made for, its size and digest, or why there is none

A file is good for the same model, the same onnxruntime and the same instruction sets only: all three are in the key. It
was made by a contained process that had read nothing but that model (`inference.optimising`), so that a hostile model
can poison none but its own. Whoever opens one hashes it, and what cannot be used is removed and made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import stat
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from edge_agent.errors import EdgeAgentError
from edge_agent.models.content import Content, same_file

FORMAT = 1
"""Of the pair of files, and of how the model's file is made and loaded: another number, and all are made again."""
RETRY_SECONDS = 7 * 24 * 3600.0
"""A model that cannot be optimised, or does not gain by it, is tried again after so long."""
PASSING_SECONDS, PASSING_FACTOR = 15 * 60.0, 4.0
"""One that could not be for a reason that passes, after the one; then after the other times as long, up to that."""
MAX_FACTOR, MAX_MORE_BYTES = 4, 16 * 1024 * 1024
"""A file of more than the model's size times the one, plus the other, is given up."""
MAX_RECORD_BYTES = 4096
_CHUNK_BYTES = 1024 * 1024

log = logging.getLogger("edge_agent.optimised")


def key(runtime: str, isa: str, features: Iterable[str]) -> str:
    """Return what decides, beside the model, whether a file can be used.

    Args:
        runtime: for example `onnxruntime 1.32.0`; empty if it is not known.
        isa: the instruction set path of the class.
        features: all that the processor says of itself, since the optimisers may ask for more than the path tells.
    """
    parts = [str(FORMAT), runtime, isa, *sorted(features)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Scratch:
    """A file that is to be filled.

    Attributes:
        fd: of an empty file; whoever has this closes it.
        max_bytes: what it may become.
        path: its name, which nobody else makes anything under.
        short: whether it might become more if there were more room.
    """

    fd: int
    max_bytes: int
    path: Path
    short: bool = False

    def close(self) -> None:
        """Let go of the file."""
        os.close(self.fd)


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a variant's file.

    Attributes:
        key: that it was made for.
        made: Unix time.
        size_bytes: of the file; 0 if there is none.
        sha256: of the file.
        in_place: whether its weights are used where the file is mapped, or copied.
        why_not: why there is none, in words; empty if there is one.
        passing: how many times in a row that was for a reason that passes; 0 for one that lasts.
    """

    key: str
    made: float
    size_bytes: int = 0
    sha256: str = ""
    in_place: bool = True
    why_not: str = ""
    passing: int = 0

    @property
    def retry_seconds(self) -> float:
        """How long after `made` there is to be no other try."""
        if not self.passing:
            return RETRY_SECONDS
        return min(RETRY_SECONDS, PASSING_SECONDS * PASSING_FACTOR ** min(self.passing - 1, 10))


class OptimisedFiles:
    """The files of one machine, for the agent alone.

    Args:
        content: the store; they lie in a folder of it, and go with the model.
        made_for: the `key`.
        max_bytes: what the store may take with them.
        keep_free_bytes: of the disk, so much stays free.
    """

    def __init__(self, content: Content, made_for: str, max_bytes: int, keep_free_bytes: int) -> None:
        self._content = content
        self._key = made_for
        self._max_bytes = max_bytes
        self._keep_free_bytes = keep_free_bytes

    def open(self, variant: str) -> tuple[int, bool] | None:
        """Return a descriptor, at its start, of a variant's file whose bytes are those that were made; None if not.

        Beside it, whether its weights are to be used in place. What is damaged, or was made for something else, goes.
        """
        record = self._record(variant)
        if record is None or record.why_not:
            return None
        path = self._content.optimised_path(variant)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            self.drop(variant, f"it cannot be opened: {error.strerror}")
            return None
        try:
            status = os.fstat(descriptor)
            fits = stat.S_ISREG(status.st_mode) and status.st_size == record.size_bytes
            if fits and _sha256(descriptor) == record.sha256:
                os.lseek(descriptor, 0, os.SEEK_SET)
                return descriptor, record.in_place
            why = "its bytes are not those that were made"
        except OSError as error:
            why = f"it cannot be read: {error.strerror}"
        os.close(descriptor)
        self.drop(variant, why)
        return None

    def wants(self, variant: str) -> bool:
        """Whether a variant's file is to be made: there is none, and nothing is known to speak against it."""
        record = self._record(variant)
        return record is None or bool(record.why_not and time.time() - record.made > record.retry_seconds)

    def scratch(self, model_bytes: int) -> Scratch | None:
        """Return a new file for what is made of a model of this size; None if the disk, or the owner, has no room."""
        self._content.remove_abandoned()
        room = min(self._max_bytes - self._content.used_bytes(), self._content.free_bytes() - self._keep_free_bytes)
        wanted = MAX_FACTOR * model_bytes + MAX_MORE_BYTES
        most = min(wanted, room)
        if most < model_bytes:
            return None
        try:
            descriptor, path = self._content.new_optimised()
            return Scratch(descriptor, most, path, most < wanted)
        except (OSError, EdgeAgentError) as error:
            log.debug("No file for an optimised model: %s", error, extra={"action": "optimised"})
            return None

    def keep(self, variant: str, scratch: Scratch, *, in_place: bool) -> bool:
        """Take over what was made; nobody may be left who could still write it. Return whether that went well."""
        try:
            size = os.fstat(scratch.fd).st_size
            record = Record(self._key, time.time(), size, _sha256(scratch.fd), in_place)
            if not same_file(scratch.fd, scratch.path):
                raise FileNotFoundError(0, "somebody else has removed or exchanged it")
            # In this order a power cut leaves a pair that does not match, which is found when it is read.
            scratch.path.replace(self._content.optimised_path(variant))
            self._write(variant, record)
        except (OSError, EdgeAgentError) as error:
            log.warning("An optimised model cannot be kept: %s", error, extra={"action": "optimised"})
            return False
        return True

    def is_cramped(self, scratch: Scratch) -> bool:
        """Whether a file that could not be filled may have had too little room: at its start, or on the disk by now."""
        written = os.fstat(scratch.fd).st_size
        return scratch.short or self._content.free_bytes() < scratch.max_bytes - written

    def refuse(self, variant: str, why: str, *, passing: bool = False) -> float:
        """Take note that there is to be no file for a variant, and return for how many seconds.

        Args:
            variant: the digest.
            why: in words.
            passing: whether that may be otherwise soon: the first time it is tried again soon, then later and later.
        """
        before = self._record(variant)
        times = (before.passing if before is not None else 0) + 1 if passing else 0
        record = Record(self._key, time.time(), why_not=why[:500], passing=times)
        self._forget(variant)
        with contextlib.suppress(OSError, EdgeAgentError):
            self._write(variant, record)
        return record.retry_seconds

    def drop(self, variant: str, why: str) -> None:
        """Remove a file that cannot be used; it is made again."""
        text = "The optimised copy of model %s is of no use, and will be made again: %s"
        log.warning(text, variant[:12], why, extra={"action": "optimised-dropped", "digest": variant})
        self._forget(variant)

    def discard(self, scratch: Scratch) -> None:
        """Remove what was being made, if it was not kept."""
        with contextlib.suppress(OSError):
            scratch.path.unlink(missing_ok=True)

    def _forget(self, variant: str) -> None:
        with contextlib.suppress(OSError, EdgeAgentError):
            self._content.remove_optimised(variant)

    def _record(self, variant: str) -> Record | None:
        """Return what holds for this key; whatever is of another one goes."""
        path = self._content.optimised_path(variant).with_suffix(".json")
        try:
            with path.open("rb") as file:
                found = json.loads(file.read(MAX_RECORD_BYTES))
            record = Record(**found)
            sizes = type(record.size_bytes) is int and isinstance(record.made, (int, float))
            sizes &= type(record.passing) is int and record.passing >= 0
            sizes &= isinstance(record.in_place, bool)
            texts = all(isinstance(text, str) for text in (record.key, record.sha256, record.why_not))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, RecursionError) as error:
            self.drop(variant, f"what is noted of it cannot be read ({error})")
            return None
        if not (sizes and texts):
            self.drop(variant, "what is noted of it is no such note")
            return None
        if record.key != self._key:
            self.drop(variant, "it was made for another onnxruntime, or another processor")
            return None
        return record

    def _write(self, variant: str, record: Record) -> None:
        fields = {name: getattr(record, name) for name in Record.__slots__}
        descriptor, partial = self._content.new_optimised()
        # Any character as it is: as an escape it could have twelve bytes, and the whole more than is read.
        with os.fdopen(descriptor, "w", encoding="utf-8", errors="replace") as file:
            json.dump(fields, file, ensure_ascii=False)
            file.flush()
            partial.replace(self._content.optimised_path(variant).with_suffix(".json"))


def _sha256(descriptor: int) -> str:
    os.lseek(descriptor, 0, os.SEEK_SET)
    state = hashlib.sha256()
    while chunk := os.read(descriptor, _CHUNK_BYTES):
        state.update(chunk)
    return state.hexdigest()
