"""A loss for value functions, and a distribution of bounded actions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from scorefn._core.checks import check_number
from scorefn._core.pytree import pytree_dataclass

from ._arrays import mask_like, same_shape


def clipped_value_loss(
    value: ArrayLike,
    old_value: ArrayLike,
    target: ArrayLike,
    eps: float | jax.Array | None = 0.2,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Half the squared error of a value, or that of the clipped value if larger.

    .. code-block:: text

        value  max((value - target)^2, (clip(value, old - eps, old + eps) - target)^2) / 2

    A value that has already moved by eps towards its target has derivative 0. Note that eps is in
    the units of the value. No derivative passes through old_value and target.

    Args:
        value: any shape.
        old_value: the value before the update, shaped like value.
        target: shaped like value, for example ``gae + old_value``.
        eps: the largest move of the value, positive; None for a plain squared error.
        where: shaped like value, True for the elements to include; the rest is 0.

    Returns:
        Shaped like value: reduce it.

    Raises:
        ValueError: the shapes do not match; eps is not positive.
        TypeError: the mask holds floats.

    Example:
        >>> print(clipped_value_loss([1.0, 3.0], [1.0, 1.0], [4.0, 4.0], 0.5))
        [4.5   3.125]

    References:
        Schulman et al., baselines ppo2 (2017); Huang et al., The 37 implementation details of
        proximal policy optimization (2022), detail 9.
    """
    check_number("eps", eps, above=0)
    value, old_value, target = same_shape(value=value, old_value=old_value, target=target)
    mask = mask_like(where, value, "value")
    value, old_value, target = (jnp.where(mask, x, 0) for x in (value, old_value, target))
    old_value, target = jax.lax.stop_gradient((old_value, target))
    if eps is None:
        return jnp.square(value - target) / 2
    reach = jnp.asarray(eps, value.dtype)
    near = jnp.clip(value, old_value - reach, old_value + reach)
    return jnp.maximum(jnp.square(value - target), jnp.square(near - target)) / 2


@pytree_dataclass
class SquashedNormal:
    """The tanh of a normal: actions in [-1, 1] with a finite density.

    .. code-block:: text

        log_prob(a)  log N(atanh a; mean, scale) - log(1 - a^2)

    In float32 the tanh of 9 is 1, so the density of the draw is lost. Actions at the bounds are
    replaced by the nearest number between them, so that the log-density and its derivative are
    finite; elsewhere they are exact. If many actions reach the bounds, store the draws before the
    tanh instead: their normal density has the score of the action without this bias.

    Attributes:
        mean: the mean before the tanh, any shape.
        scale: the standard deviation before the tanh, positive, shaped like mean or a scalar.

    Example:
        >>> import jax.numpy as jnp
        >>> actions = SquashedNormal(jnp.array([0.0, 10.0]), 1.0)
        >>> print(jnp.isfinite(actions.log_prob(jnp.array([0.0, 1.0]))))
        [ True  True]

    References:
        Haarnoja et al., Soft actor-critic (2018), appendix C.
    """

    mean: jax.Array
    scale: jax.Array | float = 1.0

    def sample(self, key: jax.Array) -> jax.Array:
        """One action for each mean, with its derivative. The key is consumed."""
        mean = jnp.asarray(self.mean)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return jnp.tanh(mean + jnp.asarray(self.scale, mean.dtype) * noise)

    def log_prob(self, action: ArrayLike) -> jax.Array:
        """The log-density of each action, in nats; actions are shaped like mean."""
        mean, scale, action = same_shape(mean=self.mean, scale=self.scale, action=action)
        edge = 1 - jnp.finfo(action.dtype).epsneg
        x = jnp.arctanh(jnp.clip(action, -edge, edge))
        # log(1 - tanh(x)^2), accurate for large x.
        far = jnp.abs(x)
        slope = 2 * (float(np.log(2)) - far - jnp.log1p(jnp.exp(-2 * far)))
        normal = -jnp.square((x - mean) / scale) / 2 - jnp.log(scale) - float(np.log(2 * np.pi)) / 2
        return normal - slope
