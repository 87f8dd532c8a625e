"""The mean and the scale of a distribution, as its library has them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._arguments import example
from .._distribution import Distribution
from .._factors import Bernoulli

Moments = tuple[jax.Array, jax.Array]


def read_moments(
    moments: Callable[[Any], Moments] | None, distribution: Distribution, keys: jax.Array
) -> Moments:
    """The mean, shaped like a draw, and the standard deviations or a square root of the covariance.

    Raises:
        TypeError: a draw is not one array of floats; there are no moments to read.
        ValueError: they do not fit the draw.
    """
    draw = jax.eval_shape(distribution.draw, example(keys))
    leaves = jax.tree.leaves(draw)
    if len(leaves) != 1 or not jnp.issubdtype(leaves[0].dtype, jnp.floating):
        raise TypeError(f"DeltaMethod needs draws that are one array of floats, got {draw}.")
    shape, dtype = leaves[0].shape, leaves[0].dtype
    mean, scale = (moments or _read)(distribution.params)
    mean, scale = jnp.asarray(mean, dtype), jnp.asarray(scale, dtype)
    if mean.shape != shape:
        raise ValueError(f"the mean must be shaped like a draw, {shape}, got {mean.shape}.")
    if scale.shape not in (shape, 2 * shape):
        raise ValueError(
            f"the scale must be shaped like a draw, {shape}, or hold a square root of its "
            f"covariance, {2 * shape}, got {scale.shape}."
        )
    return mean, scale


def _read(distribution: Any) -> Moments:
    if isinstance(distribution, Bernoulli):
        mean = jax.nn.sigmoid(jnp.asarray(distribution.logits))
        return mean, jnp.sqrt(mean * (1 - mean))
    mean = _called(getattr(distribution, "mean", None))
    if "MultivariateNormal" in type(distribution).__name__:
        covariance = getattr(distribution, "covariance", None)
        covariance = getattr(distribution, "covariance_matrix", covariance)
        return mean, jnp.linalg.cholesky(_called(covariance))
    return mean, jnp.sqrt(_called(getattr(distribution, "variance", None)))


def _called(value: Any) -> jax.Array:
    # A method in distrax and TFP, a property in numpyro.
    value = value() if callable(value) else value
    if value is None:
        raise TypeError(
            "DeltaMethod needs the mean and the covariance of the draws, and this distribution has "
            "no methods for them. Give moments=lambda params: (mean, scale)."
        )
    return value
