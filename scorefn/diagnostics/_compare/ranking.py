"""A sequential test of whether a ranking by variance x time is settled.

Look k may err with probability ``alpha / (k (k + 1))``: over any number of looks these add up to
alpha. It is split evenly over all pairs, and in each pair over two intervals: one for the ratio of
the variances, one for the ratio of the times.
"""

import itertools
import math
from collections.abc import Sequence
from statistics import NormalDist

import numpy as np

from .moments import Moments
from .timing import median_interval

# A variance to which one repeat adds more than this is not known well enough to rank by.
LARGEST_SHARE = 0.05


def spent(alpha: float, look: int) -> float:
    """The part of alpha for that look, counted from 1."""
    return alpha / (look * (look + 1))


def quantile(alpha: float) -> float:
    """The two-sided quantile of a standard normal number."""
    return -NormalDist().inv_cdf(alpha / 2)


def open_pairs(
    moments: Moments,
    log_seconds: np.ndarray,
    finite: Sequence[int],
    *,
    alpha: float,
    tolerance: float,
) -> list[tuple[int, int]]:
    """The pairs of estimators that are neither in order yet, nor equal within tolerance.

    By normal theory for the logarithm of the ratio of two variances, with the covariance of their
    squared distances, which share their draws; and by order statistics of the ratios of the times
    of each round.
    """
    pairs = list(itertools.combinations(finite, 2))
    each = alpha / (2 * max(len(pairs), 1))
    variance, share = moments.variance, largest_share(moments)
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = moments.distance.covariance / np.outer(variance, variance) / moments.count

    def is_open(a: int, b: int) -> bool:
        low, high = median_interval(log_seconds[:, a] - log_seconds[:, b], each)
        if math.isinf(low):
            return True
        if variance[a] == 0 or variance[b] == 0:
            # Every variance is larger than 0; of two estimators without any the faster is better.
            ratio, width = _log_ratio(variance[a], variance[b]), 0.0
        else:
            if max(share[a], share[b]) > LARGEST_SHARE:
                return True
            error = relative[a, a] + relative[b, b] - 2 * relative[a, b]
            ratio, width = (
                _log_ratio(variance[a], variance[b]),
                quantile(each) * math.sqrt(max(error, 0.0)),
            )
        low, high = low + ratio - width, high + ratio + width
        close = math.log1p(tolerance)
        return low <= 0 <= high and not (-close <= low and high <= close)

    return [pair for pair in pairs if is_open(*pair)]


def largest_share(moments: Moments) -> np.ndarray:
    """The part of the variance that the largest repeat makes, [estimators]; 0 of no variance."""
    total = moments.variance * moments.count
    return np.divide(moments.largest, total, out=np.zeros_like(total), where=total > 0)


def _log_ratio(a: float, b: float) -> float:
    if a == b:
        return 0.0
    if 0 in (a, b):
        return math.inf if b == 0 else -math.inf
    return math.log(a / b)
