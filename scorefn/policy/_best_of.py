"""Advantages for the best of k draws, as in pass@k."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.checks import check_choice, check_count
from scorefn._core.order_statistics import chance_of_largest

from ._arrays import check_axis, floats, mask_like


def best_of(
    reward: ArrayLike,
    k: int,
    axis: int = -1,
    where: ArrayLike | None = None,
    baseline: str | None = "others",
) -> jax.Array:
    """Advantages whose mean score is unbiased for the gradient of E[max of k draws].

    .. code-block:: text

        advantage_i  k (mean over sets S of k - 1 others of max(reward_i, max S) - baseline_i)

    so that the mean over i of ``advantage_i * score_i`` is the U-statistic over all groups of k of
    the n draws, minus a baseline that does not depend on draw i:

    .. code-block:: text

        others  the mean of the best of k of the others (of all of them if only k - 1 are left)
        k-1     the mean of the best of k - 1 of the others: only better draws have an advantage
        None    0

    The better baseline depends on n and k: ``k-1`` if n is slightly above k. For k = 1 and
    ``others`` the advantage is ``reward - leave_one_out(reward)``. Rewards of 0 and 1 give pass@k.

    Args:
        reward: any shape with an axis of draws of one group.
        k: the number of draws of which the best is taken, a static int from 1 to n.
        axis: the axis of the draws.
        where: shaped like reward, True for the draws that exist. A group of fewer than k draws has
            advantages 0, because it allows no unbiased estimate.
        baseline: ``others``, ``k-1``, or None.

    Returns:
        Shaped like reward, in its units, without a derivative; 0 where masked.

    Raises:
        ValueError: there are fewer than k draws along the axis; baseline or axis does not exist.
        TypeError: the mask holds floats.

    Example:
        >>> print(best_of([0.0, 0.25, 1.0], 2))
        [-0.75 -0.75  1.5 ]

    References:
        Tang et al., Optimizing language models for inference time objectives using reinforcement
        learning (2025); Walder and Karkhanis, Pass@k policy optimization (2025).
    """
    check_count("k", k)
    check_choice("baseline", baseline, ("others", "k-1", None))
    (reward,) = floats(reward)
    check_axis(axis, reward, "reward")
    mask = mask_like(where, reward, "reward")
    n = reward.shape[axis]
    if n < k:
        raise ValueError(f"k must be at most the number of draws, {n} along the axis, got {k}.")
    reward = jax.lax.stop_gradient(jnp.moveaxis(jnp.where(mask, reward, 0), axis, -1))
    mask = jnp.moveaxis(mask, axis, -1)

    # Sorted by reward, with masked draws last.
    place = jnp.zeros_like(reward, jnp.int32) + jnp.arange(n, dtype=jnp.int32)
    absent = jnp.where(mask, 0, 1)
    absent, r, place = jax.lax.sort((absent, reward, place), num_keys=2)
    others = jnp.sum(mask, -1, keepdims=True, dtype=r.dtype) - 1
    own, other = r[..., :, None], r[..., None, :]
    later = jnp.tri(n, k=-1, dtype=bool).T  # later[i, j]: j stands after i

    def best(size: int | jax.Array) -> jax.Array:
        """The probability that j is the best of `size` draws other than i."""
        chance = chance_of_largest(size, others, n)
        # Without i, later draws move up by one.
        moved = jnp.concatenate([jnp.zeros_like(chance[..., :1]), chance[..., :-1]], -1)
        found = jnp.where(later, moved[..., None, :], chance[..., None, :])
        return jnp.where(jnp.eye(n, dtype=bool), 0, found)

    if k == 1:
        advantage = r if baseline != "others" else jnp.sum(best(1) * (own - other), -1)
        advantage = jnp.where(others == 0, r, advantage)
    elif baseline == "k-1":
        advantage = jnp.sum(best(k - 1) * jnp.maximum(own - other, 0), -1)
    elif baseline is None:
        advantage = jnp.sum(best(k - 1) * jnp.maximum(own, other), -1)
    else:
        # The weights of both means add up to 1, so subtracting the reward first avoids
        # cancellation.
        gain = best(k - 1) * jnp.maximum(other - own, 0) - best(jnp.minimum(k, others)) * (
            other - own
        )
        advantage = jnp.sum(gain, -1)
    advantage = k * jnp.where((absent == 0) & (others + 1 >= k), advantage, 0)
    _, advantage = jax.lax.sort((place, advantage), num_keys=1)
    return jnp.moveaxis(advantage, -1, axis)
