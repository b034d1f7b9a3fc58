"""`edge-agent catalogue add MODEL.onnx`: make a model's variants, measure them, and refuse the broken ones."""

from __future__ import annotations

import json
import re
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.cli.table import render
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Parser
    from edge_agent.models.entries import Family
    from edge_agent.models.publishing.adding import Addition, Row, Wish
    from edge_agent.models.publishing.samples import Samples

_NEEDED = ("numpy", "onnx", "onnx_ir")
METRICS = ("top1", "top5", "agreement", "cosine", "exact-match")


def add_arguments(parser: Parser) -> None:
    """Describe what goes with a model."""
    group = parser.add_argument_group(
        "with MODEL.onnx",
        "its variants are made and measured, and what lost too much is refused (extra publish; docs/publishing.md)",
    )
    group.add_argument("--family", metavar="NAME", help="what clients will call it")
    group.add_argument(
        "--calibrate",
        metavar="PATH",
        type=Path,
        help="real inputs: a folder of .npz, .npy, .json or .txt files, or one such file with many samples; a third of "
        "them set the ranges of 8-bit forms, the others measure",
    )
    group.add_argument("--labels", metavar="FILE", type=Path, help="the right class of each sample, one a line or .npy")
    group.add_argument(
        "--metric", choices=METRICS, help="what quality is; default: top1 with labels, else cosine to the original"
    )
    group.add_argument("--output", metavar="NAME", help="the output that counts; default: all floats")
    group.add_argument(
        "--gate",
        metavar="PERCENT",
        type=float,
        default=2.0,
        help="refuse a variant whose quality is more than this below the original's; default: %(default)s",
    )
    group.add_argument("--only", metavar="NAMES", help="make these forms only, as the table names them; a,b,c")
    group.add_argument("--title", metavar="TEXT", help="a few words")
    group.add_argument("--task", metavar="TEXT", help="what it does, in a sentence")
    group.add_argument("--licence", metavar="TEXT", help="of the model")
    group.add_argument("--source", metavar="TEXT", help="where it is from")
    group.add_argument(
        "--dataset", metavar="TEXT", help="what the samples are; default: the name of their file or folder"
    )
    group.add_argument(
        "--latency-target-ms", metavar="MS", type=float, help="how long one sample may take; default: 1000"
    )
    group.add_argument(
        "--reference-seconds",
        metavar="SECONDS",
        type=float,
        default=60.0,
        help="how long ONNX's slow reference may compute the golden outputs; 0: not at all; default: %(default)s",
    )


def run(args: argparse.Namespace) -> int:
    """Make the family, put it into the repository's draft, and show what became of each form."""
    _check_installed()
    from edge_agent.folders import take  # noqa: PLC0415 - as below
    from edge_agent.models.publishing.adding import add  # noqa: PLC0415 - onnx takes 1 s that `--help` does not need
    from edge_agent.models.publishing.repository import Repository  # noqa: PLC0415 - as above

    if not args.family:
        raise UsageError("The family has no name.", hint="Name it: --family NAME.")
    _check_name(args.family)
    if not 0 <= args.gate <= 100:
        raise UsageError(f"A gate of {args.gate} % makes no sense.", hint="Give a percentage from 0 to 100.")
    repository = Repository(args.repository)
    known = next((family for family in repository.draft.families if family.name == args.family), None)
    with tempfile.TemporaryDirectory(prefix="edge-agent-publish-") as name:
        addition = add(args.file, _samples(args), Path(name), _wish(args, known))
        with take(args.repository):
            repository.put_family(addition.family, addition.files)
    print(json.dumps(as_json(addition), indent=2) if args.json else as_text(addition))
    return 0


def _check_name(name: str) -> None:
    from edge_agent.models.catalogue import builtin  # noqa: PLC0415 - pydantic is not for `--help`
    from edge_agent.models.entries import NAME_PATTERN  # noqa: PLC0415 - as above

    if not re.fullmatch(NAME_PATTERN, name):
        raise UsageError(
            f"{name[:64]!r} cannot be the name of a family.",
            hint="Use 1 to 64 characters a-z, 0-9, `.`, `_` and `-`, the first and the last a letter or a digit.",
        )
    if any(family.name == name for family in builtin().families):
        raise UsageError(
            f"{name} is a family that comes with the program, and agents would not see another one of that name.",
            hint="Choose another name.",
        )


