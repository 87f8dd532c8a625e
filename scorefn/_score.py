"""Costs that carry the score of the random choices they depend on."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.arrays import (
    as_float,
    as_mask,
    as_segments,
    finite_product,
    gathered,
    leading,
    wide,
)
from scorefn._core.checks import check_count
from scorefn._core.refusals import up_to_order
from scorefn._core.scored import scored


def attach_score(cost: ArrayLike, log_prob: ArrayLike, baseline: ArrayLike = 0.0) -> jax.Array:
    r"""The cost, unchanged, whose derivative includes the score of the draw.

    .. code-block:: text

        value       cost
        derivative  d cost + (cost - baseline) * d log_prob

    and so on at every order, in forward and in reverse mode. For ``x`` drawn from ``p`` and
    ``log_prob = log p(stop_gradient(x))``, every derivative of the result is an unbiased estimate
    of that derivative of ``E[cost]``. A baseline that does not depend on the draw changes only the
    variance. It computes nothing but the derivative.

    A draw of infinite ``log_prob`` (impossible under the parameters) adds no score; its cost still
    counts in the value. A non-finite ``cost`` or ``baseline`` leaves the value unchanged and makes
    the derivative non-finite. A ``log_prob`` of nan makes both nan.

    Args:
        cost: any shape, real.
        log_prob: the log-probability of the draw that ``cost`` depends on, in nats. Its shape is
            the shape of ``cost`` or a leading part of it (a scalar fits every cost).
        baseline: subtracted from the cost in the weight of the score; shaped like ``log_prob``. No
            derivative passes through it.

    Returns:
        ``cost``, bit for bit, with its shape and dtype.

    Raises:
        ValueError: the shapes do not line up.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> logits, x = jnp.array([0.0, 0.0]), 1
        >>> cost = lambda logits: attach_score(3.0, jax.nn.log_softmax(logits)[x])
        >>> print(cost(logits), jax.grad(cost)(logits))
        3.0 [-1.5  1.5]

    References:
        Foerster et al., DiCE: the infinitely differentiable Monte Carlo estimator (2018),
        section 4;
        Williams, Simple statistical gradient-following algorithms (1992), equation 4.
    """
    cost = as_float(cost)
    dtype = wide(cost.dtype)
    log_prob = leading(jnp.asarray(log_prob, dtype), cost, "log_prob")
    baseline = leading(jnp.asarray(baseline, dtype), cost, "baseline")
    shape = cost.shape
    if cost.size == 1:
        # XLA simplifies scalars better: with axes of length 1, a program of 20 choices of one
        # sample each takes twice as long to compile.
        cost, log_prob, baseline = (jnp.reshape(x, ()) for x in (cost, log_prob, baseline))

    return jnp.reshape(scored(cost, log_prob, baseline), shape)


def attach_centered_scores(costs: jax.Array, log_probs: jax.Array) -> jax.Array:
    r"""The costs, unchanged, with the scores of draws whose log_prob may be unnormalized.

    .. code-block:: text

        z_i         exp(log_prob_i - stop(log_prob_i)) - 1
        r_i         the mean of z_j over the other draws, s_i that of z_j z_k over pairs of them
        value       costs
        derivative  of cost_i + (cost_i - m) [(1 + z_i) (1 - r_i + s_i) - 1]

    The factor is that by which the probability of draw i moves: 1 + z_i, divided by the mean of
    1 + z, whose inverse 1 - r + r^2 - ... is estimated without bias up to second order. The
    derivatives of the factors have mean 0 over the draws, whatever they are: any m is right.

    Args:
        costs: [n, ...], one for each of n independent draws, n >= 2.
        log_probs: [n] or [n, ...], a leading part of the shape of the costs.
    """
    n, order = len(log_probs), min(len(log_probs) - 1, 2)
    number = {1: "first order with 2 draws, and to second with 3 or more", 2: "second order"}
    log_probs = up_to_order(
        order,
        without_impossible(log_probs.astype(wide(log_probs.dtype, costs.dtype))),
        f"ScoreFunction with the draws of Given is right to {number[order]}: a higher derivative "
        f"with respect to the parameters of log_prob would silently be wrong. Give "
        f"Distribution(log_prob, sample, params) with a normalized log_prob, or use attach_score.",
    )
    dtype = log_probs.dtype
    zero = jnp.expm1(log_probs - jax.lax.stop_gradient(log_probs))
    others = sum_of_others(zero)
    normalizer = -others / (n - 1)
    if order == 2:
        pairs = jnp.square(others) - sum_of_others(jnp.square(zero))
        normalizer += pairs / ((n - 1) * (n - 2))
    factor = leading(zero + normalizer + zero * normalizer, costs, "log_prob")
    excess = costs.astype(dtype) - jax.lax.stop_gradient(jnp.mean(costs, 0, dtype))
    return costs + finite_product(factor, excess).astype(costs.dtype)


def without_impossible(log_prob: jax.Array) -> jax.Array:
    """The log-probabilities, with those of impossible draws replaced by 0, without a score."""
    return jnp.where(jnp.isinf(jax.lax.stop_gradient(log_prob)), 0, log_prob)


def leave_one_out(
    x: ArrayLike,
    axis: int = 0,
    *,
    weight: ArrayLike | None = None,
    where: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    """The mean of the other elements along an axis, for each element.

    .. code-block:: text

        value  sum_{j != i} w_j x_j / sum_{j != i} w_j        (w = 1 when no weight is given)

    Used as a baseline it adds no bias to ``(x_i - leave_one_out(x)_i) * score_i``, because it does
    not depend on element ``i``. An element of weight 0 does not count: it is not read, whatever it
    holds. If no other element counts, the baseline is 0.

    Args:
        x: any shape, real; at least 2 elements along ``axis``.
        axis: the axis of the samples.
        weight: non-negative, shaped like ``x`` or like its leading axes up to ``axis``.
        where: the elements that exist, booleans or integers of 0 and 1, shaped as ``weight``.
        segment_ids: integers, shaped as ``weight``: groups of any sizes along the axis, from 1 on;
            0 where nothing is. The others are then those of the same group.
        num_segments: the largest id, a static int.

    Returns:
        An array shaped like ``x``. Derivatives pass through it; apply ``stop_gradient`` to stop
        them.

    Raises:
        ValueError: there is no such axis, or there are fewer than 2 elements along it, or the
            weight or a mask does not fit x.
        TypeError: a mask of floats.

    Example:
        >>> print(leave_one_out([1.0, 2.0, 6.0]))
        [4.  3.5 1.5]
        >>> print(leave_one_out([1.0, 2.0, 6.0, 8.0], segment_ids=[1, 1, 2, 2], num_segments=2))
        [2. 1. 8. 6.]

    References:
        Salimans and Knowles, On using control variates with stochastic approximation (2014);
        Kool, van Hoof and Welling, Buy 4 REINFORCE samples, get a baseline for free (2019),
        equation 8.
    """
    x = as_float(x)
    if not -x.ndim <= axis < max(x.ndim, 1):
        raise ValueError(f"axis must be an axis of x, of shape {x.shape}, got {axis}.")
    if x.ndim == 0 or x.shape[axis] < 2:
        raise ValueError(
            f"leave_one_out needs at least 2 samples along axis {axis}, got an array of shape "
            f"{x.shape}. A single sample has no others to average."
        )
    if weight is None and where is None and segment_ids is None:
        # (sum - x) / (n - 1) loses digits when x has a large offset; this form does not.
        mean = jnp.mean(x, axis, keepdims=True)
        return mean - (x - mean) * (1 / (x.shape[axis] - 1))  # n - 1 may be beyond 16 bits

    def like_x(name: str, given: jax.Array) -> jax.Array:
        return jnp.broadcast_to(leading(given, x, name), x.shape)

    dtype = wide(x.dtype)
    wide_x, axis = gathered(x, axis).astype(dtype), axis % x.ndim
    weights = jnp.ones_like(wide_x)
    if weight is not None:
        weights = like_x("weight", jnp.asarray(weight, dtype))
    if where is not None:
        weights = jnp.where(like_x("where", as_mask("where", where)), weights, 0)
    if segment_ids is None:
        return _mean_of_others(wide_x, weights, axis).astype(x.dtype)
    if num_segments is None:
        raise ValueError("segment_ids need num_segments, the largest id: a static int.")
    check_count("num_segments", num_segments)
    ids = like_x("segment_ids", as_segments(segment_ids, num_segments))
    member = ids[..., None] == jnp.arange(1, num_segments + 1)
    of_group = jnp.where(member, weights[..., None], 0)
    means = _mean_of_others(jnp.where(member, wide_x[..., None], 0), of_group, axis)
    return jnp.sum(jnp.where(member, means, 0), -1).astype(x.dtype)


def _mean_of_others(x: jax.Array, weight: jax.Array, axis: int) -> jax.Array:
    """The weighted mean of the others that count, 0 where none does."""
    counts = weight != 0
    x, count = jnp.where(counts, x, 0), jnp.sum(counts, axis, keepdims=True, dtype=x.dtype)
    mean = jnp.sum(x, axis, keepdims=True) / jnp.maximum(count, 1)
    others = sum_of_others(weight, axis)
    shifted = sum_of_others(jnp.where(counts, weight * (x - mean), 0), axis)
    return jnp.where(others > 0, mean + shifted / jnp.where(others > 0, others, 1), 0)


def sum_of_others(x: jax.Array, axis: int = 0) -> jax.Array:
    """The sum of the other elements along an axis, for each element."""
    x = gathered(x, axis)
    # Two running sums instead of total - x, which would depend on x_i through rounding.
    front = jax.lax.slice_in_dim(jnp.cumsum(x, axis), 0, x.shape[axis] - 1, axis=axis)
    back = jnp.flip(jnp.cumsum(jnp.flip(x, axis), axis), axis)
    back = jax.lax.slice_in_dim(back, 1, x.shape[axis], axis=axis)
    edge = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
    return jnp.concatenate([edge, front], axis) + jnp.concatenate([back, edge], axis)


def attach_scores(
    costs: ArrayLike, log_probs: ArrayLike, influence: ArrayLike, baselines: ArrayLike = 0.0
) -> jax.Array:
    r"""The costs, unchanged, each with the scores of the choices that influence it.

    .. code-block:: text

        value       costs
        derivative  of their sum: d costs + sum_n (sum_{c: influence[c, n]} costs_c - baseline_n)
                    d log_probs_n

    and so on at every order. This is `attach_score` in matrix form. It is unbiased if each choice n
    was drawn from its ``log_probs_n`` given the earlier choices, and ``influence[c, n]`` is true
    wherever choice n can change cost c, directly or through later choices. Leaving out the other
    scores lowers the variance. It takes one matrix product, and a second one for baselines.

    Args:
        costs: [C], real.
        log_probs: [N], the log-probability of each choice given the earlier ones, in order.
        influence: [C, N], boolean.
        baselines: one for each choice, [N], or one for all: an estimate of the sum of the costs
            that the choice influences. It may depend on earlier choices, as a value function does,
            but not on the choice itself. No derivative passes through it.

    Returns:
        The costs, [C], bit for bit; sum them. The baseline of a choice enters the derivative of
        the first cost that the choice influences.

    Raises:
        ValueError: the shapes do not line up.
        TypeError: influence is not boolean.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits):
        ...     log_probs = jax.nn.log_sigmoid(logits)  # two coins, both drawn as 1
        ...     costs = jnp.array([3.0, 5.0])  # one cost for each coin
        ...     return sf.attach_scores(costs, log_probs, jnp.eye(2, dtype=bool)).sum()
        >>> print(jax.grad(loss)(jnp.zeros(2)))
        [1.5 2.5]

    References:
        Schulman et al., Gradient estimation using stochastic computation graphs (2015), equation 5;
        Mao et al., A baseline for any order gradient estimation in stochastic computation graphs
        (2019), equation 7.
    """
    costs = as_float(costs)
    dtype = wide(costs.dtype)
    log_probs, influence = jnp.asarray(log_probs, dtype), jnp.asarray(influence)
    baselines = jnp.asarray(baselines, dtype)
    if costs.ndim != 1 or log_probs.ndim != 1 or influence.shape != costs.shape + log_probs.shape:
        raise ValueError(
            f"costs must be [C], log_probs [N] and influence [C, N], got shapes {costs.shape}, "
            f"{log_probs.shape} and {influence.shape}; for a batch of samples use jax.vmap."
        )
    if influence.dtype != jnp.bool_:
        raise TypeError(f"influence must be boolean, got {influence.dtype}.")
    if baselines.shape not in ((), log_probs.shape):
        raise ValueError(
            f"baselines must be one number or one for each choice, {log_probs.shape}, got shape "
            f"{baselines.shape}."
        )
    # An impossible choice must not remove the scores of the other choices.
    log_probs = without_impossible(log_probs)
    scored = attach_score(costs, influence.astype(dtype) @ log_probs)
    if costs.size == 0 or log_probs.size == 0:
        return scored
    # At choice n the baseline b adds b (e^before - e^(before + log_prob)). Its value is 0, and its
    # mean is 0 for any set of earlier choices in `before`. Here these are the choices that
    # influence every cost that n influences, because such a cost carries their scores too.
    shared = influence.T.astype(dtype) @ influence.astype(dtype)
    earlier = jnp.tri(log_probs.size, k=-1, dtype=bool)
    before = jnp.where(earlier & (shared == jnp.diagonal(shared)[:, None]), 1, 0).astype(dtype)
    shift = baselines_zero(before @ log_probs, log_probs, baselines)
    first = jnp.argmax(influence, axis=0)
    return scored.at[first].add(jnp.where(influence.any(0), shift, 0).astype(costs.dtype))


def baselines_zero(before: jax.Array, log_prob: jax.Array, baseline: ArrayLike) -> jax.Array:
    """Zeros whose derivative subtracts the baseline from the weight of a choice's score.

    Args:
        before: the log-probability of earlier choices, any shape.
        log_prob: the log-probability of the choice given these.
        baseline: the baseline, which may depend on earlier choices.
    """
    dtype = wide(jnp.asarray(log_prob).dtype)
    before, baseline = jnp.asarray(before, dtype), jnp.asarray(baseline, dtype)
    zeros = jnp.zeros_like(before)
    baseline = jnp.broadcast_to(baseline, zeros.shape)
    return attach_score(zeros, before + log_prob, baseline) - attach_score(zeros, before, baseline)


surrogate = attach_scores  # the former name, kept for one release
