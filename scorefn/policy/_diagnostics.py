"""Diagnostics of the distance between a policy and the one that drew the actions."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ._arrays import LIMIT, floats, lined_up, mask_like


def effective_sample_size(
    log_ratio: ArrayLike, *, axis: int | None = None, where: ArrayLike | None = None
) -> jax.Array:
    """The effective sample size of weighted draws, ``(sum w)^2 / sum w^2``.

    On policy it is the number of draws; if one weight is much larger than all others it is 1. It
    depends on the given draws only: rare large weights that were not drawn make it too large.

    Args:
        log_ratio: the logarithms of the weights w, in nats, any shape, without bounds.
        axis: the axis of the draws; None means all.
        where: shaped like log_ratio, True for the draws to include.

    Returns:
        Shaped like log_ratio without the axis; 0 if no draw is included. No derivative.

    Raises:
        ValueError: the mask has another shape.
        TypeError: the mask holds floats.

    Example:
        >>> import jax.numpy as jnp
        >>> print(effective_sample_size(jnp.log(jnp.array([1.0, 1.0, 2.0]))).round(3))
        2.667

    References:
        Kong, A note on importance sampling using standardized weights (1992).
    """
    (log_ratio,) = floats(log_ratio)
    mask = mask_like(where, log_ratio, "log_ratio")
    log_ratio = jax.lax.stop_gradient(jnp.where(mask, log_ratio, -jnp.inf))
    largest = jnp.max(log_ratio, axis, keepdims=True, initial=-jnp.inf)
    weight = jnp.exp(log_ratio - jnp.where(jnp.isfinite(largest), largest, 0))
    squares = jnp.sum(jnp.square(weight), axis)
    return jnp.square(jnp.sum(weight, axis)) / jnp.where(squares > 0, squares, 1)


def clip_fraction(
    log_ratio: ArrayLike,
    advantage: ArrayLike,
    eps_low: float | jax.Array = 0.2,
    eps_high: float | jax.Array | None = None,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The fraction of actions to which `clipped_surrogate` gives no derivative.

    These have a ratio above 1 + eps_high and a positive advantage, or a ratio below 1 - eps_low and
    a negative advantage. Other ratios outside of the bounds are not clipped.

    Args:
        log_ratio: as for `clipped_surrogate`.
        advantage: as for `clipped_surrogate`.
        eps_low: as for `clipped_surrogate`.
        eps_high: as for `clipped_surrogate`.
        axis: as for `clipped_surrogate`.
        where: shaped like log_ratio, True for the actions to include.

    Returns:
        A scalar from 0 to 1; 0 if no action is included. No derivative.

    Raises:
        ValueError: the shapes do not match.
        TypeError: the mask holds floats.

    Example:
        >>> import jax.numpy as jnp
        >>> print(clip_fraction(jnp.log(jnp.array([0.5, 1.5])), jnp.array([1.0, 1.0])))
        0.5
    """
    log_ratio, advantage = floats(log_ratio, advantage)
    mask = mask_like(where, log_ratio, "log_ratio")
    advantage = lined_up(advantage, log_ratio, "advantage", axis)
    low: Any = 1 - jnp.asarray(eps_low, log_ratio.dtype)
    high: Any = 1 + jnp.asarray(eps_low if eps_high is None else eps_high, log_ratio.dtype)
    ratio = jnp.exp(log_ratio)
    clipped = ((advantage > 0) & (ratio > high)) | ((advantage < 0) & (ratio < low))
    return _mean(jnp.where(clipped, 1, 0).astype(log_ratio.dtype), mask)


def approximate_divergence(log_ratio: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    """The "approximate KL" of PPO: KL(old || new), from draws of the old policy.

    .. code-block:: text

        value  mean of exp(log_ratio) - 1 - log_ratio

    Unbiased and never negative. Use it for reports and early stopping; as a penalty its gradient
    would be wrong: use `kl_estimate`.

    Args:
        log_ratio: the logarithm of the ratio of new to old probability, in nats, any shape; bounded
            by 20.
        where: shaped like log_ratio, True for the actions to include.

    Returns:
        A scalar, in nats; 0 if no action is included. No derivative.

    Raises:
        ValueError: the mask has another shape.
        TypeError: the mask holds floats.

    Example:
        >>> print(approximate_divergence([0.1, -0.1]).round(4))
        0.005

    References:
        Schulman, Approximating KL divergence (2020).
    """
    (log_ratio,) = floats(log_ratio)
    mask = mask_like(where, log_ratio, "log_ratio")
    log_ratio = jnp.minimum(jnp.where(mask, log_ratio, 0), LIMIT)
    return _mean(jnp.expm1(log_ratio) - log_ratio, mask)


def _mean(x: jax.Array, mask: jax.Array) -> jax.Array:
    count = jnp.sum(mask, dtype=x.dtype)
    return jax.lax.stop_gradient(jnp.sum(jnp.where(mask, x, 0)) / jnp.maximum(count, 1))
