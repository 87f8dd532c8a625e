"""Ratios of new to old probabilities, for tokens or sequences, and importance weights."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.checks import check_choice, check_number

from ._arrays import LIMIT, Steps, clamped, floats, mask_like, same_shape, steps_of
from ._recurrence import solve

_LEVELS = ("token", "prefix", "sequence-sum", "sequence-mean")


def log_ratio(
    log_prob: ArrayLike,
    old_log_prob: ArrayLike,
    level: str = "token",
    where: ArrayLike | None = None,
    *,
    axis: int = -1,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    """The logarithm of the ratio of new to old probability, for surrogates.

    .. code-block:: text

        token          d_t = log_prob_t - old_log_prob_t
        prefix         the sum of d up to each token, itself included
        sequence-sum   the sum of d over the sequence, for each of its tokens
        sequence-mean  the mean of d over the sequence, for each of its tokens: GSPO

    On policy it is 0. ``sequence-sum`` is the importance weight of a sequence, and ``prefix`` that
    of a token and all earlier ones: only with these a weighted mean over the old policy is unbiased
    for the new one. The other levels are biased off policy, with much less variance.

    The result is clamped to -20 ... 20, so that no ratio overflows; its derivative is not affected
    by the clamp. An action of infinite log-probability (impossible under the parameters) has no
    derivative.

    Args:
        log_prob: the log-probability of the tokens, [..., T] or with T at the given axis; any shape
            for ``token``.
        old_log_prob: that under the policy that drew the tokens, shaped like log_prob. No
            derivative passes through it.
        level: one of the four levels.
        where: shaped like log_prob, True for the tokens to include. Other tokens add nothing to
            sums, and have a log-ratio of 0 at level ``token``.
        axis: the axis of tokens.
        segment_ids: shaped like log_prob, integers: the sequences packed into one row, one run of
            ids each, starting at 1; 0 is padding.
        num_segments: the largest id, a static int.

    Returns:
        Shaped like log_prob, in nats, in float32 at least.

    Raises:
        ValueError: the shapes do not match; level or axis does not exist.
        TypeError: the mask holds floats.

    Example:
        >>> print(log_ratio([-1.0, -2.0], [-1.0, -1.0], "sequence-mean"))
        [-0.5 -0.5]

    References:
        Zheng et al., Group sequence policy optimization (2025), equations 7 and 14.
    """
    check_choice("level", level, _LEVELS)
    new, old = same_shape(log_prob=log_prob, old_log_prob=old_log_prob)
    if level == "token":
        # Single tokens have no axis.
        mask = mask_like(where, new, "log_prob")
        if segment_ids is not None:
            mask = steps_of(new, "log_prob", axis, where, None, segment_ids, num_segments).exist
        return clamped(*_parts(new, old, mask), -LIMIT)
    steps = steps_of(new, "log_prob", axis, where, None, segment_ids, num_segments)
    value, moving = (_added(x, level, steps) for x in _parts(new, old, steps.exist))
    return clamped(value, moving, -LIMIT)


def importance_weight(
    log_ratio: ArrayLike,
    low: float | jax.Array | None = None,
    high: float | jax.Array | None = None,
    outside: str = "clip",
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The ratio ``exp(log_ratio)`` as a weight, without a derivative.

    Without bounds a weighted average is unbiased for the new policy, with a variance that may be
    infinite. Bounds add a bias: ``clip`` towards the old policy, ``zero`` by omitting actions.

    Args:
        log_ratio: see `log_ratio`, in nats, any shape; bounded by 20.
        low: the smallest ratio; None for no bound.
        high: the largest ratio; None for no bound.
        outside: the weight of a ratio outside of the bounds: ``clip`` for the bound (truncated
            importance sampling), or ``zero`` (masked importance sampling).
        where: shaped like log_ratio, True for the elements to include; the rest has weight 0.

    Returns:
        Shaped like log_ratio, at least 0.

    Raises:
        ValueError: outside is not one of the choices; a bound is below 0; low is above high.
        TypeError: the mask holds floats.

    Example:
        >>> import jax.numpy as jnp
        >>> ratios = jnp.log(jnp.array([0.25, 1.0, 8.0]))
        >>> print(importance_weight(ratios, high=2.0), importance_weight(ratios, 0.5, 2.0, "zero"))
        [0.25 1.   2.  ] [0. 1. 0.]

    References:
        Ionides, Truncated importance sampling (2008); Yao et al., Your efficient RL framework
        secretly brings you off-policy RL training (2025), for a sampler that differs from the
        trainer.
    """
    check_choice("outside", outside, ("clip", "zero"))
    check_number("low", low, least=0)
    check_number("high", high, least=0)
    if isinstance(low, int | float) and isinstance(high, int | float) and low > high:
        raise ValueError(f"low must be at most high, got {low} and {high}.")
    (log_ratio,) = floats(log_ratio)
    mask = mask_like(where, log_ratio, "log_ratio")
    log_ratio = jax.lax.stop_gradient(jnp.where(mask, log_ratio, 0))
    weight = jnp.exp(jnp.minimum(log_ratio, LIMIT))
    least, most = _bound(low, 0.0, weight), _bound(high, jnp.inf, weight)
    if outside == "clip":
        weight = jnp.clip(weight, least, most)
    else:
        weight = jnp.where((weight < least) | (weight > most), 0, weight)
    return jnp.where(mask, weight, 0)


def _bound(x: Any, missing: float, like: jax.Array) -> jax.Array:
    return jax.lax.stop_gradient(jnp.asarray(missing if x is None else x, like.dtype))


def _parts(new: jax.Array, old: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The log-ratio of each token, finite and stopped, and the term with its derivative."""
    possible = mask & ~jnp.isinf(new)
    # The value of an impossible action is far below the clamp, for any sum over its sequence.
    far = jnp.asarray(1e6, new.dtype)
    value = jnp.where(mask, jnp.where(new > -jnp.inf, new - old, -far), 0)
    value = jnp.where(jnp.isinf(value), jnp.copysign(far, value), value)
    return jax.lax.stop_gradient(value), jnp.where(possible, new, 0)


def _added(x: jax.Array, level: str, steps: Steps) -> jax.Array:
    """The sum or mean over a sequence or a prefix, for each token."""
    if level == "prefix":
        if steps.ids is None:
            return jnp.cumsum(x, axis=steps.axis)
        zero, later = jnp.zeros((), x.dtype), jnp.flip(x, steps.axis)
        return jnp.flip(solve(jnp.ones_like(x), later, steps.flipped(), zero)[0], steps.axis)
    sums = steps.by_sequence(x)
    if level == "sequence-mean":
        sums = sums / jnp.maximum(steps.by_sequence(jnp.ones_like(x)), 1)
    return steps.spread(sums)
