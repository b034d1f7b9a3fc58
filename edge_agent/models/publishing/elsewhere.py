"""Signs a copy of waiting metadata on a machine that has a key and no repository, and says what is signed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tuf.api.metadata import Metadata, Root, Targets

from edge_agent.errors import InputError
from edge_agent.models.publishing import roles
from edge_agent.models.publishing.layout import read_bytes, write_bytes
from edge_agent.models.publishing.roles import MAX_METADATA_BYTES, KeySigner
from edge_agent.wire.keys import SigningKey


def sign_file(path: Path, keys: Sequence[SigningKey]) -> str:
    """Add the keys' signatures to a copy of `pending/root.json` or `pending/targets.json`.

    Returns:
        In words, what was signed: a person signs, and should see what.

    Raises:
        InputError: there is no such file, or it is metadata of another role.
        StateError: it is not metadata, or cannot be written.
    """
    data = read_bytes(path, MAX_METADATA_BYTES)
    if data is None:
        raise InputError(f"There is no file {path}.", hint="Name a copy of a file in the repository's pending/.")
    metadata = roles.read_any(data, str(path))
    if not isinstance(metadata.signed, Root | Targets):
        raise InputError(
            f"{path} is {metadata.signed.type} metadata, which is signed where it is published.",
            hint="Sign root.json or targets.json.",
        )
    for key in keys:
        metadata.sign(KeySigner(key), append=True)
    write_bytes(path, metadata.to_bytes())
    names = ", ".join(key.public.id for key in keys)
    said = f"{_described(metadata)}\nSigned by {names}. Take it back: edge-agent catalogue sign --merge {path.name}"
    if isinstance(metadata.signed, Root):
        leaving = [key.public.id for key in keys if key.public.id not in metadata.signed.roles[Root.type].keyids]
        if leaving:  # the old root, which would tell, is not here
            who = ", ".join(leaving)
            said += f"\nNote: {who} signs no roots from this one on; it counts only if it signed those before."
    return said


def _described(metadata: Metadata[Any]) -> str:
    signed = metadata.signed
    head = f"{signed.type} version {signed.version}, expires {signed.expires:%Y-%m-%d}"
    if isinstance(signed, Root):
        lines = [f"  {n}: {r.threshold} of {', '.join(r.keyids)}" for n, r in signed.roles.items()]
    else:
        lines = [f"  {n}: {t.length} bytes, SHA-256 {t.hashes['sha256']}" for n, t in signed.targets.items()]
    return "\n".join([head, *lines])
