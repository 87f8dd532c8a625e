"""Evolution strategies against path gradients over a long unroll, by quadrature.

The unroll is the logistic map x <- r x (1 - x), chaotic at r = 3.7; the objective is E x_T for r
drawn from Normal(3.7, 0.01), and the derivative is along its mean. Both estimators are unbiased.
"""

import numpy as np

from benchmarks._reporting.claims import Finding, between, verdict
from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row, Sizes

from . import moments

TABLE = "unroll"
CENTER, SPREAD, FIRST = 3.7, 0.01, 0.3
PATH, STRATEGY = "path gradient", "evolution strategies, antithetic pair"


def rows(sizes: Sizes) -> list[Row]:
    """Moments over a fine grid of normal numbers, for each length of the unroll."""
    points = sizes["unroll points"]
    z = 7 * (2 * (np.arange(points) + 0.5) / points - 1)
    weights = np.exp(-(z**2) / 2)
    weights /= weights.sum()
    r = CENTER + SPREAD * z
    x, slope = np.full(points, FIRST), np.zeros(points)
    found = []
    for t in range(1, max(sizes["unrolls"]) + 1):
        x, slope = r * x * (1 - x), x * (1 - x) + r * (1 - 2 * x) * slope
        if t in sizes["unrolls"]:
            # The grid is symmetric: its mirror image is the other half of each pair.
            pair = (x - x[::-1]) * z / (2 * SPREAD)
            exact = np.array([weights @ pair])
            for name, estimates in ((PATH, slope), (STRATEGY, pair)):
                found.append(
                    moments.row(TABLE, "logistic map", name, t, exact, estimates[:, None], weights)
                )
    return found


def _deviations(results: Results) -> dict[tuple[str, int], float]:
    return {
        (row["estimator"], row["size"]): row["deviation"]
        for row in results["rows"]
        if row["table"] == TABLE
    }


def table(results: Results) -> str:
    """Unroll of T steps: standard deviation of one gradient, relative to the gradient."""
    sizes, found = results["settings"]["unrolls"], _deviations(results)
    lines = [[name, *(short(found[name, t]) for t in sizes)] for name in (PATH, STRATEGY)]
    return markdown(["estimator", *(f"T = {t}" for t in sizes)], lines)


def findings(results: Results) -> list[Finding]:
    """The claim of Metz et al. (2019)."""
    sizes, found = results["settings"]["unrolls"], _deviations(results)
    # A path of one step is linear in the noise: it has none.
    sizes = [t for t in sizes if t > 1]
    ratios = [(found[PATH, t] / found[STRATEGY, t]) ** 2 for t in sizes]
    return [
        Finding(
            "Over a long chaotic unroll evolution strategies have less variance than the path",
            "Metz et al. (2019)",
            f"ratio of variances: below 1 at T = {sizes[0]}, above 1 at T = {sizes[-1]}",
            f"{ratios[0]:.2g}; {ratios[-1]:.2g}",
            "quadrature",
            verdict([ratios[0] < 1, ratios[-1] > 1]),
        ),
        Finding(
            "The variance of path gradients grows without bound with the unroll",
            "Metz et al. (2019)",
            "increasing",
            between([found[PATH, t] ** 2 for t in sizes], ".2g"),
            "quadrature",
            verdict(
                found[PATH, a] < found[PATH, b] for a, b in zip(sizes, sizes[1:], strict=False)
            ),
        ),
    ]
