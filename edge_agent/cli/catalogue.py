"""`edge-agent catalogue`: what an operator does to publish models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edge_agent.cli import catalogue_add
from edge_agent.cli.parsing import Parser, add_json_flag, add_settings, new_command
from edge_agent.cli.parts import add_ready_file

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers

ROLES = ("root", "targets", "snapshot", "timestamp")


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "catalogue",
        summary="publish models: a signed catalogue and its files",
        description="Keep a catalogue of models as a TUF repository in a folder: `init` makes it and its keys, `add`\n"
        "puts a family into its draft, `publish` signs what changed, `serve` serves it. Agents and coordinators\n"
        "pin the repository's root.json and take nothing that its keys have not signed. Publish again before\n"
        "the timestamp expires (30 days), best once a day from a timer.",
        examples=(
            "edge-agent catalogue init ~/catalogue",
            "edge-agent catalogue add model.onnx --family mine --calibrate samples.npz --repository ~/catalogue",
            "edge-agent catalogue add family.json --file model.onnx --repository ~/catalogue",
            "edge-agent catalogue publish --repository ~/catalogue",
            "edge-agent catalogue serve --repository ~/catalogue --http 127.0.0.1:8430",
            "edge-agent catalogue sign --key /media/stick/root.key --repository ~/catalogue",
            "edge-agent catalogue rotate targets --new --repository ~/catalogue",
        ),
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=Parser)
    _add_init(actions)
    _add_add(actions)
    remove = _action(actions, "remove", "take a family out of the draft")
    remove.add_argument("family", metavar="FAMILY", help="its name")
    publish = _action(actions, "publish", "sign what changed, and the timestamp, and let agents see it")
    _add_keys(publish)
    sign = _action(actions, "sign", "add signatures to what waits for them, here or on another machine")
    sign.add_argument(
        "file", metavar="FILE", nargs="?", type=Path, help="a copy of a file in pending/, signed in place"
    )
    sign.add_argument("--merge", metavar="FILE", type=Path, help="take over the signatures of such a copy")
    _add_keys(sign)
    _add_rotate(actions)
    _action(actions, "status", "show what is published, until when, and what waits")
    serve = actions.add_parser("serve", help="serve what is published over HTTP, on loopback unless told otherwise")
    _add_repository(serve)
    serve.add_argument("--http", metavar="HOST:PORT", default="127.0.0.1:8430", help="port 0 takes a free one")
    add_settings(serve, "log.level", "log.format")
    add_ready_file(serve, "the address, the root to pin and the process id")


def _action(actions: Subparsers, name: str, summary: str) -> Parser:
    parser = actions.add_parser(name, help=summary, description=f"{summary[:1].upper()}{summary[1:]}.")
    _add_repository(parser)
    add_json_flag(parser, "the outcome")
    return parser


def _add_repository(parser: Parser) -> None:
    parser.add_argument(
        "--repository", metavar="DIR", type=Path, default=Path(), help="the repository's folder; default: this one"
    )


def _add_passphrase(parser: Parser) -> None:
    parser.add_argument(
        "--passphrase-file", metavar="FILE", type=Path, help="its first line unlocks encrypted keys; else you are asked"
    )


def _add_keys(parser: Parser) -> None:
    parser.add_argument(
        "--key", metavar="FILE", type=Path, action="append", default=[], help="a key that lies elsewhere"
    )
    _add_passphrase(parser)


def _add_init(actions: Subparsers) -> None:
    parser = actions.add_parser("init", help="make a repository and its keys")
    parser.add_argument("folder", metavar="DIR", nargs="?", type=Path, default=Path(), help="default: this folder")
    parser.add_argument(
        "--default", action="store_true", help="start with the public models described with the program"
    )
    parser.add_argument(
        "--public-key",
        metavar="ROLE=FILE",
        action="append",
        default=[],
        help="a key that lies elsewhere signs for ROLE; may be given several times",
    )
    parser.add_argument(
        "--threshold", metavar="ROLE=N", action="append", default=[], help="ROLE needs N signatures; default: 1"
    )
    parser.add_argument("--days", metavar="ROLE=N", action="append", default=[], help="metadata of ROLE holds N days")
    parser.add_argument(
        "--passphrase", action="store_true", help="ask for one, and encrypt the keys of root and targets"
    )
    _add_passphrase(parser)
    add_json_flag(parser, "the outcome")


def _add_add(actions: Subparsers) -> None:
    parser = _action(actions, "add", "put a family into the draft: a model whose variants are made, or a description")
    parser.add_argument(
        "file",
        metavar="FILE",
        type=Path,
        help="a float model, .onnx; or a family's description: JSON as `models FAMILY --json`",
    )
    parser.add_argument(
        "--file",
        dest="files",
        metavar="FILE",
        type=Path,
        action="append",
        default=[],
        help="with a description: a model or golden file of it, recognised by its digest; may be given several times",
    )
    catalogue_add.add_arguments(parser)


def _add_rotate(actions: Subparsers) -> None:
    parser = _action(actions, "rotate", "prepare a root with other keys or another threshold for a role")
    parser.add_argument("role", metavar="ROLE", choices=ROLES, help="root, targets, snapshot or timestamp")
    parser.add_argument("--new", action="store_true", help="make a new key in keys/ in place of all that the role has")
    parser.add_argument(
        "--add", metavar="FILE", type=Path, action="append", default=[], help="let this public key sign"
    )
    parser.add_argument("--revoke", metavar="ID", action="append", default=[], help="let this key sign no longer")
    parser.add_argument("--threshold", metavar="N", type=int, help="how many signatures the role needs")
    _add_keys(parser)


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    from edge_agent.cli.catalogue_actions import ACTIONS  # noqa: PLC0415 tuf and pydantic are not for `--help`

    return ACTIONS[args.action](args)
