"""`edge-agent demo`: the main job, end to end, on real input."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from edge_agent.cli.parsing import add_json_flag, new_command
from edge_agent.cli.up import add_network_flags, network_options
from edge_agent.errors import JobFailedError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator
    from pathlib import Path

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.local.demo import Tally
    from edge_agent.local.network import LocalNetwork

JOBS = 200


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "demo",
        summary="run the main job end to end on this machine and report",
        description="Start a broker, a coordinator and an agent as separate processes on loopback, let the agent\n"
        "measure this machine and choose a variant, send real scans of handwritten digits as jobs, verify every\n"
        "signed receipt, report, and stop everything. Status 0 means that every job was verified.",
        examples=("edge-agent demo", "edge-agent demo --json", "edge-agent demo --broker mqtt://127.0.0.1:1883"),
    )
    add_network_flags(parser)
    parser.add_argument("--jobs", metavar="N", type=int, default=JOBS, help=f"how many scans; default {JOBS}")
    parser.add_argument("--receipts", metavar="DIR", help="leave the receipts here; default: a new temporary folder")
    add_json_flag(parser, "the report")


def run(args: argparse.Namespace) -> int:
    """Run the demonstration."""
    import signal  # noqa: PLC0415 the parser of every command imports this module
    import tempfile  # noqa: PLC0415 as above
    from pathlib import Path  # noqa: PLC0415 as above

    from edge_agent.folders import make_private  # noqa: PLC0415 as above
    from edge_agent.local.network import LocalNetwork  # noqa: PLC0415 as above
    from edge_agent.models.scans import load_scans  # noqa: PLC0415 as above

    scans = load_scans()
    if not 1 <= args.jobs <= len(scans):
        raise UsageError(f"--jobs {args.jobs}: there are {len(scans)} scans that no model was trained on.")
    args.log_level = "info"
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    receipts = Path(args.receipts or tempfile.mkdtemp(prefix="edge-agent-demo-")).absolute()
    with (
        _not_left_empty(make_private(receipts)),
        tempfile.TemporaryDirectory(prefix="edge-agent-") as state,
        LocalNetwork(network_options(args, state), _step) as network,
    ):
        tally = _send(network, scans[: args.jobs], receipts)
        status = network.status() or {}
        key = _leave_key(network, receipts)
    report = {
        **tally.report(),
        "agent_id": network.agent_id,
        "machine": status.get("machine"),
        "families": status.get("families", []),
        "receipts": str(receipts),
        "coordinator_key": str(key),
    }
    if args.json:
        print(json.dumps(report))
    else:
        _show(report, tally)
    if tally.verified != tally.jobs:
        first = tally.failures[0] if tally.failures else "no reason was given"
        raise JobFailedError(
            f"{tally.jobs - tally.verified} of {tally.jobs} jobs were not verified; the first: {first}",
            hint="Run `edge-agent up --state DIR --log-level debug` and look at DIR/logs while you send a job.",
        )
    return 0


@contextmanager
def _not_left_empty(folder: Path) -> Iterator[None]:
    """Remove a folder that nothing was put into."""
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()


def _step(text: str) -> None:
    print(f"… {text}", file=sys.stderr, flush=True)


def _leave_key(network: LocalNetwork, receipts: Path) -> Path:
    """Copy the coordinator's public key beside the receipts: without it they prove nothing."""
    key = receipts / "coordinator.pub"
    key.write_bytes(network.coordinator_key.read_bytes())
    return key


def _send(network: LocalNetwork, scans: list[Any], receipts: Path) -> Tally:
    """Send the jobs from client threads while the supervisor's own thread, this one, looks after the processes."""
    import threading  # noqa: PLC0415 as above

    from rich.console import Console  # noqa: PLC0415 as above
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415

    from edge_agent.local.demo import run_jobs  # noqa: PLC0415 as above
    from edge_agent.wire.keys import PublicKey  # noqa: PLC0415 as above

    key = PublicKey.from_file(network.coordinator_key)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    outcome: list[Tally | BaseException] = []
    stop = threading.Event()
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("scans verified", total=len(scans))

        def work() -> None:
            try:
                outcome.append(
                    run_jobs(
                        network.http,
                        scans,
                        coordinator_key=key,
                        api_key=network.api_key_file.read_text().strip(),
                        receipts=receipts,
                        progress=lambda: bar.advance(task),
                        stop=stop,
                    )
                )
            except BaseException as error:  # noqa: BLE001 raised again on the main thread
                outcome.append(error)

        thread = threading.Thread(target=work, name="demo", daemon=True)
        thread.start()
        try:
            while thread.is_alive():
                network.look_after(0.1)
                thread.join(0.01)
        finally:
            stop.set()
    result = outcome[0]
    if isinstance(result, BaseException):
        raise result
    return result


def _show(report: dict[str, Any], tally: Tally) -> None:
    """Print the report for a person."""
    from rich.console import Console  # noqa: PLC0415 as above
    from rich.padding import Padding  # noqa: PLC0415 as above
    from rich.table import Table  # noqa: PLC0415 as above

    console = Console(highlight=False, soft_wrap=False)
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column()

    def row(name: str, text: str) -> None:
        table.add_row(name, text)

    row("machine", str(report["machine"]))
    for family in report["families"]:
        row("chosen", f"[green]{family['chosen']}[/] for {family['family']}: {family['why']}")
        for lost in family["lost"]:
            row("", f"[dim]not {lost['variant']}: {lost['why']}[/]")
    good = tally.verified == tally.jobs
    row("jobs", f"{tally.jobs} in {report['seconds']:.2f} s, {_retried(tally)}")
    if report["accuracy"] is not None:
        row("accuracy", f"{report['accuracy']:.1%} of the scans read right; no variant was trained on them")
        row(
            "latency",
            f"p50 {report['p50_ms']:.1f} ms, p99 {report['p99_ms']:.1f} ms; inference {report['run_p50_ms']:.2f} ms",
        )
    colour = "green" if good else "red"
    row(
        "verified",
        f"[{colour}]{tally.verified} of {tally.jobs}[/]: signed by the agent, countersigned, checked offline",
    )
    row("receipts", str(report["receipts"]))
    console.print()
    console.print(Padding(table, (0, 0, 1, 0)))
    console.print("[bold]what to try next[/]")
    example = next(iter(sorted(p.name for p in _folder(report).glob("000-*.receipt"))), None)
    if example is not None:
        stem = _folder(report) / example.removesuffix(".receipt")
        console.print(
            f"  edge-agent verify {stem}.receipt --coordinator-key {report['coordinator_key']} \\\n"
            f"    --input {stem}.input.json --output {stem}.output.json",
            soft_wrap=True,
        )
    console.print("  edge-agent up --http 127.0.0.1:8420     # the same network, until Ctrl-C", soft_wrap=True)
    console.print("  edge-agent profile                      # what this machine is", soft_wrap=True)
    console.print("  edge-agent models digits                # what there was to choose from", soft_wrap=True)


def _retried(tally: Tally) -> str:
    return f"{tally.retried} sent again after a fault" if tally.retried else "none had to be sent again"


def _folder(report: dict[str, Any]) -> Path:
    from pathlib import Path  # noqa: PLC0415 as above

    return Path(report["receipts"])
