"""One `publish`: sign what changed or would expire soon, role after role, and let agents see it last.

Files are written in the order in which agents may rely on them: the catalogue, targets, snapshot, and the timestamp
in the end. Whatever interrupts this, agents see the old state or the new one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from tuf.api.metadata import Metadata, Root, Signed, Snapshot, Targets

from edge_agent.errors import UsageError
from edge_agent.models.publishing import roles
from edge_agent.models.publishing.documents import Documents, digest_of
from edge_agent.models.publishing.layout import TARGET, Layout, write_bytes
from edge_agent.models.publishing.roles import Role, expiry
from edge_agent.wire.keys import SigningKey


class Publication:
    """What one `publish` works with.

    Args:
        layout: of the repository.
        keys: at hand.
        days: how long each role's metadata holds.
        now: with its time zone.
    """

    def __init__(self, layout: Layout, keys: Sequence[SigningKey], days: Mapping[Role, int], now: datetime) -> None:
        self._layout = layout
        self._documents = Documents(layout)
        self._keys = keys
        self._days = days
        self._now = now

    def run(self, catalogue: bytes) -> None:
        """Publish as much as the keys allow.

        Args:
            catalogue: the bytes that agents are to get.

        Raises:
            UsageError: a key of snapshot or timestamp is not at hand.
            StateError: a file is damaged or cannot be written.
        """
        self._renew_root()
        root = self._settle_root()
        if root is None:
            return
        self._prepare_targets(root, catalogue)
        self._settle_targets(root)
        targets = self._documents.targets
        if targets is None or roles.waiting(targets, "targets", root) is not None:
            return
        snapshot, snapshot_bytes = self._sign_snapshot(root, targets)
        self._sign_timestamp(root, snapshot, snapshot_bytes)

    # -- root and targets, which may wait for keys that lie elsewhere -----------------------------------------------

    def _renew_root(self) -> None:
        """Let a successor wait for a root that expires soon."""
        root = self._documents.root
        if root is not None and self._documents.pending_root is None and self._ends_soon("root", root):
            self._documents.write_pending("root", Metadata(roles.successor(root, self._expiry("root"))))

    def _settle_root(self) -> Root | None:
        """Publish a waiting root that is signed by enough keys; return the root that counts now."""
        current = self._documents.root
        waits = self._documents.pending_root
        if waits is None:
            return current
        roles.sign_root(waits, current, self._keys)
        self._documents.write_pending("root", waits)
        if roles.waiting_root(waits, current) is not None:
            return current
        self._documents.write_root(waits)
        self._documents.drop_pending("root")
        return waits.signed

    def _prepare_targets(self, root: Root, catalogue: bytes) -> None:
        """Let targets metadata for the catalogue wait, unless what is published, or waits, is just that."""
        digest = hashlib.sha256(catalogue).hexdigest()
        waits = self._documents.pending_targets
        if waits is not None and digest_of(waits.signed) == digest and not waits.signed.is_expired(self._now):
            return
        current = self._documents.targets
        if (
            current is not None
            and digest_of(current.signed) == digest
            and not self._ends_soon("targets", current.signed)
            and roles.waiting(current, "targets", root) is None
        ):
            self._documents.drop_pending("targets")
            return
        write_bytes(self._layout.targets / f"{digest}.{TARGET}", catalogue)  # nobody is told of it yet
        version = current.signed.version + 1 if current is not None else 1
        made = roles.new_targets(version, self._expiry("targets"), catalogue, TARGET)
        self._documents.write_pending("targets", Metadata(made))

    def _settle_targets(self, root: Root) -> None:
        """Publish waiting targets metadata that is signed by enough keys."""
        waits = self._documents.pending_targets
        if waits is None:
            return
        roles.sign_with(waits, "targets", root, self._keys)
        self._documents.write_pending("targets", waits)
        if roles.waiting(waits, "targets", root) is None:
            self._documents.write(f"{waits.signed.version}.targets.json", waits.to_bytes())
            self._documents.drop_pending("targets")

    # -- snapshot and timestamp, whose keys must be at hand ----------------------------------------------------------

    def _sign_snapshot(self, root: Root, targets: Metadata[Targets]) -> tuple[Metadata[Snapshot], bytes]:
        current = self._documents.snapshot
        if (
            current is not None
            and current.signed.meta["targets.json"].version == targets.signed.version
            and not self._ends_soon("snapshot", current.signed)
            and roles.waiting(current, "snapshot", root) is None
        ):
            return current, self._documents.published_bytes(f"{current.signed.version}.snapshot.json")
        version = current.signed.version + 1 if current is not None else 1
        targets_bytes = self._documents.published_bytes(f"{targets.signed.version}.targets.json")
        snapshot = Metadata(roles.new_snapshot(version, self._expiry("snapshot"), targets, targets_bytes))
        data = self._sign("snapshot", snapshot, root)
        self._documents.write(f"{version}.snapshot.json", data)
        return snapshot, data

    def _sign_timestamp(self, root: Root, snapshot: Metadata[Snapshot], snapshot_bytes: bytes) -> None:
        current = self._documents.timestamp
        version = current.signed.version + 1 if current is not None else 1
        made = roles.new_timestamp(version, self._expiry("timestamp"), snapshot, snapshot_bytes)
        self._documents.write("timestamp.json", self._sign("timestamp", Metadata(made), root))

    def _sign(self, role: Role, metadata: Metadata[Any], root: Root) -> bytes:
        roles.sign_with(metadata, role, root, self._keys)
        missing = roles.waiting(metadata, role, root)
        if missing is not None:
            raise UsageError(
                f"The role {role} needs {missing.need} signatures and the keys at hand give {missing.have}.",
                hint=f"Give the missing keys with --key FILE: {', '.join(missing.missing)}.",
            )
        return metadata.to_bytes()

    # -- times ------------------------------------------------------------------------------------------------------

    def _expiry(self, role: Role) -> datetime:
        return expiry(self._now, self._days[role])

    def _ends_soon(self, role: Role, signed: Signed) -> bool:
        """Whether less than a quarter of the time is left that this role's metadata holds."""
        return signed.expires - self._now < timedelta(days=self._days[role]) / 4
