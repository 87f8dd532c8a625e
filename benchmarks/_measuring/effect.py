"""Ratios of measured variances, with their errors: does a technique help or hurt?"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from benchmarks._suite import Row

# Beyond so many standard errors from 1, a ratio is taken for more than noise.
CERTAIN = 4.0


def compared(row: Mapping[str, Any], base: Mapping[str, Any]) -> Row:
    """The variance of a row relative to another, its error, and the verdict."""
    ratio = row["variance"] / base["variance"]
    parts = [found["variance_se"] / found["variance"] for found in (row, base)]
    # Independent of each other, and both of many repeats.
    error = ratio * float(np.hypot(*parts))
    certain = abs(ratio - 1) > CERTAIN * error
    effect = ("hurts" if ratio > 1 else "helps") if certain else "none"
    return {"relative_variance": ratio, "relative_variance_se": error, "effect": effect}
