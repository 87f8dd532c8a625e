"""The figures of the suite `policy`."""

from collections.abc import Callable, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ._plots import legend_below, looks, panels
from ._suite import Results, Row


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
    for (variance, bias), objective in zip(axes, ("on", "off"), strict=True):
        found = _of(rows, f"bandit, {objective} policy")
        _dots(variance, found, lambda row: row["relative_variance"], "batch")
        variance.axvline(1, color="#888888", linewidth=0.8)
        variance.set(
            title=f"{objective} policy: variance at equal mean",
            xlabel="variance / that of RLOO on policy",
            xscale="log",
        )
        _dots(bias, found, _angle, "batch")
        bias.set(
            title=f"{objective} policy: direction of the mean",
            xlabel="angle to the exact gradient, degrees",
            xlim=(-1, None),
        )
    return figure


def _angle(row: Row) -> float:
    return 0.0 if row["cosine"] is None else float(np.degrees(np.arccos(row["cosine"])))


def _dots(axis: Axes, rows: Sequence[Row], value: Callable[[Row], float], varied: str) -> None:
    """One line for each estimator, one marker for each setting."""
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    drawn = looks(dict.fromkeys(row["at"] for row in rows))
    for i, (at, look) in enumerate(drawn.items()):
        found = [row for row in rows if row["at"] == at]
        # Beside one another, that none hides another one.
        shift = 0.2 * (i - (len(drawn) - 1) / 2)
        axis.plot(
            [value(row) for row in found],
            [names.index(row["estimator"]) + shift for row in found],
            color=look.color,
            marker=look.marker,
            linestyle="none",
            label=f"{at:g}",
        )
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)
    axis.legend(title=varied, fontsize="small", title_fontsize="small")


def _training(results: Results) -> Figure:
    settings = results["settings"]
    figure, axes = panels(1, len(settings["steps"]), size=(5.2, 3.4), sharey=True)
    names = [name.rsplit(", ", 1)[0] for name in results["curves"]]
    drawn = looks(dict.fromkeys(names))
    for axis, steps in zip(axes.flat, settings["steps"], strict=True):
        for name, look in drawn.items():
            curve = results["curves"][f"{name}, {steps}"]
            look.curve(axis, curve["batch"], np.mean(curve["reward"], axis=0))
        updates = "one step" if steps == 1 else f"{steps} steps"
        axis.set(title=f"{updates} of Adam for each batch", xlabel="batch")
    axes.flat[0].set_ylabel(f"expected reward, all digits, mean of {settings['seeds']} seeds")
    legend_below(figure, drawn, "", columns=5)
    return figure


def _divergence(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(2, 3, size=(3.6, 2.9), sharey=True)
    for (variance, bias, value), objective in zip(axes, ("on", "off"), strict=True):
        found = _of(rows, f"divergence, {objective} policy")
        _dots(variance, found, lambda row: row["relative_variance"], "KL, nats")
        variance.axvline(1, color="#888888", linewidth=0.8)
        variance.set(
            title=f"{objective} policy: gradient",
            xlabel="variance / that of kl_estimate",
            xscale="log",
        )
        _dots(bias, found, lambda row: row["relative_bias"], "KL, nats")
        bias.set(title=f"{objective} policy: gradient", xlabel="|bias| / |gradient|")
        _dots(value, found, _error_of_the_value, "KL, nats")
        value.set(
            title=f"{objective} policy: value",
            xlabel="root mean square error / KL",
            xscale="log",
        )
    return figure


def _error_of_the_value(row: Row) -> float:
    square = row["value_bias"] ** 2 + row["value_variance"]
    return float(np.sqrt(square) / row["at"])
