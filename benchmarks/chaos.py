"""Real processes under real faults: what is lost, accepted twice, stuck or wrong, and how soon it works again.

`python benchmarks/chaos.py --class kill --minutes 10`, `--all --minutes 10 --parallel 4`, `--list`. The exit
status is 1 when a promise was broken; the folder with the logs, the timeline and the records of that run is then kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "chaos"))

from harness.cleanup import clean_stale
from harness.faults import CLASSES
from harness.namespaces import PREFIX, has_netem
from harness.oracle import KINDS
from harness.run import Plan, classes_of, run

COMBINED = "combined"
REQUIRE_ALL = "EDGE_AGENT_REQUIRE_ALL"


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--class", dest="names", action="append", metavar="NAME", help="a class; repeat for several")
    parser.add_argument("--all", action="store_true", help="every class, one after the other, and all of them combined")
    parser.add_argument("--combine", action="store_true", help="the chosen classes in one run, two faults at a time")
    parser.add_argument("--list", action="store_true", help="say what classes there are, and what cannot be run here")
    parser.add_argument("--minutes", type=float, default=10.0, help="of faults, for each run; default 10")
    parser.add_argument("--rate", type=float, default=1.5, help="jobs a second; default 1.5")
    parser.add_argument("--agents", type=int, default=3, help="how many; default 3")
    parser.add_argument("--seed", type=int, default=1, help="of everything that is drawn; default 1")
    parser.add_argument("--parallel", type=int, default=1, help="runs at a time; default 1")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where the folders of failing runs go")
    parser.add_argument("--json", action="store_true", help="print a JSON object a run instead of a table")
    parser.add_argument("--quiet", action="store_true", help="do not tell of each fault")
    return parser.parse_args()


def missing(names: tuple[str, ...]) -> str | None:
    """Say why these classes cannot be run together here, or None."""
    reasons = [(name, CLASSES[name].missing()) for name in names]
    return next((f"{name}: {reason}" for name, reason in reasons if reason is not None), None)


def run_here(names: tuple[str, ...], args: argparse.Namespace) -> dict[str, Any]:
    """Do one run in this process."""
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}-{os.getpid()}-", dir=args.keep))
    plan = Plan(classes_of(names), args.minutes * 60, args.rate, args.seed, agents=args.agents)
    say = (lambda _: None) if args.quiet else (lambda text: print(text, file=sys.stderr, flush=True))
    report = run(plan, folder, say)
    found = report.as_json()
    if report.violations:
        found["kept"] = str(folder)
        for violation in report.violations[:20]:
            print(violation, file=sys.stderr)
    else:
        shutil.rmtree(folder)
    return found


def run_apart(names: tuple[str, ...], args: argparse.Namespace) -> dict[str, Any]:
    """Do one run in a process of its own, so that several can go on at once."""
    command = [sys.executable, __file__, "--json", "--minutes", str(args.minutes), "--rate", str(args.rate)]
    command += ["--agents", str(args.agents), "--seed", str(args.seed)]
    command += ["--quiet"] if args.quiet else []
    command += ["--keep", str(args.keep)] if args.keep else []
    for name in names:
        command += ["--class", name]
    if len(names) > 1:
        command.append("--combine")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        found = {"class": names[0] if len(names) == 1 else COMBINED, "broken": f"exit status {done.returncode}"}
    return found


def line_of(found: dict[str, Any]) -> str:
    """Make a row of the table."""
    if "broken" in found:
        return f"| {found['class']} | the run itself failed: {found['broken']} |"
    ended = "; ".join(f"{count} {how}" for how, count in found["ended"].items()) or "0"
    times = [
        "–" if (s := found[name]) is None else f"{s['p50']:.2f} / {s['p90']:.2f} / {s['max']:.2f}"
        for name in ("first_answer_seconds", "backlog_cleared_seconds")
    ]
    broken = " | ".join(str(found[kind]) for kind in KINDS)
    cells = [
        found["class"],
        found["faults"],
        found["jobs"],
        found["attempts"],
        found["succeeded"],
        ended,
        broken,
        *times,
    ]
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def list_classes() -> None:
    """Say what there is, and what cannot be run here."""
    for found in CLASSES.values():
        reason = found.missing()
        print(f"{found.name:10} {found.summary}" + (f" (not here: {reason})" if reason else ""))
    if os.geteuid() == 0:
        print(f"netem: {'the kernel has it' if has_netem() else 'this kernel has none; the proxy delays instead'}")


def chosen_runs(args: argparse.Namespace) -> list[tuple[str, ...]]:
    """Return the classes of each run that was asked for."""
    names = tuple(args.names or ())
    if args.all:
        possible = tuple(n for n, c in CLASSES.items() if c.missing() is None and not c.submissions_only)
        return [*((name,) for name in CLASSES), possible]
    return [names] if args.combine else [(name,) for name in names]


def print_table(reports: list[dict[str, Any]]) -> None:
    """Print a row a run."""
    head = ["class", "faults", "jobs", "attempts", "succeeded", "other ends", *KINDS]
    head += ["first answer p50 / p90 / max s", "backlog cleared p50 / p90 / max s"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for report in reports:
        print(line_of(report))
    print(f"{sum(report.get('jobs', 0) for report in reports)} jobs")


def main() -> int:
    """Run, print, and say whether every promise held."""
    args = arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything is cleaned up on the way out
    if args.list:
        list_classes()
        return 0
    if not (args.names or args.all) or set(args.names or ()) - set(CLASSES):
        print(f"choose --all or --class of: {', '.join(CLASSES)}", file=sys.stderr)
        return 2
    for removed in clean_stale():
        print(f"removed what a killed run left: {removed}", file=sys.stderr)
    runs = chosen_runs(args)
    possible = [names for names in runs if missing(names) is None]
    left_out = [reason for names in runs if (reason := missing(names)) is not None]
    print("".join(f"left out: {reason}\n" for reason in left_out), end="", file=sys.stderr)
    if len(possible) == 1:
        reports = [run_here(possible[0], args)]
    else:
        with ThreadPoolExecutor(args.parallel) as pool:
            reports = list(pool.map(lambda names: run_apart(names, args), possible))
    if args.json:
        print("\n".join(json.dumps(report) for report in reports))
    else:
        print_table(reports)
    kept = [report["kept"] for report in reports if "kept" in report]
    print("".join(f"kept: {folder}\n" for folder in kept), end="", file=sys.stderr)
    bad = any("broken" in report or any(report[kind] for kind in KINDS) for report in reports)
    return int(bad or (bool(left_out) and os.environ.get(REQUIRE_ALL) == "1"))


if __name__ == "__main__":
    sys.exit(main())