def _check_installed() -> None:
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"Making variants needs the Python package {missing[0]}, which is not installed.",
            hint="Install the extra: pip install 'edge-agent[publish]'.",
        )


def _samples(args: argparse.Namespace) -> Samples | None:
    from edge_agent.models.publishing import graphs, samples, signature  # noqa: PLC0415 - as above

    if args.calibrate is None:
        if args.labels is not None:
            raise UsageError("Labels are for samples, and there are none.", hint="Give the samples with --calibrate.")
        return None
    inputs, _ = signature.ports(graphs.read(args.file).model)
    return samples.read(args.calibrate, signature.wanted(inputs), args.labels)


def _wish(args: argparse.Namespace, known: Family | None) -> Wish:
    """Return what the operator wants; what is not said stays as it is in the draft."""
    from edge_agent.models.publishing.adding import Wish  # noqa: PLC0415 - as above
    from edge_agent.models.publishing.forms import FORMS, NAMES, form_named  # noqa: PLC0415 - as above

    forms = FORMS
    if args.only is not None:
        wanted = [name.strip() for name in args.only.split(",") if name.strip()]
        for name in wanted:
            if name not in NAMES:
                raise UsageError(f"There is no form {name!r}.", hint=f"The forms are {', '.join(NAMES)}.")
        forms = tuple(form_named(name) for name in wanted)
    said: dict[str, Any] = {
        "title": args.title or (known.title if known else None),
        "task": args.task or (known.task if known else None),
        "licence": args.licence or (known.licence if known else None),
        "source": args.source or (known.source if known else None),
        "dataset": args.dataset or (args.calibrate.name if args.calibrate else None),
        "latency_target_ms": args.latency_target_ms or (known.latency_target_ms if known else None),
    }
    return Wish(
        name=args.family,
        metric=args.metric,
        output=args.output,
        gate=args.gate / 100,
        forms=forms,
        reference_seconds=args.reference_seconds,
        **{key: value for key, value in said.items() if value},
    )


def as_json(addition: Addition) -> dict[str, object]:
    """Return what became of each form, and the family as the draft has it now."""
    return {
        "family": addition.family.model_dump(mode="json"),
        "forms": [
            {
                "name": row.form.name,
                "verdict": row.verdict,
                "why": row.why,
                "size_bytes": row.size_bytes,
                "quality": row.quality,
                "drop": row.drop,
                "check": row.check or None,
            }
            for row in addition.rows
        ],
        "notes": list(addition.notes),
    }


def as_text(addition: Addition) -> str:
    """Return a table of all forms, and below it the reasons."""
    family = addition.family
    measured = family.variants[0].quality
    table = render(
        ("variant", "size", family.metric or "quality", "drop", "verdict", "others can check it"),
        [_cells(row) for row in addition.rows],
        right=(1, 2, 3),
    )
    lines = [table, ""]
    lines += [f"{row.form.name}: {row.why}" for row in addition.rows if row.verdict != "published"]
    lines += [f"note: {note}" for note in addition.notes]
    if measured is not None:
        lines.append(f"Quality is {measured.metric} on {measured.n} samples of {measured.dataset} that set no range.")
    count = len(family.variants)
    lines.append(f"{family.name} is in the draft with {count} variant{'s' if count > 1 else ''}.")
    lines.append("Agents see it after: edge-agent catalogue publish")
    return "\n".join(lines)


def _cells(row: Row) -> tuple[str, str, str, str, str, str]:
    return (
        row.form.name,
        "" if row.size_bytes is None else f"{row.size_bytes:,}",
        "" if row.quality is None else f"{row.quality:.4f}",
        "" if row.drop is None else f"{row.drop:.2%}",
        row.verdict,
        row.check.partition(":")[0],
    )
