"""A random walk whose steps depend on its place (Arya et al. 2022), by sums over its places.

From x it goes up with probability exp(-x / p), else down; the cost is the square of the last place,
and the derivative is along p = 100. Settings as recalled from the paper.
"""

import numpy as np

from benchmarks._reporting.claims import Finding, between, verdict
from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row, Sizes

from . import moments

TABLE = "random walk"
PLACE = 100.0
SCORE, CENTERED = "score function", "score function, exact mean as baseline"
ALONE, COUPLED = "one changed step, independent after it", "one changed step, common noise after it"


def rows(sizes: Sizes) -> list[Row]:
    """Moments over all places, for each length of the walk."""
    return [found for n in sizes["walks"] for found in _rows(n)]


def _rows(n: int) -> list[Row]:
    x = np.arange(n + 2, dtype=float)
    up = np.exp(-x / PLACE)
    slope = up * x / PLACE**2
    cost = x**2
    # Of the score so far, at each place: probability, first and second moment.
    score = np.zeros((3, n + 2))
    score[0, 0] = 1.0
    # Of two walks of which one step was changed: squared slope times probability, at both places.
    pairs = {name: np.zeros((n + 2, n + 2)) for name in (ALONE, COUPLED)}
    rise, fall = slope / up, np.divide(-slope, 1 - up, where=up < 1, out=np.zeros(n + 2))
    for _ in range(n):
        both = np.minimum(up[:, None], up)
        chances = {
            ALONE: (up[:, None] * up, up[:, None] * (1 - up), (1 - up)[:, None] * up),
            COUPLED: (both, up[:, None] - both, up - both),
        }
        for name, (uu, ud, du) in chances.items():
            q = pairs[name]
            dd = 1 - uu - ud - du
            moved = np.zeros_like(q)
            moved[1:, 1:] += (q * uu)[:-1, :-1]
            moved[1:, :-1] += (q * ud)[:-1, 1:]
            moved[:-1, 1:] += (q * du)[1:, :-1]
            moved[:-1, :-1] += (q * dd)[1:, 1:]
            # From here: the walk that went up, and the walk that went down.
            here = np.arange(1, n + 1)
            moved[here + 1, here - 1] += score[0, here] * slope[here] ** 2
            pairs[name] = moved
        score = _stepped(score, up, rise, upward=True) + _stepped(score, 1 - up, fall, upward=False)
    mean = score[0] @ cost
    exact = score[1] @ cost
    seconds = {
        SCORE: score[2] @ cost**2,
        CENTERED: score[2] @ (cost - mean) ** 2,
        # Any of the n steps, each with probability 1 / n.
        **{name: n * np.sum(q * (cost[:, None] - cost) ** 2) for name, q in pairs.items()},
    }
    gradient = np.array([exact])
    return [
        moments.known(TABLE, "x squared", name, n, gradient, gradient, float(s - exact**2))
        for name, s in seconds.items()
    ]


def _stepped(
    score: np.ndarray, chance: np.ndarray, more: np.ndarray, *, upward: bool
) -> np.ndarray:
    """The moments of the score one step later, of the walks that step one way."""
    zero, one, two = score
    after = np.stack([zero, one + more * zero, two + 2 * more * one + more**2 * zero]) * chance
    moved = np.zeros_like(score)
    if upward:
        moved[:, 1:] = after[:, :-1]
    else:
        moved[:, :-1] = after[:, 1:]
    return moved


def table(results: Results) -> str:
    """Random walk of n steps: standard deviation of one gradient, relative to the gradient."""
    sizes = results["settings"]["walks"]
    found = {
        (row["estimator"], row["size"]): row["deviation"]
        for row in results["rows"]
        if row["table"] == TABLE
    }
    names = dict.fromkeys(name for name, _ in found)
    lines = [[name, *(short(found[name, n]) for n in sizes)] for name in names]
    return markdown(["estimator", *(f"n = {n}" for n in sizes)], lines)


def findings(results: Results) -> list[Finding]:
    """The claim of Arya et al. (2022)."""
    found = {
        (row["estimator"], row["size"]): row["deviation"]
        for row in results["rows"]
        if row["table"] == TABLE
    }
    sizes = results["settings"]["walks"]
    ratios = [
        (found[COUPLED, n] / found[base, n]) ** 2 for n in sizes for base in (SCORE, CENTERED)
    ]
    coupling = [(found[COUPLED, n] / found[ALONE, n]) ** 2 for n in sizes]
    return [
        Finding(
            "One changed step under common noise has less variance than the score function",
            "Arya et al. (2022)",
            "ratio of variances below 1, with and without baseline",
            between(ratios, ".2g"),
            "exact",
            verdict(x < 1 for x in ratios),
        ),
        Finding(
            "The common noise after the changed step is what reduces it",
            "Arya et al. (2022)",
            "ratio of variances to independent noise at most 1",
            between(coupling, ".2g"),
            "exact",
            verdict(x < 1 + 1e-9 for x in coupling),
        ),
    ]
