"""Published claims of the number of samples, beside what its suite found."""

from typing import Any

import numpy as np

from benchmarks._reporting.claims import (
    CERTAIN,
    Finding,
    between,
    less,
    listed,
    rows,
    table,
    verdict,
)
from benchmarks._suite import Results, Row

from .entries import ENTRIES
from .tables import last_elbo

# Two variances are about equal if their ratio is not farther than this from 1.
ABOUT_EQUAL = 1.25


def claims(results: Results) -> str:
    """Published claims, and the results over stages and numbers of samples."""
    source = "Mohamed et al. (2020)"
    weak = rows(results, estimator="MeasureValued")

    def beside(name: str) -> list[tuple[Row, Row]]:
        at = {(row["step"], row["samples"]): row for row in rows(results, estimator=name)}
        return [(row, at[row["step"], row["samples"]]) for row in weak]

    slopes = [
        _slope(rows(results, estimator=name, step=step))
        for name in ENTRIES
        if name != "LeaveOneOut"
        for step in results["settings"]["stages"]
    ]
    z = [(slope + 1) / error for slope, error in slopes]
    ratios = [row["variance"] / base["variance"] for row, base in beside("Pathwise")]
    return table(
        [
            Finding(
                "N independent samples have 1/N of the variance of one",
                source,
                "slope of the logarithms -1",
                between([slope for slope, _ in slopes], ".2f"),
                f"z {between(z, '.1f')}",
                verdict(abs(x) < CERTAIN for x in z),
            ),
            less(
                "Equally many samples: the measure-valued derivative, coupled, has less variance "
                "than the score function with a moving average",
                source,
                beside("MovingAverage"),
            ),
            Finding(
                "Equally many samples: its variance is about that of Pathwise",
                source,
                "ratio of variances about 1",
                listed(ratios),
                f"up to {max(abs(np.log(ratios))):.0%}",
                verdict(1 / ABOUT_EQUAL < x < ABOUT_EQUAL for x in ratios),
            ),
            _training(results, source),
        ]
    )


def _slope(found: list[Row]) -> tuple[float, float]:
    """The slope of log variance over log samples, and its standard error."""
    x = np.log([row["samples"] for row in found])
    y = np.log([row["variance"] for row in found])
    errors = np.array([row["variance_se"] / row["variance"] for row in found])
    centered = x - np.average(x, weights=errors**-2)
    weights = centered / errors**2
    return float(weights @ y / (weights @ centered)), float((weights @ centered) ** -0.5)


def _training(results: Results, source: str) -> Finding:
    """The gain in ELBO from few to many samples, of ScoreFunction and Pathwise."""
    names = ("MovingAverage", "Pathwise")
    few, many = (f(results["settings"]["samples"]) for f in (min, max))
    gains: dict[str, Any] = {}
    for name in names:
        ends = [np.median(last_elbo(results, name, n)) for n in (few, many)]
        gains[name] = ends[1] - ends[0]
    score, path = (gains[name] for name in names)
    return Finding(
        f"Training with {many} samples instead of {few} helps the score function with a moving "
        "average more than Pathwise",
        source,
        "more nats of the ELBO",
        f"{_nats(score)}, {_nats(path)}",
        "median of the seeds",
        verdict([bool(not np.isfinite(score) or score > path)]),
    )


def _nats(gain: float) -> str:
    return f"{gain:.2g}" if np.isfinite(gain) else "all of it: with few samples the runs diverged"
