"""Surrogate losses whose derivative is a policy gradient, one number per action."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.checks import check_number
from scorefn._core.refusals import first_order_only

from ._arrays import clamped, floats, lined_up, mask_like, product, scored
from ._ratio import importance_weight

_HINT = "For higher orders use scorefn.attach_score."


def score_surrogate(
    log_prob: ArrayLike, advantage: ArrayLike, *, axis: int = -1, where: ArrayLike | None = None
) -> jax.Array:
    """The REINFORCE loss: minus log-probability times advantage.

    .. code-block:: text

        derivative  -advantage * dlog_prob

    Unbiased, to first order, for minus the expected reward, if the action was drawn from this
    policy and the advantage is the reward minus a baseline that does not depend on the action. The
    value has no meaning. An action of infinite log-probability adds no score.

    Args:
        log_prob: the log-probability of the drawn actions, in nats, any shape.
        advantage: shaped like log_prob, or like the leading axes of log_prob without the axis of
            time, for example one per sequence. No derivative passes through it.
        axis: the axis of time in log_prob; used only for arguments with one number per sequence.
        where: shaped like log_prob, True for the actions to include; the rest is 0.

    Returns:
        Shaped like log_prob: reduce it.

    Raises:
        ValueError: the shapes do not match.
        TypeError: a second derivative is taken; the mask holds floats.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(logits):
        ...     return score_surrogate(jax.nn.log_softmax(logits)[1], 2.0)
        >>> print(jax.grad(loss)(jnp.zeros(2)))
        [ 1. -1.]

    References:
        Williams, Simple statistical gradient-following algorithms (1992), equation 4.
    """
    log_prob, advantage = floats(log_prob, advantage)
    mask = mask_like(where, log_prob, "log_prob")
    advantage = _data("advantage", advantage, mask, axis)
    return _score(log_prob, -advantage, mask, "score_surrogate")


def clipped_surrogate(
    log_ratio: ArrayLike,
    advantage: ArrayLike,
    eps_low: float | jax.Array = 0.2,
    eps_high: float | jax.Array | None = None,
    dual_clip: float | jax.Array | None = None,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The clipped loss of PPO.

    .. code-block:: text

        r      exp(log_ratio), at most exp(20)
        value  -min(r advantage, clip(r, 1 - eps_low, 1 + eps_high) advantage)
               and, with dual_clip, at most -dual_clip advantage for a negative advantage

    On policy, r = 1, the derivative is that of `score_surrogate`. Off policy it is biased, because
    clipped actions have derivative 0, for any size of r.

    Args:
        log_ratio: see `log_ratio`, in nats, any shape.
        advantage: shaped like log_ratio, or one per sequence, as for `score_surrogate`. No
            derivative passes through it.
        eps_low: the lower bound of r is 1 - eps_low; in [0, 1].
        eps_high: the upper bound of r is 1 + eps_high; None means eps_low.
        dual_clip: the upper bound of r for a negative advantage, above 1; None for no bound.
        axis: the axis of time in log_ratio; used only for an advantage per sequence.
        where: shaped like log_ratio, True for the actions to include; the rest is 0.

    Returns:
        Shaped like log_ratio: reduce it.

    Raises:
        ValueError: the shapes do not match; a bound is out of range.
        TypeError: the mask holds floats.

    Example:
        >>> import jax.numpy as jnp
        >>> print(clipped_surrogate(jnp.log(jnp.array([0.5, 1.5])), 1.0))
        [-0.5 -1.2]

    References:
        Schulman et al., Proximal policy optimization algorithms (2017), equation 7; Ye et al.,
        Mastering complex control in MOBA games with deep reinforcement learning (2020), equation 6,
        for dual_clip; Yu et al., DAPO (2025), section 3.1, for eps_high.
    """
    _check_range(eps_low, eps_high)
    check_number("dual_clip", dual_clip, above=1)
    log_ratio, advantage = floats(log_ratio, advantage)
    mask = mask_like(where, log_ratio, "log_ratio")
    advantage = _data("advantage", advantage, mask, axis)
    log_ratio = jnp.where(mask, log_ratio, 0)
    # An infinite log-ratio has no derivative.
    log_ratio = clamped(log_ratio, jnp.where(jnp.isinf(log_ratio), 0, log_ratio))
    low, high = _bounds(eps_low, eps_low if eps_high is None else eps_high, log_ratio)
    most = _log(dual_clip, log_ratio)
    # The minimum of the two products clips r from above or from below, depending on the sign of the
    # advantage. Clipped before the exponential, because 0 times an infinite derivative is nan.
    gains = advantage >= 0
    low, most = jnp.where(gains, -jnp.inf, low), jnp.where(gains, high, most)
    return product(-advantage, jnp.exp(jnp.clip(log_ratio, low, most)))


