"""Finite supports: those that a record or a library enumerates."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scorefn.distributions._plackett_luce import PlackettLuce
from scorefn.distributions._subset import Subset

from .classes import class_of


def enumerated(distribution: Any) -> tuple[int, Callable[[], jax.Array], tuple[int, ...]] | None:
    """The number of values of one factor, the values (a function), the batch shape."""
    if isinstance(distribution, Subset | PlackettLuce):
        return distribution.num_values, distribution.values, jnp.shape(distribution.logits)[:-1]
    if not class_of(distribution).startswith("numpyro.") or not distribution.has_enumerate_support:
        return None
    values = distribution.enumerate_support(expand=False)
    values = values.reshape(len(values), *distribution.event_shape)
    return len(values), lambda: values, distribution.batch_shape
