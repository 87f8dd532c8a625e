"""The mean and the scale of a distribution, as its library has them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from .._arguments import example
from .._distribution import Distribution
from .._factors import Bernoulli, unwrapped

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
    inner = unwrapped(distribution)
    mean = _called(distribution, "mean")
    if "MultivariateNormal" in type(inner).__name__:
        name = "covariance_matrix" if hasattr(inner, "covariance_matrix") else "covariance"
        return mean, jnp.linalg.cholesky(_called(distribution, name))
    # Only what has no event axes of its own is known to have independent components: the
    # variances of a Dirichlet, or of a mixture of vectors, leave out how they go together.
    if tuple(getattr(inner, "event_shape", (None,))) != ():
        raise _unknown(distribution)
    return mean, jnp.sqrt(_called(distribution, "variance"))


def _called(distribution: Any, name: str) -> jax.Array:
    # A method in distrax and TFP, a property in numpyro.
    value = getattr(distribution, name, None)
    value = value() if callable(value) else value
    if value is None:
        raise _unknown(distribution)
    return value


def _unknown(distribution: Any) -> TypeError:
    return TypeError(
        f"DeltaMethod needs the mean and the covariance of the draws, and cannot read them off "
        f"{type(distribution).__name__}. Give moments=lambda params: (mean, scale)."
    )
