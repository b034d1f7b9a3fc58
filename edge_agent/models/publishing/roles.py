"""The signed documents of a TUF repository (specification 1.0): made, signed, and asked whether they are signed enough.

Four roles: `root` says whose signatures count, `targets` vouches for the catalogue, `snapshot` for the version of
`targets`, `timestamp` for the snapshot, and only for a short time. All keys are Ed25519 and go by the same ids as
everywhere else in this network.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from securesystemslib.signer import Key, SecretsHandler, Signature, Signer, SSlibKey
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, T, TargetFile, Targets, Timestamp
from tuf.api.serialization import DeserializationError

from edge_agent.errors import StateError, UsageError
from edge_agent.wire.keys import PublicKey, SigningKey

Role = Literal["root", "targets", "snapshot", "timestamp"]
ROLES: tuple[Role, ...] = ("root", "targets", "snapshot", "timestamp")
DAYS: Mapping[Role, int] = {"root": 730, "targets": 365, "snapshot": 90, "timestamp": 30}
"""How many days a role's metadata holds by default. Root and targets need keys that may lie in a drawer; the timestamp
is what an agent's trust in freshness hangs on, and a home that is published to once a month must not expire."""
MAX_METADATA_BYTES = 512_000


@dataclass(frozen=True, slots=True)
class Waiting:
    """Metadata that is not signed by enough keys yet.

    Attributes:
        have: valid signatures of keys that count.
        need: of which so many are needed.
        missing: ids of the keys that could sign it and have not.
    """

    role: Role
    version: int
    have: int
    need: int
    missing: tuple[str, ...]


class KeySigner(Signer):
    """Signs metadata with a key of ours."""

    def __init__(self, key: SigningKey) -> None:
        self._key = key

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> Signer:
        """Refuse: the library's base class wants this way, and our keys come from files (`SigningKey.from_file`).

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError("keys are read with SigningKey.from_file")

    @property
    def public_key(self) -> Key:
        """The key as TUF writes it."""
        return as_tuf(self._key.public)

    def sign(self, payload: bytes) -> Signature:
        """Sign the bytes."""
        return Signature(self._key.public.id, self._key.sign(payload).hex())


def as_tuf(key: PublicKey) -> SSlibKey:
    """Return the key as root metadata has it."""
    return SSlibKey(key.id, "ed25519", "ed25519", {"public": key.raw.hex()})


def expiry(now: datetime, days: int) -> datetime:
    """Return the moment so many days after `now`, in whole seconds, as TUF writes it."""
    return now.astimezone(UTC).replace(microsecond=0) + timedelta(days=days)


def new_root(keys: Mapping[Role, Sequence[PublicKey]], thresholds: Mapping[Role, int], expires: datetime) -> Root:
    """Return the first root.

    Raises:
        UsageError: a role has fewer keys than its threshold.
    """
    root = Root(version=1, expires=expires, consistent_snapshot=True)
    for role in ROLES:
        for key in keys[role]:
            root.add_key(as_tuf(key), role)
        root.roles[role].threshold = thresholds.get(role, 1)
    check_thresholds(root)
    return root


def check_thresholds(root: Root) -> None:
    """Refuse a root that nobody could ever satisfy.

    Raises:
        UsageError: a role has fewer keys than its threshold, or a threshold below 1.
    """
    for role in ROLES:
        found = root.roles[role]
        if not 1 <= found.threshold <= len(found.keyids):
            raise UsageError(
                f"The role {role} would have {len(found.keyids)} keys and need {found.threshold} signatures.",
                hint="Give the role more keys, or a lower threshold of at least 1.",
            )


def new_targets(version: int, expires: datetime, catalogue: bytes, name: str) -> Targets:
    """Return targets metadata that vouches for the bytes of a catalogue."""
    target = TargetFile.from_data(name, catalogue, ["sha256"])
    return Targets(version=version, expires=expires, targets={name: target})


def new_snapshot(version: int, expires: datetime, targets: Metadata[Targets], targets_bytes: bytes) -> Snapshot:
    """Return snapshot metadata that vouches for one version of targets."""
    meta = MetaFile.from_data(targets.signed.version, targets_bytes, ["sha256"])
    return Snapshot(version=version, expires=expires, meta={"targets.json": meta})


def new_timestamp(version: int, expires: datetime, snapshot: Metadata[Snapshot], snapshot_bytes: bytes) -> Timestamp:
    """Return timestamp metadata that vouches for one snapshot."""
    meta = MetaFile.from_data(snapshot.signed.version, snapshot_bytes, ["sha256"])
    return Timestamp(version=version, expires=expires, snapshot_meta=meta)


def successor(root: Root, expires: datetime) -> Root:
    """Return the next version of a root, the same but for its expiry."""
    copy = Root.from_dict(root.to_dict())
    copy.version += 1
    copy.expires = expires
    return copy


def read_any(data: bytes, where: str) -> Metadata[Any]:
    """Return metadata of any role from bytes of ours; who signed it is not checked here.

    Raises:
        StateError: it is not metadata.
    """
    try:
        return Metadata.from_bytes(data)
    except (DeserializationError, RepositoryError) as error:
        raise StateError(f"{where} is not TUF metadata: {error}.", hint="Restore it from a backup.") from error


def read(data: bytes, kind: type[T], where: str) -> Metadata[T]:
    """Return metadata of one role from bytes of ours; who signed it is not checked here.

    Raises:
        StateError: it is not metadata of this role.
    """
    metadata = read_any(data, where)
    if not isinstance(metadata.signed, kind):
        raise StateError(f"{where} is {metadata.signed.type} metadata instead of {kind.type}.")
    return metadata


def sign_with(metadata: Metadata[Any], role: Role, root: Root, signers: Iterable[SigningKey]) -> list[str]:
    """Add the signatures of those signers that count for the role; return their ids."""
    counting = set(root.roles[role].keyids)
    used = [signer for signer in signers if signer.public.id in counting]
    for signer in used:
        metadata.sign(KeySigner(signer), append=True)
    return [signer.public.id for signer in used]


def sign_root(metadata: Metadata[Root], previous: Root | None, signers: Sequence[SigningKey]) -> None:
    """Add the signatures of those signers that count in the old root or in the new one."""
    for root in (previous, metadata.signed):
        if root is not None:
            sign_with(metadata, "root", root, signers)


def waiting(metadata: Metadata[Any], role: Role, root: Root) -> Waiting | None:
    """Say what is missing until `root` accepts this metadata, or None if nothing is."""
    result = root.get_verification_result(role, metadata.signed_bytes, metadata.signatures)
    if result.verified:
        return None
    return Waiting(role, metadata.signed.version, len(result.signed), result.threshold, tuple(sorted(result.unsigned)))


def waiting_root(metadata: Metadata[Root], previous: Root | None) -> Waiting | None:
    """Say what is missing until agents follow a new root: enough keys of the old root and enough of its own."""
    new = metadata.signed
    for root in (previous, new):
        missing = waiting(metadata, "root", root) if root is not None else None
        if missing is not None:
            return missing
    return None
