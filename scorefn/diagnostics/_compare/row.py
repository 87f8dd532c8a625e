"""The rows of a comparison: a record of plain numbers for each estimator."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .bias import Reference, bias
from .evaluations import declared
from .experiment import Found
from .ranking import largest_share, spent


@dataclass(frozen=True)
class Row:
    """The measurements of one estimator; nan where nothing was measured.

    Attributes:
        estimator: its name.
        unbiased: whether it says that it is unbiased; None if it says nothing.
        evaluations: of f for one gradient, counted; None if they could not be.
        repeats: gradients measured.
        variance: of ONE gradient, summed over its components, in units of the gradient squared.
        variance_se: its standard error.
        largest_share: the part of the variance that one single repeat makes, larger for heavy
            tails. Above 0.05 neither variance nor standard error is to be trusted.
        time_us: microseconds for one gradient, the median over rounds.
        time_us_se: its standard error.
        variance_x_time: the variance that is left after averaging gradients for a microsecond,
            times a microsecond.
        snr: the ratio of the norm of the mean gradient to the standard deviation of one gradient,
            corrected for noise.
        bias: the norm of the difference between mean and reference, corrected for noise. This and
            the next two are nan for the reference itself and without a reference.
        relative_bias: the ratio of `bias` to the norm of the reference.
        bias_z: the largest ratio of |difference| to its standard error: of parameters that are
            scalars, and along eight random sign vectors of every other one.
        bias_found: whether `bias_z` is too large for chance; False without a reference, and for
            fewer than 32 repeats.
        error: the type and the text of the error that it raised; nothing was measured then.
    """

    estimator: str
    unbiased: bool | None
    evaluations: int | None = None
    repeats: int = 0
    variance: float = math.nan
    variance_se: float = math.nan
    largest_share: float = math.nan
    time_us: float = math.nan
    time_us_se: float = math.nan
    variance_x_time: float = math.nan
    snr: float = math.nan
    bias: float = math.nan
    relative_bias: float = math.nan
    bias_z: float = math.nan
    bias_found: bool = False
    error: str | None = None

    @property
    def is_finite(self) -> bool:
        """Whether variance and time are numbers."""
        return math.isfinite(self.variance_x_time)

    @property
    def variance_x_time_se(self) -> float:
        """The standard error of `variance_x_time`."""
        return math.hypot(self.variance_se * self.time_us, self.time_us_se * self.variance)

    def left(self, *, evaluations: float | None, seconds: float | None) -> float:
        """The variance of the mean of all gradients within a budget; infinite for none."""
        counts = []
        if evaluations is not None:
            # Without a count it cannot be known to fit.
            counts.append(evaluations // self.evaluations if self.evaluations else 0)
        if seconds is not None:
            counts.append(seconds * 1e6 // self.time_us)
        count = min(counts)
        return self.variance / count if count else math.inf


def ranked(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The rows by variance x time, then by time; unmeasured rows are last."""
    worst = (math.inf, math.inf)
    return tuple(
        sorted(
            rows,
            key=lambda row: (row.variance_x_time, row.time_us) if row.is_finite else worst,
        )
    )


def failed(name: str, estimator: Any, error: Exception) -> Row:
    """The row of an estimator that raises."""
    return Row(name, declared(estimator), error=f"{type(error).__name__}: {error}")


def measured_rows(
    found: Found,
    estimators: Mapping[str, Any],
    reference: Reference | None,
    *,
    alpha: float,
) -> list[Row]:
    """The rows of the estimators that were measured, in no order."""
    moments, names = found.moments, found.moments.names
    variance, share, log_seconds = moments.variance, largest_share(moments), found.log_seconds
    variance_se = np.sqrt(np.diag(moments.distance.covariance) / moments.count)
    median = np.exp(np.median(log_seconds, axis=0)) * 1e6
    # The standard error of a median; by quartiles, because times have a long tail.
    low, high = np.quantile(log_seconds, [0.25, 0.75], axis=0)
    median_se = median * 1.2533 * (high - low) / 1.349 / np.sqrt(len(log_seconds))
    signal = np.sum(np.square(moments.mean), axis=1) - variance / moments.count
    each = spent(alpha, found.looks) / len(names)
    rows = []
    for i, name in enumerate(names):
        with np.errstate(divide="ignore", invalid="ignore"):
            snr = np.sqrt(np.maximum(signal[i], 0.0) / variance[i])
        biased = None if reference is None else bias(moments, i, reference, alpha=each)
        rows.append(
            Row(
                estimator=name,
                unbiased=declared(estimators[name]),
                evaluations=found.evaluations[name],
                repeats=moments.count,
                variance=float(variance[i]),
                variance_se=float(variance_se[i]) if variance[i] else 0.0,
                largest_share=float(share[i]),
                time_us=float(median[i]),
                time_us_se=float(median_se[i]),
                variance_x_time=float(variance[i] * median[i]),
                snr=float(snr),
                **({} if biased is None else asdict(biased)),
            )
        )
    return rows
