"""The figure: variance and ELBO by the number of samples."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._reporting.plots import Look, legend_below, looks, panels
from benchmarks._suite import Results

from .entries import ENTRIES
from .tables import last_elbo


def figures(results: Results) -> dict[str, Figure]:
    """The variance and the ELBO by samples, and the ELBO by evaluations of f."""
    figure, axes = panels(1, 3)
    variance, elbo, cost = axes.flat
    last, drawn = results["settings"]["stages"][-1], looks(ENTRIES)
    for name, look in drawn.items():
        rows = [r for r in results["rows"] if r["estimator"] == name and r["step"] == last]
        samples = [row["samples"] for row in rows]
        look.curve(variance, samples, [row["variance"] for row in rows])
        look.points(variance, samples, rows)
        runs = np.array([last_elbo(results, name, n) for n in samples])
        _band(elbo, look, samples, runs)
        _band(cost, look, [row["evaluations"] for row in rows], runs)
    variance.set(title=f"variance at step {last} of one run", xlabel="samples", yscale="log")
    variance.set_ylabel("nats², all data, 62 components")
    end = results["settings"]["num_steps"]
    elbo.set(title=f"ELBO after {end} steps of training", xlabel="samples", ylabel="nats, all data")
    cost.set(title=f"ELBO after {end} steps of training", xlabel="evaluations of f for a step")
    for axis in axes.flat:
        axis.set_xscale("log")
    seeds = results["settings"]["seeds"]
    title = f"± 3 standard errors; ELBO: median and range of {seeds} seeds, where none went astray"
    legend_below(figure, drawn, title, columns=4)
    return {"sample_size": figure}


def _band(axis: Axes, look: Look, x: list[int], runs: np.ndarray) -> None:
    """The median of the seeds, runs [x, seeds], and their range."""
    axis.plot(x, np.median(runs, axis=1), color=look.color, marker=look.marker)
    axis.fill_between(x, runs.min(axis=1), runs.max(axis=1), color=look.color, alpha=0.15)
