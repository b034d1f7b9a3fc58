"""Fuzzing of every parser that meets foreign bytes: mutated samples, by the million.

    python benchmarks/fuzz.py --runs 10000000              all parsers, by their weights, over all cores
    python benchmarks/fuzz.py --only cbor,oip --runs 1000000
    python benchmarks/fuzz.py --atheris cbor --seconds 60  coverage-guided, where atheris is installed

A crash is an exception that the parser does not declare, a hang more than 50 ms of CPU, and the process may not grow by
more than 64 MiB. What is found is written to --out and belongs into tests/fuzz/corpus once it is mended. Ctrl-C or
SIGTERM ends it early; what was run until then is printed.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / "tests" / part) for part in ("", "fuzz")]

CHUNK = 10_000


def _chunk(job: tuple[str, int, int]) -> tuple[str, int, int, float, float, list[tuple[str, bytes, str]]]:
    from mutation import fuzz  # noqa: PLC0415 in the process that runs it
    from targets import BY_NAME  # noqa: PLC0415 as above

    logging.getLogger("edge_agent").setLevel(logging.CRITICAL)  # what is refused is not news here
    name, runs, seed = job
    began = time.process_time()
    tally = fuzz(BY_NAME[name], runs, seed)
    found = [(each.kind, each.data, each.why) for each in tally.found]
    return name, tally.runs, tally.refused, tally.slowest, time.process_time() - began, found


def _until(ended: list[int], results: Any) -> Iterator[Any]:  # noqa: ANN401 what a pool gives has no public type
    """Give results until there are no more, or a signal came."""
    while not ended:
        try:
            yield results.next(timeout=1.0)
        except multiprocessing.TimeoutError:
            continue
        except StopIteration:
            return


def _mutate(args: argparse.Namespace) -> int:
    from targets import TARGETS  # noqa: PLC0415 after the path is set

    chosen = [target for target in TARGETS if not args.only or target.name in args.only.split(",")]
    whole = sum(target.weight for target in chosen)
    jobs = []
    for target in chosen:
        left = max(1, args.runs * target.weight // whole)
        part = 0
        while left > 0:
            jobs.append((target.name, min(CHUNK, left), args.seed * 1_000_003 + part))
            left -= CHUNK
            part += 1
    jobs.sort(key=lambda job: job[2])  # all parsers in turn: who ends it early has run each of them
    totals: dict[str, list[float]] = {target.name: [0, 0, 0.0, 0.0] for target in chosen}
    problems = 0
    began = time.monotonic()
    ended: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: ended.append(number))
    with multiprocessing.get_context("spawn").Pool(args.processes, maxtasksperchild=100) as pool:
        for name, runs, refused, slowest, cpu, found in _until(ended, pool.imap_unordered(_chunk, jobs)):
            total = totals[name]
            total[0] += runs
            total[1] += refused
            total[2] = max(total[2], slowest)
            total[3] += cpu
            for kind, data, why in found:
                problems += 1
                path = args.out / f"{name}-{kind}-{hashlib.sha256(data).hexdigest()[:12]}"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(data)
                print(f"{name}: {kind}: {why}: {path}", flush=True)
            if args.seconds and time.monotonic() - began > args.seconds:
                break
        pool.terminate()
    print(f"{'parser':16} {'runs':>10} {'refused':>8} {'slowest':>9} {'CPU/run':>9}")
    for name, (runs, refused, slowest, cpu) in totals.items():
        share = f"{100 * refused / runs:6.1f} %" if runs else "-"
        print(f"{name:16} {int(runs):>10,} {share:>8} {slowest * 1000:>6.1f} ms {1e6 * cpu / max(1, runs):>6.0f} us")
    done = int(sum(total[0] for total in totals.values()))
    print(f"{done:,} executions, {problems} problems, in {time.monotonic() - began:.0f} s")
    if args.json:
        args.json.write_text(json.dumps({"executions": done, "problems": problems, "parsers": totals}))
    return 1 if problems else 0


def _guided(name: str, seconds: int, out: Path) -> None:
    """Run one parser under atheris, which ends the process itself."""
    import atheris  # noqa: PLC0415 no part of the dev extra everywhere

    with atheris.instrument_imports(include=["edge_agent"]):
        from targets import BY_NAME  # noqa: PLC0415 as above
    from mutation import samples_of  # noqa: PLC0415 as above

    target = BY_NAME[name]
    corpus = out / name
    corpus.mkdir(parents=True, exist_ok=True)
    for data in samples_of(target):
        (corpus / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)

    def one(data: bytes) -> None:
        try:
            target.parse(data)
        except target.errors:
            return

    arguments = [sys.argv[0], str(corpus), f"-max_total_time={seconds}", "-rss_limit_mb=600", "-max_len=4096"]
    atheris.Setup([*arguments, "-timeout=5", f"-artifact_prefix={out}/{name}-"], one)
    atheris.Fuzz()


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=100_000, help="executions in all")
    parser.add_argument("--only", default="", help="parsers, with commas between them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seconds", type=int, default=0, help="end after so long")
    parser.add_argument("--atheris", metavar="PARSER", help="run this one coverage-guided")
    parser.add_argument("--out", type=Path, default=Path("fuzz-found"), help="folder for what is found")
    parser.add_argument("--json", type=Path, help="write the figures here")
    args = parser.parse_args()
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    if args.atheris:
        _guided(args.atheris, args.seconds or 60, args.out)
        return 0
    return _mutate(args)


if __name__ == "__main__":
    sys.exit(main())
