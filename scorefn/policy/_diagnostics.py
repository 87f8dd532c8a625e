"""How far a policy has moved from the one that drew: numbers to watch, no losses."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ._arrays import LIMIT, floats, lined_up, mask_like
from ._reduce import reduce


def effective_sample_size(
    log_ratio: ArrayLike, *, axis: int | None = None, where: ArrayLike | None = None
) -> jax.Array:
    """The number of draws of the new policy that weighted draws are worth, ``(sum w)^2 / sum w^2``.

    On policy it is their number; where one weight is much larger than all others it is 1. It sees
    only the draws that there are: large weights that were not met make it too large.

    Args:
        log_ratio: the logarithms of the weights w, in nats, any shape, without bounds.
        axis: the axis of the draws; None means all.
        where: shaped like log_ratio, what counts.

    Returns:
        Shaped like log_ratio without the axis; 0 where nothing counts. No derivative.

    Raises:
        ValueError: a mask of another shape.
        TypeError: a mask of floats.

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
    where: ArrayLike | None = None,
) -> jax.Array:
    """The share of actions that `clipped_surrogate` gives no derivative.

    These are the ratios above 1 + eps_high with a positive advantage and those below 1 - eps_low
    with a negative one. Ratios beyond the bounds on the other side are not clipped.

    Args:
        log_ratio: as for `clipped_surrogate`.
        advantage: as for `clipped_surrogate`.
        eps_low: as for `clipped_surrogate`.
        eps_high: as for `clipped_surrogate`.
        where: shaped like log_ratio, what counts.

    Returns:
        A scalar from 0 to 1; 0 where nothing counts. No derivative.

    Raises:
        ValueError: shapes that do not line up.
        TypeError: a mask of floats.

    Example:
        >>> import jax.numpy as jnp
        >>> print(clip_fraction(jnp.log(jnp.array([0.5, 1.5])), jnp.array([1.0, 1.0])))
        0.5
    """
    log_ratio, advantage = floats(log_ratio, advantage)
    mask = mask_like(where, log_ratio, "log_ratio")
    advantage = lined_up(advantage, log_ratio, "advantage")
    low: Any = 1 - jnp.asarray(eps_low, log_ratio.dtype)
    high: Any = 1 + jnp.asarray(eps_low if eps_high is None else eps_high, log_ratio.dtype)
    ratio = jnp.exp(log_ratio)
    clipped = ((advantage > 0) & (ratio > high)) | ((advantage < 0) & (ratio < low))
    return _mean(jnp.where(clipped, 1, 0).astype(log_ratio.dtype), mask)


def approximate_divergence(log_ratio: ArrayLike, *, where: ArrayLike | None = None) -> jax.Array:
    """KL(old || new) for each action, from draws of the old policy: the "approximate KL" of PPO.

    .. code-block:: text

        value  mean of exp(log_ratio) - 1 - log_ratio

    Unbiased, never negative. To stop early or to report; as a penalty it is the wrong gradient, for
    which see `kl_estimate`.

    Args:
        log_ratio: of new to old probability, in nats, any shape; at most 20 counts.
        where: shaped like log_ratio, what counts.

    Returns:
        A scalar, in nats; 0 where nothing counts. No derivative.

    Raises:
        ValueError: a mask of another shape.
        TypeError: a mask of floats.

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
    return jax.lax.stop_gradient(reduce(jnp.ravel(x), jnp.ravel(mask)))
