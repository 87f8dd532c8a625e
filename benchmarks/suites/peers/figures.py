"""The figures: the errors of one gradient by each call; gradients that are silently zero."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from benchmarks._packages.toys import TOYS
from benchmarks._reporting.plots import panels
from benchmarks._suite import Results, Row

LEAST, MOST = 0.1, 3.0
OURS, OTHERS, WRONG = "#0072B2", "#555555", "#D55E00"
KINDS = {
    "scorefn": (OURS, "o"),
    "another package, unbiased": (OTHERS, "o"),
    "another package, biased": (WRONG, "X"),
}


def figures(results: Results) -> Mapping[str, Figure]:
    """The errors of all calls; and the gradients of a draw that is differentiated directly."""
    rows = [row for row in results["rows"] if row["note"] is None]
    return {"peers": _errors(rows), "peers_zeros": _zeros(rows)}


def _kind(row: Row) -> str:
    if row["package"] == "scorefn":
        return "scorefn"
    return f"another package, {'biased' if abs(row['bias_z']) > 6 else 'unbiased'}"


def _error(row: Row) -> float:
    """The root mean squared error of one gradient relative to the exact one."""
    norm = np.sum(np.square(row["exact_gradient"]))
    return float(np.sqrt(row["relative_bias"] ** 2 + row["variance"] / norm))


def _two_lines(toy: str) -> str:
    cost, *along = TOYS[toy].about.rsplit(", along ", 1)
    return "\n".join([f"{toy}: {cost}", *(f"along {parameters}" for parameters in along)])


def _errors(rows: list[Row]) -> Figure:
    """A panel for each toy, its calls in the order of their errors."""
    toys = [toy for toy in TOYS if any(row["toy"] == toy for row in rows)]
    figure, axes = panels((len(toys) + 1) // 2, 2, size=(5.2, 3.4), sharex=True)
    for axis, toy in zip(axes.flat, toys, strict=False):
        found = sorted((row for row in rows if row["toy"] == toy), key=_error)
        for i, row in enumerate(found):
            color, marker = KINDS[_kind(row)]
            # What is exact stands at the edge.
            axis.plot(np.clip(_error(row), LEAST, MOST), i, marker, color=color, ms=6)
        axis.set_yticks(range(len(found)), [f"{row['package']} {row['call']}" for row in found])
        axis.tick_params(axis="y", labelsize=7.5)
        for label, row in zip(axis.get_yticklabels(), found, strict=True):
            label.set_color(KINDS[_kind(row)][0])
        axis.set_title(_two_lines(toy), loc="right")
        axis.set_ylim(len(found) - 0.4, -0.6)
        axis.set(xscale="log", xlim=(0.9 * LEAST, 1.1 * MOST))
        axis.set_xticks([0.1, 0.2, 0.5, 1, 2], ["≤ 0.1", "0.2", "0.5", "1", "2"])
        axis.set_xticks([], minor=True)
        axis.tick_params(axis="x", labelbottom=True)
    for axis in list(axes.flat)[len(toys) :]:
        axis.axis("off")
    _legend(figure, "root mean squared error of one gradient of 10 samples / |exact gradient|")
    return figure


def _legend(figure: Figure, title: str) -> None:
    handles = [
        Line2D([], [], color=color, marker=marker, linestyle="none", ms=6)
        for color, marker in KINDS.values()
    ]
    figure.legend(handles, list(KINDS), loc="outside lower center", ncols=3, title=title)


# The calls that differentiate a draw directly, and the one here that does not.
DIRECT = (
    ("distrax", "jax.grad of sample", "distrax: jax.grad of sample"),
    ("tfp", "jax.grad of sample", "TFP: jax.grad of sample"),
    ("numpyro", "Trace_ELBO", "NumPyro: Trace_ELBO"),
    ("scorefn", "ScoreFunction", "scorefn: ScoreFunction()"),
)
SHOWN = {
    "bernoulli": "a coin flip\nE (b - 0.45)², b ~ Bernoulli",
    "categorical": "one of three actions\nE cost[k], k ~ Categorical",
    "mixture": "weights of a mixture\nE x², x ~ mixture of 2 normals",
    "joint": "a coin, then a normal draw\nE x², x ~ N(m + 1.5 b, 1)",
}


def _zeros(rows: list[Row]) -> Figure:
    """The first component of the mean gradient, relative to the exact one."""
    toys = [toy for toy in SHOWN if any(row["toy"] == toy for row in rows)]
    figure, axes = panels((len(toys) + 1) // 2, 2, size=(2.4, 1.75), sharey=True, sharex=True)
    for axis, toy in zip(axes.flat, toys, strict=False):
        found = {(row["package"], row["call"]): row for row in rows if row["toy"] == toy}
        for i, (package, call, _) in enumerate(DIRECT):
            if (row := found.get((package, call))) is not None:
                _bar(axis, i, row)
        axis.axvline(1, color="black", linewidth=1)
        axis.set_title(SHOWN[toy], size=9)
        axis.set(xlim=(0, 1.25), ylim=(len(DIRECT) - 0.5, -0.5))
        axis.set_xticks([0, 0.5, 1], ["0", "50%", "exact"])
        axis.tick_params(axis="x", labelbottom=True)
        axis.set_yticks(range(len(DIRECT)), [label for _, _, label in DIRECT])
        axis.grid(visible=False, axis="y")
    for axis in list(axes.flat)[len(toys) :]:
        axis.axis("off")
    figure.supxlabel("mean of 40 000 gradients of 10 samples / exact gradient", size=9)
    return figure


def _bar(axis: Axes, i: int, row: Row) -> None:
    ratio = row["mean"][0] / row["exact_gradient"][0]
    zero = abs(ratio) < 1e-3
    axis.barh(i, ratio, color=OURS, height=0.6)
    axis.text(
        0.04 if zero else ratio - 0.04,
        i,
        "0, no error raised" if zero else f"{ratio:.0%}",
        color=WRONG if zero else "white",
        weight="bold",
        size=8.5,
        ha="left" if zero else "right",
        va="center",
    )
