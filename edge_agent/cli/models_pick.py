"""`edge-agent models pick`: choose a family's variant on this machine, by measuring, and say why."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, NamedTuple

from edge_agent.cli.parsing import add_json_flag, add_settings, effective, new_verb
from edge_agent.cli.parts import known_catalogue
from edge_agent.cli.table import render
from edge_agent.errors import EdgeAgentError, ResourceError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator, Mapping

    from edge_agent.cli.parsing import Parser, Subparsers
    from edge_agent.inference.picking import Picked
    from edge_agent.models.catalogue import Family, Variant
    from edge_agent.models.fit import Fit, Interval, MachineFacts
    from edge_agent.models.rates import Rates
    from edge_agent.models.selection import Measured
    from edge_agent.models.store import Store
    from edge_agent.settings import Settings
    from hardware import Profile


def add_verbs(verbs: Subparsers) -> None:
    """Describe the verb."""
    parser = new_verb(
        verbs,
        "pick",
        module="pick",
        summary="choose the variant that serves best here, by measuring, and say why",
        description="Predict what each variant takes on this machine, leave out what cannot fit, run two to four of\n"
        "the rest for real in processes that are killed afterwards, and choose. Says of each other variant why it\n"
        "lost. What was measured before and still holds is not measured again. Without a family: all whose files\n"
        "are here. Ends with 75 if a family cannot be served.",
        examples=("edge-agent models pick digits", "edge-agent models pick --explain", "edge-agent models pick --json"),
    )
    parser.add_argument("families", metavar="FAMILY", nargs="*", help="choose for these families")
    parser.add_argument("--explain", action="store_true", help="also say how the predictions came about")
    parser.add_argument("--again", action="store_true", help="measure anew what is known already")
    add_json_flag(parser, "what was predicted, measured and chosen")
    add_machine_settings(parser, "catalogue.url", "catalogue.root_file")


def add_machine_settings(parser: Parser, *others: str) -> None:
    """Add the settings that what a model may take goes by, and others."""
    add_settings(parser, "agent.state_dir", "agent.threads", *others)


class Machine(NamedTuple):
    """What a model may take here.

    Attributes:
        text: one line for people.
        threads: for one inference, at most.
        room_bytes: for one model, reserve taken off.
    """

    text: str
    facts: MachineFacts
    threads: int
    room_bytes: int
    budget_bytes: int


def this_machine(settings: Settings) -> Machine:
    """Look at the machine."""
    from dataclasses import replace  # noqa: PLC0415 - what is for this command alone

    from edge_agent.agent.assemble import summarise  # noqa: PLC0415 - as above
    from edge_agent.models.selection import room_bytes  # noqa: PLC0415 - as above
    from hardware import profile  # noqa: PLC0415 - as above

    found = profile()
    summary = summarise(found)
    return Machine(
        text=summary.text,
        facts=replace(summary.facts, rates=_rates(found, settings)),
        threads=settings.agent.threads or found.usable_threads,
        room_bytes=room_bytes(summary.budget_bytes, settings.agent.memory_share),
        budget_bytes=summary.budget_bytes,
    )


def _rates(found: Profile, settings: Settings) -> Rates | None:
    from dataclasses import replace  # noqa: PLC0415 - as above

    from edge_agent.folders import make_private  # noqa: PLC0415 - as above
    from edge_agent.inference.calibration import calibrate, kept, present_share  # noqa: PLC0415 - as above

    folder = settings.agent.state_dir
    if (known := kept(found, folder)) is not None:
        return replace(known, share=present_share(found))
    print("measuring how fast this machine is, once …", file=sys.stderr)
    try:
        make_private(folder)
        return calibrate(found, folder)
    except EdgeAgentError as error:
        print(f"note: {error.message} Predictions are wide guesses.", file=sys.stderr)
        return None


def run(args: argparse.Namespace) -> int:
    """Choose, and print what came of it."""
    from edge_agent.models.content import Content  # noqa: PLC0415 - what is for this command alone
    from edge_agent.models.store import Store  # noqa: PLC0415 - as above

    settings = effective(args).settings
    catalogue = known_catalogue(settings).catalogue
    named = [catalogue.family(name) for name in args.families]  # an unknown one is said before anything is measured
    machine = this_machine(settings)
    store = Store(content=Content(settings.models.dir))
    families = named or [f for f in catalogue.families if any(store.has(variant) for variant in f.variants)]
    picked = list(_pick(settings, machine, store, families, again=args.again))
    if args.json:
        print(json.dumps(_document(machine, picked), indent=2))
    else:
        print(f"{machine.text}; a model may take {_mb(machine.room_bytes)}")
        for entry in picked:
            print()
            print("\n".join(_lines(entry, explain=args.explain)))
        if not picked:
            print("No family has its files here: fetch one with `edge-agent models pull FAMILY`.")
    served = all(entry.choice.chosen is not None for entry in picked)
    return 0 if served else ResourceError.exit_status


def _pick(
    settings: Settings, machine: Machine, store: Store, families: Iterable[Family], *, again: bool
) -> Iterator[Picked]:
    import logging  # noqa: PLC0415 - for this command alone
    import time  # noqa: PLC0415 - as above

    from edge_agent.agent.lookout import conditions  # noqa: PLC0415 - as above
    from edge_agent.agent.wishes import rules  # noqa: PLC0415 - as above
    from edge_agent.folders import make_private  # noqa: PLC0415 - as above
    from edge_agent.inference.installed import here, runtime_name  # noqa: PLC0415 - as above
    from edge_agent.inference.picking import Limits, Past, pick  # noqa: PLC0415 - as above
    from edge_agent.models import experience_file  # noqa: PLC0415 - as above
    from edge_agent.models.experience import Experience, Place  # noqa: PLC0415 - as above
    from hardware import profile  # noqa: PLC0415 - as above

    logging.getLogger("edge_agent.canary").setLevel(logging.CRITICAL)  # what is worth telling stands in the table
    experience, problem = experience_file.read(settings.agent.state_dir)
    if problem:
        print(f"note: {problem}", file=sys.stderr)
    found = profile()
    kernel = found.kernel_release or ""
    place = Place.of(runtime_name(), kernel, conditions(found), machine.room_bytes, machine.threads)

    def on_run(variant: Variant) -> None:
        print(f"measuring {variant.name} …", file=sys.stderr)

    for family in families:
        known = Experience() if again else experience
        past = Past(known, place, time.time_ns() // 1_000_000)
        yield pick(
            family,
            store,
            machine.facts,
            Limits(machine.room_bytes, machine.threads),
            rules=rules(settings),
            here=here(store, uncontained=settings.agent.uncontained_models == "allow"),
            past=past,
            on_run=on_run,
        )
        if again:
            experience.take(known)
        try:
            make_private(settings.agent.state_dir)
            experience_file.write(settings.agent.state_dir, experience.document())
        except (EdgeAgentError, OSError) as error:
            print(f"note: what was measured cannot be kept: {error}", file=sys.stderr)


# -- for people ---------------------------------------------------------------------------------------------------


def _lines(picked: Picked, *, explain: bool) -> Iterator[str]:
    family, choice = picked.family, picked.choice
    yield f"{family.name}: {family.title}, wanted in {family.latency_target_ms:g} ms"
    measured = {entry.variant.digest: entry for entry in picked.measured}
    lost = {entry.variant.digest: entry.reason for entry in choice.lost}
    chosen = None if choice.chosen is None else choice.chosen.variant
    variants = sorted(family.variants, key=lambda variant: (variant != chosen, variant.digest in lost, variant.name))
    yield render(
        ("", "variant", "predicted", "", "measured", "", "threads", "quality"),
        [_row(variant, picked.fits[variant.digest], measured.get(variant.digest), chosen) for variant in variants],
        right=(2, 3, 4, 5, 6, 7),
    )
    yield f"chosen   {choice.chosen.variant.name}: {choice.why}" if choice.chosen else f"none     {choice.why}"
    for variant in variants:
        if variant.digest in lost:
            yield f"not      {variant.name}: {lost[variant.digest]}"
    if explain:
        for variant in variants:
            yield f"{variant.name} was predicted so:"
            yield from (f"  - {reason}" for reason in picked.fits[variant.digest].reasons)
    yield f"{picked.runs} canary runs in {picked.seconds:.1f} s"


def _row(variant: Variant, fit: Fit, entry: Measured | None, chosen: Variant | None) -> tuple[str, ...]:
    predicted = (_mb(fit.peak_bytes.expected), f"{fit.latency_ms.expected:.3g} ms")
    found = ("", "", "") if entry is None else _found(entry)
    quality = "unknown" if variant.quality is None else f"{variant.quality.value:.4g}"
    return ("*" if variant == chosen else "", variant.name, *predicted, *found, quality)


def _found(entry: Measured) -> tuple[str, str, str]:
    if not entry.golden_ok:
        return "wrong", "", ""
    return _mb(entry.peak_bytes), f"{entry.p50_us / 1000:.3g} ms", str(entry.threads or "")


def _mb(size_bytes: float) -> str:
    return f"{size_bytes / 1e6:.0f} MB"


# -- for programs -------------------------------------------------------------------------------------------------


def _document(machine: Machine, picked: list[Picked]) -> dict[str, Any]:
    return {
        "machine": machine.text,
        "threads": machine.threads,
        "budget_bytes": machine.budget_bytes,
        "room_bytes": machine.room_bytes,
        "families": [_family(entry) for entry in picked],
    }


def _family(picked: Picked) -> dict[str, Any]:
    choice = picked.choice
    measured = {entry.variant.digest: entry for entry in picked.measured}
    lost: Mapping[str, str] = {entry.variant.digest: entry.reason for entry in choice.lost}
    family: Family = picked.family
    return {
        "family": family.name,
        "chosen": None if choice.chosen is None else choice.chosen.variant.name,
        "why": choice.why,
        "latency_target_ms": family.latency_target_ms,
        "runs": picked.runs,
        "seconds": round(picked.seconds, 3),
        "variants": [
            {
                "variant": variant.name,
                "digest": variant.digest,
                "predicted": fit_document(picked.fits[variant.digest]),
                "measured": _measured(measured.get(variant.digest)),
                "lost": lost.get(variant.digest),
            }
            for variant in family.variants
        ],
    }


def fit_document(fit: Fit) -> dict[str, Any]:
    """Return a prediction as JSON: bytes above an idle worker, and milliseconds for one sample."""
    return {
        "load_peak_bytes": _interval(fit.load_peak_bytes, 0),
        "steady_bytes": _interval(fit.steady_bytes, 0),
        "run_peak_bytes": _interval(fit.run_peak_bytes, 0),
        "latency_ms": _interval(fit.latency_ms, 4),
        "reasons": list(fit.reasons),
    }


def _interval(interval: Interval, digits: int) -> dict[str, float]:
    low, expected, high = (round(value, digits or None) for value in (interval.low, interval.expected, interval.high))
    return {"low": low, "expected": expected, "high": high}


def _measured(entry: Measured | None) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {
        "ok": entry.golden_ok,
        "why": entry.why,
        "checked": entry.checked,
        "load_peak_bytes": entry.load_peak_bytes,
        "steady_bytes": entry.steady_bytes,
        "run_peak_bytes": entry.run_peak_bytes,
        "p50_ms": entry.p50_us / 1000,
        "p95_ms": entry.p95_us / 1000,
        "cpu_ms": entry.cpu_us / 1000,
        "threads": entry.threads,
    }
