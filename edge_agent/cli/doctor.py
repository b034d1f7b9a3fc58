"""`edge-agent doctor`: what is wrong with this agent's set-up, and how to mend it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, add_settings, effective, new_command

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "doctor",
        summary="check this agent's set-up and say how to mend it",
        description="Check settings, keys, disk, memory, onnxruntime, model files, the broker, the coordinator and\n"
        "the clocks, one line each, with what to do about what is wrong. Changes nothing, and may be run beside\n"
        "a running agent. The exit status is 1 if a check failed; warnings leave it 0.",
        examples=("edge-agent doctor", "edge-agent doctor --json", "edge-agent doctor --broker mqtts://broker.example"),
    )
    add_json_flag(parser, "every check's outcome")
    add_settings(
        parser,
        "network.name",
        "broker.url",
        "agent.state_dir",
        "agent.coordinator_key_file",
        "agent.families",
    )


def run(args: argparse.Namespace) -> int:
    """Make the checks and print them."""
    import secrets  # noqa: PLC0415 the parser of every command imports this module

    from edge_agent.doctor.checks import CHECKS, examine  # noqa: PLC0415 as above
    from edge_agent.doctor.context import Context  # noqa: PLC0415 as above
    from edge_agent.doctor.findings import Status  # noqa: PLC0415 as above

    context = Context(lambda: effective(args), secrets.token_bytes)
    width = max(len(check.name) for check in CHECKS)
    shown = []
    for check, finding in examine(context):
        shown.append(
            {
                "name": check.name,
                "title": check.title,
                "status": finding.status.value,
                "found": finding.found,
                "mend": finding.mend,
                "code": finding.code,
                "facts": finding.facts,
            }
        )
        if not args.json:
            code = f" [{finding.code}]" if finding.code else ""
            print(f"{finding.status.value:8}{check.name:{width}}  {finding.found}{code}", flush=True)
            if finding.mend:
                print(f"{'':{8 + width}}  mend: {finding.mend}", flush=True)
    failures = [entry["name"] for entry in shown if entry["status"] == Status.FAILED]
    if args.json:
        print(json.dumps({"ok": not failures, "checks": shown}))
    else:
        print()
        print(
            f"{len(failures)} of {len(shown)} checks failed: {', '.join(map(str, failures))}"
            if failures
            else "All is well."
        )
    return 1 if failures else 0
