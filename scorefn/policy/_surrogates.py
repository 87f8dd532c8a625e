"""Losses whose derivative is a policy gradient: one number for each action, to be minimised."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.checks import check_number
from scorefn._core.derivatives import first_order_only

from ._arrays import clamped, floats, lined_up, mask_like, scored
from ._ratio import importance_weight

_HINT = "For higher orders use scorefn.attach_score."


def score_surrogate(
    log_prob: ArrayLike, advantage: ArrayLike, *, where: ArrayLike | None = None
) -> jax.Array:
    """Minus log-probability times advantage: REINFORCE as a loss.

    .. code-block:: text

        derivative  -advantage * dlog_prob

    Unbiased, to first order, for minus the expected reward, if the advantage is the reward less
    something that does not depend on the action, and the action was drawn from this policy. The
    value means nothing. An action whose log-probability is infinite adds no score.

    Args:
        log_prob: of the actions that were drawn, in nats, any shape.
        advantage: shaped like log_prob or like its leading axes, as one for each sequence is. No
            derivative passes through it.
        where: shaped like log_prob, what counts; the rest is 0, whatever it holds.

    Returns:
        Shaped like log_prob: reduce it.

    Raises:
        ValueError: shapes that do not line up.
        TypeError: a second derivative is taken; a mask of floats.

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
    advantage = _data("advantage", advantage, mask)
    return _score(log_prob, -advantage, mask, "score_surrogate")


def clipped_surrogate(
    log_ratio: ArrayLike,
    advantage: ArrayLike,
    eps_low: float | jax.Array = 0.2,
    eps_high: float | jax.Array | None = None,
    dual_clip: float | jax.Array | None = None,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The loss of PPO: nothing is gained by moving further than a given ratio.

    .. code-block:: text

        r      exp(log_ratio), at most exp(20)
        value  -min(r advantage, clip(r, 1 - eps_low, 1 + eps_high) advantage)
               and, with dual_clip, at most -dual_clip advantage for a negative advantage

    On policy, r = 1, the derivative is that of `score_surrogate`. Off policy it is biased: clipped
    actions add nothing. No derivative is infinite where it is clipped to 0, however large r is.

    Args:
        log_ratio: see `log_ratio`, in nats, any shape.
        advantage: shaped like log_ratio or like its leading axes. No derivative passes through it.
        eps_low: how far r may fall, in [0, 1].
        eps_high: how far it may rise; None means as far as it may fall.
        dual_clip: the largest r that counts against a negative advantage, above 1; None for none.
        where: shaped like log_ratio, what counts; the rest is 0, whatever it holds.

    Returns:
        Shaped like log_ratio: reduce it.

    Raises:
        ValueError: shapes that do not line up, a range that is none.
        TypeError: a mask of floats.

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
    advantage, log_ratio = _data("advantage", advantage, mask), jnp.where(mask, log_ratio, 0)
    # An infinite log-ratio has no derivative: it does not move.
    log_ratio = clamped(log_ratio, jnp.where(jnp.isinf(log_ratio), 0, log_ratio))
    low, high = _bounds(eps_low, eps_low if eps_high is None else eps_high, log_ratio)
    most = _log(dual_clip, log_ratio)
    # The minimum of the two products is r clipped from above or from below, by the sign of the
    # advantage. Clipped before the exponential: a derivative of 0 times an infinite one is nan.
    gains = advantage >= 0
    low, most = jnp.where(gains, -jnp.inf, low), jnp.where(gains, high, most)
    return -advantage * jnp.exp(jnp.clip(log_ratio, low, most))


def weighted_surrogate(
    log_prob: ArrayLike,
    log_ratio: ArrayLike,
    advantage: ArrayLike,
    eps_low: float | jax.Array | None = None,
    eps_high: float | jax.Array | None = None,
    *,
    where: ArrayLike | None = None,
) -> jax.Array:
    """The score, weighted by a truncated ratio: CISPO, truncated importance sampling.

    .. code-block:: text

        derivative  -clip(exp(log_ratio), 1 - eps_low, 1 + eps_high) * advantage * dlog_prob

    Without truncation unbiased, to first order, for actions of another policy, at a variance that
    may be infinite; truncated it is biased, but no action loses its gradient as in
    `clipped_surrogate`. The value means nothing. For other weights give `score_surrogate` the
    product of `importance_weight` and the advantage.

    Args:
        log_prob: of the actions that were drawn, in nats, any shape.
        log_ratio: shaped like log_prob or like its leading axes; see `log_ratio`. At most 20
            counts. No derivative passes through it.
        advantage: shaped like log_prob or like its leading axes. No derivative passes through it.
        eps_low: weights are at least 1 - eps_low; None means no bound.
        eps_high: weights are at most 1 + eps_high; None means no bound.
        where: shaped like log_prob, what counts; the rest is 0, whatever it holds.

    Returns:
        Shaped like log_prob: reduce it.

    Raises:
        ValueError: shapes that do not line up, a range that is none.
        TypeError: a second derivative is taken; a mask of floats.

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
    weight = importance_weight(_data("log_ratio", log_ratio, mask), low, high)
    weighted = weight * _data("advantage", advantage, mask)
    return _score(log_prob, -weighted, mask, "weighted_surrogate")


def _score(log_prob: jax.Array, weight: jax.Array, mask: jax.Array, name: str) -> jax.Array:
    """Weight times log-probability; 0 what is masked or impossible."""
    possible = mask & ~jnp.isinf(log_prob)
    log_prob = first_order_only(jnp.where(possible, log_prob, 0), name, _HINT)
    value = jax.lax.stop_gradient(jnp.where(possible, weight * log_prob, 0))
    return scored(value, weight, log_prob)


def _data(name: str, x: jax.Array, mask: jax.Array) -> jax.Array:
    """The array without derivative, shaped like the mask, 0 where it is masked."""
    return jax.lax.stop_gradient(jnp.where(mask, lined_up(x, mask, name), 0))


def _check_range(eps_low: Any, eps_high: Any) -> None:
    check_number("eps_low", eps_low, least=0)
    check_number("eps_high", eps_high, least=0)
    if isinstance(eps_low, int | float) and eps_low > 1:
        raise ValueError(f"eps_low must be at most 1, got {eps_low}: no ratio is below 0.")


def _bounds(eps_low: Any, eps_high: Any, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The bounds of the log-ratio."""
    return _log(1 - eps_low, like), _log(1 + eps_high, like)


def _log(x: Any, like: jax.Array) -> jax.Array:
    return jnp.log(jnp.maximum(jnp.asarray(jnp.inf if x is None else x, like.dtype), 0))
