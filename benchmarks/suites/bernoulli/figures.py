"""The figure: exact and measured variances over theta."""

import numpy as np
from matplotlib.figure import Figure

from benchmarks._reporting.plots import CAPTION, legend_below, looks, panels
from benchmarks._suite import Results

from .entries import ENTRIES
from .exact import Coin
from .problem import TARGETS

ALWAYS_ZERO = ("best constant (2)", "BitFlip (2)", "LocalExpectation (2)", "MeasureValued (2)")


def figures(results: Results) -> dict[str, Figure]:
    """Exact variances as lines, measured ones as points, over theta."""
    figure, axes = panels(1, len(TARGETS), size=(3.1, 3.4))
    # A variance of 0 has no place on a logarithmic axis.
    drawn = looks(name for name in ENTRIES if name not in ALWAYS_ZERO)
    grid = np.linspace(0.01, 0.99, 197)
    for axis, t in zip(axes.flat, TARGETS, strict=True):
        for name, look in drawn.items():
            look.curve(axis, grid, [ENTRIES[name].variance(Coin(theta, t)) for theta in grid])
            rows = [r for r in results["rows"] if (r["t"], r["estimator"]) == (t, name)]
            look.points(axis, [row["theta"] for row in rows], rows)
        lowest = Coin(0.5, t).step ** 2 / 2000
        axis.set(title=f"t = {t}", xlabel="θ, probability of 1", yscale="log", ylim=(lowest, 0.5))
    axes.flat[0].set_ylabel("variance of one gradient\n(d cost / d logit)²")
    zero = f"not shown, 0 everywhere: {', '.join(ALWAYS_ZERO)}"
    legend_below(figure, drawn, f"{CAPTION}\n{zero}", columns=5)
    return {"bernoulli": figure}
