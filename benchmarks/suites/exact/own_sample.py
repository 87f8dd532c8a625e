"""Baselines that are made from the draw that they are subtracted from."""

import numpy as np

from benchmarks._reporting.claims import Finding, listed, verdict
from benchmarks._reporting.markdown import markdown, short
from benchmarks._suite import Results, Row, Sizes

from . import moments
from .policies import POLICIES, Policy

TABLE = "own sample"
MEAN, OPTIMAL, OTHERS = "mean of all", "optimal, from all", "optimal, from the others"
SHOWN = "graded rewards"


def rows(sizes: Sizes) -> list[Row]:
    """Moments over all groups of each size."""
    return [found for n in sizes["groups"] for found in _rows(POLICIES[SHOWN], n)]


def _rows(answers: Policy, n: int) -> list[Row]:
    drawn, weights = answers.groups(n)
    f = answers.rewards[drawn]
    # Of the optimal baseline of one number: costs weighted by the squared length of the score.
    square = np.sum(answers.scores**2, axis=1)[drawn]
    total, weighted = (x.sum(axis=1, keepdims=True) for x in (square, square * f))
    baselines = {
        MEAN: f.mean(axis=1, keepdims=True),
        OPTIMAL: weighted / total,
        OTHERS: (weighted - square * f) / (total - square),
    }
    return [
        moments.row(
            TABLE, SHOWN, name, n, answers.gradient, answers.estimates(drawn, f - b), weights
        )
        for name, b in baselines.items()
    ]


def table(results: Results) -> str:
    """Baselines of n draws: relative bias, and deviation."""
    sizes = results["settings"]["groups"]
    found = {
        (row["estimator"], row["size"]): row for row in results["rows"] if row["table"] == TABLE
    }
    lines = [
        [
            name,
            *(
                f"{abs(found[name, n]['bias']) if found[name, n]['bias'] > 1e-12 else 0:.2g}, "
                f"{short(found[name, n]['deviation'], '.2g')}"
                for n in sizes
            ),
        ]
        for name in (MEAN, OPTIMAL, OTHERS)
    ]
    return markdown(["baseline", *(f"n = {n}" for n in sizes)], lines)


def findings(results: Results) -> list[Finding]:
    """A warning that several papers give, with its size."""
    found = [row for row in results["rows"] if row["table"] == TABLE]
    shrunk = [abs(row["bias"] * row["size"] - 1) for row in found if row["estimator"] == MEAN]
    biased = [row["bias"] for row in found if row["estimator"] == OPTIMAL]
    none = max(row["bias"] for row in found if row["estimator"] == OTHERS)
    few = [row["bias"] for row in found if row["estimator"] == OPTIMAL][:3]
    sizes = ", ".join(map(str, results["settings"]["groups"][:3]))
    return [
        Finding(
            "A mean that holds its own draw scales the gradient by 1 - 1/n",
            "Kool et al. (2019)",
            "relative bias 1/n",
            f"times n: 1, up to {max(shrunk):.0e}",
            "exact",
            verdict(x < 1e-9 for x in shrunk),
        ),
        Finding(
            "An optimal baseline from the same draws is biased; from the others it is not",
            "Ranganath et al. (2014), their remedy",
            f"relative bias above 0, n = {sizes}; 0",
            f"{listed(few)}; {none:.0e}",
            "exact",
            verdict([*(x > 1e-3 for x in biased), none < 1e-9]),
        ),
    ]
