"""What `edge-agent catalogue` does, an action a function."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import catalogue_add
from edge_agent.cli.parsing import effective
from edge_agent.cli.parts import ready_file, set_up_log, write_ready_file
from edge_agent.cli.passphrases import asker, first_line, new_passphrase
from edge_agent.cli.table import render
from edge_agent.errors import InputError, UsageError
from edge_agent.folders import take
from edge_agent.models.catalogue import public_models
from edge_agent.models.publishing import keyring
from edge_agent.models.publishing.description import digests, read_family
from edge_agent.models.publishing.elsewhere import sign_file
from edge_agent.models.publishing.layout import Layout, read_bytes
from edge_agent.models.publishing.repository import Published, Repository
from edge_agent.models.publishing.roles import MAX_METADATA_BYTES, ROLES, Role
from edge_agent.models.publishing.server import Server
from edge_agent.settings import parse_host_port
from edge_agent.wire.keys import PublicKey, SigningKey

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Sequence

SERVE_POLL_SECONDS = 0.1


def init(args: argparse.Namespace) -> int:
    """Make a repository and the keys that are not given."""
    layout = Layout(args.folder)
    if layout.settings.exists():
        raise UsageError(f"{args.folder} holds a repository already.", hint="Name another folder, or use that one.")
    given: dict[Role, list[PublicKey]] = {role: [] for role in ROLES}
    for role, value in _assignments("--public-key", args.public_key):
        given[role].append(PublicKey.from_file(Path(value)))
    thresholds = {role: _number("--threshold", value) for role, value in _assignments("--threshold", args.threshold)}
    days = {role: _number("--days", value) for role, value in _assignments("--days", args.days)}
    for role, needed in thresholds.items():
        if needed > max(1, len(given[role])):
            raise UsageError(
                f"The role {role} would need {needed} signatures and has fewer keys.",
                hint=f"Name its keys with --public-key {role}=FILE; `edge-agent keygen` makes one on each machine.",
            )
    families = public_models().families if args.default else ()
    passphrase = new_passphrase(ask=args.passphrase, file=args.passphrase_file)
    with take(args.folder):
        made = keyring.make_missing(layout, given, passphrase)
        keys = {role: [*given[role], *(key.public for key in made.get(role, []))] for role in ROLES}
        repository = Repository.init(args.folder, keys, now=_now(), thresholds=thresholds, days=days, families=families)
        repository.sign([key for found in made.values() for key in found])
    own = ", ".join(f"{role}.key" for role in made)
    return _show(
        args,
        repository,
        f"Made a repository in {args.folder}, with {len(families)} families in its draft.",
        f"In keys/: {own or 'nothing'}. Keep them to yourself; a root key is best kept on a stick in a drawer.",
        "Next: edge-agent catalogue add, then edge-agent catalogue publish",
    )


def add(args: argparse.Namespace) -> int:
    """Put a described family, or one made from a model, into the draft."""
    if args.file.suffix == ".onnx":
        return catalogue_add.run(args)
    repository = Repository(args.repository)
    family = read_family(args.file)
    with take(args.repository):
        put = repository.put_family(family, digests(args.files))
    served = sum(not any("://" in url for url in variant.urls[:1]) for variant in put.variants)
    return _show(
        args,
        repository,
        f"{put.name} is in the draft: {len(put.variants)} variants, {served} of them served from here.",
        "Agents see it after: edge-agent catalogue publish",
    )


def remove(args: argparse.Namespace) -> int:
    """Take a family out of the draft."""
    repository = Repository(args.repository)
    with take(args.repository):
        repository.remove_family(args.family)
    return _show(args, repository, f"Took {args.family} out of the draft; agents have it until you publish.")


def publish(args: argparse.Namespace) -> int:
    """Sign what changed, and the timestamp."""
    repository = Repository(args.repository)
    with take(args.repository):
        found = repository.publish(_keys(args, repository), _now())
    return _show(args, repository, *_published(found, repository))


def sign(args: argparse.Namespace) -> int:
    """Add signatures to what waits for them, or to a copy of it."""
    if args.file is not None:
        if not args.key:
            raise UsageError("A copy is signed with keys that are named.", hint="Name them: --key FILE.")
        text = sign_file(args.file, keyring.must_read(args.key, asker(args.passphrase_file)))
        print(json.dumps({"signed": str(args.file)}) if args.json else text)
        return 0
    repository = Repository(args.repository)
    with take(args.repository):
        if args.merge is not None:
            repository.merge(_read(args.merge))
        elif args.key:
            repository.sign(keyring.must_read(args.key, asker(args.passphrase_file)))
        else:
            raise UsageError("Nothing to sign with.", hint="Name a key with --key FILE, or a signed copy with --merge.")
    return _show(args, repository, "Signed. Agents see it once nothing is missing, after: edge-agent catalogue publish")


def rotate(args: argparse.Namespace) -> int:
    """Prepare a root with other keys or another threshold for a role."""
    added = [PublicKey.from_file(path) for path in args.add]
    revoked = list(args.revoke)
    if not (args.new or added or revoked or args.threshold is not None):
        raise UsageError("Nothing would change.", hint="Use --new, --add FILE, --revoke ID or --threshold N.")
    repository = Repository(args.repository)
    with take(args.repository):
        keys = _keys(args, repository)
        if args.new:
            passphrase = first_line(args.passphrase_file) if args.passphrase_file is not None else None
            revoked += [key_id for key_id in repository.key_ids(args.role) if key_id not in revoked]
            made = keyring.make_next_key(repository.layout, args.role, passphrase)
            added.append(made.public)
            keys.append(made)
        repository.propose(args.role, now=_now(), add=added, revoke=revoked, threshold=args.threshold)
        repository.sign(keys)
    return _show(args, repository, "Prepared a new root. Agents follow it after: edge-agent catalogue publish")


def status(args: argparse.Namespace) -> int:
    """Show what is published and what waits."""
    repository = Repository(args.repository)
    return _show(args, repository, *_published(repository.status(), repository))


def serve(args: argparse.Namespace) -> int:
    """Serve what is published until told to stop."""
    set_up_log(effective(args).settings)
    repository = Repository(args.repository)
    ready = ready_file(args)
    try:
        address = parse_host_port(args.http)
    except ValueError as error:
        raise UsageError(f"--http {args.http[:64]!r} {error}.") from error
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    log = logging.getLogger("edge_agent.catalogue")
    root = repository.layout.pinned_root.absolute()
    with Server(address, repository.layout.public, log) as server:
        thread = threading.Thread(target=server.serve_forever, args=(SERVE_POLL_SECONDS,), name="serve")
        thread.start()
        log.info("Serving %s; agents pin %s", server.url, root, extra={"action": "ready"})
        write_ready_file(ready, {"url": server.url, "root": str(root), "pid": os.getpid()})
        stop.wait()
        server.shutdown()
        thread.join()
    return 0


ACTIONS: dict[str, Callable[[argparse.Namespace], int]] = {
    "init": init,
    "add": add,
    "remove": remove,
    "publish": publish,
    "sign": sign,
    "rotate": rotate,
    "status": status,
    "serve": serve,
}

# -- what the actions have in common ------------------------------------------------------------------------------


def _now() -> datetime:
    return datetime.now(UTC)


def _keys(args: argparse.Namespace, repository: Repository) -> list[SigningKey]:
    return keyring.at_hand(repository.layout, args.key, asker(args.passphrase_file))


def _assignments(flag: str, texts: Sequence[str]) -> list[tuple[Role, str]]:
    found: list[tuple[Role, str]] = []
    for text in texts:
        name, _, value = text.partition("=")
        role = next((role for role in ROLES if role == name), None)
        if role is None or not value:
            raise UsageError(f"{flag} {text[:64]!r} is not ROLE=VALUE.", hint=f"ROLE is one of {', '.join(ROLES)}.")
        found.append((role, value))
    return found


def _number(flag: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 10_000:
        raise UsageError(f"{flag}: {text[:32]!r} is not a whole number from 1 to 10000.")
    return int(text)


def _read(path: Path) -> bytes:
    data = read_bytes(path, MAX_METADATA_BYTES)
    if data is None:
        raise InputError(f"There is no file {path}.", hint="Name the copy that was signed.")
    return data


def _published(found: Published, repository: Repository) -> list[str]:
    if found.catalogue is None:
        return ["Nothing is published yet."]
    variants = sum(len(family.variants) for family in found.catalogue.families)
    rows = [(s.role, str(s.version), f"{s.expires:%Y-%m-%d %H:%M} UTC") for s in found.signed]
    until = next(s.expires for s in found.signed if s.role == "timestamp")
    families = len(found.catalogue.families)
    lines = [
        f"Catalogue {found.catalogue.version}: {families} famil{'y' if families == 1 else 'ies'}, {variants} variants.",
        render(("role", "version", "expires"), rows, right=(1,)),
        f"Publish again before {until:%Y-%m-%d}, or agents will call it out of date.",
        f"Agents and coordinators pin {repository.layout.pinned_root}.",
    ]
    if repository.draft.families != found.catalogue.families:
        lines.insert(1, "The draft is another one; agents see it after: edge-agent catalogue publish")
    return lines


def _show(args: argparse.Namespace, repository: Repository, *lines: str) -> int:
    """Print the lines and what waits, or all of it as JSON."""
    found = repository.status()
    if args.json:
        print(
            json.dumps(
                {
                    "repository": str(repository.layout.folder),
                    "root": str(repository.layout.pinned_root),
                    "catalogue": found.catalogue.version if found.catalogue else None,
                    "families": [family.name for family in found.catalogue.families] if found.catalogue else [],
                    "draft": [family.name for family in repository.draft.families],
                    "signed": {s.role: {"version": s.version, "expires": s.expires.isoformat()} for s in found.signed},
                    "waiting": [
                        {"role": w.role, "version": w.version, "have": w.have, "need": w.need, "missing": w.missing}
                        for w in found.waiting
                    ],
                }
            )
        )
        return 0
    print("\n".join(lines))
    for waits in found.waiting:
        if waits.have >= waits.need:
            print(f"pending/{waits.role}.json (version {waits.version}) has all its signatures: publish.")
            continue
        print(
            f"pending/{waits.role}.json (version {waits.version}) waits for signatures: {waits.have} of {waits.need}.\n"
            f"  It can be signed by {', '.join(waits.missing)}: edge-agent catalogue sign --key FILE"
        )
    return 0
