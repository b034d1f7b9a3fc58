"""`edge-agent profile`: what this machine is, and what it can carry right now."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from edge_agent.cli.parsing import add_json_flag, add_settings, effective, new_command
from edge_agent.errors import ResourceError, UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from edge_agent.cli.parsing import Subparsers
    from hardware import Profile
    from hardware.benchmark import Measured

GIB = 1024**3


def add_parser(subparsers: Subparsers) -> None:
    """Describe the command."""
    parser = new_command(
        subparsers,
        "profile",
        summary="show what this machine is and what it can carry",
        description="Read the machine and print what it is: board, CPUs, memory, accelerators, heat, power.\n"
        "Nothing is guessed: what cannot be known is null, with the reason under `unknown`.\n"
        "With --measure also what it can do: memory bandwidth, onnxruntime's kernels, disk, heat; under 10 s,\n"
        "kept until onnxruntime, kernel, governor or usable CPUs change. Every field: docs/profile.md.",
        examples=("edge-agent profile", "edge-agent profile --measure", "edge-agent profile --json --root /mnt/card"),
    )
    add_json_flag(parser, "the whole profile")
    parser.add_argument("--root", metavar="DIR", default="/", help="a tree laid out like a root file system")
    parser.add_argument("--measure", action="store_true", help="measure what the machine can do, or show what is kept")
    parser.add_argument("--again", action="store_true", help="with --measure: measure even if figures are kept")
    parser.add_argument(
        "--firmware",
        action="store_true",
        help="also ask a Raspberry Pi's firmware whether it throttles (the kernel then logs a warning)",
    )
    add_settings(parser, "agent.state_dir")


def run(args: argparse.Namespace) -> int:
    """Print the profile."""
    import os  # noqa: PLC0415 the parser of every command imports this module

    from hardware import profile  # noqa: PLC0415 as above

    if not os.path.isdir(args.root):  # noqa: PTH112 pathlib is not needed for it
        raise UsageError(f"--root {args.root} is not a folder.")
    live = os.path.realpath(args.root) == "/"
    if args.measure and not live:
        raise UsageError("--measure measures this machine; it cannot be combined with --root.")
    found = profile(args.root, providers=_providers() if live else None, read_firmware=args.firmware)
    measured = _measure(args, found) if args.measure else None
    if args.json:
        whole = found.to_dict()
        if measured is not None:
            whole["measured"] = measured.to_dict()
        print(json.dumps(whole))
        return 0
    for line in _lines(found, measured):
        print(line)
    return 0


def _providers() -> tuple[str, ...] | None:
    """Ask the installed onnxruntime for its providers, in a process of its own: this one stays light."""
    import os  # noqa: PLC0415 as above
    import subprocess  # noqa: PLC0415 as above
    import sys  # noqa: PLC0415 as above

    code = "import onnxruntime; print(*onnxruntime.get_available_providers())"
    environment = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return tuple(done.stdout.split())


def _measure(args: argparse.Namespace, found: Profile) -> Measured:
    import sys  # noqa: PLC0415 as above

    from hardware.benchmark import BenchmarkError, measure  # noqa: PLC0415 as above

    print("Measuring; this takes up to ten seconds unless it was done before …", file=sys.stderr)
    try:
        return measure(found, effective(args).settings.agent.state_dir, again=args.again)
    except BenchmarkError as error:
        raise ResourceError(f"The measurement failed: {error}", hint="Try again when the machine is idle.") from error


def _lines(found: Profile, measured: Measured | None) -> Iterator[str]:
    facts = found.to_dict()
    for name, text in _rows(facts, found):
        yield f"{name:14}{text}"
    if found.unknown:
        yield ""
        yield "not known"
        for path, reason in sorted(found.unknown.items()):
            yield f"  {path}: {reason}"
    if measured is not None:
        from hardware.verdict import table, verdict  # noqa: PLC0415 as above

        yield ""
        yield from table(measured)
        yield ""
        yield from verdict(found, measured)
    else:
        yield ""
        yield "What it can do: edge-agent profile --measure"


def _rows(facts: dict[str, Any], found: Profile) -> Iterator[tuple[str, str]]:
    board, cpu, memory = facts["board"], facts["cpu"], facts["memory"]
    yield "board", _joined(board["model"] or board["vendor"], board["soc"], board["id"] and f"known as {board['id']}")
    inside = [facts["virtual_machine"] and f"virtual machine ({facts['virtual_machine']})"]
    inside.append(facts["container"] and f"container ({facts['container']})")
    if any(inside):
        yield "inside", _joined(*inside)
    yield "instructions", f"{facts['isa'] or 'unknown'}; onnxruntime's path {found.isa_path}"
    for cluster in cpu["clusters"]:
        mhz = cluster["max_khz"] and f"{cluster['max_khz'] / 1e6:.2f} GHz"
        kind = {True: "big", False: "little", None: None}[cluster["big"]]
        vendor, name = cluster["vendor"], cluster["name"]
        if name and vendor and name.lower().startswith(vendor.lower()):
            vendor = None
        name = _joined(vendor, name, sep=" ")
        yield "cpu", _joined(f"{len(cluster['cpus'])} × {name}", mhz, kind, f"CPUs {_ranges(cluster['cpus'])}")
    quota = cpu["quota_cpus"] and f"quota {cpu['quota_cpus']:g} CPUs"
    yield (
        "usable",
        _joined(f"CPUs {_ranges(cpu['usable'] or [])}", quota, f"{found.usable_threads} threads for inference"),
    )
    features = [name for name, there in cpu["features"].items() if there]
    yield "features", " ".join(features) or "none that matter here"
    total = memory["total_kib"] and f"{memory['total_kib'] * 1024 / GIB:.1f} GiB"
    limit = memory["limit_bytes"] and f"limit {memory['limit_bytes'] / GIB:.2f} GiB ({memory['limit_source']})"
    budget = memory["budget_bytes"]
    free = None if budget is None else f"{budget / 1e9:.2f} GB free for models"
    yield "memory", _joined(total, limit, free)
    for accelerator in facts["accelerators"]:
        use = "usable" if accelerator["usable"] else f"not usable: {accelerator['why']}"
        yield accelerator["kind"], _joined(accelerator["name"], accelerator["driver"], use)
    yield from _environment(facts)


def _environment(facts: dict[str, Any]) -> Iterator[tuple[str, str]]:
    thermal, power, disk = facts["thermal"], facts["power"], facts["disk"]
    if thermal["cpu_celsius"] is not None:
        limit = thermal["limit_celsius"] and f"throttles at {thermal['limit_celsius']:.0f} °C"
        now = "throttled now" if thermal["throttled"] else None
        yield "heat", _joined(f"{thermal['cpu_celsius']:.0f} °C", limit, now)
    watts = power["watts"] and f"{power['watts']:.1f} W ({power['watts_source']})"
    bounds = [power[f"{name}_watts"] and f"{power[f'{name}_watts']:g} W {name}" for name in ("idle", "max")]
    if any(bounds) and not watts:
        watts = _joined(*bounds) + " (board file)"
    charge = power["battery_percent"] is not None and f"battery {power['battery_percent']:.0f} %"
    yield "power", _joined(power["source"], charge, watts)
    if disk["free_bytes"] is not None:
        yield "disk", _joined(f"{disk['free_bytes'] / GIB:.1f} GiB free", disk["kind"], disk["filesystem"])


def _joined(*parts: object, sep: str = ", ") -> str:
    return sep.join(str(part) for part in parts if part) or "unknown"


def _ranges(numbers: list[int]) -> str:
    """Write 0,1,2,5 as 0-2,5."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in spans) or "unknown"
