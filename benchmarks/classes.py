"""How far the outputs of machines with different instruction sets are apart, on real models, and which inputs show it.

    EDGE_AGENT_REFERENCE_DATA=DIR python benchmarks/classes.py [--only digits,mnist] [--cpus Nehalem,Haswell]
    python benchmarks/classes.py --keep KEEP               the models and outputs stay there, and are not computed again
    python benchmarks/classes.py --keep KEEP --arm ROOT    besides three Arm cores
    python benchmarks/classes.py --keep KEEP --add server  besides outputs that `classlab/run_models.py` made elsewhere,
                                                           copied to KEEP/server.npz

The same files run with the same onnxruntime on this processor, on it with two threads, and on processors that
qemu-user emulates. ROOT holds an arm64 Debian's `usr/bin/python3*` and the wheels' contents in `site`; its
onnxruntime may be another one (qemu 7.2 crashes in newer ones than 1.27.0): then --runtime names a folder with the
same version for this processor (`pip install --target`), since only machines with one version are compared.

Printed for each variant: the sets of machines that gave the same bits on every input; how many of the inputs show the
difference between the two sets that are hardest to tell apart; the largest difference between machines, as a share of
the largest output; the smallest over the inputs of what the next smaller variant differs by, the nearest cheat; and how
many times the former goes into the latter.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from classlab.models import prepare

HERE = "here"
X86_CPUS = ("Nehalem", "SandyBridge", "Haswell", "EPYC-Rome")
ARM_CPUS = ("cortex-a53", "cortex-a72", "cortex-a76")
PATIENCE_SECONDS = 1800
Outputs = dict[int, dict[str, np.ndarray]]
"""Of one variant on one machine: by number of the input, by name."""


def computed(folder: Path, name: str, command: list[str], *, threads: int = 1, **variables: str) -> None:
    """Run all models on one machine, unless that was done before."""
    out = folder / f"{name}.npz"
    if out.exists():
        return
    script = str(Path(__file__).parent / "classlab" / "run_models.py")
    environ = {"ORT_DISABLE_TELEMETRY": "1", "OPENBLAS_NUM_THREADS": "1", **variables}
    began = time.monotonic()
    done = subprocess.run(
        [*command, script, str(folder / "models"), str(out), str(threads)],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )
    problems = [line for line in done.stderr.splitlines() if "warning" not in line and line]
    print(f"{name}: {time.monotonic() - began:.0f} s, status {done.returncode}", *problems[-5:], sep="\n  ", flush=True)


def outputs_of(path: Path) -> tuple[str, dict[str, Outputs]]:
    """Return the version of onnxruntime, and the outputs by model and variant."""
    found: dict[str, Outputs] = {}
    with np.load(path) as file:
        for key in file.files:
            if key.count("/") >= 3:
                model, variant, number, name = key.split("/", 3)
                found.setdefault(f"{model}/{variant}", {}).setdefault(int(number), {})[name] = file[key]
        return str(file["version"]), found


def same(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> bool:
    """Whether all outputs are the same bits."""
    return one.keys() == other.keys() and all(one[name].tobytes() == other[name].tobytes() for name in one)


def apart(one: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray]) -> float:
    """Return the largest difference of an element, as a share of the largest value of that output."""
    shares = [0.0]
    for name, mine in one.items():
        if mine.dtype.kind == "f" and mine.size:
            largest = float(np.max(np.abs(mine))) or 1.0
            shares.append(float(np.max(np.abs(mine.astype(np.float64) - other[name]))) / largest)
    return max(shares)


def sets_of(machines: Mapping[str, Outputs]) -> list[list[str]]:
    """Return the sets of machines that gave the same bits on every input."""
    sets: list[list[str]] = []
    for name, outputs in machines.items():
        for known in sets:
            first = machines[known[0]]
            if outputs.keys() == first.keys() and all(same(outputs[number], first[number]) for number in first):
                known.append(name)
                break
        else:
            sets.append([name])
    return sets


def judged(machines: Mapping[str, Outputs], cheats: Mapping[str, Outputs]) -> dict[str, Any]:
    """Return what is said of one variant.

    Args:
        machines: its outputs by machine.
        cheats: outputs of variants with smaller files, all of one machine.
    """
    sets = sets_of(machines)
    inputs = len(next(iter(machines.values())))
    shown = [
        sum(not same(machines[one[0]][number], machines[other[0]][number]) for number in machines[one[0]])
        for one, other in combinations(sets, 2)
    ]
    spread = max(
        (
            apart(machines[one[0]][number], machines[other[0]][number])
            for one, other in combinations(sets, 2)
            for number in machines[one[0]]
        ),
        default=0.0,
    )
    honest = next(iter(machines.values()))
    distances = {name: min(apart(honest[number], cheat[number]) for number in honest) for name, cheat in cheats.items()}
    nearest = min(distances, key=lambda name: distances[name], default=None)
    cheat = None if nearest is None else distances[nearest]
    gap = None if cheat is None or spread == 0.0 else cheat / spread
    return {
        "sets": sets,
        "inputs": inputs,
        "shown": min(shown, default=0),
        "spread": spread,
        "nearest": nearest,
        "cheat": cheat,
        "gap": gap,
    }


def table(folder: Path, names: list[str]) -> Iterator[dict[str, Any]]:
    """Judge every variant that at least two machines have computed."""
    machines: dict[str, dict[str, Outputs]] = {}
    versions = {}
    for name in names:
        if (folder / f"{name}.npz").exists():
            versions[name], machines[name] = outputs_of(folder / f"{name}.npz")
    if len(set(versions.values())) > 1:
        raise SystemExit(f"different versions of onnxruntime cannot be compared: {versions}; see --runtime")
    print(f"onnxruntime {next(iter(versions.values()))}; " + ", ".join(machines))
    everything = machines[HERE]
    size = {key: (folder / "models" / f"{key}.onnx").stat().st_size for key in everything}
    for key, honest in everything.items():
        model = key.partition("/")[0]
        here = {name: found[key] for name, found in machines.items() if key in found}
        smaller = [other for other in everything if other.startswith(f"{model}/") and size[other] < size[key]]
        cheats = {
            other.partition("/")[2]: everything[other] for other in smaller if everything[other].keys() == honest.keys()
        }
        yield {"variant": key, "missing": sorted(machines.keys() - here.keys()), **judged(here, cheats)}


def show(row: Mapping[str, Any]) -> str:
    """Return one line of the table."""
    sets = " | ".join(" ".join(names) for names in row["sets"])
    told = f"{row['shown']} of {row['inputs']}" if len(row["sets"]) > 1 else "-"
    cheat = "-" if row["cheat"] is None else f"{row['cheat']:.1e} {row['nearest']}"
    gap = "-" if row["gap"] is None else f"{row['gap']:.3g}"
    missing = f"; not run by {' '.join(row['missing'])}" if row["missing"] else ""
    return f"{row['variant']:32} {told:>9} {row['spread']:>8.1e} {gap:>8}  {cheat:28} {sets}{missing}"


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep.resolve()
        return
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def _compute(folder: Path, args: argparse.Namespace) -> list[str]:
    python = [sys.executable]
    variables = {"PYTHONPATH": str(args.runtime)} if args.runtime else {}
    computed(folder, HERE, python, **variables)
    computed(folder, "here-2-threads", python, threads=2, **variables)
    names = [HERE, "here-2-threads", *args.add]
    emulator = shutil.which("qemu-x86_64-static") or shutil.which("qemu-x86_64")
    if emulator is None:
        print("no emulated x86 processors: qemu-user-static is not installed")
    for cpu in args.cpus.split(",") if emulator and args.cpus else ():
        computed(folder, cpu, [emulator or "", "-cpu", cpu, *python], **variables)
        names.append(cpu)
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if args.arm is not None and emulator is not None:
        root = args.arm.resolve()
        inside = next((root / "usr" / "bin").glob("python3.*"))
        variables = {"PYTHONPATH": str(root / "site"), "PYTHONHOME": str(root / "usr")}
        for cpu in ARM_CPUS:
            computed(folder, cpu, [emulator, "-L", str(root), "-cpu", cpu, str(inside)], **variables)
            names.append(cpu)
    return names


def main() -> int:
    """Read the arguments, run and compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="models, with commas between them")
    parser.add_argument("--cpus", default=",".join(X86_CPUS), help="x86 processors to emulate; default: %(default)s")
    parser.add_argument("--arm", type=Path, metavar="ROOT", help="folder of an arm64 system with onnxruntime")
    parser.add_argument("--runtime", type=Path, metavar="DIR", help="folder with another onnxruntime for this machine")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep models and outputs here, and use what is there")
    parser.add_argument("--add", action="append", default=[], metavar="NAME", help="also compare KEEP/NAME.npz")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    with _folder(args.keep) as folder:
        if not (folder / "models").exists():
            prepare(folder / "models", tuple(args.only.split(",")) if args.only else ())
        rows = list(table(folder, _compute(folder, args)))
    print(f"{'variant':32} {'shown by':>9} {'spread':>8} {'gap':>8}  {'nearest cheat':28} sets of the same bits")
    for row in rows:
        print(show(row))
    if args.json:
        args.json.write_text(json.dumps(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
