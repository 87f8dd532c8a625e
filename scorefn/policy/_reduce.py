"""Masked means of losses, and whitening of advantages."""

from __future__ import annotations

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
    """The mean of a loss per token; the mode sets the weight of long answers.

    .. code-block:: text

        token-mean               sum of all tokens / their number
        seq-mean-token-sum       mean over sequences of the sum of their tokens
        seq-mean-token-mean      mean over sequences of the mean of their tokens
        seq-mean-token-sum-norm  seq-mean-token-sum / length, a constant

    For a score surrogate, only ``seq-mean-token-sum`` is unbiased for the gradient of the expected
    reward, and ``-norm`` up to the constant. The other two divide by lengths, which depend on the
    policy: token-mean by one number for the batch, and seq-mean-token-mean by the length of each
    sequence, so that a token of a long answer has a smaller weight.

    For a batch in parts (micro-batches, devices), give the `total` of the whole batch: the sum over
    the parts is then the mean over the batch. A mean of means is not.

    Args:
        x: [..., T], or T at the given axis; any batch dimensions.
        where: shaped like x, True for the tokens to include; None means all. Masked elements may be
            anything. A sequence without tokens does not enter the means.
        mode: one of the four modes.
        total: the divisor, a scalar, from `total` of the whole batch; None means that x is the
            whole batch.
        axis: the axis of tokens.
        length: the constant of ``-norm``, for example the largest allowed number of tokens of an
            answer. It cannot be read from the shape of x, which includes padding. Not used in other
            modes, nor if a total is given.
        segment_ids: shaped like x, integers: the sequences packed into one row, starting at 1; 0 is
            padding.
        num_segments: the largest id, a static int.

    Returns:
        A scalar, 0 if no token is included.

    Raises:
        ValueError: mode or axis does not exist; the mask has another shape; ``-norm`` has no
            length.
        TypeError: the mask holds floats.

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
    else:
        check_number("total", total, least=0)
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
    """The divisor of `reduce`: tokens, or sequences, or sequences times a length.

    For a batch in parts, add up their totals, by ``jax.lax.psum`` over devices. With this sum as
    the total of each `reduce`, the losses and gradients of the parts add up to those of the batch.

    Args:
        where: [..., T], True for the tokens to include.
        mode: as for `reduce`.
        axis: the axis of tokens.
        length: as for `reduce`.
        segment_ids: as for `reduce`.
        num_segments: the largest id, a static int.

    Returns:
        A scalar float.

    Raises:
        ValueError: mode or axis does not exist; ``seq-mean-token-sum-norm`` has no length.
        TypeError: the mask holds floats.

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
    """BIASED: x minus its mean, divided by its standard deviation, along an axis.

    .. code-block:: text

        value  (x - mean) / max(std, floor),  std with n - 1 in the denominator

    As an advantage it has two biases. The mean includes the sample itself, which gives a factor
    (n - 1) / n that `leave_one_out` avoids. The division gives each group its own weight, which
    changes the objective: for rewards 0 and 1, with a fraction p of 1, from p towards
    2 arcsin(sqrt(p)). A group in which nearly all samples fail or succeed gets a larger weight,
    1 / sqrt(p (1 - p)).

    Args:
        x: any shape.
        axis: the axes of a group; None means all of x.
        where: shaped like x, True for the elements to include; None means all. Masked elements
            become 0.
        floor: the smallest standard deviation, positive, in the units of x. A group of equal
            numbers becomes exactly 0 without it.
        axis_name: names of mapped axes (of shard_map, pmap or vmap) over which a group extends.
            Without it each device uses its own mean.

    Returns:
        Shaped like x, without units.

    Raises:
        ValueError: a group has one element; the mask has another shape; floor is not positive.
        TypeError: the mask holds floats.

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
    # Subtract the largest first: equal numbers become exactly 0, and rounding is not amplified.
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
            "seq-mean-token-sum-norm divides by a constant: give it as length, for example the "
            "largest number of tokens of an answer. The length of the axis includes padding."
        )
    check_number("length", length, above=0)
    return sequences * length


def _ratio(sums: jax.Array, count: jax.Array) -> jax.Array:
    """The mean, 0 where the count is 0."""
    return sums / jnp.where(count == 0, 1, count)
