"""What the commands' parsers have in common: help with examples, settings as flags, errors of our own."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from edge_agent.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edge_agent.settings import Effective, Flag

_SETTING = "setting:"
"""In front of the name under which argparse keeps a setting's value; no command's own option has it."""


class _HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Keeps line breaks, and has room for our longest command beside its summary."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)


class Parser(argparse.ArgumentParser):
    """An argument parser whose help keeps its line breaks and whose errors are ours."""

    def __init__(self, **options: Any) -> None:  # noqa: ANN401 - argparse's many options, passed on
        options.setdefault("formatter_class", _HelpFormatter)
        super().__init__(**options, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise instead of leaving the process.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message[:1].upper()}{message[1:]}.", hint=f"Run `{self.prog} --help` to see an example.")


Subparsers: TypeAlias = "argparse._SubParsersAction[Parser]"  # noqa: SLF001 - it has no public name


def new_command(
    subparsers: Subparsers, name: str, *, summary: str, description: str, examples: Sequence[str]
) -> Parser:
    """Add a command and return its parser.

    Args:
        subparsers: what `add_parser` was given.
        name: of the command.
        summary: one line for the list of commands.
        description: what it does, what it prints, and what it needs.
        examples: whole command lines, of which the first is the one to try.
    """
    lines = "\n".join(f"  {example}" for example in examples)
    title = "example" if len(examples) == 1 else "examples"
    return subparsers.add_parser(
        name, help=summary, description=description, epilog=f"{title}:\n{lines}\n\nMore: docs/cli.md"
    )


def new_verb(  # noqa: PLR0913 - the texts of a help page
    verbs: Subparsers, name: str, *, module: str, summary: str, description: str, examples: Sequence[str]
) -> Parser:
    """Add a verb to a command that has several, and return its parser.

    Args:
        verbs: the command's.
        name: of the verb.
        module: does it: the last part of the module's name; the command finds it in the arguments.
        summary: as for `new_command`.
        description: as for `new_command`.
        examples: as for `new_command`.
    """
    parser = new_command(verbs, name, summary=summary, description=description, examples=examples)
    parser.set_defaults(module=module)
    return parser


def add_json_flag(parser: Parser, what: str) -> None:
    """Add `--json`.

    Args:
        parser: of the command.
        what: is printed as one JSON object.
    """
    parser.add_argument("--json", action="store_true", help=f"print {what} as one JSON object")


def add_settings(parser: Parser, *dotted: str) -> None:
    """Add `--config` and the flags of these settings (`section.name`); `effective` then reads them.

    Settings that share a flag, as `agent.state_dir` and `coordinator.state_dir` do, are set by it together.
    """
    from edge_agent.settings import KEYS  # noqa: PLC0415 - pydantic takes 0.1 s that `version` does not need

    group = parser.add_argument_group("settings", "each wins over the environment and the file; see docs/settings.md")
    group.add_argument(
        "--config", metavar="FILE", type=Path, help="the TOML file with the settings (EDGE_AGENT_CONFIG)"
    )
    by_flag: dict[Flag, list[str]] = {}
    for name in dotted:
        flag = KEYS[name].flag
        if flag is None:
            raise ValueError(f"the setting {name} has no flag")
        by_flag.setdefault(flag, []).append(name)
    for flag, names in by_flag.items():
        key = KEYS[names[0]]
        about = f"{key.field.description} Default: {key.default_text}. ({', '.join(names)})"
        group.add_argument(
            flag.name,
            dest=_SETTING + ",".join(names),
            metavar=flag.metavar,
            help=about.replace("`", "").replace("%", "%%"),
        )


def effective(args: argparse.Namespace) -> Effective:
    """Return the settings from the defaults, the file, the environment and this command's flags.

    Raises:
        SettingsError: one is wrong; the message says which and where it came from.
    """
    from edge_agent.settings import load  # noqa: PLC0415 - as above

    flags = {
        name: value
        for dest, value in vars(args).items()
        if dest.startswith(_SETTING)
        for name in dest.removeprefix(_SETTING).split(",")
    }
    return load(args.config, os.environ, flags)
