"""The divergence of a policy from a reference, by the actions that were drawn."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.checks import check_choice
from scorefn._core.derivatives import first_order_only

from ._arrays import aligned
from ._time import reverse_recurrence


def kl_estimate(
    log_prob: ArrayLike,
    ref_log_prob: ArrayLike,
    kind: str = "k3",
    log_weight: ArrayLike = 0.0,
    baseline: ArrayLike = 0.0,
    *,
    axis: int | None = None,
    where: ArrayLike | None = None,
) -> jax.Array:
    r"""KL(policy || reference) from draws: a value, and ALWAYS the gradient of this divergence.

    .. code-block:: text

        d           log_prob - ref_log_prob,  w = exp(log_weight)
        value       w d for k1;  w (exp(-d) - 1 + d) for k3, never negative
        derivative  w (d - baseline) dlog_prob

    Unbiased, value and first derivative, for actions drawn from the policy, or from another one
    with the log-weight that corrects for it. The estimators themselves will not do as losses: the
    gradient of k1 has mean 0, that of k3 is the gradient of KL(reference || policy).

    Along an axis of time the derivative is that of the divergence of whole sequences: each token's
    score is weighed by what follows, too, the sum of w d from it to the end. Without the axis the
    tokens count as decisions of their own, and the way in which they shape the rest is left out.

    Args:
        log_prob: of the actions that were drawn, in nats, any shape.
        ref_log_prob: under the reference, shaped like log_prob. No derivative passes through it.
        kind: of the value: ``k1`` or ``k3``, which has less variance near the reference.
        log_weight: shaped like log_prob, or a scalar: 0 on policy; off policy the log-ratio of new
            and old probability, summed over all that led to the action and itself: of tokens the
            ``cumsum`` of `log_ratio`. No derivative passes through it.
        baseline: shaped like log_prob, or a scalar; must not depend on the action. The divergence
            itself is a good one. Changes the variance of the derivative only.
        axis: the axis of time; None if the elements are no sequence.
        where: shaped like log_prob, what counts; the rest is 0.

    Returns:
        Shaped like log_prob, in nats: reduce it.

    Raises:
        ValueError: shapes that do not line up, no such kind or axis.
        TypeError: a second derivative is taken.

    Example:
        >>> import jax
        >>> value, slope = jax.value_and_grad(kl_estimate)(-1.0, -1.5)
        >>> print(f"{value:.3f} {slope:.3f}")
        0.107 0.500

    References:
        Schulman, Approximating KL divergence (2020), for the values; Tang and Munos, On a few
        pitfalls in KL divergence gradient estimation for RL (2025), for the gradients.
    """
    check_choice("kind", kind, ("k1", "k3"))
    log_prob, ref, log_weight, baseline = aligned(
        where,
        log_prob=log_prob,
        ref_log_prob=ref_log_prob,
        log_weight=log_weight,
        baseline=baseline,
    )
    log_prob = first_order_only(
        log_prob, "kl_estimate", "For higher orders use scorefn.attach_score."
    )
    fixed, ref, log_weight, baseline = jax.lax.stop_gradient((log_prob, ref, log_weight, baseline))
    d, weight = fixed - ref, jnp.exp(log_weight)
    value = weight * (d if kind == "k1" else jnp.expm1(-d) + d)
    to_come = weight * d if axis is None else reverse_recurrence(1.0, weight * d, axis=axis)
    return value + (to_come - weight * baseline) * (log_prob - fixed)
