"""`edge-agent models list` and `show`: what the catalogue has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, add_settings, effective, new_verb
from edge_agent.cli.parts import known_catalogue
from edge_agent.cli.table import render

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.models.catalogue import Catalogue, Family, Port, Quality, Variant

_FORMATS = {
    "fp32": "32-bit floats, the reference",
    "fp16": "16-bit floats, half the memory",
    "qdq": "8-bit integers, scales fixed beforehand",
    "qoperator": "8-bit integers, scales fixed beforehand",
    "dynamic": "8-bit weights, scales found for every input",
    "matmulnbits": "4-bit weights in the matrix products",
}


def add_verbs(verbs: Subparsers) -> None:
    """Describe the verbs."""
    parser = new_verb(
        verbs,
        "list",
        module="show",
        summary="list the families",
        description="List the families of the catalogue.",
        examples=("edge-agent models list", "edge-agent models list --json"),
    )
    add_json_flag(parser, "all that the catalogue says")
    add_settings(parser, "catalogue.url", "catalogue.root_file")
    parser = new_verb(
        verbs,
        "show",
        module="show",
        summary="show one family (`edge-agent models FAMILY` is the same)",
        description="Show a family: its inputs and outputs, and each variant with its size, its measured quality\n"
        "and what speaks for it.",
        examples=("edge-agent models show digits", "edge-agent models digits --json"),
    )
    parser.add_argument("family", metavar="FAMILY", help="show this family in full")
    add_json_flag(parser, "all that the catalogue says of it")
    add_settings(parser, "catalogue.url", "catalogue.root_file")


def run(args: argparse.Namespace) -> int:
    """Print the catalogue, or one family of it."""
    catalogue = known_catalogue(effective(args).settings).catalogue
    if args.verb == "show":
        family = catalogue.family(args.family)
        print(json.dumps(family.model_dump(mode="json"), indent=2) if args.json else _one(family))
    else:
        print(json.dumps(catalogue.model_dump(mode="json"), indent=2) if args.json else _all(catalogue))
    return 0


def _all(catalogue: Catalogue) -> str:
    rows = [
        (
            family.name,
            family.title,
            ", ".join(variant.name for variant in family.variants),
            _best(family),
        )
        for family in catalogue.families
    ]
    table = render(("family", "title", "variants", "best quality"), rows, right=(3,))
    return f"{table}\n\nMore about one: edge-agent models FAMILY"


def _one(family: Family) -> str:
    ports = [*_ports("input", family.inputs), *_ports("output", family.outputs)]
    unknown = "Its inputs and outputs are not known: it can be fetched and measured, and nobody can ask for it."
    measured = next((variant.quality for variant in family.variants if variant.quality is not None), None)
    return "\n".join(
        (
            f"{family.name}: {family.title}",
            f"task     {family.task}",
            f"licence  {family.licence}",
            f"source   {family.source}",
            "",
            render(("", "name", "type", "shape"), ports) if family.servable else unknown,
            "",
            render(
                ("variant", "size", "quality", "what speaks for it", "digest"),
                [_variant(variant) for variant in family.variants],
                right=(1, 2),
            ),
            "",
            "Nobody has measured the quality." if measured is None else _measured(measured),
            "Each agent measures them on its own machine and serves the one that fits best.",
            "A file that does not have the digest is refused, wherever it comes from.",
        )
    )


def _measured(quality: Quality) -> str:
    samples = "" if quality.n is None else f", {quality.n} samples"
    way = "" if quality.higher_is_better else " (less is better)"
    said = "; its source says so" if quality.reported else ""
    return f"Quality is {quality.metric}{way} on {quality.dataset}{samples}{said}."


def _quality(quality: Quality | None) -> str:
    if quality is None:
        return "unknown"
    return f"{quality.value:.2%}" if quality.fraction else f"{quality.value:g}"


def _best(family: Family) -> str:
    known = [variant.quality for variant in family.variants if variant.quality is not None]
    return _quality(
        max(known, key=lambda quality: quality.value * (1 if quality.higher_is_better else -1), default=None)
    )


def _ports(what: str, ports: Iterable[Port]) -> list[tuple[str, str, str, str]]:
    return [(what, port.name, port.datatype, "[" + ", ".join(str(size) for size in port.shape) + "]") for port in ports]


def _variant(variant: Variant) -> tuple[str, str, str, str, str]:
    why = _FORMATS[variant.format]
    if variant.reproducible:
        why += "; same bits on every machine, so strangers can check each other"
    return (
        variant.name,
        _size(variant.size_bytes),
        _quality(variant.quality),
        why,
        variant.digest[:12],
    )


def _size(size_bytes: int) -> str:
    size = float(size_bytes)
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
