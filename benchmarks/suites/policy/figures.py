"""The figures of the suite `policy`."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from benchmarks._reporting.plots import Look, label_ends, legend_below, looks, panels
from benchmarks._suite import Results, Row


def figures(results: Results) -> dict[str, Figure]:
    """Variance and bias of the recipes; their learning curves; estimators of a divergence."""
    return {
        "policy": _recipes(results["rows"]),
        "policy_training": _training(results),
        "policy_divergence": _divergence(results["rows"]),
    }


def _of(rows: Sequence[Row], objective: str) -> list[Row]:
    return [row for row in rows if row["objective"] == objective]


def _recipes(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(2, 2, size=(4.6, 3.3), sharey=True)
    drawn = _stages(rows, "bandit")
    for (variance, angle), objective in zip(axes, ("on", "off"), strict=True):
        found = _of(rows, f"bandit, {objective} policy")
        _dots(variance, found, drawn, lambda row: row["relative_variance"])
        _log(variance)
        variance.set(
            title=f"{objective} policy: variance at equal mean",
            xlabel="variance relative to RLOO on policy",
        )
        _dots(angle, found, drawn, _angle)
        angle.set(
            title=f"{objective} policy: direction of the mean (noise: about 1)",
            xlabel="angle to the exact gradient, degrees",
        )
    legend_below(figure, _named(drawn), "batch", columns=3)
    return figure


def _angle(row: Row) -> float:
    return 0.0 if row["cosine"] is None else float(np.degrees(np.arccos(row["cosine"])))


def _stages(rows: Sequence[Row], objective: str) -> dict[float, Look]:
    """A look for each setting, the same in all panels."""
    found = [row for row in rows if row["objective"].startswith(objective)]
    ats = sorted({row["at"] for row in found})
    return dict(zip(ats, looks(map(str, ats)).values(), strict=True))


def _named(drawn: Mapping[float, Look]) -> dict[str, Look]:
    return {f"{at:g}": replace(look, linestyle="none") for at, look in drawn.items()}


def _dots(
    axis: Axes,
    rows: Sequence[Row],
    drawn: Mapping[float, Look],
    value: Callable[[Row], float],
) -> None:
    """One line for each estimator, one marker for each setting."""
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    for i, (at, look) in enumerate(drawn.items()):
        found = [row for row in rows if row["at"] == at]
        # Side by side, so that none hides another.
        shift = 0.25 * (i - (len(drawn) - 1) / 2)
        axis.plot(
            [value(row) for row in found],
            [names.index(row["estimator"]) + shift for row in found],
            color=look.color,
            marker=look.marker,
            linestyle="none",
        )
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)


def _log(axis: Axes) -> None:
    """A logarithmic axis with labels that do not overlap and a line at 1."""
    axis.axvline(1, color="#888888", linewidth=0.8)
    axis.set_xscale("log")
    axis.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axis.xaxis.set_major_formatter("{x:g}")
    axis.xaxis.set_minor_formatter(NullFormatter())


def _training(results: Results) -> Figure:
    settings = results["settings"]
    figure, axes = panels(1, len(settings["steps"]), size=(5.2, 4.2), sharey=True)
    names = [name.rsplit(", ", 1)[0] for name in results["curves"]]
    drawn = looks(dict.fromkeys(names))
    for axis, steps in zip(axes.flat, settings["steps"], strict=True):
        ends = {}
        for i, (name, look) in enumerate(drawn.items()):
            curve = results["curves"][f"{name}, {steps}"]
            wrong = 1 - np.mean(curve["reward"], axis=0)
            # Markers at different places, to tell curves apart that run close together.
            axis.plot(curve["batch"], wrong, **asdict(look), markevery=(i % 5, 5))
            ends[name] = (curve["batch"][-1], wrong[-1], look.color)
        updates = "one step" if steps == 1 else f"{steps} steps"
        axis.set(title=f"{updates} of Adam per batch", xlabel="batch", yscale="log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 3.0, 5.0)))
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter(NullFormatter())
    label_ends(axis, ends)
    axes.flat[0].set_ylabel(f"1 - expected reward, all digits, mean of {settings['seeds']} seeds")
    return figure


def _divergence(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(2, 3, size=(3.6, 2.9), sharey=True)
    drawn = _stages(rows, "divergence")
    for (variance, bias, value), objective in zip(axes, ("on", "off"), strict=True):
        found = _of(rows, f"divergence, {objective} policy")
        _dots(variance, found, drawn, lambda row: row["relative_variance"])
        _log(variance)
        variance.set(
            title=f"{objective} policy: variance of the gradient",
            xlabel="variance relative to kl_estimate",
        )
        _dots(bias, found, drawn, lambda row: row["relative_bias"])
        bias.set(title=f"{objective} policy: bias of the gradient", xlabel="|bias| / |gradient|")
        _dots(value, found, drawn, _error_of_the_value)
        _log(value)
        value.set(
            title=f"{objective} policy: error of the value", xlabel="root mean square error / KL"
        )
    legend_below(figure, _named(drawn), "KL(policy || reference), nats", columns=3)
    return figure


def _error_of_the_value(row: Row) -> float:
    square = row["value_bias"] ** 2 + row["value_variance"]
    return float(np.sqrt(square) / row["at"])
