"""How secret keys are protected where they lie, as settings."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from edge_agent.settings.fields import Section


class Keys(Section):
    """How this machine's own secret keys are kept, besides the mode of their files."""

    passphrase_file: Path | None = Field(
        default=None,
        description="File whose first line is the passphrase of encrypted keys; new keys are encrypted with it. By "
        "default systemd's credential `key-passphrase`, if there is one; without either they are not encrypted.",
    )
