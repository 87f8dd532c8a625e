"""The figures: exact and measured variances over k and over sigma."""

from dataclasses import replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._reporting.plots import CAPTION, legend_below, looks, panels
from benchmarks._suite import Results, Row

from . import exact
from .exact import COSTS
from .problem import ENTRIES, FIXED_K, MU, PARAMETERS

SYMBOLS = {"k": "k", "mu": "μ", "sigma": "σ"}


def figures(results: Results) -> dict[str, Figure]:
    """Exact variances as lines, measured ones as points, over k and over sigma."""
    return {"gaussian": _figure(results, "k"), "gaussian_sigma": _figure(results, "sigma")}


def _figure(results: Results, over: str) -> Figure:
    figure, axes = panels(len(PARAMETERS), len(COSTS))
    for i, parameter in enumerate(PARAMETERS):
        for j, cost in enumerate(COSTS):
            rows = [
                row
                for row in results["rows"]
                if (row["over"], row["cost"], row["parameter"]) == (over, cost, parameter)
            ]
            _panel(axes[i, j], rows, cost, parameter, over)
        axes[i, 0].set_ylabel(f"variance of one gradient\n(d cost / d {SYMBOLS[parameter]})²")
    legend_below(figure, looks(ENTRIES), CAPTION, columns=4)
    return figure


def _panel(axis: Axes, rows: list[Row], cost: str, parameter: str, over: str) -> None:
    values = [row[over] for row in rows]
    grid = np.linspace(min(values), max(values), 121)
    fixed = exact.Problem(COSTS[cost], FIXED_K[cost], MU, 1.0, parameter)
    for name, look in looks(ENTRIES).items():
        entry = ENTRIES[name]
        curve = [entry.variance(replace(fixed, **{over: x}), entry.num_samples) for x in grid]
        look.curve(axis, grid, curve)
        mine = [row for row in rows if row["estimator"] == name]
        look.points(axis, [row[over] for row in mine], mine)
    setting = "σ = 1" if over == "k" else f"k = {FIXED_K[cost]:g}"
    axis.set(title=f"{COSTS[cost].formula}, μ = {MU:g}, {setting}", xlabel=SYMBOLS[over])
    axis.set_yscale("log")
    # The measure-valued derivative of the square along mu has no variance at k = mu.
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, 1e-5 * high), high)
