"""`edge-agent jobs`: the jobs of a coordinator: list them, look at one, cancel one."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from edge_agent.cli.parsing import new_command
from edge_agent.cli.reaching import add_coordinator, client_of
from edge_agent.cli.watching import add_watch, show
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers
    from edge_agent.client import Client

ACTIONS = ("list", "show", "cancel")
STATES = ("queued", "leased", "hedged", "held", "succeeded", "failed", "cancelled")
MOST_LOOKED_AT = 1000


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "jobs",
        summary="list the jobs of a coordinator, look at one, cancel one",
        description="Without an action (or with `list`): the jobs that were submitted last, newest first.\n"
        "`show ID` prints how a job stands, with its outputs or its error and who is to blame;\n"
        "`cancel ID` ends one that has not ended. IDs are printed by `edge-agent submit --async`.",
        examples=(
            "edge-agent jobs",
            "edge-agent jobs show 5f0c1e6fd3c04a0f8d5d8d8e7c6b5a49 --receipt scan.receipt",
            "edge-agent jobs --state failed --family digits --watch",
            "edge-agent jobs cancel 5f0c1e6fd3c04a0f8d5d8d8e7c6b5a49",
        ),
    )
    parser.add_argument("action", nargs="?", default="list", choices=ACTIONS, help="what to do; default: list")
    parser.add_argument("job_id", nargs="?", help="the job, for show and cancel")
    add_coordinator(parser)
    parser.add_argument("--client", metavar="NAME", help="with list: only the jobs of this client")
    parser.add_argument("--limit", metavar="N", type=int, default=50, help="with list: at most so many; default: 50")
    parser.add_argument("--state", choices=STATES, help="with list: only the jobs in this state")
    parser.add_argument("--family", metavar="FAMILY", help="with list: only the jobs of this family")
    parser.add_argument("--agent", metavar="ID", help="with list: only those that this machine did")
    parser.add_argument("--receipt", metavar="FILE", help="with show: write the signed receipt here, with its proof")
    parser.add_argument("--json", action="store_true", help="with list: print JSON; with --watch one array a line")
    add_watch(parser)


def run(args: argparse.Namespace) -> int:
    """Do the action."""
    from edge_agent.cli.submit import fetch_receipt  # noqa: PLC0415 as below

    _check(args)
    with client_of(args) as client:
        match args.action:
            case "list":
                return show(lambda: _listed(client, args), args.watch, clear=not args.json)
            case "cancel":
                job = client.cancel(args.job_id)
                print(f"The job {args.job_id} {_stands(job)}.")
            case _:
                job = client.job(args.job_id)
                if args.receipt:
                    _write_receipt(args.receipt, fetch_receipt(client, args.job_id))
                print(json.dumps(job, indent=1))
    return 0


def _listed(client: Client, args: argparse.Namespace) -> str:
    """Return the jobs that fit; where only some do, they are looked for among the latest `MOST_LOOKED_AT`."""
    wanted = {"state": args.state, "model": args.family, "agent_id": args.agent}
    chosen = {name: value for name, value in wanted.items() if value is not None}
    found = client.jobs(MOST_LOOKED_AT if chosen else args.limit, args.client)
    jobs = [job for job in found if all(job.get(name) == value for name, value in chosen.items())][: args.limit]
    return json.dumps(jobs) if args.json else _table(jobs)


def _check(args: argparse.Namespace) -> None:
    listing = args.action == "list"
    if listing and args.job_id is not None:
        raise UsageError("list takes no id.", hint=f"edge-agent jobs show {args.job_id[:64]}")
    if not listing and not re.fullmatch(r"[0-9a-f]{32}", args.job_id or ""):
        raise UsageError(
            f"A job's id is 32 hexadecimal digits, not {(args.job_id or 'nothing')[:64]!r}.",
            hint=f"For example: edge-agent jobs {args.action} 5f0c1e6fd3c04a0f8d5d8d8e7c6b5a49",
        )
    if args.receipt and args.action != "show":
        raise UsageError("--receipt goes with show.")


def _write_receipt(name: str, receipt: bytes) -> None:
    from pathlib import Path  # noqa: PLC0415 as above

    from edge_agent.cli.submit import write_file  # noqa: PLC0415 as above

    write_file(Path(name), receipt)


def _stands(job: dict[str, Any]) -> str:
    state = str(job.get("state", ""))
    return "is cancelled" if state == "cancelled" else f"had ended before: it {state}"


def _table(jobs: list[dict[str, Any]]) -> str:
    from edge_agent.cli.table import render  # noqa: PLC0415 as above

    if not jobs:
        return "No jobs yet. Send one with: edge-agent submit --help"
    rows = [
        [
            str(job.get("job_id", "")),
            str(job.get("model", "")),
            str(job.get("state", "")),
            str(job.get("attempts", "")),
            str(job.get("client", "")),
            _reason(job.get("error")),
        ]
        for job in jobs
    ]
    return render(("job", "family", "state", "attempts", "client", "reason"), rows, right=(3,))


def _reason(error: dict[str, Any] | None) -> str:
    return f"{error.get('code')} ({error.get('blame')})" if error else ""
