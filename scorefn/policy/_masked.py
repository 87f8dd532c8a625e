"""Means over what a mask lets count: losses to a scalar, advantages to a common scale."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.checks import check_choice, check_number

from ._arrays import aligned, check_axis, mask_like

_MODES = ("token-mean", "seq-mean-token-sum", "seq-mean-token-mean", "seq-mean-token-sum-norm")


def reduce(
    x: ArrayLike, where: ArrayLike | None, mode: str = "token-mean", *, axis: int = -1
) -> jax.Array:
    """The mean of a loss for each token: which mean decides what a long answer weighs.

    .. code-block:: text

        token-mean               sum of all tokens / their number
        seq-mean-token-sum       mean over sequences of the sum of their tokens
        seq-mean-token-mean      mean over sequences of the mean of their tokens
        seq-mean-token-sum-norm  seq-mean-token-sum / T, the length of the axis of tokens

    Of a score surrogate, ``seq-mean-token-sum`` alone is unbiased for the gradient of the expected
    reward, and ``-norm`` up to the constant T. The other two divide by lengths, which the policy
    chooses itself: token-mean by a number common to the batch, seq-mean-token-mean sequence by
    sequence, so that a token of a long answer counts less.

    Args:
        x: [..., T], or T at the given axis; any batch dimensions.
        where: shaped like x, True for the tokens that count; None means all. What is masked may be
            anything. A sequence without any token is no sequence: means do not count it.
        mode: one of the four.
        axis: the axis of tokens.

    Returns:
        A scalar, 0 where nothing counts.

    Raises:
        ValueError: no such mode or axis, a mask of another shape.

    Example:
        >>> mask = [[True, True, True], [True, False, False]]
        >>> print(reduce([[1.0, 1.0, 1.0], [3.0, 9.0, 9.0]], mask, "seq-mean-token-mean"))
        2.0

    References:
        Liu et al., Understanding R1-Zero-like training (2025), section 3; Yu et al., DAPO (2025),
        section 3.3.
    """
    check_choice("mode", mode, _MODES)
    (x,) = aligned(where, x=x)
    check_axis(axis, x, "x")
    tokens = jnp.sum(mask_like(where, x, "x"), axis, dtype=x.dtype)
    sums = jnp.sum(x, axis)
    if mode == "token-mean":
        return _ratio(jnp.sum(sums), jnp.sum(tokens))
    if mode == "seq-mean-token-mean":
        sums = _ratio(sums, tokens)
    mean = _ratio(jnp.sum(sums), jnp.sum(tokens > 0, dtype=x.dtype))
    return mean / x.shape[axis] if mode == "seq-mean-token-sum-norm" else mean


def whiten(
    x: ArrayLike,
    *,
    axis: int | tuple[int, ...] | None = None,
    where: ArrayLike | None = None,
    floor: float = 1e-6,
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

    Returns:
        Shaped like x, without units.

    Raises:
        ValueError: a group of one, a mask of another shape, a floor that is not positive.

    Example:
        >>> print(whiten([1.0, 0.0, 0.0, 0.0]))
        [ 1.5 -0.5 -0.5 -0.5]

    References:
        Shao et al., DeepSeekMath (2024), section 4.1; Liu et al., Understanding R1-Zero-like
        training (2025), section 3.
    """
    check_number("floor", floor, above=0)
    (x,) = aligned(where, x=x)
    mask = mask_like(where, x, "x")
    n = jnp.sum(mask, axis, keepdims=True, dtype=x.dtype)
    if n.size and x.size < 2 * n.size:
        raise ValueError(
            f"whiten needs groups of at least 2, got an array of shape {x.shape} along axis "
            f"{axis}: one number has no standard deviation."
        )
    # Less the largest first: equal numbers become exactly 0, and no rounding is blown up to 1.
    largest = jnp.max(x, axis, keepdims=True, initial=-jnp.inf, where=mask)
    x = jnp.where(mask, x - jax.lax.stop_gradient(largest), 0)
    x = jnp.where(mask, x - _ratio(jnp.sum(x, axis, keepdims=True), n), 0)
    variance = _ratio(jnp.sum(jnp.square(x), axis, keepdims=True), n - 1)
    return x / jnp.sqrt(jnp.maximum(variance, floor**2))


def _ratio(total: jax.Array, count: jax.Array) -> jax.Array:
    """The mean, where the count may be 0 along with the total."""
    return total / jnp.maximum(count, 1)
