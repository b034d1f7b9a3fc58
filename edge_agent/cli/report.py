"""`edge-agent report`: what this machine did for others, and what that took."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING

from edge_agent.cli.parsing import add_json_flag, add_settings, effective, new_command
from edge_agent.cli.reaching import add_coordinator
from edge_agent.errors import EdgeAgentError, StateError, UsageError

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from edge_agent.agent.account.book import Row
    from edge_agent.agent.account.summary import Summary
    from edge_agent.cli.parsing import Subparsers
    from edge_agent.settings import Settings

DAYS = 30
_MONTH = re.compile(r"[0-9]{4}-(?:0[1-9]|1[0-2])")
BARS = 32


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "report",
        summary="show jobs, credit, energy and its cost, by day and model",
        description="What this machine did for others, and the energy that it took beyond what the idle machine\n"
        "draws, by day and model, with its cost where a price is known. Says how much of it was measured and\n"
        "how much was estimated. Credit is this machine's own count; --compare shows the coordinator's. Works\n"
        "without a running agent, too. Settings: [energy] in docs/settings.md.",
        examples=(
            "edge-agent report",
            "edge-agent report --month",
            "edge-agent report --month 2026-09 --csv",
            "edge-agent report --days 7 --plot week.png",
            "edge-agent report --compare --coordinator http://192.0.2.7:8420",
        ),
    )
    parser.add_argument(
        "--month", nargs="?", const="", metavar="YYYY-MM", help="the days of one month; without a name, sums by month"
    )
    parser.add_argument("--days", metavar="N", type=int, help=f"the last N days; default: {DAYS}")
    parser.add_argument("--csv", action="store_true", help="print one line a day and model, for a spreadsheet")
    add_json_flag(parser, "the same")
    parser.add_argument("--compare", action="store_true", help="hold the agent's own copy against the coordinator")
    parser.add_argument("--jobs", metavar="N", type=int, default=200, help="with --compare: the newest N; default: 200")
    add_coordinator(parser)
    parser.add_argument("--plot", metavar="FILE.png", help="draw it; needs matplotlib (the extra `plot`)")
    add_settings(parser, "agent.state_dir", "agent.coordinator_key_file")


def run(args: argparse.Namespace) -> int:
    """Read, sum and print."""
    from edge_agent.agent.account.summary import read  # noqa: PLC0415 the parser of every command imports this module

    first, last, by_month = _span(args)
    settings = effective(args).settings
    _bring_up_to_date(settings.agent.state_dir)
    found = read(settings.agent.state_dir, first, last)
    if args.compare:
        return _compare(args, settings, found)
    shown = found.by_month() if by_month else found
    if args.plot:
        from edge_agent.cli.report_plot import draw  # noqa: PLC0415 as above

        draw(shown, args.plot)
    if args.json:
        print(json.dumps(_document(shown, settings.energy.currency)))
    elif args.csv:
        _print_csv(shown)
    else:
        print("\n".join(_lines(shown, settings.energy.currency)))
    return 0


def _compare(args: argparse.Namespace, settings: Settings, found: Summary) -> int:
    from edge_agent.agent.status import read_status  # noqa: PLC0415 as above
    from edge_agent.cli.report_compare import compare_with  # noqa: PLC0415 as above

    status = read_status(settings.agent.state_dir)
    if status is None:
        raise StateError(f"no agent has run with the state directory {settings.agent.state_dir}")
    return compare_with(args, settings, found.blocks, str(status["agent_id"]))


def _span(args: argparse.Namespace) -> tuple[str, str, bool]:
    """Return the first and the last day, and whether sums by month are wanted."""
    if args.month is not None and args.days is not None:
        raise UsageError("--month and --days exclude each other.", hint="Take one of them away.")
    if args.json and args.csv:
        raise UsageError("--json and --csv exclude each other.", hint="Take one of them away.")
    if args.month == "":
        return "0000-00-00", "9999-99-99", True
    if args.month is not None:
        if not _MONTH.fullmatch(args.month):
            raise UsageError(f"{args.month[:32]!r} is no month.", hint="Write it as 2026-09.")
        return f"{args.month}-00", f"{args.month}-99", False
    days = DAYS if args.days is None else args.days
    if not 1 <= days <= 10_000:
        raise UsageError("--days must be from 1 to 10000.", hint="For example --days 7.")
    return time.strftime("%Y-%m-%d", time.localtime(time.time() - (days - 1) * 86_400)), "9999-99-99", False


def _bring_up_to_date(folder: Path) -> None:
    """Have a running agent write what it has in memory; without one, all is in the file."""
    from edge_agent.agent.ask import ask  # noqa: PLC0415 as above

    try:
        ask(folder, {"do": "account"})
    except EdgeAgentError as error:
        if error.error_code not in {"unreachable", "transport", "timeout"}:
            raise


def _document(shown: Summary, currency: str) -> dict[str, object]:
    from edge_agent.agent.account.summary import COLUMNS  # noqa: PLC0415 as above

    usage = [
        {
            "day": period,
            "seconds": round(used.seconds),
            "machine_kwh": round(used.joules / 3.6e6, 6),
            "machine_kwh_known_seconds": round(used.known_seconds),
            "sent_bytes": used.sent,
            "received_bytes": used.received,
            "downloaded_bytes": used.downloaded,
            "written_bytes": used.written,
        }
        for period, used in shown.usage.items()
    ]
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in shown.table()]
    credit = "Mmac by the catalogue, this machine's own count of what the coordinator signed that it accepted"
    return {"currency": currency, "credit": credit, "rows": rows, "usage": usage}


def _print_csv(shown: Summary) -> None:
    import csv  # noqa: PLC0415 as above
    import sys  # noqa: PLC0415 as above

    from edge_agent.agent.account.summary import COLUMNS  # noqa: PLC0415 as above

    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(shown.table())


def _lines(shown: Summary, currency: str) -> list[str]:
    from edge_agent.agent.account.summary import named  # noqa: PLC0415 as above

    if not shown.usage and not shown.rows:
        return ["Nothing is in the account for these days."]
    wide = max(18, *(len(named(family)) for _, family in shown.rows)) if shown.rows else 18
    lines = [f"{'':10}  {'model':{wide}}  {'jobs':>8}  {'computed':>9}  {'kWh':>9}  {currency:>9}  {'Mmac':>10}"]
    for (period, family), row in shown.rows.items():
        cost = f"{row.cost:9.4f}" if row.unpriced_joules < row.joules else f"{'–':>9}"
        seconds, kwh = row.busy_us / 1e6, row.joules / 3.6e6
        lines.append(
            f"{period:10}  {named(family):{wide}}  {row.finished:8}  {seconds:7.1f} s  {kwh:9.5f}  {cost}"
            f"  {_credit(row)}"
        )
    whole = shown.total()
    priced = f"{whole.cost:9.4f}" if whole.unpriced_joules < whole.joules else f"{'–':>9}"
    lines.append(
        f"{'together':10}  {'':{wide}}  {whole.finished:8}  {whole.busy_us / 1e6:7.1f} s  "
        f"{whole.joules / 3.6e6:9.5f}  {priced}  {_credit(whole)}"
    )
    lines += ["", *_bars(shown), "", *_notes(shown)]
    return lines


def _credit(row: Row) -> str:
    """Return what a row's results are worth; nothing is known of results of before that was counted."""
    return f"{row.credit:10}" if row.credit or not row.accepted else f"{'–':>10}"


