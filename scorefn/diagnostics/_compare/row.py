"""One estimator of a comparison: a record of plain numbers."""

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Row:
    """What was measured of one estimator; nan where nothing was.

    Attributes:
        estimator: its name.
        unbiased: what it says of itself; None if it says nothing.
        evaluations: of f for one gradient, counted; None if they could not be.
        repeats: gradients measured.
        variance: of ONE gradient, summed over its components, in units of the gradient squared.
        variance_se: its standard error.
        largest_share: the part of the variance that one single repeat makes: of heavy tails more
            than of light ones. Above 0.05 neither variance nor standard error is to be trusted.
        time_us: microseconds for one gradient, the median over rounds.
        time_us_se: its standard error.
        variance_x_time: variance left after a second of averaging, times a second; µs.
        snr: norm of the mean gradient by the standard deviation of one, freed of noise.
        bias: norm of the difference of the mean from the reference, freed of noise; nan, as the two
            that follow, of the reference itself and without one.
        relative_bias: the same as a part of the norm of the reference.
        bias_z: |difference| by its standard error: for a parameter that is a scalar, and along
            eight random sign vectors of every other one, the largest.
        bias_found: whether that is too large for chance; False without a reference.
        error: the type and the text of what it raised; nothing was measured then.
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
        """The variance left by all the gradients that fit, averaged; infinite if none does."""
        counts = []
        if evaluations is not None:
            # Without a count it cannot be known to fit.
            counts.append(evaluations // self.evaluations if self.evaluations else 0)
        if seconds is not None:
            counts.append(seconds * 1e6 // self.time_us)
        count = min(counts)
        return self.variance / count if count else math.inf


def ranked(rows: Iterable[Row]) -> tuple[Row, ...]:
    """The least variance x time first, the faster of equal ones; what was not measured last."""
    worst = (math.inf, math.inf)
    return tuple(
        sorted(
            rows,
            key=lambda row: (row.variance_x_time, row.time_us) if row.is_finite else worst,
        )
    )
