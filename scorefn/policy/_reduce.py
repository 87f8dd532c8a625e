"""Means over what a mask lets count: losses to a scalar, advantages to a common scale."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from scorefn._core.checks import check_choice, check_number

from ._arrays import Steps, aligned, floats, mask_like, steps_of

_MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")


def reduce(
    x: ArrayLike,
    where: ArrayLike | None,
    mode: str = "token-mean",
    total: ArrayLike | None = None,
    *,
    axis: int = -1,
    length: float | None = None,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    """The mean of a loss of each token; the mode decides how much a long answer weighs.

    .. code-block:: text

        token-mean               sum of all tokens / their number
        seq-mean-token-sum       mean over sequences of the sum of their tokens
        seq-mean-token-mean      mean over sequences of the mean of their tokens
        seq-mean-token-sum-norm  seq-mean-token-sum / length, a constant

    Of a score surrogate, ``seq-mean-token-sum`` alone is unbiased for the gradient of the expected
    reward, and ``-norm`` up to the constant. The other two divide by lengths, which the policy
    chooses itself: token-mean by a number common to the batch, seq-mean-token-mean sequence by
    sequence, so that a token of a long answer counts less.

    A batch in parts (micro-batches, devices) takes the total of the whole batch, see `total`: the
    sum over the parts is then the mean over the batch. Means of means are not.

    Args:
        x: [..., T], or T at the given axis; any batch dimensions.
        where: shaped like x, True for the tokens that count; None means all. What is masked may be
            anything. A sequence without any token is no sequence: means do not count it.
        mode: one of the four.
        total: what is divided by, a scalar, from `total` of the whole batch; None means that x is
            the whole batch.
        axis: the axis of tokens.
        length: the constant of ``-norm``, as the most tokens of an answer that training allows. It
            is not taken from the shape of x, which is padding. Not read where a total is given,
            which holds it, nor in other modes.
        segment_ids: shaped like x, integers: the sequences that are packed into one row, from 1
            on; 0 where nothing is.
        num_segments: the largest id, a static int.

    Returns:
        A scalar, 0 where nothing counts.

    Raises:
        ValueError: no such mode or axis, a mask of another shape, no length for ``-norm``.
        TypeError: a mask of floats.

    Example:
        >>> mask = [[True, True, True], [True, False, False]]
        >>> print(reduce([[1.0, 1.0, 1.0], [3.0, 9.0, 9.0]], mask, "seq-mean-token-mean"))
        2.0

    References:
        Liu et al., Understanding R1-Zero-like training (2025), section 3; Yu et al., DAPO (2025),
        section 3.3.
    """
    check_choice("mode", mode, _MODES)
    (x,) = floats(x)
    steps = steps_of(x, "x", axis, where, None, segment_ids, num_segments)
    if total is None:
        total = _divisor(steps, mode, length).astype(x.dtype)
    elif np.shape(total) != ():
        raise ValueError(f"total must be a scalar, got shape {np.shape(total)}.")
    if mode == "seq-mean-token-mean":
        each = _ratio(steps.by_sequence(x), _tokens(steps).astype(x.dtype))
        return _ratio(jnp.sum(each), jnp.asarray(total, x.dtype))
    return _ratio(jnp.sum(jnp.where(steps.exist, x, 0)), jnp.asarray(total, x.dtype))


def total(
    where: ArrayLike,
    mode: str = "token-mean",
    *,
    axis: int = -1,
    length: float | None = None,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    """The number that `reduce` divides by: tokens, or sequences, or sequences times a length.

    For parts of a batch add their totals up, by ``jax.lax.psum`` over devices: with this as the
    total of each `reduce`, the parts' losses and gradients add up to those of the batch.

    Args:
        where: [..., T], True for the tokens that count.
        mode: as for `reduce`.
        axis: the axis of tokens.
        length: as for `reduce`.
        segment_ids: as for `reduce`.
        num_segments: the largest id, a static int.

    Returns:
        A scalar float.

    Raises:
        ValueError: no such mode or axis, no length for ``seq-mean-token-sum-norm``.
        TypeError: a mask of floats.

    Example:
        >>> x, where = [[6.0, 0.0], [1.0, 2.0]], [[True, False], [True, True]]
        >>> n = total(where)
        >>> print(n, sum(reduce(part, mask, total=n) for part, mask in zip(x, where)))
        3.0 3.0
    """
    check_choice("mode", mode, _MODES)
    steps = steps_of(jnp.asarray(where), "where", axis, where, None, segment_ids, num_segments)
    return _divisor(steps, mode, length)


def whiten(
    x: ArrayLike,
    *,
    axis: int | tuple[int, ...] | None = None,
    where: ArrayLike | None = None,
    floor: float = 1e-6,
    axis_name: str | tuple[str, ...] | None = None,
) -> jax.Array:
    """BIASED: x less its mean, divided by its standard deviation, along an axis.

    .. code-block:: text

        value  (x - mean) / max(std, floor),  std with n - 1 in the denominator

    As an advantage it is biased twice. The mean has seen its own sample, a factor (n - 1) / n that
    `leave_one_out` does not have; and the division weighs each group by itself, which changes the
    objective: for rewards of 0 and 1, of which p are 1, from p towards 2 arcsin(sqrt(p)). A group
    in which nearly all fail then weighs more, by 1 / sqrt(p (1 - p)).

    Args:
        x: any shape.
        axis: the axes of a group; None means all of x.
        where: shaped like x, True for what counts; None means everywhere. What is masked becomes 0.
        floor: the least standard deviation, positive, in the units of x. A group of equal numbers
            becomes exactly 0 without it.
        axis_name: names of mapped axes (of shard_map, pmap or vmap) that a group extends over.
            Without it each device whitens by its own mean.

    Returns:
        Shaped like x, without units.

    Raises:
        ValueError: a group of one, a mask of another shape, a floor that is not positive.
        TypeError: a mask of floats.

    Example:
        >>> print(whiten([1.0, 0.0, 0.0, 0.0]))
        [ 1.5 -0.5 -0.5 -0.5]

    References:
        Shao et al., DeepSeekMath (2024), section 4.1; Liu et al., Understanding R1-Zero-like
        training (2025), section 3.
    """
    check_number("floor", floor, above=0)
    (x,) = floats(x)
    mask = mask_like(where, x, "x")
    (x,) = aligned(mask, x=x)

    def over_all(found: jax.Array) -> jax.Array:
        return found if axis_name is None else jax.lax.psum(found, axis_name)

    n = over_all(jnp.sum(mask, axis, keepdims=True, dtype=x.dtype))
    devices = 1 if axis_name is None else jax.lax.psum(1, axis_name)
    if n.size and x.size * devices < 2 * n.size:
        raise ValueError(
            f"whiten needs groups of at least 2, got an array of shape {x.shape} along axis "
            f"{axis}: one number has no standard deviation."
        )
    # Less the largest first: equal numbers become exactly 0, and no rounding is blown up to 1.
    largest = jnp.max(jax.lax.stop_gradient(x), axis, keepdims=True, initial=-jnp.inf, where=mask)
    if axis_name is not None:
        largest = jax.lax.pmax(largest, axis_name)
    x = jnp.where(mask, x - largest, 0)
    x = jnp.where(mask, x - _ratio(over_all(jnp.sum(x, axis, keepdims=True)), n), 0)
    variance = _ratio(over_all(jnp.sum(jnp.square(x), axis, keepdims=True)), n - 1)
    return x / jnp.sqrt(jnp.maximum(variance, floor**2))


def _tokens(steps: Steps) -> jax.Array:
    """The number of tokens of each sequence."""
    return steps.by_sequence(jnp.where(steps.exist, 1, 0).astype(jnp.result_type(float)))


def _divisor(steps: Steps, mode: str, length: float | None) -> jax.Array:
    if mode == "token-mean":
        return jnp.sum(steps.exist, dtype=jnp.result_type(float))
    sequences = jnp.sum(_tokens(steps) > 0, dtype=jnp.result_type(float))
    if mode != "seq-mean-token-sum-norm":
        return sequences
    if length is None:
        raise ValueError(
            "seq-mean-token-sum-norm divides by a constant: give it as length, as the most tokens "
            "of an answer. The length of the axis would be that of the padding."
        )
    check_number("length", length, above=0)
    return sequences * length


def _ratio(sums: jax.Array, count: jax.Array) -> jax.Array:
    """The mean, 0 where the count is 0."""
    return sums / jnp.where(count > 0, count, 1)
