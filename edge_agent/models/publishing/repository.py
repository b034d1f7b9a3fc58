"""A catalogue's repository in a folder: its draft, its keys, its signed metadata, and the way from one to the other.

A draft is changed with `put_family` and `remove_family`. `publish` signs what changed with the keys at hand; what
needs a key that lies elsewhere is put into `pending/` and waits for `sign`. Key changes (`propose`) are new roots,
which the old one must approve.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from tuf.api.metadata import Metadata

from edge_agent.errors import StateError, UsageError
from edge_agent.models.catalogue import MAX_CATALOGUE_BYTES, Catalogue, Family, compact, parse, readable
from edge_agent.models.publishing import roles
from edge_agent.models.publishing.documents import Documents, complete
from edge_agent.models.publishing.files import check_and_place
from edge_agent.models.publishing.layout import Layout, read_bytes, write_bytes
from edge_agent.models.publishing.publication import Publication
from edge_agent.models.publishing.roles import DAYS, Role, Waiting, expiry
from edge_agent.wire.keys import PublicKey, SigningKey

_FORMAT_VERSION = 1
_MAX_SETTINGS_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Signing:
    """The state of one role's published metadata."""

    role: Role
    version: int
    expires: datetime


@dataclass(frozen=True, slots=True)
class Published:
    """What agents see after `publish`, and what still waits for signatures.

    Attributes:
        catalogue: that is vouched for; None while the first one waits.
        signed: the roles whose metadata is published.
        waiting: what lies in `pending/`.
    """

    catalogue: Catalogue | None
    signed: tuple[Signing, ...]
    waiting: tuple[Waiting, ...]


