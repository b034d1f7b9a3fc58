"""`edge-agent keygen`: make the key that is a machine's identity."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, new_command
from edge_agent.errors import KeyFileError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "keygen",
        summary="make a new key for an agent or a coordinator",
        description="Make a new Ed25519 key: write the secret key to FILE, readable by you alone, and the\n"
        "public key beside it (agent.pub for agent.key), and print the id that follows from it.\n"
        "Existing files are left alone. Agents and coordinators make their own key at their first start;\n"
        "this makes one before.",
        examples=("edge-agent keygen agent.key", "edge-agent keygen coordinator.key --json"),
    )
    parser.add_argument("file", metavar="FILE", type=Path, help="where the secret key goes")
    add_json_flag(parser, "the id and the files")


def run(args: argparse.Namespace) -> int:
    """Write both files and print the id."""
    from edge_agent.wire.keys import SigningKey  # noqa: PLC0415 - cryptography is not for `--help`

    secret: Path = args.file
    # coordinator.key and coordinator.pub, as the daemons name the pair that they make themselves.
    public = secret.with_suffix(".pub") if secret.suffix == ".key" else secret.with_name(secret.name + ".pub")
    if public.exists():
        # Before the secret key is written, so that there is never half a pair.
        raise KeyFileError(
            f"{public} is there already and is not overwritten.",
            hint="Choose another name, or move the old key away first.",
        )
    key = SigningKey.generate()
    key.write(secret)
    try:
        key.public.write(public)
    except KeyFileError:
        secret.unlink()
        raise
    if args.json:
        print(json.dumps({"id": key.public.id, "key_file": str(secret), "public_key_file": str(public)}))
        return 0
    print(f"id          {key.public.id}")
    print(f"secret key  {secret} (mode 0600: keep it, and keep it to yourself)")
    print(f"public key  {public} (give it to anybody)")
    return 0
