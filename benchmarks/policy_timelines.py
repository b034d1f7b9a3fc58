"""Random owners and machines by the ten thousand: does any flap faster than its dwell time, or work outside its hours?

`python benchmarks/policy_timelines.py [--timelines N] [--seed FIRST]`; status 1 if any promise is broken.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))

from timelines import Timeline


def main() -> int:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--timelines", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1_000_000, help="of the first")
    args = parser.parse_args()
    started, decisions, changes, problems = time.monotonic(), 0, 0, []
    for seed in range(args.seed, args.seed + args.timelines):
        timeline = Timeline(seed).run()
        decisions += len(timeline.moments)
        changes += timeline.changes
        problems += timeline.problems
    seconds = time.monotonic() - started
    print(f"{args.timelines} timelines, {decisions} decisions, {changes} changes between work and rest")
    print(f"{seconds / decisions * 1e6:.0f} µs a decision, the second opinion included")
    print(f"{len(problems)} broken promises")
    print("\n".join(problems[:20]))
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
