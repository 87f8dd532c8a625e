"""The figure: training curves, and variances at the stages of one run."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._models.logistic_training import (
    REFERENCE,
)
from benchmarks._reporting.plots import looks, panels
from benchmarks._suite import Results


def figures(results: Results) -> dict[str, Figure]:
    """The ELBO of each run, and the variances at each stage."""
    figure, axes = panels(1, 2, size=(4.6, 2.9))
    elbo, variance = axes.flat
    drawn = looks(results["curves"])
    for i, (name, look) in enumerate(drawn.items()):
        curve = results["curves"][name]
        look.run(elbo, curve["step"], np.asarray(curve["elbo"], float), i, label=name)
    # The start is far below: zoomed in on what follows, where the estimators differ.
    start = results["curves"][REFERENCE]["elbo"][0]
    elbo.set(
        title=f"ELBO while training (starts at {start:.0f})",
        xlabel="training step",
        ylabel="exact ELBO, all data (nats)",
        ylim=_zoom(elbo),
    )
    elbo.legend(loc="lower right", handlelength=1.2)
    _variances(variance, results, list(drawn))
    return {"logistic_regression": figure}


def _zoom(axis: Axes) -> tuple[float, float]:
    """Limits that hold all curves from their first tenth on."""
    curves = [np.asarray(line.get_ydata(), float) for line in axis.lines]
    late = np.concatenate([curve[len(curve) // 10 :] for curve in curves])
    low, high = float(np.nanmin(late)), float(np.nanmax(late))
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _variances(axis: Axes, results: Results, names: list[str]) -> None:
    """One line for each estimator, one marker for each stage of the run."""
    for stage, look in looks(map(str, results["settings"]["stages"])).items():
        rows = [row for row in results["rows"] if str(row["step"]) == stage]
        axis.errorbar(
            [row["variance"] for row in rows],
            [names.index(row["estimator"]) for row in rows],
            xerr=[3 * row["variance_se"] for row in rows],
            color=look.color,
            marker=look.marker,
            linestyle="none",
            label=f"step {stage}",
        )
    axis.set_yticks(range(len(names)), names)
    axis.set(
        title=f"variance of one gradient of {results['settings']['num_samples']} samples, ± 3 s.e.",
        xlabel="variance summed over 62 components (nats²)",
        xscale="log",
        ylim=(len(names) - 0.5, -1.3),
    )
    axis.legend(loc="upper center", ncols=3, columnspacing=1, handletextpad=0.3)
