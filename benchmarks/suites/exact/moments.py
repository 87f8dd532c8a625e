"""Exact moments of gradient estimates over all outcomes, and the outcomes of groups of draws."""

import itertools
import math
from functools import cache

import numpy as np
from scipy.special import xlogy

from benchmarks._suite import Row

# What rounding leaves of a mean of float32 numbers that is 0, relative to the gradient.
SMALL = 1e-5


def row(
    table: str,
    case: str,
    estimator: str,
    size: int,
    exact: np.ndarray,
    estimates: np.ndarray,
    weights: np.ndarray,
) -> Row:
    """The bias and deviation of estimates [s, d] with weights [s].

    The bias and the standard deviation are relative to the length of the exact gradient; the cosine
    is that of the angle between it and the mean, None where the mean is 0.
    """
    mean = weights @ estimates
    square = weights @ np.sum((estimates - mean) ** 2, axis=1)
    return known(table, case, estimator, size, exact, mean, float(square))


def known(
    table: str,
    case: str,
    estimator: str,
    size: int,
    exact: np.ndarray,
    mean: np.ndarray,
    variance: float | None,
) -> Row:
    """A row from a known mean and variance."""
    length, of_mean = np.linalg.norm(exact), np.linalg.norm(mean)
    cosine = None if of_mean < SMALL * length else float(exact @ mean / (length * of_mean))
    return {
        "table": table,
        "case": case,
        "estimator": estimator,
        "size": size,
        "cosine": cosine,
        "bias": float(np.linalg.norm(mean - exact) / length),
        "deviation": None if variance is None else float(np.sqrt(max(variance, 0.0)) / length),
    }


@cache
def groups(categories: int, n: int) -> np.ndarray:
    """All groups of n draws without their order, [groups, n]: indices in ascending order."""
    return np.array(list(itertools.combinations_with_replacement(range(categories), n)))


def counts(drawn: np.ndarray, categories: int) -> np.ndarray:
    """The number of each category in each group, [groups, categories]."""
    return np.sum(drawn[..., None] == np.arange(categories), axis=1)


def probabilities(counts: np.ndarray, probs: np.ndarray) -> np.ndarray:
    """The multinomial probability of each group: [groups], or [k, groups] for [k, categories].

    All groups have equally many draws.
    """
    factorial = np.array([math.lgamma(c + 1) for c in range(int(counts.sum(axis=1)[0]) + 1)])
    orders = factorial[-1] - np.sum(factorial[counts], axis=1)
    # 0 log 0 is 0: a category that cannot be drawn, and is not.
    terms = xlogy(counts, probs[..., None, :])
    return np.exp(orders + np.sum(terms, axis=-1))
