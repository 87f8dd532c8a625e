"""The figure: training curves, and variances at the stages of one run."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._models.logistic_training import (
    REFERENCE,
)
from benchmarks._reporting.plots import Look, legend_below, looks, panels
from benchmarks._suite import Results


def figures(results: Results) -> dict[str, Figure]:
    """The ELBO and the accuracy of each run, and the variances at each stage."""
    figure, axes = panels(1, 3)
    elbo, accuracy, variance = axes.flat
    drawn = looks(results["curves"])
    for i, (name, look) in enumerate(drawn.items()):
        curve = results["curves"][name]
        look.run(elbo, curve["step"], np.asarray(curve["elbo"], float), i)
        look.run(accuracy, curve["step"], 100 * np.asarray(curve["accuracy"], float), i)
    # The start is far below: zoomed in on what follows, where the estimators differ.
    start = results["curves"][REFERENCE]["elbo"][0]
    elbo.set(
        title=f"ELBO, exact (starts at {start:.0f})", ylabel="nats, all data", ylim=_zoom(elbo)
    )
    accuracy.set(title="accuracy of the mean", ylabel="%, all data", ylim=_zoom(accuracy))
    for axis in (elbo, accuracy):
        axis.set_xlabel("training step")
    _variances(variance, results, drawn)
    legend_below(figure, drawn, "", columns=3)
    return {"logistic_regression": figure}


def _zoom(axis: Axes) -> tuple[float, float]:
    """Limits that hold all curves from their first tenth on."""
    curves = [np.asarray(line.get_ydata(), float) for line in axis.lines]
    late = np.concatenate([curve[len(curve) // 10 :] for curve in curves])
    low, high = float(np.nanmin(late)), float(np.nanmax(late))
    return low - 0.05 * (high - low), high + 0.05 * (high - low)


def _variances(axis: Axes, results: Results, drawn: Mapping[str, Look]) -> None:
    stages = {stage: i for i, stage in enumerate(results["settings"]["stages"])}
    for i, (name, look) in enumerate(drawn.items()):
        rows = [row for row in results["rows"] if row["estimator"] == name]
        shift = (i - (len(drawn) - 1) / 2) * 0.1
        look.points(axis, [stages[row["step"]] + shift for row in rows], rows)
    axis.set_xticks(list(stages.values()), [str(stage) for stage in stages])
    axis.grid(visible=False, axis="x")
    axis.set(
        title=f"variance, {results['settings']['num_samples']} samples (± 3 s.e.)",
        xlabel="step of one common run",
        ylabel="nats², all data, 62 components",
        yscale="log",
    )
