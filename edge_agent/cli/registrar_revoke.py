"""`edge-agent registrar revoke`: the list of revoked keys, signed away from the coordinator."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import new_verb
from edge_agent.errors import InputError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from edge_agent.cli.parsing import Parser, Subparsers
    from edge_agent.wire.identity import Revocations
    from edge_agent.wire.keys import PublicKey, SigningKey

_WHERE = (
    "A coordinator's list goes to --merge, with its key to --coordinator-key; --out is a list of this\n"
    "registrar's, or a new file."
)


def add_verb(verbs: Subparsers) -> Parser:
    """Describe the verb, but for the key."""
    parser = new_verb(
        verbs,
        "revoke",
        module="registrar_revoke",
        summary="sign the list of revoked keys",
        description="Add agents' keys, or a stolen coordinator's, to the list of those that count no more, for ever,\n"
        "and sign it. Whoever is given the list (--revocations of submit, batch and verify, or the setting\n"
        "client.revocations_file) refuses what these keys signed since then, whatever the coordinator says;\n"
        "`edge-agent coordinator revoke --list` makes a coordinator say the same. Keys that a list in --out has\n"
        "stay in it; --merge takes in those of another one, as the coordinator's (/api/v1/revocations).",
        examples=(
            "edge-agent registrar revoke ID --key registrar.key --network home --out revoked.cose --reason stolen",
            "edge-agent registrar revoke --key r.key --out revoked.cose --merge theirs.cose --coordinator-key c.pub",
        ),
    )
    parser.add_argument("ids", metavar="ID", nargs="*", help="of an agent, or of a coordinator")
    parser.add_argument("--out", metavar="FILE", type=Path, required=True, help="the list, which is gone on with")
    parser.add_argument("--reason", metavar="TEXT", help="why, for everybody to read")
    parser.add_argument(
        "--since", metavar="TIME", help="what they signed from then on is refused (2026-11-26T08:00Z); default: now"
    )
    parser.add_argument("--network", metavar="NAME", help="the network; default: that of the list that is gone on with")
    parser.add_argument(
        "--merge", metavar="FILE", type=Path, action="append", default=[], help="a list whose keys go into this one"
    )
    parser.add_argument(
        "--coordinator-key", metavar="FILE", type=Path, help="with --merge: the public key of who signed it"
    )
    return parser


def run(args: argparse.Namespace, key: SigningKey) -> int:
    """Sign the list."""
    from edge_agent.folders import alone_with, write_atomically  # noqa: PLC0415 the parser of every command imports this module
    from edge_agent.wire.envelope import seal  # noqa: PLC0415 as above
    from edge_agent.wire.identity import Revoked  # noqa: PLC0415 as above
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 as above
    from edge_agent.wire.standing import merge_revocations  # noqa: PLC0415 as above

    now_ms = time.time_ns() // 1_000_000
    reason = "revoked by the registrar" if args.reason is None else args.reason
    if not re.fullmatch(r"[ -~]{1,64}", reason):
        raise UsageError("--reason is a text of 1 to 64 printable ASCII characters.")
    for given in args.ids:
        if not re.fullmatch(r"[a-z2-7]{32}", given):
            raise UsageError(
                f"The id of an agent or a coordinator is 32 letters and digits, not {given[:64]!r}.",
                hint="`edge-agent coordinator agents` lists those of agents; a coordinator says its own at its start.",
            )
    since_ms = now_ms if args.since is None else _moment_ms(args.since, now_ms)
    others = [key.public] if args.coordinator_key is None else [PublicKey.from_file(args.coordinator_key), key.public]
    more = [Revoked(id=each, since_ms=since_ms, reason=reason) for each in args.ids]
    lists = [read_list(path, others, args.network, _WHERE) for path in args.merge]
    try:
        with alone_with(args.out):  # of two at once, one would take out what the other has put in
            if args.out.exists():
                lists.append(read_list(args.out, [key.public], args.network, _WHERE))
            network = _network(args.network, lists)
            made = merge_revocations(lists, more, network=network, now_ms=now_ms)
            write_atomically(args.out, seal(key, made))
    except OSError as error:
        raise InputError(f"{args.out} cannot be written: {error.strerror}.", hint="Look at its folder.") from error
    for entry in made.revoked:
        when = datetime.fromtimestamp(entry.since_ms / 1000, UTC).isoformat(timespec="seconds")
        print(f"{entry.id}  since {when}  {entry.reason}")
    count = len(made.revoked)
    print(f"{count} revoked key{'' if count == 1 else 's'} of the network {network} in {args.out}")
    print(f"next: edge-agent coordinator revoke --list {args.out}; and for clients: --revocations {args.out}")
    return 0


def read_list(path: Path, signers: Sequence[PublicKey], network: str | None, hint: str) -> Revocations:
    """Read a list of revoked keys; nothing in it is believed that is not signed by one of these.

    Raises:
        InputError: the file cannot be read, or holds none; then with this hint.
    """
    from edge_agent.errors import PeerError  # noqa: PLC0415 as above
    from edge_agent.wire.standing import MAX_LIST_BYTES, open_revocations  # noqa: PLC0415 as above

    try:
        with path.open("rb") as file:
            data = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", hint="Check the path.") from error
    try:
        return open_revocations(data, signers, network=network)
    except PeerError as error:
        raise InputError(
            f"{path} holds no list of revoked keys by {' or '.join(each.id for each in signers)}: {error.message}",
            hint=hint,
        ) from error


def _network(given: str | None, lists: Sequence[Revocations]) -> str:
    from edge_agent.wire.topics import NETWORK_PATTERN  # noqa: PLC0415 as above

    if given is not None and not re.fullmatch(NETWORK_PATTERN, given):
        raise UsageError(f"{given[:64]!r} is no name of a network.")
    named = {each.network for each in lists} | ({given} if given is not None else set())
    if not named:
        raise UsageError("Which network is the list for?", hint="--network NAME, as network.name of its coordinator.")
    if len(named) > 1:
        raise UsageError(f"The lists are of several networks: {', '.join(sorted(named))}.")
    return named.pop()


def _moment_ms(text: str, now_ms: int) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text[:64]!r} is no time.", hint="As in 2026-11-26, or 2026-11-26T08:00Z.") from error
    found = int((moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)).timestamp() * 1000)
    if not 0 <= found <= now_ms:
        raise UsageError(f"--since {text[:64]} is not in the past.", hint="Times without a zone are those of UTC.")
    return found
