"""The picture: predicted against measured memory and time, and how often each way of picking is right."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from . import judge
from .judge import Result

_OURS, _OTHERS = "#1b6ca8", "#b0b7bf"


def draw(results: Sequence[Result], folder: Path, path: Path) -> None:
    """Draw the figures of all results into a PNG file."""
    import matplotlib as mpl  # noqa: PLC0415 - only for the picture

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 - as above

    verdict = judge.judge(results, folder)
    figure, (memory, time, picks) = plt.subplots(1, 3, figsize=(13.5, 4.4), layout="constrained")
    points = {"load": [], "run": []}
    for result in results:
        for digest, outcome in result.document["runs"][0]["outcomes"].items():
            fit = result.document["fits"].get(digest)
            if fit is None or "p50_us" not in outcome:
                continue
            points["load"].append((outcome["load_peak_bytes"] / 1e6, fit["load_peak_bytes"][1] / 1e6))
            points["run"].append((outcome["run_peak_bytes"] / 1e6, fit["run_peak_bytes"][1] / 1e6))
    for what, colour, marker in (("load", _OURS, "o"), ("run", "#d1792b", "s")):
        if points[what]:
            memory.scatter(
                *zip(*points[what], strict=True), s=12, c=colour, marker=marker, alpha=0.5, label=f"{what} peak"
            )
    ends = [8, max([400, *(seen for pairs in points.values() for seen, _ in pairs)])]
    memory.plot(ends, ends, c="black", lw=0.8)
    grid = [ends[0] * (ends[1] / ends[0]) ** (step / 60) for step in range(61)]
    memory.fill_between(
        grid,
        [max(1.0, x - max(12, 0.15 * x)) for x in grid],
        [x + max(12, 0.15 * x) for x in grid],
        color="black",
        alpha=0.08,
        lw=0,
        label="15 % or 12 MB",
    )
    memory.set(xscale="log", yscale="log", xlabel="measured, MB above an idle worker", ylabel="predicted, MB")
    memory.set(xlim=ends, ylim=ends, title="Memory, before any run")
    memory.legend(loc="upper left", fontsize=8)
    colours = ["#1b6ca8", "#d1792b", "#3a9b6c", "#8a4fa3", "#c23b4e", "#7a6a4f", "#4fb3bf", "#555555"]
    for colour, name in zip(colours, verdict.machines, strict=False):
        own = [(seen, predicted) for machine, _, predicted, seen, _ in verdict.latency if machine == name]
        if own:
            time.scatter(*zip(*own, strict=True), s=10, c=colour, alpha=0.5, label=name)
    span = [0.03, 1000]
    time.plot(span, span, c="black", lw=0.8)
    time.fill_between(span, [0.75 * x for x in span], [1.25 * x for x in span], color="black", alpha=0.08, lw=0)
    time.set(xscale="log", yscale="log", xlabel="measured, ms", ylabel="predicted, ms", xlim=span, ylim=span)
    time.set_title("Time of one sample, before any run")
    time.legend(loc="upper left", fontsize=8)
    names = [name for name in verdict.tallies if name != judge.CALM][::-1]
    shares = [
        verdict.tallies[name].as_good / max(1, verdict.tallies[name].cases - verdict.tallies[name].nothing_there)
        for name in names
    ]
    bars = picks.barh(
        names, [100 * share for share in shares], color=[_OURS if n == judge.OURS else _OTHERS for n in names]
    )
    picks.bar_label(bars, labels=[f"{share:.0%}" for share in shares], padding=3, fontsize=8)
    picks.set(xlim=(0, 112), xlabel="% of choices", title="Picks as good as measuring all")
    for axes in (memory, time, picks):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)
