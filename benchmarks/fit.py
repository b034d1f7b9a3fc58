"""How well memory and time are predicted, and whether the pick is the best one, held against measuring every variant.

A matrix of models × all their variants × small machines that are made of this one with real limits. On every machine
every variant is measured in a real worker; predictions, the choice by a few canary runs, and what others would pick are
held against that. Needs root (control groups), the extra `dev`, and for the real models `EDGE_AGENT_REFERENCE_DATA`.

    python benchmarks/fit.py                  # everything; half an hour; goes on where it was cut off
    python benchmarks/fit.py --quick          # a few minutes
    python benchmarks/fit.py --write docs     # also write the table into docs/fit.md and the picture beside it
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from fitlab import families, judge, machines, picture  # noqa: E402 - the path comes first


def main() -> int:
    """Build, measure what is not measured yet, judge, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer models and machines")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "edge-agent-fit")
    parser.add_argument("--minutes", type=float, default=35.0, help="start no measurement after so many minutes")
    parser.add_argument("--families", default="", help="only these, with commas")
    parser.add_argument("--machines", default="", help="only these, with commas")
    parser.add_argument("--write", type=Path, help="the folder of the documentation")
    parser.add_argument("--only-judge", action="store_true", help="measure nothing more")
    options = parser.parse_args()
    if why := machines.possible():
        print(f"The machines cannot be made here: {why}.", file=sys.stderr)
        return 1
    wanted = machines.QUICK if options.quick else tuple(machine.name for machine in machines.MACHINES)
    wanted = tuple(filter(None, options.machines.split(","))) or wanted
    chosen = [machine for machine in machines.MACHINES if machine.name in wanted]
    names = tuple(filter(None, options.families.split(","))) or families.all_names(quick=options.quick)
    until = time.monotonic() + 60 * options.minutes
    models = options.folder / "families"
    reference = os.environ.get("EDGE_AGENT_REFERENCE_DATA")
    ready = []
    for name in names:
        if options.only_judge:
            there = name == "digits" or (models / name / "family.json").exists()
        else:
            there = families.build(name, models, Path(reference) if reference else None)
        ready += [name] if there else []
    if not options.only_judge:
        measure(options.folder, chosen, ready, until)
    results = judge.read(options.folder, chosen, ready)
    verdict = judge.judge(results, models)
    print(verdict.text())
    if options.write is not None:
        verdict.write(options.write / "fit.md")
        picture.draw(results, models, options.write / "fit.png")
    return 0


def measure(folder: Path, chosen: list[machines.Machine], names: list[str], until: float) -> None:
    """Measure each family on each machine that has no result yet."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join((str(HERE), str(HERE.parent)))}
    for name in names:
        for machine in chosen:
            path = judge.path_of(folder, machine.name, name)
            if path.exists() or time.monotonic() > until:
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            state = folder / "state" / machine.name
            state.mkdir(parents=True, exist_ok=True)
            before = judge.steal_and_idle()
            command = [sys.executable, "-m", "fitlab.on_machine", str(folder / "families"), str(state), "1", name]
            started = time.monotonic()
            try:
                out = machines.run_on(machine, command, environment, 600)
                document = json.loads(out.strip().splitlines()[-1])
            except Exception as error:  # noqa: BLE001 - told and left out; the rest goes on
                print(f"  {machine.name} {name}: {error}", file=sys.stderr)
                continue
            document["others"] = judge.steal_and_idle().since(before)
            path.write_text(json.dumps(document), encoding="utf-8")
            print(f"  {machine.name:10s} {name:16s} {time.monotonic() - started:6.1f} s", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
