"""A published claim beside what was measured, and the verdict that follows from the numbers.

A claim is looked at in several places (costs, stages of training, ...). It holds where all of them
agree with it, does not where none does, and is partly right otherwise. One measured variance is
smaller than another if the difference is more than 4 standard errors.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit

from benchmarks._suite import Results, Row

from .markdown import markdown

# Standard errors beyond which a difference, and a deviation of the worst of many, is no noise.
CERTAIN, LIMIT = 4.0, 6.0
# Two-sided, of the mean of a few runs or of their differences.
CONFIDENCE = 0.95
# What rounding leaves of a number that is exactly 0.
EXACT = 1e-6
HEADER = ("claim", "source", "expected", "found", "distance", "verdict")


@dataclass(frozen=True)
class Finding:
    """A line of the table; the fields are its columns."""

    claim: str
    source: str
    expected: str
    found: str
    distance: str
    verdict: str


def verdict(agree: Iterable[bool]) -> str:
    """The verdict of all places together."""
    agrees = set(agree)
    return "partly" if len(agrees) > 1 else "holds" if agrees == {True} else "does not hold"


def less(
    claim: str, source: str, pairs: Sequence[tuple[Row, Row]], *, or_equal: bool = False
) -> Finding:
    """The claim that the first of each pair has the smaller variance."""
    ratios = [row["variance"] / base["variance"] for row, base in pairs]
    z = [_difference(*pair) for pair in pairs]
    expected = "at most 1" if or_equal else "below 1"
    return Finding(
        claim,
        source,
        f"ratio of variances {expected}",
        listed(ratios),
        f"z {between(z, '.0f')}",
        verdict(x < CERTAIN if or_equal else x < -CERTAIN for x in z),
    )


def half_width(values: np.ndarray) -> float:
    """Half of Student's interval for the mean of the values."""
    t = stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)
    return float(t * np.std(values, ddof=1) / np.sqrt(len(values)))


def above_zero(claim: str, source: str, expected: str, values: Sequence[np.ndarray]) -> Finding:
    """The claim that means are above 0, for several sets of values, by Student's interval."""
    intervals = [(float(np.mean(found)), half_width(found)) for found in values]
    return signed(claim, source, expected, intervals)


def signed(
    claim: str, source: str, expected: str, intervals: Sequence[tuple[float, float]], sign: int = 1
) -> Finding:
    """The claim that numbers, each with half of its interval, have this sign."""
    unsure = [abs(value) <= half for value, half in intervals]
    return Finding(
        claim,
        source,
        expected,
        ", ".join(_small(value) for value, _ in intervals),
        f"{CONFIDENCE:.0%}: " + ", ".join(f"± {_small(half)}" for _, half in intervals),
        "undecided" if all(unsure) else verdict(sign * x > half for x, half in intervals),
    )


def _small(number: float) -> str:
    # What two decimals round to 0 has one digit.
    return f"{number:.2f}" if abs(number) >= 0.005 else f"{number:.1g}"


def _difference(row: Row, base: Row) -> float:
    error = math.hypot(row["variance_se"], base["variance_se"])
    return (row["variance"] - base["variance"]) / error


def rows(results: Results, **values: Any) -> list[Row]:
    """The rows with these values."""
    return [row for row in results["rows"] if all(row[n] == v for n, v in values.items())]


def pairs(results: Results, name: str, base: str, **values: Any) -> list[tuple[Row, Row]]:
    """The rows of one estimator, each beside the row of another at the same place."""
    found = (rows(results, estimator=of, **values) for of in (name, base))
    return list(zip(*found, strict=True))


def listed(values: Sequence[float]) -> str:
    """Up to three of them one by one, more as a range."""
    return ", ".join(f"{x:.2g}" for x in values) if len(values) < 4 else between(values, ".2g")


def between(values: Sequence[float], form: str) -> str:
    """The range from the least to the greatest."""
    ends = [format(value, form) for value in (min(values), max(values))]
    # No sign at what rounds to nothing.
    low, high = ("0" if end == "-0" else end for end in ends)
    return low if low == high else f"{low} to {high}"


def table(found: Sequence[Finding]) -> str:
    """The table in markdown."""
    return markdown(HEADER, map(astuple, found), words=range(len(HEADER)))
