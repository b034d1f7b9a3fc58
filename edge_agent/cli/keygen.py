"""`edge-agent keygen`: make the key that is a machine's identity, or a new one in its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, add_settings, effective, new_command
from edge_agent.errors import KeyFileError, UsageError

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
        "this makes one before.\n"
        "With --rotate, give this agent new keys in the place of its own: the coordinator is told in a statement\n"
        "that both keys sign, carries over owner and admission, and refuses the old key from then on. The agent must\n"
        "not be running. URL is as for `edge-agent enrol`; by default the broker of the settings.",
        examples=(
            "edge-agent keygen agent.key",
            "edge-agent keygen coordinator.key --json",
            "edge-agent keygen --rotate http://192.0.2.7:8420",
        ),
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="where the secret key goes; with --rotate the URL")
    parser.add_argument("--rotate", action="store_true", help="replace the keys of this agent, which is enrolled")
    parser.add_argument("--ca-file", metavar="FILE", help="with --rotate: the only authorities to trust for TLS")
    add_json_flag(parser, "the id and the files")
    add_settings(parser, "network.name", "broker.url", "agent.state_dir", "agent.coordinator_key_file")


def run(args: argparse.Namespace) -> int:
    """Write both files and print the id."""
    if args.rotate:
        return _rotate(args)
    if args.file is None:
        raise UsageError(
            "The following arguments are required: FILE.", hint="Run `edge-agent keygen --help` to see an example."
        )
    return _make(Path(args.file), as_json=args.json)


def _make(secret: Path, *, as_json: bool) -> int:
    from edge_agent.wire.keys import SigningKey  # noqa: PLC0415 - cryptography is not for `--help`

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
    if as_json:
        print(json.dumps({"id": key.public.id, "key_file": str(secret), "public_key_file": str(public)}))
        return 0
    print(f"id          {key.public.id}")
    print(f"secret key  {secret} (mode 0600: keep it, and keep it to yourself)")
    print(f"public key  {public} (give it to anybody)")
    return 0


def _rotate(args: argparse.Namespace) -> int:
    from edge_agent.cli.enrol import way_to  # noqa: PLC0415 - as above
    from edge_agent.clock import system_now  # noqa: PLC0415 - as above
    from edge_agent.enrolling.rotation import Rotation  # noqa: PLC0415 - as above
    from edge_agent.folders import take  # noqa: PLC0415 - as above
    from edge_agent.own_keys import agent_keys, existing_signing_key, source_of  # noqa: PLC0415 - as above
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 - as above

    settings = effective(args).settings
    own = settings.agent
    if existing_signing_key(own.key_file, source_of(settings)) is None or not own.coordinator_key_file.exists():
        raise KeyFileError(
            f"There is no enrolled agent in {own.state_dir}, whose keys could be replaced.",
            hint="Name its state directory with --state DIR; without an enrolment, just move agent.key away.",
        )
    with take(own.state_dir):
        old = agent_keys(settings)
        rotation = Rotation(settings, source_of(settings), old, PublicKey.from_file(own.coordinator_key_file))
        new = rotation.next_keys()
        way = way_to(
            args.file or settings.broker.url, settings, settings.network.name, old.signing.public.id, args.ca_file
        )
        try:
            said = rotation.ask(way, new, system_now().wall_ms)
        finally:
            way.close()
        rotation.put_in_place(said, new)
    about = {"id": new.signing.public.id, "replaces": old.signing.public.id, "key_file": str(own.key_file)}
    if args.json:
        print(json.dumps(about))
        return 0
    print(f"id        {about['id']}, certified")
    print(f"replaces  {about['replaces']}, which counts no more")
    return 0
