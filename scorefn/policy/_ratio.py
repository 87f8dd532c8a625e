"""The log-ratio of new and old probabilities, of tokens or of whole sequences."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.checks import check_choice

from ._arrays import aligned, check_axis, mask_like

_LEVELS = ("token", "sequence", "sequence_token")


def log_ratio(
    log_prob: ArrayLike,
    old_log_prob: ArrayLike,
    level: str = "token",
    where: ArrayLike | None = None,
    *,
    axis: int = -1,
) -> jax.Array:
    """The logarithm of the ratio that a surrogate clips or weighs by.

    .. code-block:: text

        token           d_t = log_prob_t - old_log_prob_t
        sequence        the mean of d over the tokens of the sequence, for each of its tokens
        sequence_token  the value of ``sequence``, the derivative of ``token``

    On policy it is 0. The ratio of a whole sequence is the exponential of the SUM of d, and that of
    what led to a token is ``exp(cumsum(d))``: these alone make a mean over the old policy one over
    the new. The other levels are biased off policy, at much less variance.

    Args:
        log_prob: of the tokens, [..., T] or with T at the given axis; any shape for ``token``.
        old_log_prob: under the policy that drew them, shaped like log_prob. No derivative passes.
        level: one of the three.
        where: shaped like log_prob, the tokens that count; the others have a log-ratio of 0 at
            level ``token``, whatever their log-probabilities are.
        axis: the axis of tokens.

    Returns:
        Shaped like log_prob, in nats, in float32 at least.

    Raises:
        ValueError: shapes that do not line up, no such level or axis.

    Example:
        >>> print(log_ratio([-1.0, -2.0], [-1.0, -1.0], "sequence"))
        [-0.5 -0.5]

    References:
        Zheng et al., Group sequence policy optimization (2025), equations 7 and 14.
    """
    check_choice("level", level, _LEVELS)
    new, old = aligned(where, log_prob=log_prob, old_log_prob=old_log_prob)
    each = new - jax.lax.stop_gradient(old)
    if level == "token":
        return each
    check_axis(axis, each, "log_prob")
    tokens = jnp.sum(mask_like(where, each, "log_prob"), axis, keepdims=True, dtype=each.dtype)
    mean = jnp.sum(each, axis, keepdims=True) / jnp.maximum(tokens, 1)
    if level == "sequence":
        return jnp.broadcast_to(mean, each.shape)
    return jax.lax.stop_gradient(mean) + (new - jax.lax.stop_gradient(new))
