"""Divergence and entropy of sequences, by sums over the vocabulary at each step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.arrays import wide
from scorefn._core.derivatives import Arrays, linear
from scorefn._core.refusals import first_order_only

from ._arrays import aligned, floats, scored, steps_of
from ._recurrence import solve

# The number of words at a time in float32: fewer are slower, more take more memory.
CHUNK = 2048


def divergence(
    logits: ArrayLike,
    reference_logits: ArrayLike,
    action_log_prob: ArrayLike,
    axis: int = -1,
    where: ArrayLike | None = None,
    *,
    baseline: ArrayLike = 0.0,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    r"""KL(policy || reference) of whole sequences, summed over the vocabulary at each step.

    .. code-block:: text

        value       k_t = sum_v p_t(v) (log p_t(v) - log reference_t(v))
        derivative  dk_t + (k_{t+1} + ... + k_T - baseline_t) dlog p_t(action_t)

    The second term is the score of the later steps, which depend on the action. With it, the sum of
    values and of first derivatives over the steps is unbiased for the divergence of whole
    sequences, if actions are drawn from the policy. The variance is lower than that of
    `kl_estimate`, whose first term is a sample too. The mean of k omits the second term.

    Memory: logits of any float type are read in pieces of the vocabulary, and not copied to float32
    as a whole; the derivative takes one array like the logits. Time: the logits are read twice, and
    twice again for the derivative. The vocabulary must not be sharded over devices.

    Args:
        logits: [..., T, V], or T at the given axis, with the vocabulary last; of any float type. A
            word with logit -inf cannot be drawn.
        reference_logits: shaped like logits. No derivative passes through them.
        action_log_prob: the log-probability of the drawn actions, in nats, [..., T], computed from
            the logits with their derivative.
        axis: the axis of time in action_log_prob.
        where: shaped like action_log_prob, True for the steps to include; the rest is 0.
        baseline: shaped like action_log_prob, or a scalar: an estimate of k_{t+1} + ... + k_T that
            does not depend on action t. It changes only the variance of the derivative. No
            derivative passes through it.
        segment_ids: shaped like action_log_prob, integers: the sequences packed into one row, one
            run of ids each, starting at 1; 0 is padding.
        num_segments: the largest id, a static int.

    Returns:
        Shaped like action_log_prob, in nats, at least 0: sum it over the steps, as
        ``reduce(..., "seq-mean-token-sum")`` does.

    Raises:
        ValueError: the shapes do not match; the axis does not exist.
        TypeError: a second derivative is taken; the mask holds floats.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> def loss(logits):
        ...     log_probs = jax.nn.log_softmax(logits)
        ...     return divergence(logits, jnp.zeros((2, 3)), log_probs[:, 0]).sum()
        >>> print(loss(jnp.zeros((2, 3)).at[1, 0].set(1.0)).round(3))
        0.123

    References:
        Tang and Munos, On a few pitfalls in KL divergence gradient estimation for RL (2025);
        Amini et al., Better estimation of the KL divergence between language models (2025).
    """
    return _with_score_of_what_follows(
        (logits, reference_logits),
        action_log_prob,
        axis,
        where,
        baseline,
        segment_ids,
        num_segments,
        name="divergence",
    )


def entropy(
    logits: ArrayLike,
    action_log_prob: ArrayLike,
    axis: int = -1,
    where: ArrayLike | None = None,
    *,
    baseline: ArrayLike = 0.0,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    r"""The entropy of whole sequences, summed over the vocabulary at each step.

    .. code-block:: text

        value       h_t = -sum_v p_t(v) log p_t(v)
        derivative  dh_t + (h_{t+1} + ... + h_T - baseline_t) dlog p_t(action_t)

    Summed over the steps, value and first derivative are unbiased for the entropy of whole
    sequences. The mean of h, the usual bonus, omits the effect of an action on later steps.

    Args:
        logits: as for `divergence`.
        action_log_prob: as for `divergence`.
        axis: the axis of time in action_log_prob.
        where: shaped like action_log_prob, True for the steps to include; the rest is 0.
        baseline: as for `divergence`.
        segment_ids: as for `divergence`.
        num_segments: the largest id, a static int.

    Returns:
        Shaped like action_log_prob, in nats: sum it over the steps.

    Raises:
        ValueError: the shapes do not match; the axis does not exist.
        TypeError: a second derivative is taken; the mask holds floats.

    Example:
        >>> import jax.numpy as jnp
        >>> print(entropy(jnp.zeros((2, 4)), jnp.zeros(2)) / jnp.log(2))
        [2. 2.]

    References:
        Ahmed et al., Understanding the impact of entropy on policy optimization (2019).
    """
    return _with_score_of_what_follows(
        (logits,), action_log_prob, axis, where, baseline, segment_ids, num_segments, name="entropy"
    )


def _with_score_of_what_follows(
    logits: tuple[ArrayLike, ...],
    action_log_prob: ArrayLike,
    axis: int,
    where: ArrayLike | None,
    baseline: ArrayLike,
    segment_ids: ArrayLike | None,
    num_segments: int | None,
    *,
    name: str,
) -> jax.Array:
    """The sums over the vocabulary, with the score of each action for later steps."""
    first, *reference = (jnp.asarray(x) for x in logits)
    dtype = wide(*(x.dtype for x in (first, *reference)))
    log_prob, baseline = (x.astype(dtype) for x in floats(action_log_prob, baseline))
    steps = steps_of(log_prob, "action_log_prob", axis, where, None, segment_ids, num_segments)
    for x in (first, *reference):
        if x.shape[:-1] != log_prob.shape or x.ndim == 0 or x.shape[-1] != first.shape[-1]:
            raise ValueError(
                f"logits have shapes {[x.shape for x in (first, *reference)]}, and action_log_prob "
                f"{log_prob.shape}: logits must have one more axis, of the vocabulary, the last."
            )
    first = first_order_only(first, name, "For higher orders use scorefn.attach_score.")
    reference = [jax.lax.stop_gradient(x) for x in reference]
    each = _expected(steps.exist, first, *reference)
    possible = steps.exist & ~jnp.isinf(log_prob)
    log_prob, baseline = aligned(possible, action_log_prob=log_prob, baseline=baseline)
    fixed, baseline = jax.lax.stop_gradient((each, baseline))
    _, to_come = solve(jnp.ones_like(fixed), fixed, steps, jnp.zeros((), dtype))
    score = jnp.where(possible, to_come - baseline, 0)
    return each + scored(jnp.zeros_like(each), score, log_prob)


# With p the probability of a word and f = log p - log reference (or -log p for the entropy), both
# are sums of p f, and their derivative along a logit is p (f - sum). Three passes in pieces of the
# vocabulary: the normalizers, the sums, the derivative.


@jax.custom_jvp
def _expected(mask: jax.Array, *logits: jax.Array) -> jax.Array:
    """The sum over the vocabulary of p f at each step; 0 where masked."""
    return _sums(mask, *logits)[0]


@_expected.defjvp
def _expected_jvp(primals: Any, tangents: Any) -> Any:
    mask, *logits = primals
    value, normalizers = _sums(mask, *logits)

    def weight(fixed: Arrays, start: Any) -> jax.Array:
        """The derivative of the value along the logits of one piece."""
        value, mask, *rest = fixed
        logits, normalizers = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        p, f = _word_terms(mask, logits, normalizers, start)
        return jnp.where(p > 0, p * (f - value[..., None]), 0)

    def forward(fixed: Arrays, tangents: Arrays) -> list[jax.Array]:
        def add(total: jax.Array, start: Any, fresh: Any) -> jax.Array:
            moved = _piece(tangents[0], start).astype(total.dtype)
            return total + jnp.sum(jnp.where(fresh, weight(fixed, start) * moved, 0), -1)

        return [_fold(add, jnp.zeros_like(fixed[0]), tangents[0].shape[-1])]

    def transpose(fixed: Arrays, cotangents: Arrays) -> list[jax.Array]:
        _, mask, policy, *_ = fixed

        def piece(start: Any) -> jax.Array:
            slope = weight(fixed, start) * cotangents[0][..., None]
            return jnp.where(mask[..., None], slope, 0).astype(policy.dtype)

        def fill(total: jax.Array, start: Any, fresh: Any) -> jax.Array:
            del fresh
            bits = _bits(piece(start))
            return jax.lax.dynamic_update_slice_in_dim(total, bits, start, axis=-1)

        if policy.shape[-1] <= CHUNK:
            return [piece(0)]
        filled = _fold(fill, jnp.zeros_like(_bits(policy)), policy.shape[-1])
        return [jax.lax.bitcast_convert_type(filled, policy.dtype)]

    fixed = [value, mask, *logits, *normalizers]
    return value, linear(forward, transpose, fixed, tangents[1:2], [value])[0]


def _sums(mask: jax.Array, *logits: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """The sum of p f, and the log-normalizers of the policy and the reference."""
    normalizers = [_normalizer(mask, x) for x in logits]

    def add(total: jax.Array, start: Any, fresh: Any) -> jax.Array:
        p, f = _word_terms(mask, logits, normalizers, start)
        terms = p * f
        if len(logits) == 2:
            # Minus p plus the reference, which cancel in the sum: then no term is negative, and
            # rounding loses no digits near the reference.
            near = p * (jnp.expm1(-jnp.clip(f, -1, None)) + f)
            reference = jnp.exp(_read(mask, logits[1], start) - normalizers[1][..., None])
            terms = jnp.where((f > -1) & (p > 0), near, terms - p + reference)
        return total + jnp.sum(jnp.where(fresh, terms, 0), -1)

    value = _fold(add, jnp.zeros_like(normalizers[0]), logits[0].shape[-1])
    return jnp.where(mask, value, 0), normalizers


def _normalizer(mask: jax.Array, logits: jax.Array) -> jax.Array:
    def add(carry: Any, start: Any, fresh: Any) -> Any:
        largest, total = carry
        piece = jnp.where(fresh, _read(mask, logits, start), -jnp.inf)
        above = jnp.maximum(largest, jnp.max(piece, -1))
        level = jnp.where(jnp.isfinite(above), above, 0)
        total = total * jnp.exp(largest - level) + jnp.sum(jnp.exp(piece - level[..., None]), -1)
        return above, total

    zero = jnp.zeros_like(jnp.sum(_read(mask, logits, 0), -1))
    largest, total = _fold(add, (zero - jnp.inf, zero), logits.shape[-1])
    return largest + jnp.log(total)


def _word_terms(
    mask: jax.Array, logits: Any, normalizers: list[jax.Array], start: Any
) -> tuple[jax.Array, jax.Array]:
    """The p and f of one piece of the vocabulary, 0 for impossible words."""
    log_p, *log_ref = (
        _read(mask, x, start) - z[..., None] for x, z in zip(logits, normalizers, strict=True)
    )
    possible = log_p > -jnp.inf
    log_p = jnp.where(possible, log_p, 0)
    f = log_p - log_ref[0] if log_ref else -log_p
    return jnp.where(possible, jnp.exp(log_p), 0), jnp.where(possible, f, 0)


def _read(mask: jax.Array, logits: jax.Array, start: Any) -> jax.Array:
    """One piece of the vocabulary in float32 at least, 0 where masked."""
    piece = _piece(logits, start)
    return jnp.where(mask[..., None], piece.astype(wide(logits.dtype)), 0)


def _piece(logits: jax.Array, start: Any) -> jax.Array:
    if logits.shape[-1] <= CHUNK:
        return logits
    # XLA for CPUs would slice small floats in float32, all of them converted before the loop: so
    # they are sliced as integers, within the loop.
    logits, start = jax.lax.optimization_barrier((logits, start))
    bits = jax.lax.dynamic_slice_in_dim(_bits(logits), start, CHUNK, axis=-1)
    return jax.lax.bitcast_convert_type(bits, logits.dtype)


def _bits(x: jax.Array) -> jax.Array:
    return jax.lax.bitcast_convert_type(x, f"uint{8 * x.dtype.itemsize}")


def _fold(step: Callable[[Any, Any, Any], Any], first: Any, size: int) -> Any:
    """``step(carry, start, fresh)`` over pieces that cover the vocabulary.

    The last piece may overlap the one before; ``fresh`` marks new words.
    """
    if size <= CHUNK:
        return step(first, 0, jnp.ones(size, bool))

    def one(carry: Any, i: jax.Array) -> tuple[Any, None]:
        start = jnp.minimum(i * CHUNK, size - CHUNK)
        return step(carry, start, start + jnp.arange(CHUNK) >= i * CHUNK), None

    return jax.lax.scan(one, first, jnp.arange(-(-size // CHUNK)))[0]
