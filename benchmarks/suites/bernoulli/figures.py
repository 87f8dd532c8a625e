"""The figure: exact and measured variances over theta."""

import numpy as np
from matplotlib.figure import Figure

from benchmarks._reporting.plots import label_ends, looks, panels
from benchmarks._suite import Results

from .entries import ENTRIES
from .exact import Coin
from .problem import TARGETS

ALWAYS_ZERO = ("best constant (2)", "BitFlip (2)", "LocalExpectation (2)", "MeasureValued (2)")
# The lowest ones at their number of evaluations, and what they are compared with.
NAMED = (
    "REINFORCE (2)",
    "LeaveOneOut (2)",
    "LeaveOneOut (4)",
    "LeaveOneOut (8)",
    "DisARM (2)",
    "ARMS (4)",
    "GO (2)",
)
GREY = "#b0b0b0"
CAPTION = f"""\
lines: exact; points: measured, ± 3 standard errors; in brackets: evaluations of f
0 everywhere, not shown: {", ".join(ALWAYS_ZERO)}
gray, upper group: DoubleCV and REBAR without learning, and the biased estimators (1); \
lower group: constant E f (2), OptimalBaseline (4), ARM (2)
"""


def figures(results: Results) -> dict[str, Figure]:
    """Exact variances as lines, measured ones as points, over theta."""
    targets = (TARGETS[0], TARGETS[-1])
    figure, axes = panels(1, len(targets), size=(4.6, 4.0))
    drawn = looks(NAMED)
    grid = np.linspace(0.01, 0.99, 197)
    for axis, t in zip(axes.flat, targets, strict=True):
        ends = {}
        # A variance of 0 has no place on a logarithmic axis.
        for name in sorted(set(ENTRIES) - set(ALWAYS_ZERO), key=lambda name: name in NAMED):
            curve = [ENTRIES[name].variance(Coin(theta, t)) for theta in grid]
            if name not in NAMED:
                axis.plot(grid, curve, color=GREY, linewidth=0.8)
                continue
            drawn[name].curve(axis, grid, curve)
            rows = [r for r in results["rows"] if (r["t"], r["estimator"]) == (t, name)]
            drawn[name].points(axis, [row["theta"] for row in rows], rows)
            ends[name] = (grid[-1], curve[-1], drawn[name].color)
        lowest = Coin(0.5, t).step ** 2 / 2000
        axis.set(
            title=f"cost (b - {t})²", xlabel="θ, probability of 1", yscale="log", ylim=(lowest, 0.5)
        )
        if axis is axes.flat[-1]:
            label_ends(axis, ends)
    axes.flat[0].set_ylabel("variance of one gradient, (d cost / d logit)²")
    figure.supxlabel(CAPTION.strip(), size=9)
    return {"bernoulli": figure}
