"""Run seeded scripts of faults against both cores in a simulated network, and check the promises after each.

    python benchmarks/simulator.py --runs 100000      # in as many processes as there are CPUs
    python benchmarks/simulator.py --seed 4711        # one script, with a record of what happens
    python benchmarks/simulator.py --script '{...}'   # a smallest script, as a failure prints it

Prints what was run, how many faults of each kind were injected, and every violation with its smallest script. Exits
with status 1 if there is one. See docs/reliability.md.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "chaos"))

from simulator.generate import PROFILES, generate
from simulator.oracle import check
from simulator.report import Tally, explain, play, play_all
from simulator.script import REQUESTS, Kind, Script
from simulator.simulation import Simulation
from simulator.wire import token_wire

CHUNK = 200
MAX_FAILURES = 5


def _chunk(first: int, runs: int, profile: str | None, real_wire: bool) -> Tally:  # noqa: FBT001 a pool passes it on
    with contextlib.nullcontext() if real_wire else token_wire() as wire:
        return play_all(range(first, first + runs), wire, profile)


def run_many(arguments: argparse.Namespace) -> int:
    """Run many scripts in several processes; return the exit status."""
    began = time.monotonic()
    total = Tally()
    firsts = range(arguments.first, arguments.first + arguments.runs, CHUNK)
    with ProcessPoolExecutor(arguments.processes) as pool:
        chunks = [
            pool.submit(
                _chunk,
                first,
                min(CHUNK, arguments.first + arguments.runs - first),
                arguments.profile,
                arguments.real_wire,
            )
            for first in firsts
        ]
        for chunk in chunks:
            total.add(chunk.result())
            if len(total.failures) >= MAX_FAILURES or time.monotonic() - began >= 60 * arguments.minutes:
                pool.shutdown(cancel_futures=True)
                break
    _print(total, time.monotonic() - began)
    return 1 if total.failures else 0


def _print(total: Tally, seconds: float) -> None:
    print(f"scripts     {total.runs:,} in {seconds:,.0f} s, {total.runs / seconds:,.0f}/s")
    days = total.seconds / 86_400
    print(f"in them     {days:,.1f} simulated days, {total.commands:,} commands, {total.counts['messages']:,} messages")
    print(f"requests    {total.counts[Kind.SUBMIT]:,} submitted, {total.counts[Kind.CANCEL]:,} cancelled")
    faults = {kind: total.counts[kind] for kind in Kind if kind not in REQUESTS and total.counts[kind]}
    print(f"faults      {sum(faults.values()):,}: " + ", ".join(f"{kind} {count:,}" for kind, count in faults.items()))
    print(f"violations  {len(total.failures)}")
    for failure in total.failures:
        print("\n" + failure)


def run_one(script: Script, *, real_wire: bool) -> int:
    """Run one script and print what happens; return the exit status."""
    print(script)
    with contextlib.nullcontext() if real_wire else token_wire() as wire:
        simulation = Simulation(script, log=True).run()
        violations = check(simulation)
        print("How it goes:")
        print("\n".join(simulation.world.log or []))
        for violation in violations:
            print(violation)
        if violations:
            print("\n" + explain(script, play(script, wire)[1], wire))
        else:
            print("No promise is broken.")
    return 1 if violations else 0


def main() -> int:
    """Parse, run, print; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=2000, help="how many scripts (default: 2000)")
    parser.add_argument("--minutes", type=float, default=1e9, help="stop after so long, with what is done by then")
    parser.add_argument("--first", type=int, default=0, help="seed of the first one (default: 0)")
    parser.add_argument("--profile", choices=PROFILES, help="which faults; by default the seeds take all in turn")
    parser.add_argument("--processes", type=int, default=os.cpu_count(), help="by default as many as there are CPUs")
    parser.add_argument("--real-wire", action="store_true", help="sign, encode and check every message for real")
    parser.add_argument("--seed", type=int, help="run only this script and say what happens in it")
    parser.add_argument("--script", help="run only this one, in the form that a failure prints")
    arguments = parser.parse_args()
    if arguments.script is not None:
        return run_one(Script.from_json(arguments.script), real_wire=arguments.real_wire)
    if arguments.seed is not None:
        return run_one(generate(arguments.seed, arguments.profile), real_wire=arguments.real_wire)
    return run_many(arguments)


if __name__ == "__main__":
    sys.exit(main())
