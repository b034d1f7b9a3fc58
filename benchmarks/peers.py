"""Our network beside what people would use instead, in one run on one machine: jobs a second, latency, memory.

    python benchmarks/peers.py [--rounds 5] [--seconds 3] [--only tiny,text] [--own] [--cache DIR] [--json FILE]

Workloads: `tiny` (the built-in digits), `vision` (MobileNetV2's shape, 600 KB of floats in, 8-bit QDQ and fp32) and
`text` (MiniLM-L6's shape, 128 tokens, 8 bits); weights are random but for digits. Of ours, broker (Mosquitto),
coordinator, agent and worker run on this machine as processes of their own, and every job is signed by the
coordinator, its result by the agent, verified, countersigned and stored. A bare onnxruntime session with one thread is
timed in every round: shares are of its throughput in the same round. Clients are closed loops on plain sockets.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["ORT_DISABLE_TELEMETRY"] = "1"
sys.path.insert(0, str(Path(__file__).resolve().parent))

import psutil
from peerlab import others, own, table
from peerlab.load import Load, drive
from peerlab.workloads import CACHE, Bare, Workload, workloads

WARM_UP_SECONDS = 0.5
CLIENTS = 8


def cpu_seconds(processes: dict[str, psutil.Process]) -> dict[str, float]:
    """Return the processor time that each process has used."""
    return {name: sum(process.cpu_times()[:2]) for name, process in processes.items()}


def measure_own(workload: Workload, options: argparse.Namespace, network: own.Own, model: Path) -> dict[str, Any]:
    """Return the figures of one workload on our network: medians over the rounds."""
    bare = Bare(model, workload.inputs)
    expected = bare.outputs()
    variant = network.variant(workload.family)
    call = network.call(workload, variant)
    rounds: list[dict[str, float]] = []
    for number in range(options.rounds + 1):
        seconds = options.seconds if number else min(1.0, options.seconds)
        bare_ms, bare_rate = bare.ms(seconds / 3)
        one = drive(network.url, call, clients=1, seconds=seconds / 2, warm_up_seconds=WARM_UP_SECONDS)
        processes = network.processes()
        before = cpu_seconds(processes)
        many = drive(network.url, call, clients=CLIENTS, seconds=seconds, warm_up_seconds=WARM_UP_SECONDS)
        after = cpu_seconds(processes)
        network.check(many.last_answer, expected)
        if not number:
            continue  # a round to warm up
        whole = many.per_second * (seconds + WARM_UP_SECONDS)
        rounds.append(
            figures(bare_ms, bare_rate, one, many)
            | {f"cpu_ms_{name}": (after[name] - before[name]) * 1000 / whole for name in before}
        )
    found: dict[str, Any] = medians(rounds)
    found |= {f"pss_{name}": round(p.memory_full_info().pss / 2**20, 1) for name, p in network.processes().items()}
    return {"variant": variant, **found}


def figures(bare_ms: float, bare_rate: float, one: Load, many: Load) -> dict[str, float]:
    """Return what one round says."""
    one_ms = statistics.median(one.latencies_ms)
    return {
        "bare_ms": bare_ms,
        "one_p50_ms": one_ms,
        "one_added_ms": one_ms - bare_ms,
        "many_per_second": many.per_second,
        "many_p50_ms": statistics.median(many.latencies_ms),
        "share": many.per_second / bare_rate,
    }


def chosen(options: argparse.Namespace) -> list[Workload]:
    """Return the workloads that were asked for."""
    names = options.only.split(",") if options.only else [workload.name for workload in workloads()]
    return [workload for workload in workloads() if workload.name in names]


def run_own(picked: Sequence[Workload], options: argparse.Namespace) -> dict[str, Any]:
    """Return our figures."""
    found: dict[str, Any] = {}
    for workload in picked:
        repository = own.published(workloads(), options.cache) if workload.form is not None else None
        with own.running(repository, [workload.family]) as network:
            variant = network.variant(workload.family)
            model = own.file_of(repository, workload.family, variant)
            found[workload.name] = measure_own(workload, options, network, model)
        print(workload.name, json.dumps(found[workload.name]), flush=True)
    return found


def measure_peer(peer: others.Peer, workload: Workload, options: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Return the figures of one workload on one peer, medians over the rounds; or why there are none."""
    try:
        environment = others.environment_of(peer, options.cache)
        with tempfile.TemporaryDirectory(prefix="edge-agent-peer-") as folder:
            return _rounds(peer, environment, workload, options, model, Path(folder))
    except (others.SkippedError, OSError, subprocess.SubprocessError) as error:
        return {"skipped": str(error)}


