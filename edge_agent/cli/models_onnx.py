"""`edge-agent models fit | canary FILE.onnx`: what any model file takes here, predicted or measured."""

from __future__ import annotations

import json
import os
import re
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge_agent.cli.models_pick import Machine, add_machine_settings, fit_document, this_machine
from edge_agent.cli.parsing import add_json_flag, effective, new_verb
from edge_agent.cli.table import render
from edge_agent.errors import EdgeAgentError, InputError, ResourceError, UsageError, WorkerError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.inference.events import CanaryDone, CanaryFailed

REPEATS = 3
MAX_REPEATS = 20
_SYMBOL = re.compile(r"([A-Za-z_][A-Za-z0-9_.:/-]{0,63})=([0-9]{1,12})")
_MEMORY = (("load peak", "load_peak_bytes"), ("held", "steady_bytes"), ("run peak", "run_peak_bytes"))


def add_verbs(verbs: Subparsers) -> None:
    """Describe the verbs."""
    fit = new_verb(
        verbs,
        "fit",
        module="onnx",
        summary="predict what a model file takes here, without running it",
        description="Count the graph of an ONNX file and predict what it takes on this machine: memory while loading,\n"
        "between runs and while running, in bytes above an idle worker, and the time of one sample, each as low,\n"
        "expected and high. Nothing is run. Needs the extra `publish`.",
        examples=("edge-agent models fit model.onnx", "edge-agent models fit model.onnx --symbol length=128 --json"),
    )
    canary = new_verb(
        verbs,
        "canary",
        module="onnx",
        summary="measure what a model file takes here, in a process that is killed afterwards",
        description="Run an ONNX file on made-up inputs in worker processes with the limits of real work, and print\n"
        "what `fit` predicts as it was measured: the least, the middle and the most of the repetitions. Nothing\n"
        "says whether the outputs are right, only whether they are finite.",
        examples=("edge-agent models canary model.onnx", "edge-agent models canary model.onnx --repeat 5 --json"),
    )
    for parser in (fit, canary):
        parser.add_argument("file", metavar="FILE.onnx", type=Path, help="the model")
        parser.add_argument(
            "--symbol",
            metavar="NAME=N",
            action="append",
            default=[],
            help="the extent of a symbol in the shapes, 1 where none is given; may be repeated",
        )
        add_json_flag(parser, "the figures")
        add_machine_settings(parser)
    canary.add_argument(
        "--repeat", metavar="N", type=int, default=REPEATS, help=f"processes to measure in (default: {REPEATS})"
    )


def run(args: argparse.Namespace) -> int:
    """Predict or measure, and print the figures."""
    settings = effective(args).settings
    extents = _extents(args.symbol)
    if args.verb == "canary" and not 1 <= args.repeat <= MAX_REPEATS:
        raise UsageError(f"--repeat {args.repeat} is not from 1 to {MAX_REPEATS}.")
    os.close(_open(args.file)[0])  # what can't be read is said before anything is measured
    machine = this_machine(settings)
    if args.verb == "fit":
        figures = _predict(args.file, extents, machine)
    else:
        figures = _measure(args.file, extents, machine, args.repeat)
    document = {
        "file": str(args.file),
        "size_bytes": args.file.stat().st_size,
        "extents": extents,
        "room_bytes": machine.room_bytes,
        **figures,
    }
    print(json.dumps(document, indent=2) if args.json else "\n".join(_lines(document, machine)))
    return 0


def _extents(symbols: list[str]) -> dict[str, int]:
    extents = {}
    for text in symbols:
        match = _SYMBOL.fullmatch(text)
        if match is None:
            raise UsageError(
                f"--symbol {text[:64]} is not a name and a whole number.",
                hint="For example --symbol length=128; `edge-agent models canary FILE` names the symbols that are 1.",
            )
        extents[match[1]] = int(match[2])
    return extents


def _predict(path: Path, extents: dict[str, int], machine: Machine) -> dict[str, Any]:
    try:
        from edge_agent.models.costs import count_file  # noqa: PLC0415 - onnx takes 1 s that `--help` does not need
    except ModuleNotFoundError as error:
        raise UsageError(
            f"To read graphs, the Python package {error.name} is needed, which is not installed.",
            hint="Install the extra: pip install 'edge-agent[publish]'. Or measure: edge-agent models canary FILE.",
        ) from error
    from edge_agent.models.trials import forecast  # noqa: PLC0415 - as above

    try:
        costs = count_file(path, extents)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", hint="Check the path.") from error
    fit = forecast(costs, machine.facts, machine.threads)
    fits = (
        None
        if fit.peak_bytes.low <= machine.room_bytes < fit.peak_bytes.high
        else (fit.peak_bytes.high <= machine.room_bytes)
    )
    return {
        **fit_document(fit),
        "threads": machine.threads,
        "fits": fits,
        "costs": costs.model_dump(mode="json", exclude_defaults=True),
    }


