"""`edge-agent models served`: which machines of a coordinator serve which variant, predicted and measured."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edge_agent.cli.parsing import new_verb
from edge_agent.cli.reaching import add_coordinator, client_of
from edge_agent.cli.table import render
from edge_agent.cli.watching import add_watch, show

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edge_agent.cli.parsing import Subparsers


def add_verbs(verbs: Subparsers) -> None:
    """Describe the verb."""
    parser = new_verb(
        verbs,
        "served",
        module="served",
        summary="list what the machines of a coordinator serve",
        description="Each family and variant that a coordinator's machines serve or know: by how many it is served,\n"
        "and what it was predicted and measured to cost there, from the least to the most.",
        examples=("edge-agent models served", "edge-agent models served --family digits --json"),
    )
    add_coordinator(parser)
    parser.add_argument("--family", metavar="FAMILY", help="only this one")
    parser.add_argument("--all", action="store_true", help="also what nobody serves and nobody has measured")
    parser.add_argument("--json", action="store_true", help="print JSON; with --watch one array a line")
    add_watch(parser)


def run(args: argparse.Namespace) -> int:
    """Print it."""
    with client_of(args) as client:

        def text() -> str:
            families = [f for f in client.served_models() if args.family in {None, f.get("family")}]
            return json.dumps(families) if args.json else _table(families, everything=args.all)

        return show(text, args.watch, clear=not args.json)


def _table(families: list[dict[str, Any]], *, everything: bool) -> str:
    rows = [
        [
            str(family.get("family", "")),
            str(variant.get("variant", "")),
            str(len(variant.get("served_by", []))),
            *(_range(variant, name, _time) for name in ("predicted_us", "measured_us")),
            *(_range(variant, name, _size) for name in ("predicted_bytes", "measured_bytes")),
        ]
        for family in families
        for variant in family.get("variants", [])
        if everything or variant.get("served_by") or variant.get("fits")
    ]
    if not rows:
        return "No machine serves a model now. See which machines there are: edge-agent agents"
    headings = ("family", "variant", "served by", "predicted", "measured", "memory predicted", "measured")
    return render(headings, rows, right=(2, 3, 4, 5, 6))


def _range(variant: dict[str, Any], name: str, form: Callable[[int], str]) -> str:
    known = sorted(fit[name] for fit in variant.get("fits", []) if fit.get(name) is not None)
    if not known:
        return ""
    least, most = form(known[0]), form(known[-1])
    return least if least == most else f"{least} … {most}"


def _time(microseconds: int) -> str:
    return f"{microseconds} µs" if microseconds < 1000 else f"{microseconds / 1000:.1f} ms"


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB"
