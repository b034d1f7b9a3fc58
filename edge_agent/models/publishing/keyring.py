"""The secret keys that an operator has at hand: those in the repository's `keys/`, and files named beside them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from edge_agent.errors import KeyFileError
from edge_agent.models.publishing.layout import Layout
from edge_agent.models.publishing.roles import ROLES, Role
from edge_agent.wire.key_files import file_is_encrypted
from edge_agent.wire.keys import PublicKey, SigningKey

ENCRYPTED_ROLES: frozenset[Role] = frozenset({"root", "targets"})
"""Keys that a passphrase protects; those of snapshot and timestamp sign unattended."""

AskPassphrase = Callable[[Path], bytes | None]
"""Return the passphrase of a key file, or None to do without that key."""


def make_missing(
    layout: Layout, given: Mapping[Role, Sequence[PublicKey]], passphrase: bytes | None
) -> dict[Role, list[SigningKey]]:
    """Make a key in `keys/` for each role that none is given for.

    Args:
        layout: of the repository.
        given: public keys whose secret halves lie elsewhere.
        passphrase: encrypts the keys of root and targets; None leaves them as they are.

    Raises:
        KeyFileError: a key file is there already, or cannot be written.
        StateError: the folder cannot be made.
    """
    layout.make()
    return {role: [_make(layout, role, role, passphrase)] for role in ROLES if not given.get(role)}


def make_next_key(layout: Layout, role: Role, passphrase: bytes | None) -> SigningKey:
    """Make another key for a role in `keys/`, under the first free name.

    Raises:
        KeyFileError: it cannot be written.
    """
    taken = {path.stem for path in layout.keys.iterdir()}
    return _make(
        layout, role, next(n for n in (f"{role}-{i}" for i in itertools.count(2)) if n not in taken), passphrase
    )


def _make(layout: Layout, role: Role, name: str, passphrase: bytes | None) -> SigningKey:
    """Make one key, with its public half beside it."""
    key = SigningKey.generate()
    path = layout.keys / f"{name}.key"
    key.write(path, passphrase if role in ENCRYPTED_ROLES else None)
    key.public.write(path.with_suffix(".pub"))
    return key


def at_hand(layout: Layout, files: Iterable[Path], ask: AskPassphrase) -> list[SigningKey]:
    """Read the keys in `keys/` and those in `files`.

    Args:
        layout: of the repository.
        files: key files that must be readable.
        ask: for the passphrase of an encrypted file.

    Raises:
        KeyFileError: a file is damaged, open to others, or the passphrase is wrong.
    """
    own = [read(path, ask) for path in sorted(layout.keys.glob("*.key"))]
    return [key for key in own if key is not None] + must_read(files, ask)


def must_read(files: Iterable[Path], ask: AskPassphrase) -> list[SigningKey]:
    """Read key files that were named one by one.

    Raises:
        KeyFileError: one is damaged, open to others, or its passphrase is wrong or not given.
    """
    found = []
    for path in files:
        key = read(path, ask)
        if key is None:
            raise KeyFileError(f"{path} is encrypted and no passphrase was given.", hint="Use --passphrase-file FILE.")
        found.append(key)
    return found


def read(path: Path, ask: AskPassphrase) -> SigningKey | None:
    """Read one key file; None if it is encrypted and nobody gives the passphrase.

    Raises:
        KeyFileError: it is damaged, open to others, or the passphrase is wrong.
    """
    if not file_is_encrypted(path):
        return SigningKey.from_file(path)
    passphrase = ask(path)
    return SigningKey.from_file(path, passphrase) if passphrase is not None else None