def weighted_surrogate(
    log_prob: ArrayLike,
    log_ratio: ArrayLike,
    advantage: ArrayLike,
    eps_low: float | jax.Array | None = None,
    eps_high: float | jax.Array | None = None,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The score weighted by a truncated ratio: CISPO, truncated importance sampling.

    .. code-block:: text

        derivative  -clip(exp(log_ratio), 1 - eps_low, 1 + eps_high) * advantage * dlog_prob

    Without bounds it is unbiased, to first order, for actions of another policy, with a variance
    that may be infinite. With bounds it is biased, but unlike in `clipped_surrogate` every action
    keeps a gradient. The value has no meaning. For other weights, give `score_surrogate` the
    product of `importance_weight` and the advantage.

    Args:
        log_prob: the log-probability of the drawn actions, in nats, any shape.
        log_ratio: shaped like log_prob, or one per sequence; see `log_ratio`. Bounded by 20. No
            derivative passes through it.
        advantage: shaped like log_prob, or one per sequence, as for `score_surrogate`. No
            derivative passes through it.
        eps_low: weights are at least 1 - eps_low; None means no bound.
        eps_high: weights are at most 1 + eps_high; None means no bound.
        axis: the axis of time in log_prob; used only for arguments with one number per sequence.
        where: shaped like log_prob, True for the actions to include; the rest is 0.

    Returns:
        Shaped like log_prob: reduce it.

    Raises:
        ValueError: the shapes do not match; a bound is out of range.
        TypeError: a second derivative is taken; the mask holds floats.

    Example:
        >>> import jax
        >>> print(jax.grad(weighted_surrogate)(-1.0, 0.7, 1.0, eps_high=0.5))
        -1.5

    References:
        MiniMax, MiniMax-M1 (2025), equation 4; Ionides, Truncated importance sampling (2008).
    """
    _check_range(eps_low, eps_high)
    log_prob, log_ratio, advantage = floats(log_prob, log_ratio, advantage)
    mask = mask_like(where, log_prob, "log_prob")
    low = None if eps_low is None else jnp.maximum(1 - jnp.asarray(eps_low, log_ratio.dtype), 0)
    high = None if eps_high is None else 1 + jnp.asarray(eps_high, log_ratio.dtype)
    weight = importance_weight(_data("log_ratio", log_ratio, mask, axis), low, high)
    weighted = weight * _data("advantage", advantage, mask, axis)
    return _score(log_prob, -weighted, mask, "weighted_surrogate")


def _score(log_prob: jax.Array, weight: jax.Array, mask: jax.Array, name: str) -> jax.Array:
    """The weight times the log-probability; 0 for masked and impossible actions."""
    possible = mask & ~jnp.isinf(log_prob)
    log_prob = first_order_only(jnp.where(possible, log_prob, 0), name, _HINT)
    value = jax.lax.stop_gradient(jnp.where(possible, weight * log_prob, 0))
    return scored(value, weight, log_prob)


def _data(name: str, x: jax.Array, mask: jax.Array, axis: int) -> jax.Array:
    """The array without a derivative, shaped like the mask, 0 where masked."""
    return jax.lax.stop_gradient(jnp.where(mask, lined_up(x, mask, name, axis), 0))


def _check_range(eps_low: Any, eps_high: Any) -> None:
    check_number("eps_low", eps_low, least=0)
    check_number("eps_high", eps_high, least=0)
    if isinstance(eps_low, int | float) and eps_low > 1:
        raise ValueError(f"eps_low must be at most 1, got {eps_low}: ratios are not negative.")


def _bounds(eps_low: Any, eps_high: Any, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The bounds of the log-ratio."""
    return _log(1 - eps_low, like), _log(1 + eps_high, like)


def _log(x: Any, like: jax.Array) -> jax.Array:
    return jnp.log(jnp.maximum(jnp.asarray(jnp.inf if x is None else x, like.dtype), 0))
