"""Sums over time, backwards: one recurrence, and the returns and advantages made of it."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ._arrays import aligned, check_axis, floats, mask_like


def reverse_recurrence(
    a: ArrayLike,
    b: ArrayLike,
    init: ArrayLike = 0.0,
    *,
    axis: int = 0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The solution of ``x_t = b_t + a_t x_{t+1}`` along an axis, with ``x_T = init``.

    Where the mask is False the recurrence stands still, ``x_t = x_{t+1}``, whatever a and b hold.
    Exact, one pass over the T steps; derivatives pass, at every order.

    Args:
        a: shaped like b, or a scalar.
        b: any shape with an axis of time.
        init: x after the last step: a scalar, or shaped like b without its axis of time.
        axis: the axis of time.
        where: shaped like b; None means everywhere.

    Returns:
        x, shaped like b, in float32 at least.

    Raises:
        ValueError: shapes that do not line up, no such axis.

    Example:
        >>> print(reverse_recurrence(0.5, [1.0, 1.0, 4.0]))
        [2.5 3.  4. ]
    """
    b, a, init = floats(b, a, init)
    check_axis(axis, b, "b")
    mask = mask_like(where, b, "b")
    b, a = aligned(where, b=b, a=a)
    a = jnp.where(mask, a, 1)
    a, b = jnp.moveaxis(a, axis, 0), jnp.moveaxis(b, axis, 0)
    if init.shape not in ((), b.shape[1:]):
        raise ValueError(
            f"init has shape {init.shape}; it must be a scalar or have the shape {b.shape[1:]}, "
            f"that of the other arrays without their axis of time."
        )

    # An associative scan does the same in fewer steps, and is slower on a CPU.
    def step(x: jax.Array, ab: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        x = ab[1] + ab[0] * x
        return x, x

    _, x = jax.lax.scan(step, jnp.broadcast_to(init, b.shape[1:]), (a, b), reverse=True)
    return jnp.moveaxis(x, 0, axis)


def returns(
    reward: ArrayLike,
    discount: ArrayLike,
    bootstrap: ArrayLike = 0.0,
    *,
    axis: int = 0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The discounted sum of what follows, ``G_t = reward_t + discount_t G_{t+1}``.

    With discount 1 the reward-to-go: unbiased as weight of the score of step t, because what came
    before does not depend on it. A discount below 1 is biased for the undiscounted sum.

    Args:
        reward: of each step, any shape with an axis of time.
        discount: shaped like reward, or a scalar; 0 at the last step of an episode.
        bootstrap: the value after the last step, in the units of reward: a scalar, or shaped like
            reward without its axis of time.
        axis: the axis of time.
        where: the steps that count; others have the return of the next that does.

    Returns:
        Shaped like reward.

    Raises:
        ValueError: shapes that do not line up, no such axis.

    Example:
        >>> print(returns([0.0, 0.0, 1.0], 0.5))
        [0.25 0.5  1.  ]

    References:
        Sutton and Barto, Reinforcement Learning (2018), equation 3.9.
    """
    reward, discount = aligned(where, reward=reward, discount=discount)
    return reverse_recurrence(discount, reward, bootstrap, axis=axis, where=where)


def lambda_returns(
    reward: ArrayLike,
    discount: ArrayLike,
    next_value: ArrayLike,
    lam: ArrayLike,
    *,
    axis: int = 0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """Returns of all lengths, averaged: each step leaves the rest to the value with 1 - lam.

    .. code-block:: text

        G_t  reward_t + discount_t ((1 - lam_t) next_value_t + lam_t G_{t+1})

    where G after the last step is its next_value. Biased as far as the values are wrong; lam = 1
    trusts them least. Derivatives pass, through next_value too: stop those of a target.

    Args:
        reward: of each step, any shape with an axis of time.
        discount: shaped like reward, or a scalar. 0 where an episode ends: nothing follows.
        next_value: of the state after each step, shaped like reward. At a step where an episode is
            cut off though more would follow, that of the state that was reached.
        lam: in [0, 1], shaped like reward, or a scalar; 0 where an episode is cut off, so that
            nothing of the next one is counted.
        axis: the axis of time.
        where: the steps that count.

    Returns:
        Shaped like reward.

    Raises:
        ValueError: shapes that do not line up, no such axis.

    Example:
        >>> print(lambda_returns([0.0, 1.0], 1.0, [2.0, 4.0], 0.5))
        [3.5 5. ]

    References:
        Sutton and Barto, Reinforcement Learning (2018), equation 12.18.
    """
    reward, discount, next_value, lam = aligned(
        where, reward=reward, discount=discount, next_value=next_value, lam=lam
    )
    last = _last(next_value, mask_like(where, reward, "reward"), axis)
    one_step = reward + discount * (1 - lam) * next_value
    return reverse_recurrence(discount * lam, one_step, last, axis=axis, where=where)


def gae(
    reward: ArrayLike,
    discount: ArrayLike,
    value: ArrayLike,
    next_value: ArrayLike,
    lam: ArrayLike,
    *,
    axis: int = 0,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The generalised advantage estimate, ``A_t = delta_t + discount_t lam_t A_{t+1}``.

    .. code-block:: text

        delta_t  reward_t + discount_t next_value_t - value_t

    Biased as far as the values are wrong; unbiased for lam = 1. ``gae + value`` is the target of
    the value, the lambda-return. Derivatives pass: stop those of a target.

    Args:
        reward: of each step, any shape with an axis of time.
        discount: as for `lambda_returns`: 0 where an episode ends.
        value: of the state before each step, shaped like reward, in its units.
        next_value: of the state after each step, as for `lambda_returns`.
        lam: as for `lambda_returns`: 0 where an episode is cut off.
        axis: the axis of time.
        where: the steps that count; others have the advantage of the next that does.

    Returns:
        Shaped like reward.

    Raises:
        ValueError: shapes that do not line up, no such axis.

    Example:
        >>> print(gae([0.0, 1.0], 1.0, [0.5, 2.0], [2.0, 0.0], 0.5))
        [ 1. -1.]

    References:
        Schulman et al., High-dimensional continuous control using generalized advantage estimation
        (2016), equation 16.
    """
    reward, discount, value, next_value, lam = aligned(
        where, reward=reward, discount=discount, value=value, next_value=next_value, lam=lam
    )
    delta = reward + discount * next_value - value
    return reverse_recurrence(discount * lam, delta, axis=axis, where=where)


def _last(x: jax.Array, mask: jax.Array, axis: int) -> jax.Array:
    """The last element along an axis that counts, and 0 if none does."""
    check_axis(axis, x, "reward")
    x, mask = jnp.moveaxis(x, axis, 0), jnp.moveaxis(mask, axis, 0)
    index = len(x) - 1 - jnp.argmax(jnp.flip(mask, 0), axis=0)
    return jnp.take_along_axis(x, index[None], axis=0)[0]
