"""The command line: parse, call, print, exit.

Every command is a module of its own in this package with two functions: `add_parser(subparsers)` and
`run(args) -> int`. Only the module of the command that was asked for is imported: `edge-agent version` is
fast and `edge-agent run` loads no coordinator code. To add a command, write its module and add its name to
`COMMANDS`.
"""

from __future__ import annotations

import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from edge_agent._version import __version__
from edge_agent.cli.parsing import Parser
from edge_agent.errors import EdgeAgentError, UsageError
from edge_agent.spelling import closest

if TYPE_CHECKING:
    from collections.abc import Sequence

COMMANDS: tuple[str, ...] = (
    "up",
    "demo",
    "run",
    "enrol",
    "status",
    "why",
    "pause",
    "resume",
    "drain",
    "history",
    "report",
    "mode",
    "home",
    "coordinator",
    "registrar",
    "broker",
    "submit",
    "batch",
    "jobs",
    "agents",
    "top",
    "verify",
    "log",
    "ledger",
    "checks",
    "receipt",
    "models",
    "catalogue",
    "profile",
    "doctor",
    "keygen",
    "config",
    "version",
)
"""All commands, in the order in which `edge-agent --help` shows them."""

INTERRUPTED = 130
"""Exit status after Ctrl-C: 128 and the number of SIGINT, as shells have it."""
BROKEN_PIPE = 141
"""Exit status when the reader of our output went away: 128 and the number of SIGPIPE."""
DEFECT = 70
"""Exit status after an exception that nobody raised on purpose: EX_SOFTWARE of sysexits.h."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; `docs/errors.md` lists them.

    Args:
        argv: the arguments after the program's name; None takes the process's.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        status = _run(arguments)
        # Here and not at exit: an error while writing is still ours to handle.
        sys.stdout.flush()
    except EdgeAgentError as error:
        return _complain(error)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whatever is still buffered goes nowhere, instead of into a second error at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return BROKEN_PIPE
    except Exception:  # noqa: BLE001 - the last stop of a defect, which is shown in full
        import traceback  # noqa: PLC0415 - never needed when all is well

        traceback.print_exc()
        return _complain(EdgeAgentError("Something went wrong that should not be able to."))
    return status


def _run(arguments: list[str]) -> int:
    command = next((word for word in arguments if not word.startswith("-")), None)
    if command is not None and command not in COMMANDS and arguments[0] == command:
        close = closest(command, COMMANDS)
        raise UsageError(
            f"There is no command {command[:64]!r}.",
            hint=f"Did you mean {close}?" if close else "Run `edge-agent --help` to see all commands.",
        )
    parser = build_parser((command,) if command in COMMANDS and command else COMMANDS)
    if not arguments:
        parser.print_help(sys.stderr)
        return UsageError.exit_status
    try:
        args, unknown = parser.parse_known_args(arguments)
    except SystemExit as leave:  # --help and --version have printed what was asked for
        return leave.code if isinstance(leave.code, int) else 0
    if unknown:
        prog = f"edge-agent {args.command}" if args.command else "edge-agent"
        raise UsageError(
            f"{prog} does not take {unknown[0][:64]!r}.", hint=f"Run `{prog} --help` to see what it takes."
        )
    if args.command is None:
        raise UsageError("No command was given.", hint="Run `edge-agent --help` to see all commands.")
    status: int = import_module(f"edge_agent.cli.{args.command}").run(args)
    return status


def build_parser(commands: Sequence[str] = COMMANDS) -> Parser:
    """Return the parser of these commands; imports their modules."""
    parser = Parser(
        prog="edge-agent",
        description="Pool small machines at home into an open, verifiable inference network.",
        epilog="example:\n  edge-agent config\n\nEach command explains itself: edge-agent COMMAND --help",
    )
    parser.add_argument("--version", action="version", version=f"edge-agent {__version__}")
    subparsers = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Parser)
    for name in commands:
        import_module(f"edge_agent.cli.{name}").add_parser(subparsers)
    return parser


def _complain(error: EdgeAgentError) -> int:
    print(f"edge-agent: error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_status
