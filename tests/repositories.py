"""A catalogue's repository with all its keys, for tests that publish."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from edge_agent.models.catalogue import BUILTIN_DIR, Family, builtin
from edge_agent.models.publishing.repository import Published, Repository
from edge_agent.models.publishing.roles import ROLES, Role
from edge_agent.wire.keys import SigningKey

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)
DIGITS = builtin().family("digits")


def digits_named(name: str, **changes: object) -> Family:
    """Return the built-in family under another name."""
    fields = {key: getattr(DIGITS, key) for key in Family.model_fields}
    return Family.model_validate({**fields, "name": name, **changes})


def digits_files() -> dict[str, Path]:
    """Return the built-in model and golden files by their digests."""
    files = {variant.digest: BUILTIN_DIR / variant.file for variant in DIGITS.variants}
    return files | {v.golden.digest: BUILTIN_DIR / v.golden.file for v in DIGITS.variants if v.golden is not None}


class Operator:
    """Somebody who publishes a catalogue.

    Args:
        folder: of the repository.
        seed: of the keys; another one makes another operator.
        now: when the repository is made.
        thresholds: of signatures; each role has as many keys.
    """

    def __init__(
        self, folder: Path, *, seed: int = 1, now: datetime = NOW, thresholds: Mapping[Role, int] | None = None
    ) -> None:
        self.now = now
        self.keys: dict[Role, list[SigningKey]] = {
            role: [
                SigningKey.generate(bytes([seed, at, number, *([7] * 29)]))
                for number in range((thresholds or {}).get(role, 1))
            ]
            for at, role in enumerate(ROLES)
        }
        public = {role: [key.public for key in keys] for role, keys in self.keys.items()}
        self.repository = Repository.init(folder, public, now=now, thresholds=thresholds)

    @property
    def public(self) -> Path:
        """The folder that is served."""
        return self.repository.layout.public

    @property
    def root_file(self) -> Path:
        """The root that agents pin."""
        return self.repository.layout.pinned_root

    def all_keys(self, *, without: Sequence[Role] = ()) -> list[SigningKey]:
        """Return every key, but for those of some roles."""
        return [key for role, keys in self.keys.items() if role not in without for key in keys]

    def publish(self, *names: str, without: Sequence[Role] = (), now: datetime | None = None) -> Published:
        """Put copies of the built-in family under these names, with their files, and publish."""
        for name in names:
            self.repository.put_family(digits_named(name), digits_files())
        return self.repository.publish(self.all_keys(without=without), now or self.now)