def _bars(shown: Summary) -> list[str]:
    periods = shown.by_period()
    by_energy = any(row.joules for row in periods.values())
    values = {period: row.joules / 3.6e6 if by_energy else float(row.finished) for period, row in periods.items()}
    most = max(values.values(), default=0.0)
    if not most:
        return []
    unit = "kWh" if by_energy else "jobs"
    return [
        f"{period:10}  {'█' * round(BARS * value / most):{BARS}} {value:.5g} {unit}" for period, value in values.items()
    ]


def _notes(shown: Summary) -> list[str]:
    whole = shown.total()
    used = [sum(getattr(one, name) for one in shown.usage.values()) for name in ("seconds", "known_seconds", "joules")]
    seconds, known, joules = used
    lines = []
    if not known:
        lines.append(
            "Energy is unknown: nothing here measures it, and neither a board file nor energy.idle_watts and\n"
            "energy.max_watts tell what this machine draws (docs/home.md)."
        )
    else:
        share = whole.measured_joules / whole.joules if whole.joules else 0.0
        how = f"{share:.0%} measured, the rest estimated from the CPUs' load"
        if share > 0.999:
            how = "measured"
        elif share < 0.001:
            how = "estimated from the CPUs' load"
        lines.append(f"Energy is what the work took beyond the idle machine, {how}.")
        lines.append(
            f"The whole machine took {joules / 3.6e6:.4f} kWh in the {known / 3600:.1f} h in which that was known."
        )
    if whole.accepted:
        lines.append(
            "Mmac is credit: what the catalogue says that results are worth, by this machine's own count of those\n"
            "whose acceptance the coordinator has signed. What its ledger pays for them: edge-agent report --compare."
        )
    if whole.unpriced_joules:
        lines.append(f"For {whole.unpriced_joules / 3.6e6:.5f} kWh no price was known (energy.price_per_kwh).")
    moved = sum(one.network for one in shown.usage.values())
    written = sum(one.written for one in shown.usage.values())
    lines.append(
        f"In {seconds / 3600:.1f} h the agent moved {moved / 1e6:.1f} MB over the network, models included, and wrote "
        f"{written / 1e6:.1f} MB."
    )
    return lines