def _measure(path: Path, extents: dict[str, int], machine: Machine, repeats: int) -> dict[str, Any]:
    import logging  # noqa: PLC0415 - for this verb alone

    from edge_agent.inference.canary_run import CanaryRun  # noqa: PLC0415 - as above
    from edge_agent.inference.containment import offered  # noqa: PLC0415 - as above
    from edge_agent.inference.events import CanaryFailed  # noqa: PLC0415 - as above
    from edge_agent.inference.launch import Options  # noqa: PLC0415 - as above
    from edge_agent.inference.process import Canary  # noqa: PLC0415 - as above
    from edge_agent.models.trials import thread_counts  # noqa: PLC0415 - as above

    log = logging.getLogger("edge_agent.canary")
    log.setLevel(logging.CRITICAL)
    if lack := offered().lack:
        print(f"note: {path} is run although {lack}", file=sys.stderr)
    # The worker gets the file opened, and opens it once more for onnxruntime.
    options = Options(machine.threads, machine.room_bytes, (str(path.resolve()),))
    done: list[CanaryDone] = []
    for number in range(repeats):
        fd, digest = _open(path)
        print(f"measuring, {number + 1} of {repeats} …", file=sys.stderr)
        asked = Canary(digest, fd, thread_counts(machine.threads), extents=extents)
        outcome = CanaryRun(asked, options, log).run()
        if isinstance(outcome, CanaryFailed):
            raise _error(outcome, machine)
        done.append(outcome)
    best = min(done, key=lambda run: run.p50_us)
    return {
        **{name: _spread([float(getattr(run, name)) for run in done]) for _, name in _MEMORY},
        "latency_ms": {
            "low": min(run.p50_us for run in done) / 1000,
            "expected": _middle([run.p50_us / 1000 for run in done]),
            "high": max(run.p95_us for run in done) / 1000,
        },
        "threads": best.threads,
        "tried": {str(threads): p50_us / 1000 for threads, p50_us in best.tried},
        "runs": sum(run.runs for run in done),
        "fits": True,
        "finite": all(run.golden_ok for run in done),
        "reasons": [run.why for run in done if run.why][:1],
    }


def _open(path: Path) -> tuple[int, bytes]:
    import hashlib  # noqa: PLC0415 - for this verb alone

    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.", hint="Check the path.") from error
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise InputError(f"{path} cannot be read: it is no regular file.", hint="Give an .onnx file.")
    return fd, hashlib.sha256(os.fsencode(path)).digest()  # only a name: the worker gives it back


def _error(failed: CanaryFailed, machine: Machine) -> EdgeAgentError:
    if failed.code == "resource-exhausted":
        return ResourceError(
            f"{failed.message} A model may take {machine.room_bytes / 1e6:.0f} MB here.",
            code="does-not-fit",
            hint="Free some memory, or raise agent.memory_share.",
        )
    if failed.code == "bad-input":
        return InputError(failed.message, hint="Give the extents of its shapes with --symbol NAME=N.")
    code = failed.code if failed.code in WorkerError.codes else None
    hint = "Give other extents with --symbol NAME=N." if code == "model-run" else "Look at the model."
    return WorkerError(failed.message, code=code, hint=hint)


def _spread(values: list[float]) -> dict[str, int]:
    return {"low": int(min(values)), "expected": int(_middle(values)), "high": int(max(values))}


def _middle(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def _lines(document: dict[str, Any], machine: Machine) -> list[str]:
    rows = [
        (title, *(f"{document[name][part] / 1e6:.1f} MB" for part in ("low", "expected", "high")))
        for title, name in _MEMORY
    ]
    rows.append(("one sample", *(f"{document['latency_ms'][part]:.3g} ms" for part in ("low", "expected", "high"))))
    tried = document.get("tried", {})
    verdict = {True: "fits", False: "does not fit", None: "may fit: only a canary run can tell"}[document["fits"]]
    lines = [
        f"{document['file']}, {document['size_bytes'] / 1e6:.1f} MB, on {machine.text}",
        "",
        render(("above an idle worker", "low", "expected", "high"), rows, right=(1, 2, 3)),
        "",
        f"It {verdict}: a model may take {machine.room_bytes / 1e6:.0f} MB here.",
        ", ".join([f"Threads: {document['threads']}", *(f"{n} took {ms:.3g} ms" for n, ms in tried.items())]),
    ]
    return [*lines, *(f"- {reason}" for reason in document["reasons"])]
