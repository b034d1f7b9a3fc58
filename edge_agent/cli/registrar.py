"""`edge-agent registrar`: the key that says which agents belong to a network, on a machine of its own."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import registrar_revoke
from edge_agent.cli.parsing import new_command, new_verb
from edge_agent.errors import InputError, KeyFileError, PeerError, UsageError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Parser, Subparsers
    from edge_agent.wire.keys import SigningKey
    from edge_agent.wire.registrar_files import Request

MAX_DAYS = 30


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "registrar",
        summary="sign agents' certificates and which keys were revoked, away from the coordinator",
        description="The registrar's key says which agents belong to a network. By default the coordinator makes it\n"
        "beside its own. Made here instead, on a machine that need not be online, it keeps whoever steals the\n"
        "coordinator from inventing agents: give the coordinator registrar.pub alone, before its first start, in\n"
        "its state directory. Then carry what `edge-agent coordinator requests` writes to `sign`, and what that\n"
        "writes to `edge-agent coordinator certify`; agents' certificates count for 30 days at most.",
        examples=(
            "edge-agent registrar init ~/registrar",
            "edge-agent registrar sign requests.cbor --key registrar.key",
            "edge-agent registrar revoke ID --key registrar.key --network home --out revoked.cose",
        ),
    )
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", title="verbs", required=True)
    init = new_verb(
        verbs,
        "init",
        module="registrar",
        summary="make the key",
        description="Make registrar.key (keep it) and registrar.pub (give it to coordinators and clients) in DIR.",
        examples=("edge-agent registrar init ~/registrar",),
    )
    init.add_argument("folder", metavar="DIR", type=Path, help="where the two files go")
    init.add_argument(
        "--passphrase-file", metavar="FILE", type=Path, help="encrypt the key with the first line of FILE"
    )
    sign = new_verb(
        verbs,
        "sign",
        module="registrar",
        summary="sign the certificates that a coordinator asks for",
        description="Show each request (the agent's id, and whose it is said to be), check that the agent signed it,\n"
        "and write the certificates. With --agent, only those; look before you sign.",
        examples=(
            "edge-agent registrar sign requests.cbor --key registrar.key --list",
            "edge-agent registrar sign requests.cbor --key registrar.key --out certificates.cbor",
        ),
    )
    sign.add_argument("requests", metavar="FILE", type=Path, help="what `edge-agent coordinator requests` wrote")
    sign.add_argument("--out", metavar="FILE", type=Path, help="where the certificates go")
    sign.add_argument(
        "--agent", metavar="ID", action="append", help="sign only this agent's; may be given several times"
    )
    sign.add_argument(
        "--days", metavar="N", type=int, default=MAX_DAYS, help=f"how long they count; at most {MAX_DAYS}"
    )
    sign.add_argument("--list", action="store_true", help="only show what would be signed")
    broker = new_verb(
        verbs,
        "broker-certificates",
        module="registrar",
        summary="sign the certificates of a broker and of the coordinator",
        description="Write what `edge-agent coordinator broker-config` would, where the registrar's key lies with the\n"
        "coordinator: the authority, the broker's key and certificate, and the coordinator's certificate.",
        examples=(
            "edge-agent registrar broker-certificates --key r.key --coordinator-key c.pub --server-name b --out-dir d",
        ),
    )
    broker.add_argument("--coordinator-key", metavar="FILE", type=Path, required=True, help="its public key")
    broker.add_argument("--server-name", metavar="NAME", required=True, help="by which agents reach the broker")
    broker.add_argument("--out-dir", metavar="DIR", type=Path, required=True, help="where the files go")
    for verb in (sign, broker, registrar_revoke.add_verb(verbs)):
        _add_key(verb)


def _add_key(parser: Parser) -> None:
    parser.add_argument("--key", metavar="FILE", type=Path, required=True, help="the registrar's secret key")
    parser.add_argument("--passphrase-file", metavar="FILE", type=Path, help="its first line opens the key")


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    match args.verb:
        case "init":
            return _init(args)
        case "sign":
            return _sign(args)
        case "revoke":
            return registrar_revoke.run(args, _key(args))
        case _:
            return _broker(args)


def _init(args: argparse.Namespace) -> int:
    from edge_agent.cli.passphrases import first_line  # noqa: PLC0415 the parser of every command imports this module
    from edge_agent.folders import make_private  # noqa: PLC0415 as above
    from edge_agent.wire.keys import SigningKey  # noqa: PLC0415 as above

    folder = make_private(args.folder)
    public = folder / "registrar.pub"
    if public.exists():
        raise KeyFileError(f"{public} is there already and is not overwritten.", hint="Choose another folder.")
    key = SigningKey.generate()
    key.write(folder / "registrar.key", first_line(args.passphrase_file) if args.passphrase_file else None)
    key.public.write(public)
    print(f"registrar   {key.public.id}")
    print(f"secret key  {folder / 'registrar.key'} (keep it here)")
    print(f"public key  {public} (into the coordinator's state directory, before its first start)")
    return 0


def _key(args: argparse.Namespace) -> SigningKey:
    from edge_agent.cli.passphrases import first_line  # noqa: PLC0415 as above
    from edge_agent.wire.keys import SigningKey  # noqa: PLC0415 as above

    return SigningKey.from_file(args.key, first_line(args.passphrase_file) if args.passphrase_file else None)


def _sign(args: argparse.Namespace) -> int:
    from edge_agent.wire.registrar_files import MAX_FILE_BYTES, read_requests, write_certificates  # noqa: PLC0415 as above

    if not 1 <= args.days <= MAX_DAYS:
        raise UsageError(f"--days is from 1 to {MAX_DAYS}.")
    if args.out is None and not args.list:
        raise UsageError("Where do the certificates go?", hint="--out FILE, or --list to look first.")
    key = _key(args)
    try:
        with args.requests.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise InputError(f"{args.requests} cannot be read: {error.strerror}.") from error
    network, requests = read_requests(data)
    signed = []
    for request in requests:
        certificate = _certify(key, network, request, args)
        if certificate is not None:
            signed.append(certificate)
    if args.list:
        return 0
    try:
        args.out.write_bytes(write_certificates(network, signed))
    except OSError as error:
        raise InputError(f"{args.out} cannot be written: {error.strerror}.") from error
    print(f"{len(signed)} certificates in {args.out}; next: edge-agent coordinator certify {args.out}")
    return 0


def _certify(key: SigningKey, network: str, request: Request, args: argparse.Namespace) -> tuple[bytes, bytes] | None:
    """Show a request; return both certificates if it is to be signed."""
    from edge_agent.wire.broker_certificates import broker_certificate  # noqa: PLC0415 as above
    from edge_agent.wire.certificates import issue  # noqa: PLC0415 as above

    try:
        opened = request.open(network)
    except PeerError as error:
        print(f"refused: a request that its agent did not sign: {error.message}", file=sys.stderr)
        return None
    agent = opened.key
    wanted = args.agent is None or agent.id in args.agent
    print(f"{agent.id}  owner {request.owner or '-'}  network {network}{'' if wanted else '  (left out)'}")
    if not wanted or args.list:
        return None
    now_ms = time.time_ns() // 1_000_000
    signed = issue(
        key,
        network=network,
        agent=agent,
        sealing_key=opened.statement.sealing_key,
        owner=request.owner,
        now_ms=now_ms,
        lifetime_ms=args.days * 86_400_000,
    )
    return signed, broker_certificate(key, agent, agent.id, now_ms=now_ms, days=args.days)


def _broker(args: argparse.Namespace) -> int:
    from edge_agent.cli.coordinator_broker import write_certificates  # noqa: PLC0415 as above
    from edge_agent.folders import make_private  # noqa: PLC0415 as above

    folder = make_private(args.out_dir)
    try:
        write_certificates(folder, _key(args), args.server_name, args.coordinator_key, time.time_ns() // 1_000_000)
    except OSError as error:
        raise InputError(f"{folder} cannot be written: {error.strerror}.") from error
    print(f"the broker's and the coordinator's certificates are in {folder}")
    return 0
