"""`edge-agent models VERB`: the families there are, and the files of them on this machine.

Without a verb it lists the families; with the name of a family in place of a verb it shows that one.
"""

from __future__ import annotations

import argparse
from importlib import import_module
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import Parser, add_settings, new_command

if TYPE_CHECKING:
    from edge_agent.cli.parsing import Subparsers

MODULES = ("show", "served", "pick", "onnx", "files", "refresh")
"""Each is `edge_agent.cli.models_NAME`, with `add_verbs(verbs)` and `run(args)`."""


class _Verbs(argparse._SubParsersAction):  # type: ignore[type-arg] # noqa: SLF001 - it has no public name
    """The verbs; a first word that is none of them is the name of a family, to be shown."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        words = [str(value) for value in values] if isinstance(values, list) else []
        if words and words[0] not in self._name_parser_map:
            words.insert(0, "show")
        super().__call__(parser, namespace, words, option_string)


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command and its verbs."""
    parser = new_command(
        subparsers,
        "models",
        summary="show, fetch, measure and choose models",
        description="Without a verb: list the families of the catalogue. With the name of a family: its inputs and\n"
        "outputs, and each variant with its size, its measured quality and what speaks for it.",
        examples=("edge-agent models", "edge-agent models digits", "edge-agent models pick digits"),
    )
    parser.add_argument("--json", action="store_true", help="print the catalogue as one JSON object")
    add_settings(parser, "catalogue.url", "catalogue.root_file")
    verbs = parser.add_subparsers(
        dest="verb", metavar="VERB", title="verbs", parser_class=Parser, action=_Verbs, required=False
    )
    for name in MODULES:
        import_module(f"edge_agent.cli.models_{name}").add_verbs(verbs)
    verbs.choices = None  # type: ignore[assignment] # argparse then lets any word through, and `_Verbs` decides


def run(args: argparse.Namespace) -> int:
    """Do what the verb says."""
    module = getattr(args, "module", "show")
    status: int = import_module(f"edge_agent.cli.models_{module}").run(args)
    return status
