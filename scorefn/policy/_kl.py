"""The divergence of a policy from a reference, estimated from drawn actions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.checks import check_choice
from scorefn._core.refusals import first_order_only

from ._arrays import LIMIT, mask_like, same_shape, scored, steps_of
from ._recurrence import solve


def kl_estimate(
    log_prob: ArrayLike,
    ref_log_prob: ArrayLike,
    kind: str = "k3",
    log_weight: ArrayLike = 0.0,
    baseline: ArrayLike = 0.0,
    *,
    axis: int | None = -1,
    where: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    r"""An estimate of KL(policy || reference) from draws, with its gradient.

    .. code-block:: text

        d           log_prob - ref_log_prob,  w = exp(log_weight)
        value       w d for k1;  w (exp(-d) - 1 + d) for k3, never negative
        derivative  (sum of w d from here to the end - w baseline) dlog_prob

    Value and first derivative are unbiased for actions drawn from the policy, or from another one
    with the log-weight that corrects for it. The values alone are wrong losses: the derivative of
    k1 has mean 0, and that of k3 is the gradient of KL(reference || policy).

    The derivative is that of the divergence of whole sequences: the score of each token is weighted
    by the sum over this and all later tokens along the axis of time. With ``axis=None``, or for a
    single number, each element is a separate decision, as in a bandit; for the tokens of a sequence
    that would omit the effect of early tokens on later ones. For independent decisions an axis only
    adds variance. If the logits of all tokens are available, `divergence` has less variance.

    An action of infinite log-probability (impossible under the parameters) adds nothing.

    Args:
        log_prob: the log-probability of the drawn actions, in nats, any shape.
        ref_log_prob: that under the reference, shaped like log_prob. No derivative passes through
            it.
        kind: the kind of value: ``k1``, or ``k3``, which has less variance near the reference.
        log_weight: shaped like log_prob, or a scalar: 0 on policy; off policy the logarithm of the
            ratio of new to old probability, summed over the action and all earlier ones: for tokens
            the ``prefix`` of `log_ratio`. Bounded by 20. No derivative passes through it.
        baseline: shaped like log_prob, or a scalar; must not depend on the action. The divergence
            is a good choice. It changes only the variance of the derivative.
        axis: the axis of time; None if the elements do not form a sequence.
        where: shaped like log_prob, True for the actions to include; the rest is 0.
        segment_ids: shaped like log_prob, integers: the sequences packed into one row, one run of
            ids each, starting at 1; 0 is padding.
        num_segments: the largest id, a static int.

    Returns:
        Shaped like log_prob, in nats: reduce it.

    Raises:
        ValueError: the shapes do not match; kind or axis does not exist.
        TypeError: a second derivative is taken; the mask holds floats.

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
    log_prob, ref, log_weight, baseline = same_shape(
        log_prob=log_prob, ref_log_prob=ref_log_prob, log_weight=log_weight, baseline=baseline
    )
    if log_prob.ndim == 0:
        axis = None
    if axis is not None:
        steps = steps_of(log_prob, "log_prob", axis, where, None, segment_ids, num_segments)
        mask = steps.exist
    elif segment_ids is None:
        mask = mask_like(where, log_prob, "log_prob")
    else:
        raise ValueError("segment_ids need an axis of time; the elements have none here.")
    possible = mask & ~jnp.isinf(log_prob)
    log_prob, ref, log_weight, baseline = (
        jnp.where(possible, x, 0) for x in (log_prob, ref, log_weight, baseline)
    )
    log_prob = first_order_only(
        log_prob, "kl_estimate", "For higher orders use scorefn.attach_score."
    )
    fixed, ref, log_weight, baseline = jax.lax.stop_gradient((log_prob, ref, log_weight, baseline))
    weight = jnp.where(possible, jnp.exp(jnp.minimum(log_weight, LIMIT)), 0)
    d = jnp.where(weight > 0, fixed - ref, 0)
    value = weight * (d if kind == "k1" else jnp.expm1(jnp.minimum(-d, LIMIT)) + d)
    to_come = weight * d
    if axis is not None:
        to_come, _ = solve(jnp.ones_like(d), weight * d, steps, jnp.zeros((), d.dtype))
    score = jnp.where(possible, to_come - weight * baseline, 0)
    return scored(value, score, log_prob)
