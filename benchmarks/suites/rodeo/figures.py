"""The figure: the variances of both networks."""

from collections.abc import Sequence
from dataclasses import replace

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._reporting.plots import Look, legend_below, looks, panels
from benchmarks._suite import Results, Row

from .entries import UNIT


def figures(results: Results) -> dict[str, Figure]:
    """The variances of both networks, one estimator a line."""
    networks = results["settings"]["networks"]
    figure, axes = panels(1, len(networks), size=(4.6, 3.3), sharex=True, sharey=True)
    drawn = looks(map(str, results["settings"]["stages"]))
    for axis, network in zip(axes.flat, networks, strict=True):
        _dots(axis, [row for row in results["rows"] if row["network"] == network], drawn)
        layers = "one layer" if network == "linear" else "three layers"
        axis.set(title=f"{network}, {layers}", xlabel=f"variance relative to {UNIT}", xscale="log")
    title = "training step; ± 3 standard errors; in brackets: evaluations of the decoder"
    stages = {step: replace(look, linestyle="none") for step, look in drawn.items()}
    legend_below(figure, stages, title, columns=len(stages))
    return {"rodeo": figure}


def _dots(axis: Axes, rows: Sequence[Row], drawn: dict[str, Look]) -> None:
    """One line for each estimator, one marker for each stage."""
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    axis.axvline(1, color="#888888", linewidth=0.8)
    for i, (step, look) in enumerate(drawn.items()):
        found = [row for row in rows if str(row["step"]) == step]
        # Side by side, so that none hides another.
        shift = 0.25 * (i - (len(drawn) - 1) / 2)
        axis.errorbar(
            [row["relative_variance"] for row in found],
            [names.index(row["estimator"]) + shift for row in found],
            xerr=[3 * row["relative_variance_se"] for row in found],
            color=look.color,
            marker=look.marker,
            linestyle="none",
        )
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
