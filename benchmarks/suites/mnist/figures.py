"""The figures of the suite `mnist`: variances at stages of training, and bounds against time."""

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._reporting.plots import Look, legend_below, looks, panels, plain_ticks
from benchmarks._suite import Results, Row

from .entries import UNIT
from .tables import goal

TITLES = {
    "linear": "200 bits, linear",
    "nonlinear": "200 bits, two hidden layers",
    "categorical": "12 x 16 categories, two hidden layers",
}
# Few, so that the curves can be told apart; the tables have all.
DRAWN = (
    *("LeaveOneOut (2)", "DisARM (2)", "CoupledCategorical (2)", "RODEO (2)"),
    *("RELAX (3)", "StraightThrough (1)", "ReinMax (1)"),
)


def figures(results: Results) -> dict[str, Figure]:
    """The variances of all networks, one estimator a line; the bounds of a few against CPU time."""
    return {"mnist": _variances(results), "mnist_training": _training(results)}


def _variances(results: Results) -> Figure:
    networks = results["settings"]["networks"]
    figure, axes = panels(1, len(networks), size=(4.2, 3.9), sharex=True)
    drawn = looks(map(str, results["settings"]["stages"]))
    for axis, network in zip(axes.flat, networks, strict=True):
        _dots(axis, [row for row in results["rows"] if row["network"] == network], drawn)
        axis.set(title=TITLES[network], xlabel=f"variance relative to {UNIT}", xscale="log")
    title = "training step; ± 3 standard errors; hollow: biased; in brackets: decoder evaluations"
    stages = {step: replace(look, linestyle="none") for step, look in drawn.items()}
    legend_below(figure, stages, title, columns=len(stages))
    return figure


def _dots(axis: Axes, rows: Sequence[Row], drawn: dict[str, Look]) -> None:
    """One line for each estimator, one marker for each stage."""
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    axis.axvline(1, color="#888888", linewidth=0.8)
    for i, (step, look) in enumerate(drawn.items()):
        # Side by side, so that none hides another.
        shift = 0.25 * (i - (len(drawn) - 1) / 2)
        for row in rows:
            if str(row["step"]) != step:
                continue
            axis.errorbar(
                row["relative_variance"],
                names.index(row["estimator"]) + shift,
                xerr=3 * row["relative_variance_se"],
                color=look.color,
                marker=look.marker,
                markerfacecolor=look.color if row["unbiased"] else "white",
                linestyle="none",
            )
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)


def _training(results: Results) -> Figure:
    networks = results["settings"]["networks"]
    figure, axes = panels(1, len(networks), size=(4.0, 3.4))
    drawn = looks(DRAWN)
    times = {(row["network"], row["estimator"]): row["time_us"] for row in results["rows"]}
    for axis, network in zip(axes.flat, networks, strict=True):
        for name, look in drawn.items():
            curve = results["curves"].get(f"{network} {name}")
            if curve is None:
                continue
            seconds = 1e-6 * times[network, name] * np.array(curve["step"])
            elbo = np.mean(curve["test"], axis=0)
            # The start is common to all.
            axis.plot(seconds[1:], elbo[1:], **asdict(look))
        axis.axhline(goal(results, network), color="#888888", linewidth=0.8)
        axis.set(title=TITLES[network], xlabel="CPU time of training (s)", xscale="log")
        plain_ticks(axis.xaxis)
    axes.flat[0].set_ylabel("ELBO on test images (nats)")
    title = f"mean of {results['settings']['seeds']} seeds; gray: reached by all runs of {UNIT}"
    legend_below(figure, drawn, title, columns=4)
    return figure
