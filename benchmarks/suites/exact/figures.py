"""The figure of the suite `exact`: four of its problems, by their size."""

from dataclasses import asdict

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._reporting.plots import looks, panels
from benchmarks._suite import Results

from . import group_size, particles, random_walk, unrolls


def figures(results: Results) -> dict[str, Figure]:
    """Error by group size, bias by particles, deviation by length of a walk and of an unroll."""
    figure, axes = panels(2, 2, size=(4.4, 3.0))
    _groups(axes[0, 0], results)
    _lines(axes[0, 1], results, particles.TABLE, "bias", particles.LOG_LIKELIHOOD)
    axes[0, 1].set(
        title="particle filter: gradient of log Z", xlabel="particles", ylabel="relative bias"
    )
    for axis, problem in zip(axes[1], (random_walk, unrolls), strict=True):
        _lines(axis, results, problem.TABLE, "deviation")
        axis.set_ylabel("relative standard deviation")
        axis.legend(fontsize=7, loc="upper left")
    # Room for the legends above the lines; a path gradient of one step has no noise at all.
    axes[1, 0].set(title="random walk", xlabel="steps", ylim=(0.5, 40))
    axes[1, 1].set(title="unroll of a chaotic map", xlabel="steps", ylim=(1e-2, 1e8))
    return {"exact": figure}


def _groups(axis: Axes, results: Results) -> None:
    case = "right with probability 0.1"
    rows = [
        row for row in results["rows"] if row["table"] == group_size.TABLE and row["case"] == case
    ]
    names = (group_size.ORACLE, group_size.LEAVE_ONE_OUT, group_size.GROUP_MEAN)
    for name, look in looks(names).items():
        found = [row for row in rows if row["estimator"] == name]
        sizes = [row["size"] for row in found]
        errors = [row["bias"] ** 2 + row["deviation"] ** 2 for row in found]
        axis.plot(sizes, np.array(errors) * sizes, label=name, **asdict(look))
    axis.set_xscale("log", base=2)
    axis.set(title=f"policy, {case}", xlabel="group size G", ylabel="G × relative squared error")
    axis.legend(fontsize=7)


def _lines(axis: Axes, results: Results, table: str, what: str, *only: str) -> None:
    rows = [row for row in results["rows"] if row["table"] == table]
    names = only or tuple(dict.fromkeys(row["estimator"] for row in rows))
    for name, look in looks(names).items():
        found = [row for row in rows if row["estimator"] == name]
        x, y = ([row[column] for row in found] for column in ("size", what))
        axis.plot(x, y, label=name, **asdict(look))
    axis.set(xscale="log", yscale="log")
    axis.set_xticks(x, map(str, x))
    axis.minorticks_off()
