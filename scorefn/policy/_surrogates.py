"""Losses whose derivative is a policy gradient: one number for each action, to be minimised."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.checks import check_number
from scorefn._core.derivatives import first_order_only

from ._arrays import aligned, floats, leading

_HINT = "For higher orders use scorefn.attach_score."


def score_surrogate(log_prob: ArrayLike, advantage: ArrayLike) -> jax.Array:
    """Minus log-probability times advantage: REINFORCE as a loss.

    .. code-block:: text

        derivative  -advantage * dlog_prob

    Unbiased, to first order, for minus the expected reward, if the advantage is the reward less
    something that does not depend on the action, and the action was drawn from this policy. The
    value means nothing.

    Args:
        log_prob: of the actions that were drawn, in nats, any shape.
        advantage: shaped like log_prob or like its leading axes, as one for each sequence is. No
            derivative passes through it.

    Returns:
        Shaped like log_prob: reduce it.

    Raises:
        ValueError: shapes that do not line up.
        TypeError: a second derivative is taken.

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
    log_prob = first_order_only(log_prob, "score_surrogate", _HINT)
    return -log_prob * _data(advantage, log_prob)


def clipped_surrogate(
    log_ratio: ArrayLike,
    advantage: ArrayLike,
    eps_low: float | jax.Array = 0.2,
    eps_high: float | jax.Array | None = None,
    dual_clip: float | jax.Array | None = None,
) -> jax.Array:
    """The loss of PPO: nothing is gained by moving further than a given ratio.

    .. code-block:: text

        r      exp(log_ratio)
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

    Returns:
        Shaped like log_ratio: reduce it.

    Raises:
        ValueError: shapes that do not line up, a range that is none.

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
    advantage = _data(advantage, log_ratio)
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
) -> jax.Array:
    """The score, weighed by a truncated ratio: CISPO, truncated importance sampling.

    .. code-block:: text

        derivative  -clip(exp(log_ratio), 1 - eps_low, 1 + eps_high) * advantage * dlog_prob

    Without truncation unbiased, to first order, for actions of another policy, at a variance that
    may be infinite; truncated it is biased, but no action loses its gradient as in
    `clipped_surrogate`. The value means nothing.

    Args:
        log_prob: of the actions that were drawn, in nats, any shape.
        log_ratio: shaped like log_prob; see `log_ratio`. No derivative passes through it.
        advantage: shaped like log_prob or like its leading axes. No derivative passes through it.
        eps_low: weights are at least 1 - eps_low; None means no bound.
        eps_high: weights are at most 1 + eps_high; None means no bound.

    Returns:
        Shaped like log_prob: reduce it.

    Raises:
        ValueError: shapes that do not line up, a range that is none.
        TypeError: a second derivative is taken.

    Example:
        >>> import jax
        >>> print(jax.grad(weighted_surrogate)(-1.0, 0.7, 1.0, eps_high=0.5))
        -1.5

    References:
        MiniMax, MiniMax-M1 (2025), equation 4; Ionides, Truncated importance sampling (2008).
    """
    _check_range(eps_low, eps_high)
    log_prob, log_ratio = aligned(None, log_prob=log_prob, log_ratio=log_ratio)
    log_prob, log_ratio, advantage = floats(log_prob, log_ratio, advantage)
    log_prob = first_order_only(log_prob, "weighted_surrogate", _HINT)
    weight = jnp.exp(jnp.clip(log_ratio, *_bounds(eps_low, eps_high, log_ratio)))
    return -log_prob * jax.lax.stop_gradient(weight) * _data(advantage, log_prob)


def _data(advantage: jax.Array, like: jax.Array) -> jax.Array:
    """The advantage, lined up, and without derivative."""
    return jax.lax.stop_gradient(leading(advantage, like, "advantage"))


def _check_range(eps_low: Any, eps_high: Any) -> None:
    check_number("eps_low", eps_low, least=0)
    check_number("eps_high", eps_high, least=0)
    if isinstance(eps_low, int | float) and eps_low > 1:
        raise ValueError(f"eps_low must be at most 1, got {eps_low}: no ratio is below 0.")


def _bounds(eps_low: Any, eps_high: Any, like: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The bounds of the log-ratio."""
    least = None if eps_low is None else 1 - eps_low
    low = jnp.asarray(-jnp.inf, like.dtype) if least is None else _log(least, like)
    return low, _log(None if eps_high is None else 1 + eps_high, like)


def _log(x: Any, like: jax.Array) -> jax.Array:
    return jnp.log(jnp.maximum(jnp.asarray(jnp.inf if x is None else x, like.dtype), 0))
