"""`edge-agent batch`: many inputs from a file, their results into another; what is broken off is gone on with."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import new_command
from edge_agent.cli.reaching import Patience, add_coordinator, add_registrar, client_of
from edge_agent.cli.submit import add_options, options_of
from edge_agent.errors import InputError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.client.batch import Plan, Progress

ACTIONS = ("run", "status")
SOME_FAILED = 1
MAX_AT_ONCE = 256


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "batch",
        summary="send a file of thousands of inputs and collect the results in a file",
        description="Send each row of FILE as a job, and write each result to --output as it comes, with its receipt,\n"
        "a line of JSON each. FILE is JSON lines (values by input, requests, or the one input's value), an .npz file\n"
        "(an array for each input, its first axis are the rows), or a folder (a row for each .npy, .json or other\n"
        "file, by name). Stopped by Ctrl-C or a crash, of either side, the same command goes on where it was;\n"
        "no row is computed twice. `status` shows how far a file of results is.",
        examples=(
            "edge-agent batch run scans.npz --model digits --output results.jsonl",
            "edge-agent batch run texts.jsonl --model minilm-l6 --output vectors.jsonl --at-once 64",
            "edge-agent batch status results.jsonl",
        ),
    )
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("file", metavar="FILE", help="the inputs; with status, the results")
    parser.add_argument("--model", metavar="FAMILY", help="with run: what to run, as `edge-agent models` lists it")
    parser.add_argument("--output", metavar="FILE", help="with run: where the results go, or are already")
    parser.add_argument("--version", metavar="VARIANT", help="insist on one variant")
    parser.add_argument("--outputs", metavar="NAMES", default="", help="only these outputs, with commas between them")
    parser.add_argument("--at-once", metavar="N", type=int, default=16, help="jobs under way; default: %(default)s")
    parser.add_argument("--retry-failed", action="store_true", help="send rows again that ended with an error")
    parser.add_argument("--coordinator-key", metavar="FILE", help="the coordinator's public key, to pin it")
    add_registrar(parser)
    parser.add_argument("--json", action="store_true", help="print how it stands as one JSON object")
    add_coordinator(parser)
    add_options(parser)


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    from pathlib import Path  # noqa: PLC0415 the parser of every command imports this module

    from edge_agent.client.batch import read_journal  # noqa: PLC0415 as above

    if args.action == "status":
        journal = read_journal(Path(args.file))
        if journal is None:
            raise InputError(f"There is no file {args.file}.", hint="Name the file that `batch run --output` wrote.")
        return _say(journal.progress, as_json=args.json)
    plan = _plan(args)
    return _say(_run(args, plan), as_json=args.json)


def _plan(args: argparse.Namespace) -> Plan:
    from pathlib import Path  # noqa: PLC0415 as above

    from edge_agent.client.batch import Plan  # noqa: PLC0415 as above

    if not args.model or not args.output:
        raise UsageError("batch run takes --model FAMILY and --output FILE.")
    if not 1 <= args.at_once <= MAX_AT_ONCE:
        raise UsageError(f"--at-once must be from 1 to {MAX_AT_ONCE}.")
    if args.idempotency_key is not None:
        raise UsageError("A batch makes the idempotency keys of its rows itself.")
    return Plan(
        Path(args.file),
        Path(args.output),
        args.model,
        mode=args.mode,
        version=args.version,
        outputs=tuple(name for name in args.outputs.split(",") if name),
        options=options_of(args),
        at_once=args.at_once,
        retry_failed=args.retry_failed,
    )


def _run(args: argparse.Namespace, plan: Plan) -> Progress:
    import signal  # noqa: PLC0415 as above
    import threading  # noqa: PLC0415 as above

    from edge_agent.client.batch import run_batch  # noqa: PLC0415 as above

    stop = threading.Event()

    def on_signal(*_: object) -> None:
        if stop.is_set():  # each result is on the disk already; whoever insists need not wait for what is under way
            os._exit(130)
        stop.set()

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number in before:
            signal.signal(number, on_signal)
        with client_of(args, Patience(), args.coordinator_key) as client, _bar() as show:
            progress = run_batch(client, plan, show, stop)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if progress.done < progress.rows:
        print(f"Stopped after {progress.done} of {progress.rows} rows; the same command goes on.", file=sys.stderr)
        raise KeyboardInterrupt
    return progress


class _bar:  # noqa: N801 a context manager, used like a function
    """Shows progress on standard error: a bar at a terminal, where rich is installed, else a line now and then."""

    def __enter__(self) -> Callable[[Progress], None]:
        self._told = -1
        self._rich = None
        if sys.stderr.isatty():
            try:
                from rich.console import Console  # noqa: PLC0415 optional
                from rich.progress import Progress as Bar  # noqa: PLC0415 as above
                from rich.progress import TimeRemainingColumn  # noqa: PLC0415 as above
            except ImportError:
                return self._line
            self._rich = Bar(*Bar.get_default_columns()[:3], TimeRemainingColumn(), console=Console(stderr=True))
            self._rich.start()
            self._task = self._rich.add_task("rows")
            return self._draw
        return self._line

    def __exit__(self, *_: object) -> None:
        if self._rich is not None:
            self._rich.stop()

    def _draw(self, progress: Progress) -> None:
        if self._rich is not None:
            self._rich.update(self._task, completed=progress.done, total=progress.rows)

    def _line(self, progress: Progress) -> None:
        tenth = progress.done * 10 // progress.rows if progress.rows else 10
        if tenth != self._told:
            self._told = tenth
            print(f"… {progress.done} of {progress.rows} rows, {progress.failed} failed", file=sys.stderr, flush=True)


def _say(progress: Progress, *, as_json: bool) -> int:
    if as_json:
        about = {"rows": progress.rows, "done": progress.done, "failed": progress.failed, "unheard": progress.unheard}
        print(json.dumps(about))
    else:
        print(f"{progress.done} of {progress.rows} rows done, {progress.failed} of them failed")
        if progress.unheard:
            print(f"{progress.unheard} by agents that may have been revoked: there was no fresh list of revoked keys")
    return SOME_FAILED if progress.failed else 0
