"""`edge-agent models list` and `show`: what the catalogue has."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, add_settings, effective, new_verb
from edge_agent.cli.parts import known_catalogue
from edge_agent.cli.table import render

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.models.catalogue import Catalogue, Family, Port, Quality, Variant
    from edge_agent.settings import Settings

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
        summary="list the families, what of them is here, and what the agent serves",
        description="List the families of the catalogue, how many of their variants are here, and the one that the\n"
        "agent of this state directory serves, if it runs.",
        examples=("edge-agent models list", "edge-agent models list --json"),
    )
    add_json_flag(parser, "all that the catalogue says, with what is here and served,")
    add_settings(parser, "agent.state_dir", "catalogue.url", "catalogue.root_file")
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
    settings = effective(args).settings
    catalogue = known_catalogue(settings).catalogue
    if args.verb == "show":
        family = catalogue.family(args.family)
        print(json.dumps(family.model_dump(mode="json"), indent=2) if args.json else _one(family))
        return 0
    document = catalogue.model_dump(mode="json")
    if args.json and args.verb is None:
        print(json.dumps(document, indent=2))
        return 0
    here, served = _here(settings, catalogue), _served(settings)
    if args.json:
        print(json.dumps({**document, "here": here, "served": served}, indent=2))
    else:
        print(_all(catalogue, here, served))
    return 0


def _here(settings: Settings, catalogue: Catalogue) -> dict[str, list[str]]:
    """Return for each family the variants whose files are on this machine."""
    from edge_agent.models.content import Content  # noqa: PLC0415 - not for `--help`
    from edge_agent.models.store import Store  # noqa: PLC0415 - as above

    store = Store(content=Content(settings.models.dir))
    return {
        family.name: [variant.name for variant in family.variants if store.has(variant)]
        for family in catalogue.families
    }


def _served(settings: Settings) -> dict[str, str]:
    """Return the variant of each family that the agent of this state directory serves; nothing if it does not run."""
    from edge_agent.agent.status import read_status  # noqa: PLC0415 - as above

    status = read_status(settings.agent.state_dir)
    if status is None or not _runs(status.get("pid")):
        return {}
    families = [entry for entry in status.get("families", []) if isinstance(entry, dict)]
    return {str(entry.get("family")): str(entry["chosen"]) for entry in families if entry.get("chosen")}


def _runs(pid: object) -> bool:
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True  # of another user, and there
    except (OSError, OverflowError):
        return False
    return True


def _all(catalogue: Catalogue, here: dict[str, list[str]], served: dict[str, str]) -> str:
    rows = [
        (
            family.name,
            family.title,
            ", ".join(variant.name for variant in family.variants),
            _best(family),
            f"{len(here[family.name])} of {len(family.variants)}",
            served.get(family.name, ""),
        )
        for family in catalogue.families
    ]
    table = render(("family", "title", "variants", "best quality", "here", "served"), rows, right=(3, 4))
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
