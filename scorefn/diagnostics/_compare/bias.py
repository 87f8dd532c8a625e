"""Biases relative to a reference, corrected for their noise."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from scorefn._core.types import PyTree

from .evaluations import declared
from .moments import Moments
from .ranking import quantile

# The mean of fewer gradients is not normal, and its estimated error too uncertain.
FEWEST = 32


@dataclass(frozen=True)
class Reference:
    """The gradient that means are compared with.

    Attributes:
        name: as in `Comparison.reference`.
        gradient: [components].
        along: the same along each direction, [directions].
        along_variance: of the reference itself, likewise; 0 of an exact one.
        variance: of the reference itself, summed over its components.
        row: which of the estimators it is the mean of, over the same draws; None if over others.
    """

    name: str
    gradient: np.ndarray
    along: np.ndarray
    along_variance: np.ndarray
    variance: float
    row: int | None = None


@dataclass(frozen=True)
class Bias:
    """A row's fields of that name."""

    bias: float
    relative_bias: float
    bias_z: float
    bias_found: bool


def mean_of(moments: Moments, name: str, *, same_draws: bool) -> Reference:
    """The mean of one estimator, over the compared draws or over others."""
    row, count = moments.names.index(name), moments.count
    return Reference(
        name=name,
        gradient=moments.mean[row],
        along=moments.along.mean[:, row],
        along_variance=moments.along.covariance[:, row, row] / count,
        variance=float(moments.variance[row]) / count,
        row=row if same_draws else None,
    )


def reference_in(
    moments: Moments, reference: PyTree | str | None, estimators: Mapping[str, Any]
) -> Reference | None:
    """An exact gradient, the mean of the named estimator, or of the most precise one.

    The most precise has the least variance of those not declared as biased; None if there is none.
    """
    if isinstance(reference, str):
        return mean_of(moments, reference, same_draws=True)
    if reference is not None:
        row = moments.components.row(reference)
        along = moments.components.project(row)
        return Reference("exact", row, along, np.zeros_like(along), 0.0)
    pairs = zip(moments.variance, moments.names, strict=True)
    fit = [(v, n) for v, n in pairs if np.isfinite(v) and declared(estimators[n]) is not False]
    return mean_of(moments, min(fit)[1], same_draws=True) if fit else None


def bias(moments: Moments, row: int, reference: Reference, *, alpha: float) -> Bias | None:
    """The bias of one estimator; None for the reference itself. Alpha is for all directions."""
    if row == reference.row:
        return None
    count, gradient = moments.count, moments.mean[row]
    error = moments.along.mean[:, row] - reference.along
    noise = moments.along.covariance[:, row, row] / count
    noise = noise + reference.along_variance
    total = float(moments.variance[row]) / count + reference.variance
    if reference.row is not None:
        common = moments.along.covariance[:, row, reference.row] / count
        noise = np.maximum(noise - 2 * common, 0.0)
        total = moments.components.sum_of_squares(noise)
    rounding = _rounding(moments, reference)
    z = np.where(error == 0, 0.0, np.abs(error) / np.sqrt(noise + rounding**2))
    worst = float(np.max(z))  # nan if any is
    square = float(np.sum(np.square(gradient - reference.gradient))) - total
    size = float(np.sqrt(max(square, 0.0)))
    norm = float(np.linalg.norm(reference.gradient))
    found = count >= FEWEST and not worst <= quantile(alpha / len(z))
    return Bias(size, size / norm if norm else float("inf") if size else 0.0, worst, found)


def _rounding(moments: Moments, reference: Reference) -> float:
    """The rounding error of a mean: terms as large as a gradient cancel on the way to it."""
    sizes = moments.variance + np.sum(np.square(moments.mean), axis=1)
    largest = np.max(sizes[np.isfinite(sizes)], initial=np.sum(np.square(reference.gradient)))
    return float(8 * moments.components.eps * np.sqrt(largest))
