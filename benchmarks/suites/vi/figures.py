"""The figures of the suite `vi`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._reporting.plots import Look, legend_below, looks, panels
from benchmarks._suite import Results, Row

from . import bounds as vi_bounds
from . import bounds_exact, minibatch
from .comparison import beside_pathwise
from .targets import TARGETS
from .techniques import PLAIN

PARAMETERS = {"mean": "along the mean", "log_scale": "along the log of the scale"}
CAPTION = (
    "step of one common run; ± 3 standard errors; shaded: above 1; at the edge: smaller than shown"
)
# Below this a ratio is drawn at the edge: what is left is nearly rounding.
FLOOR = 1e-3
# Forms whose ratios are 0.86 to 1.64 times those of Pathwise: they are in the table only.
ALIKE = "sticking the landing"


def figures(results: Results) -> dict[str, Figure]:
    """Variance ratios of techniques and of forms, training curves, and bounds."""
    rows = results["rows"]
    logistic = _of(rows, target="logistic")
    networks = [target for target in TARGETS if target != "logistic"]
    groups = {TARGETS[t].title: _of(rows, target=t, form="Pathwise") for t in networks}
    groups["minibatches of 32, breast cancer"] = _of(rows, target=minibatch.TARGET)
    forms = beside_pathwise(rows)
    shown = [form for form in _values(logistic, "form") if not form.startswith(ALIKE)]
    found = {form: _of(logistic, form=form) for form in shown}
    beside = {TARGETS[target].title: _of(forms, target=target) for target in TARGETS}
    return {
        "vi": _ratios(found, "estimator", "no technique"),
        "vi_networks": _ratios(groups, "estimator", "no technique"),
        "vi_forms": _ratios(beside, "form", "Pathwise"),
        "vi_training": _training(results),
        "vi_bounds": _bounds(_of(rows, target=vi_bounds.TARGET)),
    }


def _of(rows: Sequence[Row], **values: Any) -> list[Row]:
    return [row for row in rows if all(row[name] == value for name, value in values.items())]


def _values(rows: Sequence[Row], column: str) -> list[Any]:
    return list(dict.fromkeys(row[column] for row in rows))


def _ratios(groups: Mapping[str, Sequence[Row]], column: str, unit: str) -> Figure:
    """A row of panels per group, a column per parameter, a line per name."""
    names = {
        group: [name for name in _values(rows, column) if name != PLAIN]
        for group, rows in groups.items()
    }
    lines = [len(found) + 3 for found in names.values()]
    figure, axes = panels(
        len(groups),
        len(PARAMETERS),
        size=(3.4, 0.2 * sum(lines) / len(lines)),
        sharex=True,
        sharey="row",
        gridspec_kw={"height_ratios": lines},
    )
    stages = [at for rows in groups.values() for at in _values(rows, "at")]
    drawn = looks(str(at) for at in dict.fromkeys(stages))
    for line, (group, rows) in zip(axes, groups.items(), strict=True):
        for axis, parameter in zip(line, PARAMETERS, strict=True):
            for k, (at, look) in enumerate(drawn.items()):
                found = [r for r in _of(rows, parameter=parameter) if str(r["at"]) == at]
                found = [row for row in found if row[column] in names[group]]
                y = [names[group].index(row[column]) + 0.25 * (k - 1) for row in found]
                _points(axis, found, y, look)
            axis.set(xscale="log")
        line[0].set_title(group, loc="left")
        line[0].set_yticks(range(len(names[group])), names[group])
        line[0].set_ylim(len(names[group]) - 0.4, -0.6)
    for axis in axes.flat:
        _shade(axis)
    for first, last, title in zip(axes[0], axes[-1], PARAMETERS.values(), strict=True):
        # One line above the name of the group.
        first.set_title(f"{title}\n")
        last.set_xlabel(f"variance relative to {unit}")
    legend_below(figure, drawn, CAPTION, columns=len(drawn))
    return figure


def _points(axis: Axes, rows: Sequence[Row], y: Sequence[float], look: Look) -> None:
    ratios = np.array([row["relative_variance"] for row in rows], float)
    errors = np.array([row["relative_variance_se"] for row in rows], float)
    axis.errorbar(
        np.maximum(ratios, FLOOR),
        y,
        xerr=np.where(ratios > FLOOR, 3 * errors, 0),
        color=look.color,
        marker=look.marker,
        linestyle="none",
        elinewidth=0.9,
    )


def _shade(axis: Axes) -> None:
    """Shades the region in which a technique increases the variance."""
    low, high = axis.get_xlim()
    high = max(high, 2.0)
    axis.axvspan(1, high, color="#CC79A7", alpha=0.15, linewidth=0)
    axis.axvline(1, color="#888888", linewidth=0.8)
    axis.set_xlim(low, high)


def _training(results: Results) -> Figure:
    figure, axes = panels(1, len(TARGETS), size=(3.6, 3.0))
    names = list(dict.fromkeys(label.split(": ", 1)[1] for label in results["curves"]))
    drawn = looks(names)
    for axis, target in zip(axes.flat, TARGETS, strict=True):
        curves = {
            name: results["curves"][f"{target}: {name}"]
            for name in names
            if f"{target}: {name}" in results["curves"]
        }
        elbos = {name: np.asarray(curve["elbo"], float) for name, curve in curves.items()}
        # As the distance to the best value that any run has reached, and a little more.
        best = max(float(np.max(elbo)) for elbo in elbos.values()) + 0.01
        for i, (name, elbo) in enumerate(elbos.items()):
            steps, gaps = curves[name]["step"][1:], best - elbo[:, 1:]
            drawn[name].run(axis, steps, np.median(gaps, axis=0), i)
            axis.fill_between(
                steps, gaps.min(axis=0), gaps.max(axis=0), color=drawn[name].color, alpha=0.08
            )
        axis.set(
            title=f"{TARGETS[target].title}\nbest ELBO {best:.1f}",
            xlabel="training step",
            yscale="log",
        )
    axes[0, 0].set_ylabel("nats below the best, all data")
    run = results["settings"]["training"]
    title = f"{run['draws']} draws for each step; median and range of {run['seeds']} seeds"
    legend_below(figure, drawn, title, columns=4)
    return figure


def _bounds(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(1, 2, size=(3.8, 3.0))
    ratio, bias = axes.flat
    drawn = looks(_values(rows, "form"))
    for name, look in drawn.items():
        found = _of(rows, form=name)
        ks = [row["at"] for row in found]
        snr, errors = (np.array([row[c] for row in found], float) for c in ("snr", "snr_se"))
        ratio.errorbar(ks, snr, 3 * errors, color=look.color, marker=look.marker, linestyle="none")
        if not found[-1]["unbiased"]:
            biased = [row for row in found if not row["unbiased"]]
            look_at = [row["relative_bias"] for row in biased]
            bias.plot([row["at"] for row in biased], look_at, color=look.color, marker=look.marker)
    grid = np.geomspace(1, max(row["at"] for row in rows), 50)
    limits = {
        "IWAE": bounds_exact.iwae_limit() / np.sqrt(grid),
        "DReG": bounds_exact.dreg_limit() * np.sqrt(grid),
    }
    for name in limits.keys() & drawn.keys():
        drawn[name].curve(ratio, grid, limits[name])
    ratio.set(title="linear-Gaussian model", ylabel="|mean| / standard deviation, d/db")
    bias.set(title="bias of sticking the landing", ylabel="|bias| / |derivative|")
    for axis in axes.flat:
        axis.set(xlabel="samples of one bound, K", xscale="log", yscale="log")
    title = "points: measured, ± 3 standard errors; lines: exact for large K"
    legend_below(figure, drawn, title, columns=3)
    return figure
