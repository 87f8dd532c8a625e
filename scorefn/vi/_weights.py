"""Logarithms of importance weights, shared by the bounds."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scorefn.distributions._distribution import Distribution

LogDensity = Callable[[Any], jax.Array]


def log_weight(log_joint: LogDensity, distribution: Distribution, z: Any) -> jax.Array:
    """The logarithm of the importance weight of one draw."""
    return log_joint(z) - distribution.log_density(z)


def log_mean_exp(x: jax.Array) -> jax.Array:
    """The logarithm of the mean of exponentials."""
    return jax.nn.logsumexp(x) - jnp.log(jnp.asarray(len(x), x.dtype))
