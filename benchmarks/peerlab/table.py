"""The figures of benchmarks/peers.py as a table for people, and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

OURS = "edge-agent"


def markdown(report: dict[str, Any]) -> str:
    """Return a table: a row for each system, two columns for each workload."""
    names = list(dict.fromkeys([*report["own"], *(w for figures in report["peers"].values() for w in figures)]))
    head = ["system", *(f"{name}: {what}" for name in names for what in ("1 client p50 ms", "8 clients /s", "share"))]
    rows = [head, ["---"] * len(head)]
    systems = {OURS: report["own"], **report["peers"]} if report["own"] else report["peers"]
    for system, figures in systems.items():
        version = next((entry["version"] for entry in figures.values() if "version" in entry), "")
        row = [f"{system} {version}".strip()]
        for name in names:
            entry = figures.get(name, {"skipped": ""})
            if "skipped" in entry:
                row += ["–", "–", entry["skipped"] or "–"]
            else:
                row += [
                    f"{entry['one_p50_ms']:.2f}",
                    f"{entry['many_per_second']:.0f}",
                    f"{entry['share']:.2f}" if name != "tiny" else "",
                ]
        rows.append(row)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw what eight clients get of each system, a panel for each workload; needs matplotlib."""
    import matplotlib as mpl  # noqa: PLC0415 - only where a picture is wanted

    mpl.use("agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415 - behind the choice of a backend

    systems = {OURS: report["own"], **report["peers"]}
    names = list(dict.fromkeys(w for figures in systems.values() for w in figures))
    figure, axes = plt.subplots(1, len(names), figsize=(4.2 * len(names), 3.4), squeeze=False, layout="constrained")
    for axis, name in zip(axes[0], names, strict=True):
        what = "many_per_second" if name == "tiny" else "share"
        found = {s: f[name][what] for s, f in systems.items() if what in f.get(name, {})}
        ordered = sorted(found, key=found.__getitem__)
        colours = ["#c0392b" if system == OURS else "#7f8c8d" for system in ordered]
        axis.barh(ordered, [found[system] for system in ordered], color=colours)
        axis.set_title(f"{name}: " + ("jobs/s" if name == "tiny" else "share of a bare session"), fontsize=10)
        axis.tick_params(labelsize=8)
        if name != "tiny":
            axis.axvline(1.0, color="black", linewidth=0.6)
    figure.suptitle("8 clients, 2 cores; ours alone signs, verifies, stores and reaches other machines", fontsize=9)
    figure.savefig(path, dpi=110)
