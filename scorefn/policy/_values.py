"""Losses of a value, and the distribution of actions between two bounds."""

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
    eps: float | jax.Array = 0.2,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Half the squared error of a value, the larger one of that and of the value held near the old.

    .. code-block:: text

        value  max((value - target)^2, (clip(value, old - eps, old + eps) - target)^2) / 2

    A value that has already moved by eps towards its target gets no derivative. Note that eps is in
    the units of the value. No derivative passes through old_value and target.

    Args:
        value: any shape.
        old_value: before the update, shaped like value.
        target: shaped like value, as ``gae + old_value``.
        eps: how far the value may move, positive; infinite for a plain squared error.
        where: shaped like value, what counts; the rest is 0.

    Returns:
        Shaped like value: reduce it.

    Raises:
        ValueError: shapes that do not line up, eps that is not positive.
        TypeError: a mask of floats.

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
    reach = jnp.asarray(eps, value.dtype)
    near = jnp.clip(value, old_value - reach, old_value + reach)
    return jnp.maximum(jnp.square(value - target), jnp.square(near - target)) / 2


@pytree_dataclass
class SquashedNormal:
    """The tanh of a normal: actions in [-1, 1], with a finite density even at the bounds.

    .. code-block:: text

        log_prob(a)  log N(atanh a; mean, scale) - log(1 - a^2)

    In float32 the tanh of 9 is 1, and the density of what was drawn is lost. An action beyond the
    last number below 1 (above -1) is taken for that number, so that the log-density and its
    derivative are finite; elsewhere they are exact. Where many actions reach the bounds, keep what
    was drawn before the tanh: its normal density has the same score, and no such bias.

    Attributes:
        mean: before the tanh, any shape.
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
        """One action for each mean, through which derivatives pass. The key is consumed."""
        mean = jnp.asarray(self.mean)
        noise = jax.random.normal(key, mean.shape, mean.dtype)
        return jnp.tanh(mean + jnp.asarray(self.scale, mean.dtype) * noise)

    def log_prob(self, action: ArrayLike) -> jax.Array:
        """The log-density of actions shaped like mean, in nats, for each of them."""
        mean, scale, action = same_shape(mean=self.mean, scale=self.scale, action=action)
        edge = 1 - jnp.finfo(action.dtype).epsneg
        x = jnp.arctanh(jnp.clip(action, -edge, edge))
        # log(1 - tanh(x)^2), which loses no digits far out.
        far = jnp.abs(x)
        slope = 2 * (float(np.log(2)) - far - jnp.log1p(jnp.exp(-2 * far)))
        normal = -jnp.square((x - mean) / scale) / 2 - jnp.log(scale) - float(np.log(2 * np.pi)) / 2
        return normal - slope
