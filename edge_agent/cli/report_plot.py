"""Draws the report as a picture: jobs, energy and credit, by day or month."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edge_agent.errors import StateError, UsageError

if TYPE_CHECKING:
    from edge_agent.agent.account.summary import Summary


def draw(shown: Summary, path: str) -> None:
    """Write a PNG.

    Raises:
        UsageError: matplotlib is not installed, or the file is no PNG by its name.
        StateError: the file cannot be written.
    """
    if not path.endswith(".png"):
        raise UsageError(f"--plot writes PNG, and {path[:200]!r} does not end in .png.", hint="Name it FILE.png.")
    try:
        import matplotlib as mpl  # noqa: PLC0415 half a second that others need not wait for
    except ImportError:
        raise UsageError(
            "--plot needs matplotlib, which is not installed.",
            hint="pip install 'edge-agent[plot]', or leave --plot away: the report draws bars in the terminal, too.",
        ) from None
    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415 as above

    periods = shown.by_period()
    names = list(periods)
    figure, (above, below, last) = plt.subplots(3, 1, sharex=True, figsize=(9, 7), layout="constrained")
    families = sorted({family for _, family in shown.rows if family})
    bottom = [0.0] * len(names)
    for family in families:
        heights = [float(row.finished) if (row := shown.rows.get((name, family))) else 0.0 for name in names]
        above.bar(names, heights, bottom=bottom, label=family)
        bottom = [low + more for low, more in zip(bottom, heights, strict=True)]
    above.set_ylabel("jobs")
    if families:
        above.legend(fontsize="small")
    measured = [row.measured_joules / 3.6e6 for row in periods.values()]
    below.bar(names, measured, label="measured")
    below.bar(names, [row.estimated_joules / 3.6e6 for row in periods.values()], bottom=measured, label="estimated")
    below.set_ylabel("kWh beyond the idle machine")
    below.legend(fontsize="small")
    last.bar(names, [float(row.credit) for row in periods.values()])
    last.set_ylabel("credit, Mmac")
    last.tick_params(axis="x", rotation=60)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise StateError(f"{path} cannot be written: {error.strerror}") from error
    finally:
        plt.close(figure)