class Repository:
    """A repository that is there; `init` makes one.

    Args:
        folder: of the repository.

    Raises:
        UsageError: there is no repository in the folder.
        StateError: its files are damaged.
    """

    def __init__(self, folder: Path) -> None:
        self.layout = Layout(folder)
        self.documents = Documents(self.layout)
        self._days = _read_days(self.layout)

    @classmethod
    def init(  # noqa: PLR0913 each is a choice of the operator
        cls,
        folder: Path,
        keys: Mapping[Role, Sequence[PublicKey]],
        *,
        now: datetime,
        thresholds: Mapping[Role, int] | None = None,
        days: Mapping[Role, int] | None = None,
        families: Sequence[Family] = (),
    ) -> Repository:
        """Make a repository; its first root waits for signatures until `publish` or `sign`.

        Args:
            folder: is made.
            keys: whose signatures count, for each role.
            now: with its time zone.
            thresholds: how many of them are needed; 1 where nothing is said.
            days: how long metadata holds; `DAYS` where nothing is said.
            families: that the draft starts with.

        Raises:
            UsageError: there is a repository already, or a role has fewer keys than its threshold.
            StateError: the folder cannot be written.
        """
        layout = Layout(folder)
        if layout.settings.exists():
            raise UsageError(f"{folder} holds a repository already.", hint="Name another folder, or use that one.")
        chosen = {**DAYS, **(days or {})}
        root = roles.new_root(keys, thresholds or {}, expiry(now, chosen["root"]))
        layout.make()
        ordered = tuple(sorted(families, key=lambda family: family.name))
        write_bytes(layout.draft, readable(Catalogue(version=1, families=ordered)))
        Documents(layout).write_pending("root", Metadata(root))
        settings = {"v": _FORMAT_VERSION, "days": chosen}
        write_bytes(layout.settings, json.dumps(settings, indent=2).encode() + b"\n")  # last: it makes it a repository
        return cls(folder)

    # -- the draft ------------------------------------------------------------------------------------------------

    @property
    def draft(self) -> Catalogue:
        """The catalogue that `publish` signs next.

        Raises:
            StateError: its file is damaged.
        """
        data = read_bytes(self.layout.draft, MAX_CATALOGUE_BYTES)
        if data is None:
            raise StateError(f"{self.layout.draft} is not there.", hint="Restore it from a backup.")
        return parse(data)

    def put_family(self, family: Family, files: Mapping[str, Path]) -> Family:
        """Put a family into the draft, in place of one of that name, and its files where they are served from.

        Args:
            family: as it is to be published. A variant whose file is given gets its address in this repository as
                its first URL.
            files: by digest, the model and golden files that this repository is to serve.

        Returns:
            The family as the draft has it now.

        Raises:
            UsageError: a file belongs to no variant; a variant has neither file nor URL; a golden file is missing.
            DigestMismatchError: a file is not the described one; nothing of the family is changed.
            StateError: something cannot be read or written.
        """
        placed = check_and_place(self.layout, family, files)
        self._write_draft([*(known for known in self.draft.families if known.name != placed.name), placed])
        return placed

    def remove_family(self, name: str) -> None:
        """Take a family out of the draft; its files stay, for agents that still have the old catalogue.

        Raises:
            UnknownFamilyError: the draft has none of that name.
        """
        draft = self.draft
        draft.family(name)
        self._write_draft([known for known in draft.families if known.name != name])

    def _write_draft(self, families: Sequence[Family]) -> None:
        data = readable(self._numbered(tuple(sorted(families, key=lambda family: family.name))))
        _refuse_too_large(data)
        write_bytes(self.layout.draft, data)

    def _numbered(self, families: tuple[Family, ...]) -> Catalogue:
        """Give what is published its number, and anything else the next one."""
        published = self.published()
        if published is None:
            return Catalogue(version=1, families=families)
        changed = published.families != families
        return Catalogue(version=published.version + changed, families=families)

    # -- signing --------------------------------------------------------------------------------------------------

    def published(self) -> Catalogue | None:
        """Return the catalogue that agents are given now, or None before the first one.

        Raises:
            StateError: a file of it is missing or damaged.
        """
        targets = self.documents.targets
        return parse(self.documents.catalogue_bytes(targets.signed)) if targets is not None else None

    def sign(self, signers: Iterable[SigningKey]) -> tuple[Waiting, ...]:
        """Add these keys' signatures to everything that waits for them; return what lies in `pending/` then.

        Raises:
            StateError: a file is damaged or cannot be written.
        """
        keys = list(signers)
        if (root := self.documents.pending_root) is not None:
            roles.sign_root(root, self.documents.root, keys)
            self.documents.write_pending("root", root)
        counting = self.documents.counting_root
        if (targets := self.documents.pending_targets) is not None and counting is not None:
            roles.sign_with(targets, "targets", counting, keys)
            self.documents.write_pending("targets", targets)
        return self.documents.waiting()

    def merge(self, data: bytes) -> tuple[Waiting, ...]:
        """Take over the signatures of a copy of waiting metadata that was signed elsewhere.

        Raises:
            UsageError: it is not a copy of what waits here.
            StateError: it is not metadata.
        """
        copy = roles.read_any(data, "The file")
        for role, waits in (("root", self.documents.pending_root), ("targets", self.documents.pending_targets)):
            if waits is not None and copy.signed_bytes == waits.signed_bytes:
                waits.signatures.update(copy.signatures)
                self.documents.write_pending("root" if role == "root" else "targets", waits)
                return self.documents.waiting()
        raise UsageError(
            "The file is not a copy of what waits for signatures here.",
            hint="Sign a fresh copy of the file in pending/: it changes when the draft or the keys change.",
        )

    def key_ids(self, role: Role) -> tuple[str, ...]:
        """Return the ids of the keys that a role has now, or will have once a waiting root is published."""
        waits = self.documents.pending_root
        root = waits.signed if waits is not None else self.documents.root
        return tuple(root.roles[role].keyids) if root is not None else ()

    def propose(
        self,
        role: Role,
        *,
        now: datetime,
        add: Sequence[PublicKey] = (),
        revoke: Sequence[str] = (),
        threshold: int | None = None,
    ) -> Waiting:
        """Prepare a root with other keys for a role; it waits for the signatures of old and new root keys.

        Args:
            role: whose keys change.
            now: with its time zone.
            add: keys whose signatures are to count.
            revoke: ids of keys whose signatures are to count no longer.
            threshold: how many signatures are to be needed; None leaves it.

        Raises:
            UsageError: a key to be revoked is not one of the role's, or too few would be left.
            StateError: a file is damaged or cannot be written.
        """
        waits = self.documents.pending_root
        current = self.documents.root
        if waits is not None:
            root = waits.signed  # several changes may go into one new root
        elif current is not None:
            root = roles.successor(current, expiry(now, self._days["root"]))
        else:
            raise StateError("The repository has no root.", hint="Restore it from a backup.")
        for key in add:
            root.add_key(roles.as_tuf(key), role)
        for key_id in revoke:
            held = root.roles[role].keyids
            if key_id not in held:
                raise UsageError(f"{key_id[:64]!r} is no key of the role {role}.", hint=f"It has {', '.join(held)}.")
            root.revoke_key(key_id, role)
        if threshold is not None:
            root.roles[role].threshold = threshold
        roles.check_thresholds(root)
        proposed = Metadata(root)  # without the signatures of what it was before
        self.documents.write_pending("root", proposed)
        return roles.waiting_root(proposed, current) or complete("root", proposed)

    def publish(self, signers: Iterable[SigningKey], now: datetime) -> Published:
        """Sign what changed or would expire soon, with the keys at hand, and let agents see it.

        The timestamp is always signed anew. What needs other keys waits in `pending/`.

        Args:
            signers: the keys at hand.
            now: with its time zone.

        Raises:
            UsageError: a key that is needed each time, of the snapshot or the timestamp, is not among them.
            StateError: a file is damaged or cannot be written.
        """
        catalogue = compact(self._numbered(self.draft.families))
        _refuse_too_large(catalogue)
        Publication(self.layout, list(signers), self._days, now).run(catalogue)
        return self.status()

    def status(self) -> Published:
        """Return what agents see now, and what waits.

        Raises:
            StateError: a file is damaged.
        """
        signed = tuple(Signing(role, m.signed.version, m.signed.expires) for role, m in self.documents.all_signed())
        return Published(self.published(), signed, self.documents.waiting())


def _read_days(layout: Layout) -> Mapping[Role, int]:
    data = read_bytes(layout.settings, _MAX_SETTINGS_BYTES)
    if data is None:
        raise UsageError(
            f"There is no catalogue's repository in {layout.folder}.", hint="Make one: edge-agent catalogue init DIR"
        )
    try:
        found = json.loads(data)
        days: dict[Role, int] = {role: int(found["days"][role]) for role in roles.ROLES}
    except (ValueError, KeyError, TypeError) as error:
        raise StateError(f"{layout.settings} is damaged.", hint="Restore it from a backup.") from error
    if found.get("v") != _FORMAT_VERSION:
        raise StateError(f"{layout.settings} is of another version.", code="newer-schema", hint="Update this program.")
    return days


def _refuse_too_large(data: bytes) -> None:
    if len(data) > MAX_CATALOGUE_BYTES:
        raise UsageError(
            f"The catalogue would have {len(data)} bytes, and agents take no more than {MAX_CATALOGUE_BYTES}.",
            hint="Take families out of it, or start a second catalogue.",
        )
