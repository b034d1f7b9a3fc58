"""`edge-agent mode`: quiet, normal or full."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edge_agent.cli.owner import ask_agent, headline, owner_command, reason_lines, show
from edge_agent.errors import UsageError

if TYPE_CHECKING:
    import argparse

    from edge_agent.cli.parsing import Subparsers

MODES = ("quiet", "normal", "full")
LIMITS = {"cpu_share": "--cpu-share", "max_cpu_celsius": "--max-celsius", "max_other_cpu_share": "--max-other-share"}


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = owner_command(
        subparsers,
        "mode",
        summary="let it work quietly, normally, or with all it has",
        description="How hard it may work. quiet: half of the threads, and rest at a lower temperature\n"
        "(policy.quiet_cpu_share, policy.quiet_max_cpu_celsius). normal: as the settings file says. full: also\n"
        "while somebody uses the machine or other programs are busy; hours, battery, heat, caps and gates hold\n"
        "all the same. Limits hold beside the file and are never above it. What is set survives restarts;\n"
        "`--reset` takes all of it back. Without anything it shows what holds. Running jobs are finished first.",
        examples=("edge-agent mode quiet", "edge-agent mode normal --cpu-share 0.25", "edge-agent mode --reset"),
    )
    parser.add_argument("mode", nargs="?", choices=MODES, help="how it works from now on")
    parser.add_argument("--cpu-share", type=float, metavar="SHARE", help="of all CPUs, 0.05 to 1")
    parser.add_argument("--max-celsius", type=float, metavar="N", help="rest when the CPU is as hot as that")
    parser.add_argument("--max-other-share", type=float, metavar="SHARE", help="rest when others take more of the CPUs")
    parser.add_argument("--reset", action="store_true", help="go by the settings file alone again")


def run(args: argparse.Namespace) -> int:
    """Ask and print."""
    given = {"pace": args.mode, "cpu_share": args.cpu_share}
    given |= {"max_cpu_celsius": args.max_celsius, "max_other_cpu_share": args.max_other_share}
    named = {name: value for name, value in given.items() if value is not None}
    if args.reset:
        if named:
            raise UsageError("--reset takes everything back; it goes with nothing else.", hint="Take one of them away.")
        named = dict.fromkeys(given)
    answer = _adjust(args, named) if named else ask_agent(args, "status")
    return show(args, answer, [*_lines(answer), *reason_lines(answer)])


def _adjust(args: argparse.Namespace, named: dict[str, Any]) -> dict[str, Any]:
    from edge_agent.agent.ask import ask  # noqa: PLC0415 the parser of every command imports this module
    from edge_agent.cli.parsing import effective  # noqa: PLC0415 as above

    return ask(effective(args).settings.agent.state_dir, {"do": "adjust", **named})


def _lines(answer: dict[str, Any]) -> list[str]:
    lines = [f"{answer['pace']}, with {answer['threads']} threads: {headline(answer)}"]
    for name, flag in LIMITS.items():
        limit = answer["limits"][name]
        value = "no limit" if limit["value"] is None else f"{limit['value']:g}"
        lines.append(f"- {flag.removeprefix('--').replace('-', ' ')}: {value} (up to {limit['highest']:g})")
    return lines
