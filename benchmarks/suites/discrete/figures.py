"""The figures of the suite `discrete`."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._reporting.plots import legend_below, looks, panels
from benchmarks._suite import Results, Row

from .tasks import TOYS, VAE_BITS

UNIT = "LeaveOneOut (2)"
TITLES = {name: toy.title for name, toy in TOYS.items()}
TITLES["vae"] = f"autoencoder of digits, {VAE_BITS} bits"
VARIED = {name: toy.varied for name, toy in TOYS.items()} | {"vae": "training step"}


def figures(results: Results) -> dict[str, Figure]:
    """Variances of each objective, estimator by estimator; without replacement; and training."""
    return {
        "discrete": _variances(results["rows"]),
        "discrete_without_replacement": _without_replacement(results["rows"]),
        "discrete_training": _training(results),
    }


def _variances(rows: Sequence[Row]) -> Figure:
    figure, axes = panels(2, 2, size=(5.2, 3.7))
    for axis, objective in zip(
        axes.flat, ("separable", "quadratic", "thousand", "vae"), strict=True
    ):
        found = [row for row in rows if row["objective"] == objective]
        _dots(axis, found, "relative_variance")
        axis.axvline(1, color="#888888", linewidth=0.8)
        axis.set(title=TITLES[objective], xlabel=f"variance relative to {UNIT}", xscale="log")
    return figure


def _dots(axis: Axes, rows: Sequence[Row], column: str) -> None:
    """One line for each estimator, one marker for each setting."""
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    drawn = looks(dict.fromkeys(row["at"] for row in rows))
    for i, (at, look) in enumerate(drawn.items()):
        found = [row for row in rows if row["at"] == at]
        # Side by side, so that none hides another.
        shift = 0.2 * (i - (len(drawn) - 1) / 2)
        axis.plot(
            [row[column] for row in found],
            [names.index(row["estimator"]) + shift for row in found],
            color=look.color,
            marker=look.marker,
            linestyle="none",
            label=f"{at:g}",
        )
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.legend(title=VARIED[rows[0]["objective"]], fontsize="small", title_fontsize="small")


def _without_replacement(rows: Sequence[Row]) -> Figure:
    name = "without_replacement"
    found = [row for row in rows if row["objective"] == name]
    ats = list(dict.fromkeys(row["at"] for row in found))
    figure, axes = panels(1, len(ats))
    families = looks(dict.fromkeys(row["estimator"].split()[0] for row in found))
    for axis, at in zip(axes.flat, ats, strict=True):
        for family, look in families.items():
            line = [r for r in found if r["at"] == at and r["estimator"].split()[0] == family]
            evaluations = [row["evaluations"] for row in line]
            look.curve(axis, evaluations, [row["variance"] for row in line])
            look.points(axis, evaluations, line)
        axis.set(title=f"{VARIED[name]} = {at:g}", xlabel="evaluations of f", yscale="log")
        # With all 8 of them the sum is exact: what is left is rounding.
        axis.set_ylim(bottom=1e-12)
    axes.flat[0].set_ylabel("variance of one gradient")
    legend_below(figure, families, f"{TITLES[name]}; ± 3 standard errors", columns=3)
    return figure


def _training(results: Results) -> Figure:
    figure, axes = panels(1, 2, size=(5.2, 3.2))
    curves, bias = axes.flat
    drawn = looks(results["curves"])
    for i, (name, look) in enumerate(drawn.items()):
        curve = results["curves"][name]
        steps, elbo = curve["step"][1:], np.asarray(curve["elbo"], float)[:, 1:]
        look.run(curves, steps, elbo.mean(axis=0), i)
        curves.fill_between(steps, elbo.min(axis=0), elbo.max(axis=0), color=look.color, alpha=0.1)
    settings = results["settings"]["vae"]
    curves.set(
        title=f"autoencoder, {settings['bits']} bits: mean and range of {settings['seeds']} seeds",
        xlabel="training step",
        ylabel="ELBO of an image, nats",
    )
    biased = [r for r in results["rows"] if r["objective"] == "vae" and not r["unbiased"]]
    _dots(bias, biased, "relative_bias")
    bias.set(title=TITLES["vae"], xlabel="|bias| / |gradient|", xlim=(0, None))
    legend_below(figure, drawn, "in brackets: evaluations of f", columns=4)
    return figure
