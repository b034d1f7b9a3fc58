"""Asks a catalogue's address for news and verifies what comes, as TUF says; a process of its own that ends.

    pinned root → newer roots, each approved by the one before → timestamp → snapshot → targets → the catalogue

Everything is refused that is not signed by enough of the keys that the root names, that is older than what is known,
that has expired, or that is not the very file that was vouched for. What is verified is kept, also when a later step
fails: a newer root must not be forgotten. The catalogue in force changes only in the end.

`python -m edge_agent.models.refresh` reads what to do as JSON from its standard input and answers on its standard
output. Agents and coordinators run it that way (`refresher`): a hanging name server, a server that drips bytes, a
parser that is fooled cost a process that can be killed, and an idle daemon has nothing of TUF in its memory.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tuf.api.exceptions import (
    DownloadError,
    DownloadHTTPError,
    DownloadLengthMismatchError,
    ExpiredMetadataError,
    RepositoryError,
)
from tuf.api.metadata import Metadata
from tuf.ngclient import FetcherInterface, TargetFile, Updater, UpdaterConfig

from edge_agent.errors import CatalogueRefusedError, EdgeAgentError, StateError, TransportError
from edge_agent.folders import make_private, take
from edge_agent.models.catalogue import MAX_CATALOGUE_BYTES, parse
from edge_agent.models.known import MAX_ROOT_BYTES, Record, read_record, read_root, stored_bytes, write
from edge_agent.models.transfer import Source, TransferError

TARGET = "catalogue.json"
MAX_ROOT_CHANGES = 256
"""Followed in one refresh."""
MAX_TIMESTAMP_BYTES = 16 * 1024
MAX_SNAPSHOT_BYTES = 64 * 1024
MAX_TARGETS_BYTES = 64 * 1024
MAX_FILE_BYTES = 4 * MAX_CATALOGUE_BYTES
"""No file that a refresh writes may be larger, whatever goes wrong."""
MAX_MEMORY_BYTES = 1024**3

_ROLES = ("root", "targets", "snapshot", "timestamp")


class _Fetcher(FetcherInterface):
    """Fetches for python-tuf by our own rules on time, redirects and schemes."""

    def __init__(self, source: Source) -> None:
        self._source = source

    def _fetch(self, url: str) -> Iterator[bytes]:
        try:
            yield from self._source.stream(url)
        except TransferError as error:
            text = f"{_shown(url)}: {error}"
            if error.absent:
                raise DownloadHTTPError(text, 404) from error
            raise DownloadError(text) from error


def refresh(url: str, root: bytes, folder: Path, now_ms: int, source: Source | None = None) -> Record:
    """Fetch and verify what is new, keep it, and return what is in force then.

    Args:
        url: the catalogue's address, ending in a slash.
        root: the pinned root.
        folder: private; keeps what was verified.
        now_ms: for the record.
        source: makes the requests.

    Raises:
        CatalogueRefusedError: what came is not to be trusted, or (`catalogue-expired`) too old.
        TransportError: it cannot be reached, or gives up in the middle.
        StateError: the folder cannot be written, or the root is no root.
    """
    metadata = make_private(make_private(folder) / "metadata")
    _sweep(folder, metadata)
    try:
        with tempfile.TemporaryDirectory(prefix=".incoming-", dir=folder) as incoming:
            updater = _updater(url, root, metadata, Path(incoming), source or Source())
            updater.refresh()
            target = _target(updater.get_targetinfo(TARGET))
            digest = target.hashes["sha256"]
            data, before = stored_bytes(folder, digest), read_record(folder)
            if data is None:
                data = Path(updater.download_target(target)).read_bytes()
        known = before is not None and before.digest == digest  # and was read then
        version = before.catalogue if before is not None and known else parse(data).version
        signed = {role: Metadata.from_file(str(metadata / f"{role}.json")).signed for role in _ROLES}
        record = Record(
            pinned=hashlib.sha256(root).hexdigest(),
            digest=digest,
            catalogue=version,
            versions={role: found.version for role, found in signed.items()},
            expires_ms=int(min(found.expires for found in signed.values()).timestamp() * 1000),
            refreshed_ms=now_ms,
        )
        write(folder, record, data)
    except StateError as error:
        raise CatalogueRefusedError(
            f"The catalogue is signed, but this version cannot read it: {error.message}",
            hint="Update this program; until then it goes on with what it knew.",
        ) from error
    except ExpiredMetadataError as error:
        raise CatalogueRefusedError(
            f"What {_shown(url)} gives has expired ({error}).",
            code="catalogue-expired",
            hint="Ask its operator to publish again; if others get newer news, somebody holds yours back. "
            "Is this machine's clock right?",
        ) from error
    except DownloadLengthMismatchError as error:
        raise CatalogueRefusedError(f"{_shown(url)} gives more bytes than it may: {error}.") from error
    except DownloadError as error:
        raise TransportError(
            f"The catalogue {_shown(url)} cannot be fetched: {error}.",
            code="unreachable",
            hint="Is the address right, and is there a network? Until then what was known stays in use.",
        ) from error
    except RepositoryError as error:
        raise CatalogueRefusedError(f"What {_shown(url)} gives is refused: {_reason(error)}.") from error
    except OSError as error:
        raise StateError(f"The folder {folder} cannot be written: {error.strerror or error}.") from error
    return record


def _updater(url: str, root: bytes, metadata: Path, incoming: Path, source: Source) -> Updater:
    config = UpdaterConfig(
        max_root_rotations=MAX_ROOT_CHANGES,
        max_delegations=0,  # there is one list of targets
        root_max_length=MAX_ROOT_BYTES,
        timestamp_max_length=MAX_TIMESTAMP_BYTES,
        snapshot_max_length=MAX_SNAPSHOT_BYTES,
        targets_max_length=MAX_TARGETS_BYTES,
    )
    try:
        return Updater(
            str(metadata),
            f"{url}metadata/",
            str(incoming),
            f"{url}targets/",
            fetcher=_Fetcher(source),
            config=config,
            bootstrap=root,
        )
    except RepositoryError as error:
        raise CatalogueRefusedError(
            f"The pinned root is no root that can be trusted: {_reason(error)}.",
            hint="Get root.json from the catalogue's operator again and name it in catalogue.root_file.",
        ) from error


def _sweep(folder: Path, metadata: Path) -> None:
    """Remove what a refresh that was killed left half-written; the folder's lock is ours."""
    for path in (*folder.glob(".incoming-*"), *folder.glob(".*.json.*"), *metadata.glob("tmp*")):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _target(found: TargetFile | None) -> TargetFile:
    if found is None or "sha256" not in found.hashes:
        raise CatalogueRefusedError(f"The signed list of files has no {TARGET} with a SHA-256.")
    if found.length > MAX_CATALOGUE_BYTES:
        raise CatalogueRefusedError(
            f"The catalogue has {found.length} bytes; no more than {MAX_CATALOGUE_BYTES} are taken."
        )
    return found


def _reason(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def _shown(url: str) -> str:
    """Return a URL without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Do what a request says; return what is in force, or the error."""
    try:
        folder = Path(request["folder"])
        with take(folder):
            record = refresh(request["url"], read_root(Path(request["root_file"])), folder, time.time_ns() // 1_000_000)
    except EdgeAgentError as error:
        return {
            "error": {
                "class": type(error).__name__,
                "code": error.error_code,
                "message": error.message,
                "hint": error.hint,
            }
        }
    return {"catalogue": record.catalogue, "digest": record.digest}


def main() -> int:
    """Answer one request."""
    for limit, most in ((resource.RLIMIT_FSIZE, MAX_FILE_BYTES), (resource.RLIMIT_AS, MAX_MEMORY_BYTES)):
        with suppress(ValueError, OSError):  # a lower one holds already
            resource.setrlimit(limit, (most, most))
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
