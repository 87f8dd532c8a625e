"""Returns and advantages: sums of rewards over time."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.checks import check_count

from ._arrays import Steps, aligned, floats, same_shape, steps_of
from ._recurrence import ends_of, solve


def returns(
    reward: ArrayLike,
    discount: ArrayLike,
    bootstrap: ArrayLike = 0.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    acted: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    """The discounted sum of rewards, ``G_t = reward_t + discount_t G_{t+1}``.

    With discount 1 it is the reward-to-go, an unbiased weight for the score of step t, because
    earlier rewards do not depend on this step. A discount below 1 is biased for the undiscounted
    sum, and also for the discounted one unless scores are weighted by `discount_weight`.

    Args:
        reward: the reward of each step, any shape with an axis of time.
        discount: shaped like reward, or a scalar; 0 at the last step of an episode.
        bootstrap: the value after the last step, in the units of reward: a scalar, or shaped like
            reward without its axis of time; for packed rows also [..., num_segments].
        axis: the axis of time.
        where: shaped like reward, True where a step exists; other steps are not read.
        acted: shaped like reward, True where the policy chose; None means all existing steps. The
            reward and discount of an existing step that is not an action (a tool's answer, a turn
            of the environment) are credited to earlier actions.
        segment_ids: shaped like reward, integers: the sequences packed into one row, one run of ids
            each, starting at 1; 0 is padding.
        num_segments: the largest id, a static int.

    Returns:
        Shaped like reward; elements at steps that are not actions have no meaning.

    Raises:
        ValueError: the shapes do not match; the axis does not exist.
        TypeError: the mask holds floats.

    Example:
        >>> print(returns([0.0, 0.0, 1.0], 0.5))
        [0.25 0.5  1.  ]
        >>> print(returns([0.0, 0.0, 1.0], 1.0, acted=[True, True, False])[:2])
        [1. 1.]

    References:
        Sutton and Barto, Reinforcement Learning (2018), equation 3.9.
    """
    reward, discount, bootstrap = floats(reward, discount, bootstrap)
    steps = steps_of(reward, "reward", axis, where, acted, segment_ids, num_segments)
    reward, discount = aligned(steps.exist, reward=reward, discount=discount)
    return solve(discount, reward, steps, ends_of(bootstrap, reward, steps))[0]


def lambda_returns(
    reward: ArrayLike,
    discount: ArrayLike,
    next_value: ArrayLike,
    lam: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    acted: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    """The lambda-return: a weighted mean of n-step returns of all lengths.

    .. code-block:: text

        G_t  reward_t + discount_t ((1 - lam_t) next_value_t + lam_t G_{t+1})

    where G after the last action is its next_value. Errors of the values bias it, least for
    lam = 1. Derivatives pass, also through next_value: stop those of a target.

    Args:
        reward: the reward of each step, any shape with an axis of time.
        discount: shaped like reward, or a scalar; 0 where an episode ends.
        next_value: the value of the state of the next action, shaped like reward; see
            `next_value`. If an episode is cut off, the value of its last state. Not read where the
            discount is 0.
        lam: shaped like reward, or a scalar, in [0, 1]; 0 where an episode is cut off, so that the
            next episode is not included.
        axis: the axis of time.
        where: the steps that exist, as for `returns`.
        acted: the actions, as for `returns`. Other steps use no lam and no value.
        segment_ids: of packed rows, as for `returns`.
        num_segments: the largest id, a static int.

    Returns:
        Shaped like reward; elements at steps that are not actions have no meaning.

    Raises:
        ValueError: the shapes do not match; the axis does not exist.
        TypeError: the mask holds floats.

    Example:
        >>> print(lambda_returns([0.0, 1.0], 1.0, [2.0, 4.0], 0.5))
        [3.5 5. ]

    References:
        Sutton and Barto, Reinforcement Learning (2018), equation 12.18.
    """
    reward, discount, next_value, lam = same_shape(
        reward=reward, discount=discount, next_value=next_value, lam=lam
    )
    steps = steps_of(reward, "reward", axis, where, acted, segment_ids, num_segments)
    reward, discount, acts = actions_only(reward, discount, steps, given=acted is not None)
    next_value, lam = readable(next_value, discount, acts), jnp.where(acts.exist, lam, 0)
    one_step = reward + discount * (1 - lam) * next_value
    return solve(discount * lam, one_step, acts, next_value)[0]


def gae(
    reward: ArrayLike,
    discount: ArrayLike,
    value: ArrayLike,
    next_value: ArrayLike,
    lam: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    acted: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    """The generalized advantage estimate, ``A_t = delta_t + discount_t lam_t A_{t+1}``.

    .. code-block:: text

        delta_t  reward_t + discount_t next_value_t - value_t

    Errors of the values bias it; unbiased for lam = 1 and discount 1 (for a discount below 1 see
    `returns`). ``gae + value`` is the lambda-return, a target for the value. Derivatives pass: stop
    those of a target.

    Args:
        reward: the reward of each step, any shape with an axis of time.
        discount: as for `lambda_returns`: 0 where an episode ends.
        value: the value of the state before each step, shaped like reward, in its units.
        next_value: the value of the state of the next action, as for `lambda_returns`.
        lam: as for `lambda_returns`: 0 where an episode is cut off.
        axis: the axis of time.
        where: the steps that exist, as for `returns`.
        acted: the actions, as for `returns`. Other steps use no lam and no value.
        segment_ids: of packed rows, as for `returns`.
        num_segments: the largest id, a static int.

    Returns:
        Shaped like reward; elements at steps that are not actions have no meaning.

    Raises:
        ValueError: the shapes do not match; the axis does not exist.
        TypeError: the mask holds floats.

    Example:
        >>> print(gae([0.0, 1.0], 1.0, [0.5, 2.0], [2.0, 0.0], 0.5))
        [ 1. -1.]

    References:
        Schulman et al., High-dimensional continuous control using generalized advantage estimation
        (2016), equation 16.
    """
    reward, discount, value, next_value, lam = same_shape(
        reward=reward, discount=discount, value=value, next_value=next_value, lam=lam
    )
    steps = steps_of(reward, "reward", axis, where, acted, segment_ids, num_segments)
    reward, discount, acts = actions_only(reward, discount, steps, given=acted is not None)
    next_value = readable(next_value, discount, acts)
    value, lam = (jnp.where(acts.exist, x, 0) for x in (value, lam))
    delta = reward + discount * next_value - value
    return solve(discount * lam, delta, acts, jnp.zeros((), delta.dtype))[0]


def n_step_returns(
    reward: ArrayLike,
    discount: ArrayLike,
    next_value: ArrayLike,
    n: int,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    acted: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    """The n-step return: n rewards plus the value of the state after them.

    .. code-block:: text

        G_t  reward_t + discount_t (reward_{t+1} + ... + discount_{t+n-1} next_value_{t+n-1})

    with fewer rewards if fewer remain. ``n = 1`` is the target of temporal differences. Derivatives
    pass: stop those of a target. It takes n passes over the steps.

    Args:
        reward: the reward of each step, any shape with an axis of time.
        discount: as for `lambda_returns`: 0 where an episode ends.
        next_value: as for `lambda_returns`.
        n: the number of rewards, at least 1, a static int.
        axis: the axis of time.
        where: the steps that exist, as for `returns`.
        acted: the actions, as for `returns`; n counts actions.
        segment_ids: of packed rows, as for `returns`.
        num_segments: the largest id, a static int.

    Returns:
        Shaped like reward; elements at steps that are not actions have no meaning.

    Raises:
        ValueError: the shapes do not match; the axis does not exist; n is below 1.
        TypeError: a mask of floats.

    Example:
        >>> print(n_step_returns([1.0, 2.0, 3.0], 0.5, [8.0, 8.0, 8.0], 2))
        [4.  5.5 7. ]

    References:
        Sutton and Barto, Reinforcement Learning (2018), equation 7.1.
    """
    check_count("n", n)
    reward, discount, next_value = same_shape(
        reward=reward, discount=discount, next_value=next_value
    )
    steps = steps_of(reward, "reward", axis, where, acted, segment_ids, num_segments)
    reward, discount, acts = actions_only(reward, discount, steps, given=acted is not None)
    following = next_value = readable(next_value, discount, acts)
    for _ in range(n - 1):
        later = reward + discount * following
        following = readable(
            solve(jnp.zeros_like(later), later, acts, next_value)[1], discount, acts
        )
    return reward + discount * following


def discount_weight(
    discount: ArrayLike,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    """The product of the discounts of all earlier steps of the episode, ``gamma^t``.

    The gradient of a discounted sum of rewards is the sum of ``gamma^t * returns_t * score_t``,
    which is unbiased. Most trainers omit the factor ``gamma^t``; then late actions have a larger
    weight than in the objective, and the estimate is not the gradient of any objective.

    Args:
        discount: the discount of each step, any shape with an axis of time; 0 at the last step of
            an episode, after which the next one starts with 1.
        axis: the axis of time.
        where: the steps that exist, as for `returns`.
        segment_ids: of packed rows, as for `returns`.
        num_segments: the largest id, a static int.

    Returns:
        Shaped like discount: multiply advantages by it.

    Raises:
        ValueError: the shapes do not match; the axis does not exist.
        TypeError: the mask holds floats.

    Example:
        >>> print(discount_weight([0.5, 0.5, 0.0, 0.5]))
        [1.   0.5  0.25 1.  ]

    References:
        Thomas, Bias in natural actor-critic algorithms (2014); Nota and Thomas, Is the policy
        gradient a gradient? (2020).
    """
    (discount,) = floats(discount)
    steps = steps_of(discount, "discount", axis, where, None, segment_ids, num_segments)
    (discount,) = aligned(steps.exist, discount=discount)
    # The recurrence in forward time. Each episode starts with 1.
    discount = jnp.flip(discount, axis)
    start = jnp.where(discount == 0, 1, 0).astype(discount.dtype)
    one = jnp.ones((), discount.dtype)
    return jnp.flip(solve(discount, start, steps.flipped(), one)[1], axis)


def actions_only(
    reward: jax.Array, discount: jax.Array, steps: Steps, *, given: bool
) -> tuple[jax.Array, jax.Array, Steps]:
    """Rewards and discounts between actions, and the actions as steps."""
    reward, discount = aligned(steps.exist, reward=reward, discount=discount)
    if given:
        run = jnp.cumsum(steps.act, axis=steps.axis, dtype=jnp.int32)
        zero, one = jnp.zeros((), reward.dtype), jnp.ones((), reward.dtype)
        reward, _ = solve(discount, reward, steps, zero, run)
        discount, _ = solve(discount, jnp.zeros_like(discount), steps, one, run)
    act = steps.act
    reward, discount = aligned(act, reward=reward, discount=discount)
    return reward, discount, steps._replace(exist=act)


def readable(next_value: jax.Array, discount: jax.Array, acts: Steps) -> jax.Array:
    """The next value, with non-finite values after the end of an episode replaced by 0."""
    nothing = (discount == 0) & ~jnp.isfinite(next_value)
    return jnp.where(acts.exist & ~nothing, next_value, 0)