def _rounds(  # noqa: PLR0913, PLR0917 all that a measurement is of
    peer: others.Peer, environment: Path, workload: Workload, options: argparse.Namespace, model: Path, folder: Path
) -> dict[str, Any]:
    bare = Bare(model, workload.inputs)
    found: list[dict[str, float]] = []
    version = others.version_of(peer, environment)
    if peer.env == "celery":
        plan = [f"1x{options.seconds / 2}", f"{CLIENTS}x{options.seconds}"] * options.rounds
        _, bare_rate = bare.ms(options.seconds)
        done = others.celery_loads(environment, workload, model, folder, plan)
        for one, many in zip(done[::2], done[1::2], strict=True):
            found.append(
                {
                    "one_p50_ms": one["p50_ms"],
                    "many_per_second": many["per_second"],
                    "share": many["per_second"] / bare_rate,
                }
            )
        return {"version": version, **medians(found)}
    call = others.request_of(peer, workload)
    with others.running(peer, environment, workload, model, folder) as (url, pid):
        others.loads(url, call, clients=CLIENTS, seconds=1.0)
        for _ in range(options.rounds):
            _, bare_rate = bare.ms(options.seconds / 3)
            one_ms, rate = others.loads(url, call, clients=CLIENTS, seconds=options.seconds)
            found.append({"one_p50_ms": one_ms, "many_per_second": rate, "share": rate / bare_rate})
        return {"version": version, **medians(found), "pss": round(others.pss_mib(pid), 1)}


def medians(found: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each figure."""
    return {key: round(statistics.median(each[key] for each in found), 3) for key in found[0]}


def run_peers(picked: Sequence[Workload], options: argparse.Namespace, own_figures: dict[str, Any]) -> dict[str, Any]:
    """Return the figures of the peers, with the very model file that our agent chose."""
    found: dict[str, Any] = {}
    for workload in picked:
        repository = own.published(workloads(), options.cache) if workload.form is not None else None
        variant = own_figures.get(workload.name, {}).get("variant") or workload.form or "int8-static"
        model = own.file_of(repository, workload.family, variant)
        for peer in others.PEERS:
            if options.peers and not any(name.lower() in peer.name.lower() for name in options.peers.split(",")):
                continue
            found.setdefault(peer.name, {})[workload.name] = measure_peer(peer, workload, options, model)
            print(peer.name, workload.name, json.dumps(found[peer.name][workload.name]), flush=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each load in each round (default 3)")
    parser.add_argument("--only", help="these workloads, separated by commas: tiny,vision-int8,vision-fp32,text")
    parser.add_argument("--peers", help="these peers alone, by parts of their names, separated by commas")
    parser.add_argument("--picture", type=Path, help="draw one there (PNG)")
    parser.add_argument("--own", action="store_true", help="our own network alone")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"for models and environments (default {CACHE})")
    parser.add_argument("--json", type=Path, help="write all figures there")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {
        "load_before": os.getloadavg()[0],
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    report["own"] = {} if options.peers else run_own(chosen(options), options)
    report["peers"] = {} if options.own else run_peers(chosen(options), options, report["own"])
    report["load_after"] = os.getloadavg()[0]
    print(table.markdown(report))
    if options.picture:
        table.draw(report, options.picture)
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
