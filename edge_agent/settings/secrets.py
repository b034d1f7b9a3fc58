"""How secret keys are protected where they lie, as settings."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from edge_agent.settings.fields import Section


class Keys(Section):
    """How this machine's own secret keys are kept, besides the mode of their files."""

    passphrase_file: Path | None = Field(
        default=None,
        description="File whose first line is the passphrase of encrypted keys; new keys are encrypted with it. By "
        "default systemd's credential `key-passphrase`, if there is one; without either they are not encrypted.",
    )
    tpm: Literal["off", "on"] = Field(
        default="off",
        description="`on` seals new keys to this machine's TPM 2.0 (`agent.key.tpm` in the place of `agent.key`), by "
        "the programs of tpm2-tools. Sealed keys that are there are used either way.",
    )
