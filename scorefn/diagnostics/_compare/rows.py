"""From what was measured to one record for each estimator."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from .bias import Reference, bias
from .evaluations import declared
from .measuring import Found
from .ranking import largest_share, spent
from .row import Row


def failed(name: str, estimator: Any, error: Exception) -> Row:
    """The row of an estimator that raises."""
    return Row(name, declared(estimator), error=f"{type(error).__name__}: {error}")


def measured_rows(
    found: Found,
    estimators: Mapping[str, Any],
    counts: Mapping[str, int | None],
    reference: Reference | None,
    *,
    alpha: float,
) -> list[Row]:
    """The rows of those that do not, in no order."""
    moments, names = found.moments, found.moments.names
    variance, share = moments.variance, largest_share(moments)
    variance_se = np.sqrt(np.diag(moments.distance.covariance) / moments.count)
    median = np.exp(np.median(found.log_seconds, axis=0)) * 1e6
    # Of a median; the spread by quartiles, because a busy machine has a long tail.
    low, high = np.quantile(found.log_seconds, [0.25, 0.75], axis=0)
    median_se = median * 1.2533 * (high - low) / 1.349 / np.sqrt(len(found.log_seconds))
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
                evaluations=counts[name],
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
