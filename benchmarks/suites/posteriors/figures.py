"""The figures of the suite `posteriors`: distances from the truth, and bounds against time."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._reporting.claims import rows
from benchmarks._reporting.plots import Look, legend_below, looks, panels, plain_ticks
from benchmarks._suite import Results, Row

from .families import MEAN_FIELD
from .forms import DREG, FORMS, SCORE, STICKING, TOTAL, WEIGHTED
from .tables import evidence

# Few, so that the curves can be told apart; the tables have all.
DRAWN = (TOTAL, STICKING, SCORE, WEIGHTED, DREG)


def figures(results: Results) -> dict[str, Figure]:
    """Distances of independent components, by objective, and their ELBO against CPU time."""
    return {"posteriors": _distances(results), "posteriors_training": _training(results)}


def _distances(results: Results) -> Figure:
    panels_of: dict[str, tuple[Callable[[Row], float], str]] = {
        "ELBO below the log evidence (nats)": (
            lambda row: evidence(results, row["target"])[0] - row["elbo"],
            "log",
        ),
        "error of means (true deviations)": (lambda row: row["mean_error"], "log"),
        "ratio of deviations to the true ones": (lambda row: row["deviation_ratio"], "linear"),
    }
    figure, axes = panels(1, 3, size=(3.9, 3.3), sharey=True)
    drawn = {
        name: replace(look, linestyle="none")
        for name, look in looks(results["settings"]["targets"]).items()
    }
    for axis, (label, (value, scale)) in zip(axes.flat, panels_of.items(), strict=True):
        axis.set(xlabel=label, xscale=scale)
        if scale == "log":
            plain_ticks(axis.xaxis, (1, 3))
        for i, (target, look) in enumerate(drawn.items()):
            found = [
                row
                for row in rows(results, target=target, family=MEAN_FIELD)
                if row["elbo"] is not None
            ]
            # Side by side, so that none hides another.
            shift = 0.14 * (i - (len(drawn) - 1) / 2)
            places = [list(FORMS).index(row["estimator"]) + shift for row in found]
            axis.plot([value(row) for row in found], places, **asdict(look))
    axes.flat[-1].axvline(1, color="#888888", linewidth=0.8)
    axes.flat[0].set_yticks(range(len(FORMS)), list(FORMS))
    axes.flat[0].set_ylim(len(FORMS) - 0.5, -0.5)
    legend_below(figure, drawn, "posterior; independent components", columns=len(drawn))
    return figure


def _training(results: Results) -> Figure:
    targets = results["settings"]["targets"]
    columns = min(3, len(targets))
    figure, axes = panels(-(-len(targets) // columns), columns, size=(3.6, 2.7))
    ran = {row["estimator"] for row in results["rows"]}
    drawn = looks(form for form in DRAWN if form in ran)
    for axis, target in zip(axes.flat, targets, strict=False):
        _runs(axis, results, target, drawn)
    for axis in axes.flat[len(targets) :]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("ELBO below evidence (nats)")
    title = "mean of the runs that do not diverge; independent components"
    legend_below(figure, drawn, title, columns=3)
    return figure


def _runs(axis: Axes, results: Results, target: str, drawn: Mapping[str, Look]) -> None:
    place, (best, _) = f"{target}, {MEAN_FIELD}", evidence(results, target)
    times = results["curves"][f"{place}: times"]
    for i, (form, look) in enumerate(drawn.items()):
        curve = results["curves"][f"{place}: {form}"]
        seconds = 1e-6 * times[form] * np.array(curve["step"])
        landed = [run for run in curve["along"] if run[-1] is not None]
        gap = best - np.mean(np.array(landed, float), axis=0)
        # The start is common to all.
        axis.plot(seconds[1:], gap[1:], **asdict(look), markevery=(i, len(drawn)))
    axis.set(title=target, xlabel="CPU time of training (s)", xscale="log", yscale="log")
    plain_ticks(axis.xaxis)
    low, high = axis.get_ylim()
    plain_ticks(axis.yaxis, (1, 2, 3, 5, 7) if high < 20 * low else (1, 3))
