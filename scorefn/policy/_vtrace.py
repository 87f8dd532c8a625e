"""V-trace: off-policy value targets and advantages with truncated weights."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ._arrays import LIMIT, same_shape, steps_of
from ._recurrence import solve
from ._time import actions_only, readable


class VTrace(NamedTuple):
    """The result of `vtrace`, with arrays shaped like reward.

    Attributes:
        errors: target - value; the mean of ``errors**2 / 2`` is the loss of the value.
        pg_advantage: the weighted advantage for the score; no derivative.
        q: the estimate of the action value in the advantage; no derivative.
    """

    errors: jax.Array
    pg_advantage: jax.Array
    q: jax.Array


def vtrace(
    reward: ArrayLike,
    discount: ArrayLike,
    value: ArrayLike,
    next_value: ArrayLike,
    log_rho: ArrayLike,
    lam: ArrayLike = 1.0,
    clip_rho: ArrayLike = 1.0,
    clip_pg_rho: ArrayLike = 1.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    acted: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> VTrace:
    """Value targets and advantages of a policy, from the steps of an older one.

    .. code-block:: text

        rho_t         exp(log_rho_t), the ratio of new to old probability, at most exp(20)
        errors_t      min(clip_rho, rho_t) delta_t
                      + discount_t lam_t min(1, rho_t) errors_{t+1}
        q_t           reward_t + discount_t (next_value_t + lam_t errors_{t+1})
        pg_advantage  min(clip_pg_rho, rho_t) (q_t - value_t)

    with delta as for `gae`. On policy, errors equals `gae`. Truncation adds a bias and keeps the
    variance finite: the fixed point is the value of a policy between the two. Only ``errors`` has a
    derivative, minus that of value, because the targets are data.

    Args:
        reward: the reward of each step, any shape with an axis of time.
        discount: as for `lambda_returns`: 0 where an episode ends.
        value: the value of the state before each step, shaped like reward.
        next_value: the value of the state after each step, as for `lambda_returns`.
        log_rho: the log-probability of the action under the policy minus that under the policy
            that chose it, in nats.
        lam: as for `lambda_returns`: 0 where an episode is cut off.
        clip_rho: the largest weight of an error; infinite for no bound.
        clip_pg_rho: the largest weight of an advantage.
        axis: the axis of time.
        where: the steps that exist, as for `returns`.
        acted: the actions, as for `returns`. Other steps use no lam, no value and no ratio.
        segment_ids: of packed rows, as for `returns`.
        num_segments: the largest id, a static int.

    Returns:
        A `VTrace`.

    Raises:
        ValueError: the shapes do not match; the axis does not exist.
        TypeError: the mask holds floats.

    Example:
        >>> steps = vtrace([0.0, 1.0], 1.0, [0.5, 2.0], [2.0, 0.0], log_rho=[0.0, -0.7])
        >>> print(steps.errors.round(2))
        [ 1.  -0.5]

    References:
        Espeholt et al., IMPALA: scalable distributed deep-RL with importance weighted
        actor-learner architectures (2018), section 4.1.
    """
    reward, discount, value, next_value, log_rho, lam, clip_rho, clip_pg_rho = same_shape(
        reward=reward,
        discount=discount,
        value=value,
        next_value=next_value,
        log_rho=log_rho,
        lam=lam,
        clip_rho=clip_rho,
        clip_pg_rho=clip_pg_rho,
    )
    steps = steps_of(reward, "reward", axis, where, acted, segment_ids, num_segments)
    reward, discount, acts = actions_only(reward, discount, steps, given=acted is not None)
    next_value = readable(next_value, discount, acts)
    value, log_rho, lam, clip_rho, clip_pg_rho = (
        jnp.where(acts.exist, x, 0) for x in (value, log_rho, lam, clip_rho, clip_pg_rho)
    )
    rho = jnp.exp(jnp.minimum(log_rho, LIMIT))
    delta = jnp.minimum(clip_rho, rho) * (reward + discount * next_value - value)
    trace = discount * lam * jnp.minimum(1, rho)
    errors, later = solve(trace, delta, acts, jnp.zeros((), delta.dtype))
    q = reward + discount * (next_value + lam * later)
    advantage = jnp.minimum(clip_pg_rho, rho) * (q - value)
    errors, advantage, q, fixed = jax.lax.stop_gradient((errors, advantage, q, value))
    return VTrace(errors + (fixed - value), advantage, q)
