"""Finite supports: those that a library enumerates."""

from typing import Any

import jax

from .classes import class_of


def enumerated(distribution: Any) -> tuple[jax.Array, tuple[int, ...]] | None:
    """The values of one factor, [k, *event], and the batch shape; or None."""
    if not class_of(distribution).startswith("numpyro.") or not distribution.has_enumerate_support:
        return None
    values = distribution.enumerate_support(expand=False)
    return values.reshape(len(values), *distribution.event_shape), distribution.batch_shape
