"""Fetch files by digest: several sources, resume, back-off; nothing wrong ever gets a name in the store.

    check the room → for each source, again and again: ask for what is missing → append → whole? hash → finish

What came is hashed as it comes and counted against the size in the catalogue, so that an endless body ends after one
byte too many. A file that breaks off is kept and gone on with, from any source; if the whole then has the wrong digest,
everything is thrown away, and the sources are asked once more from the start, since any of them may have lied.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urljoin, urlsplit

from edge_agent.errors import DigestMismatchError, TransportError
from edge_agent.models.content import Content, Incoming
from edge_agent.models.eviction import Room, make_room
from edge_agent.models.transfer import Source, TransferError

ATTEMPTS_PER_SOURCE = 4
"""In a row without a single byte; then the next source is asked."""
MAX_REQUESTS_PER_SOURCE = 100
"""However little comes with each."""
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0

Progress = Callable[[int, int], None]
"""Told (bytes so far, bytes in all) after every block."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """A file to fetch: its digest and size decide, its URLs only say where to look; `name` is for people."""

    name: str
    digest: str
    size_bytes: int
    urls: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Places:
    """Where URLs lead.

    Attributes:
        base: the catalogue's own address, for paths; None if it has none.
        mirrors: addresses that are asked first for `sha256/DIGEST`, such as a machine at home.
    """

    base: str | None = None
    mirrors: tuple[str, ...] = ()

    def urls(self, wanted: Wanted) -> list[str]:
        """Return every address where the file may be, best first, each once."""
        found = [_join(mirror, f"sha256/{wanted.digest}") for mirror in self.mirrors]
        for url in wanted.urls:
            if urlsplit(url).scheme:
                found.append(url)
            elif self.base is not None:
                found.append(_join(self.base, url))
        return list(dict.fromkeys(found))


@dataclass(frozen=True, slots=True)
class Budget:
    """What the owner allows the store; bytes."""

    max_bytes: int
    keep_free_bytes: int


@dataclass(slots=True)
class Downloader:
    """Fetches files into a store.

    Args:
        content: the store.
        places: where URLs lead.
        budget: what the store may take.
        source: makes the requests.
        sleep: waits so many seconds.
        rng: for the pauses.
    """

    content: Content
    places: Places
    budget: Budget
    source: Source
    sleep: Callable[[float], None]
    rng: random.Random
    evicted: list[str] = field(default_factory=list)
    """Digests that had to go to make room, in their order."""

    def fetch(
        self, wanted: Wanted, progress: Progress = lambda _done, _all: None, *, in_use: AbstractSet[str] = frozenset()
    ) -> Path:
        """Return the path of the file, fetched if it is not there.

        Args:
            wanted: the file.
            progress: told how far it is.
            in_use: digests that are not to be evicted for it.

        Raises:
            ResourceError: `disk-full`: there is no room; nothing was removed or fetched. Or the disk filled up on the
                way: then what came is removed.
            TransportError: no source gave it; what came is kept to go on with, unless it cannot be trusted.
            DigestMismatchError: all that the sources gave were other bytes; nothing of it is kept.
            StateError: the store cannot be written, or another process is fetching the same file.
        """
        if self.content.has(wanted.digest, wanted.size_bytes):
            self.content.touch(wanted.digest)
            return self.content.path(wanted.digest)
        urls = self.places.urls(wanted)
        if not urls:
            raise TransportError(
                f"The catalogue says of {wanted.name} no address that can be asked.",
                code="download-failed",
                hint="Set `models.mirrors` to a machine that has it, or put the file into the store with "
                "`edge-agent models import`.",
            )
        with self.content.incoming(wanted.digest) as incoming:
            self._make_room(wanted, incoming, in_use)
            try:
                return _Transfer(self, wanted, incoming, progress).run(urls)
            except DigestMismatchError:
                incoming.discard()
                raise
            except BaseException as error:
                # A full disk is not filled with parts of files; what broke off is kept to go on with.
                if getattr(error, "error_code", "") == "disk-full" or not incoming.size_bytes:
                    incoming.discard()
                raise

    def _make_room(self, wanted: Wanted, incoming: Incoming, in_use: AbstractSet[str]) -> None:
        if incoming.size_bytes > wanted.size_bytes:
            incoming.restart()
        here = incoming.size_bytes
        needed = wanted.size_bytes - here
        room = self._room()
        if room.missing(needed) and self.content.remove_abandoned():
            room = self._room()
        for digest in filter(None, self.content.optimised() if room.missing(needed) else ()):
            self.content.remove_optimised(digest)  # made again when there is room
            if not (room := self._room()).missing(needed):
                break
        try:
            gone = make_room(self.content.entries(), room, needed, in_use=in_use)
        except BaseException:
            if not here:
                incoming.discard()
            raise
        for entry in gone:
            self.content.remove(entry.digest)
            self.evicted.append(entry.digest)

    def _room(self) -> Room:
        return Room(
            free_bytes=self.content.free_bytes(),
            used_bytes=self.content.used_bytes(),
            max_bytes=self.budget.max_bytes,
            keep_free_bytes=self.budget.keep_free_bytes,
        )


class _Transfer:
    """One file on its way."""

    def __init__(self, owner: Downloader, wanted: Wanted, incoming: Incoming, progress: Progress) -> None:
        self._owner = owner
        self._wanted = wanted
        self._incoming = incoming
        self._progress = progress
        self._hash = hashlib.sha256()
        self._sources: set[str] = set()  # whose bytes are in the file
        self._lied: set[str] = set()

    def run(self, urls: Sequence[str]) -> Path:
        for block in self._incoming.blocks():
            self._hash.update(block)
        if self._incoming.size_bytes:
            self._sources.add("before")
        told: list[str] = []
        for _ in range(2):  # once more from the start if bytes of several sources together were wrong
            for url in urls:
                if url not in self._lied and self._ask(url, told):
                    return self._incoming.finish()
        reasons = "; ".join(told[-8:])
        if self._lied and not self._incoming.size_bytes:
            raise DigestMismatchError(
                f"No source has {self._wanted.name} with the digest in the catalogue: {reasons}.",
                hint="The bytes were refused and removed. Tell the operator of the catalogue, or set `models.mirrors`.",
            )
        kept = self._incoming.size_bytes
        note = f" {kept} of {self._wanted.size_bytes} bytes are kept: run it again to go on." if kept else ""
        raise TransportError(
            f"{self._wanted.name} could not be fetched: {reasons}.{note}",
            code="download-failed",
            hint="Check the network and the addresses, or set `models.mirrors` to a machine that has the file.",
        )

    def _ask(self, url: str, told: list[str]) -> bool:
        """Ask one source until the file is whole and right (True), or it is of no more use (False)."""
        host = urlsplit(url).hostname or url
        pause = FIRST_PAUSE_SECONDS
        attempts = requests = 0
        while attempts < ATTEMPTS_PER_SOURCE and requests < MAX_REQUESTS_PER_SOURCE:
            requests += 1
            before = self._incoming.size_bytes
            try:
                self._receive(url)
            except TransferError as error:
                told.append(f"{host}: {error}")
                if error.discard:
                    self._restart()
                elif not error.again:
                    return False
                # Who sends something is worth another try.
                attempts = 1 if self._incoming.size_bytes > before else attempts + 1
                if attempts < ATTEMPTS_PER_SOURCE:
                    self._owner.sleep(max(error.after_seconds, self._owner.rng.uniform(0, pause)))
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                continue
            if self._hash.hexdigest() == self._wanted.digest:
                return True
            told.append(f"{host}: other bytes than the catalogue's")
            alone = self._sources == {url}
            self._restart()
            if alone:
                self._lied.add(url)
                return False
            attempts += 1  # what came before may have been the wrong part: from the start
        return False

    def _receive(self, url: str) -> None:
        size = self._wanted.size_bytes
        if self._incoming.size_bytes == size:
            return
        with self._owner.source.open(url, self._incoming.size_bytes, size) as body:
            if body.start != self._incoming.size_bytes:
                self._restart()
            self._sources.add(url)
            done = self._incoming.size_bytes
            for block in body.blocks:
                if done + len(block) > size:
                    self._lied.add(url)
                    self._restart()
                    raise TransferError(f"it sends more than the {size} bytes of the file")
                self._incoming.append(block)
                self._hash.update(block)
                done += len(block)
                self._progress(done, size)
        if done < size:
            raise TransferError(f"it ended after {done} of {size} bytes", again=True)

    def _restart(self) -> None:
        self._incoming.restart()
        self._hash = hashlib.sha256()
        self._sources.clear()


def _join(base: str, path: str) -> str:
    return urljoin(base if base.endswith("/") else f"{base}/", path)
