"""The metadata files of a repository: what is published, and what waits for signatures."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tuf.api.metadata import Metadata, Root, Snapshot, T, Targets, Timestamp

from edge_agent.errors import StateError
from edge_agent.models.catalogue import MAX_CATALOGUE_BYTES
from edge_agent.models.publishing import roles
from edge_agent.models.publishing.layout import TARGET, Layout, read_bytes, write_bytes
from edge_agent.models.publishing.roles import MAX_METADATA_BYTES, Role, Waiting

if TYPE_CHECKING:
    from pathlib import Path


class Documents:
    """Reads and writes metadata below one repository's folder.

    Every method raises StateError for a file that is damaged, or cannot be read or written.

    Args:
        layout: of the repository.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    # -- what is published ----------------------------------------------------------------------------------------

    @property
    def root_metadata(self) -> Metadata[Root] | None:
        """The newest root with its signatures, or None before the first one."""
        return _read(self._layout.pinned_root, Root)

    @property
    def root(self) -> Root | None:
        """The root that says whose signatures count."""
        metadata = self.root_metadata
        return metadata.signed if metadata is not None else None

    @property
    def targets(self) -> Metadata[Targets] | None:
        """The newest targets metadata that is signed by enough keys."""
        return self._newest("targets", Targets)

    @property
    def snapshot(self) -> Metadata[Snapshot] | None:
        """The newest snapshot metadata."""
        return self._newest("snapshot", Snapshot)

    @property
    def timestamp(self) -> Metadata[Timestamp] | None:
        """The timestamp metadata."""
        return _read(self._layout.metadata / "timestamp.json", Timestamp)

    def all_signed(self) -> list[tuple[Role, Metadata[Any]]]:
        """Return the published metadata of each role that has any."""
        found: list[tuple[Role, Metadata[Any] | None]] = [
            ("root", self.root_metadata),
            ("targets", self.targets),
            ("snapshot", self.snapshot),
            ("timestamp", self.timestamp),
        ]
        return [(role, metadata) for role, metadata in found if metadata is not None]

    def published_bytes(self, name: str) -> bytes:
        """Return the very bytes of a published metadata file: digests are taken of them."""
        path = self._layout.metadata / name
        return _there(path, read_bytes(path, MAX_METADATA_BYTES))

    def catalogue_bytes(self, targets: Targets) -> bytes:
        """Return the catalogue that this targets metadata vouches for."""
        path = self._layout.targets / f"{digest_of(targets)}.{TARGET}"
        return _there(path, read_bytes(path, MAX_CATALOGUE_BYTES))

    def write_root(self, metadata: Metadata[Root]) -> None:
        """Publish a root that is signed by enough keys, and make it the one that counts."""
        data = metadata.to_bytes()
        write_bytes(self._layout.metadata / f"{metadata.signed.version}.root.json", data)
        write_bytes(self._layout.pinned_root, data)

    def write(self, name: str, data: bytes) -> None:
        """Publish other metadata."""
        write_bytes(self._layout.metadata / name, data)

    def _newest(self, role: Role, kind: type[T]) -> Metadata[T] | None:
        versions = [int(path.name.split(".")[0]) for path in self._layout.metadata.glob(f"[0-9]*.{role}.json")]
        return _read(self._layout.metadata / f"{max(versions)}.{role}.json", kind) if versions else None

    # -- what waits -----------------------------------------------------------------------------------------------

    @property
    def pending_root(self) -> Metadata[Root] | None:
        """A root that waits for signatures."""
        return _read(self._layout.pending / "root.json", Root)

    @property
    def pending_targets(self) -> Metadata[Targets] | None:
        """Targets metadata that waits for signatures."""
        return _read(self._layout.pending / "targets.json", Targets)

    @property
    def counting_root(self) -> Root | None:
        """The root whose targets keys count: the published one, or the first one while it waits."""
        if self.root is not None:
            return self.root
        pending = self.pending_root
        return pending.signed if pending is not None else None

    def write_pending(self, role: Role, metadata: Metadata[Any]) -> None:
        """Let metadata wait."""
        write_bytes(self._layout.pending / f"{role}.json", metadata.to_bytes())

    def drop_pending(self, role: Role) -> None:
        """Forget metadata that waited."""
        (self._layout.pending / f"{role}.json").unlink(missing_ok=True)

    def waiting(self) -> tuple[Waiting, ...]:
        """Return what waits, also what has all its signatures and is only to be published."""
        found = []
        if (root := self.pending_root) is not None:
            found.append(roles.waiting_root(root, self.root) or complete("root", root))
        counting = self.counting_root
        if (targets := self.pending_targets) is not None and counting is not None:
            found.append(roles.waiting(targets, "targets", counting) or complete("targets", targets))
        return tuple(found)


def complete(role: Role, metadata: Metadata[Any]) -> Waiting:
    """Return that nothing is missing."""
    return Waiting(role, metadata.signed.version, len(metadata.signatures), len(metadata.signatures), ())


def digest_of(targets: Targets) -> str:
    """Return the SHA-256 of the catalogue that this targets metadata vouches for."""
    return str(targets.targets[TARGET].hashes["sha256"])


def _there(path: Path, data: bytes | None) -> bytes:
    if data is None:
        raise StateError(f"{path} is not there.", hint="Restore it from a backup.")
    return data


def _read(path: Path, kind: type[T]) -> Metadata[T] | None:
    data = read_bytes(path, MAX_METADATA_BYTES)
    return roles.read(data, kind, str(path)) if data is not None else None
