"""The one formula: a cost that carries the score of the choice it depends on."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ._arguments import as_float, wide


def attach_score(cost: ArrayLike, log_prob: ArrayLike, baseline: ArrayLike = 0.0) -> jax.Array:
    r"""The cost itself, whose derivative also counts how the draw's probability moves.

    .. code-block:: text

        value       cost
        derivative  d cost + (cost - baseline) * d log_prob

    and so on at every order, in forward and in reverse mode: for ``x`` drawn from ``p`` and
    ``log_prob = log p(stop_gradient(x))``, every derivative of the result is an unbiased estimate
    of the same derivative of ``E[cost]``. The baseline changes the variance only, provided that it
    does not depend on the draw. No evaluation of anything: two multiplications and one ``expm1``.

    A draw of infinite ``log_prob`` (one that the parameters make impossible) adds no score; its
    cost still counts in the value. Nothing else is forgiven: a ``cost`` or ``baseline`` that is not
    finite leaves the value as it is and makes the derivative non-finite, and a ``log_prob`` of nan
    makes both nan.

    Args:
        cost: any shape, real.
        log_prob: the log-probability of the draw that ``cost`` depends on, in nats. Its shape is
            the shape of ``cost`` or a leading part of it (a scalar fits every cost).
        baseline: subtracted from the cost where it weighs the score; shaped like ``log_prob``. No
            derivative passes through it.

    Returns:
        ``cost``, bit for bit, with its shape and dtype.

    Raises:
        ValueError: the shapes do not line up.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> logits, x = jnp.array([0.0, 0.0]), 1
        >>> cost = lambda logits: attach_score(3.0, jax.nn.log_softmax(logits)[x])
        >>> print(cost(logits), jax.grad(cost)(logits))
        3.0 [-1.5  1.5]

    References:
        Foerster et al., DiCE: the infinitely differentiable Monte Carlo estimator (2018),
        section 4;
        Williams, Simple statistical gradient-following algorithms (1992), equation 4.
    """
    cost = jnp.asarray(cost)
    if not jnp.issubdtype(cost.dtype, jnp.floating):
        cost = cost.astype(jnp.result_type(float))
    dtype = wide(cost.dtype)
    log_prob = _leading(jnp.asarray(log_prob, dtype), cost, "log_prob")
    baseline = _leading(jnp.asarray(baseline, dtype), cost, "baseline")
    shape = cost.shape
    if cost.size == 1:
        # Axes around one number halve what XLA simplifies: 20 choices in a row, one sample each,
        # then take twice as long to compile.
        cost, log_prob, baseline = (jnp.reshape(x, ()) for x in (cost, log_prob, baseline))

    weight = cost.astype(dtype) - jax.lax.stop_gradient(baseline)
    # The guard stands before the subtraction: a `where` around inf - inf would still differentiate
    # it, to nan.
    log_prob = without_impossible(log_prob)
    zero = log_prob - jax.lax.stop_gradient(log_prob)
    # expm1(0) * inf is nan, which would spoil the value; sqrt(0) is 0 with an infinite derivative.
    usable = jnp.isfinite(weight)
    score = jnp.expm1(zero) * jnp.where(usable, weight, 0)
    alarm = jnp.sqrt(jnp.where(usable, 1, zero))
    return jnp.reshape(cost + jnp.where(usable, score, alarm).astype(cost.dtype), shape)


def without_impossible(log_prob: jax.Array) -> jax.Array:
    """The log-probabilities; those of impossible draws, -inf, become 0 and have no score."""
    return jnp.where(jnp.isinf(log_prob), 0, log_prob)


def leave_one_out(x: ArrayLike, axis: int = 0, *, weight: ArrayLike | None = None) -> jax.Array:
    """The mean of the other elements along an axis, for each element: a baseline without bias.

    .. code-block:: text

        value  sum_{j != i} w_j x_j / sum_{j != i} w_j        (w = 1 when no weight is given)

    Because element ``i`` has no part in its own baseline, ``(x_i - leave_one_out(x)_i) * score_i``
    is unbiased. Where all the other weights are 0 the plain mean of the others is returned.

    Args:
        x: any shape, real; at least 2 elements along ``axis``.
        axis: the axis of the samples.
        weight: non-negative, shaped like ``x`` or like its leading axes up to ``axis``.

    Returns:
        An array of the shape of ``x``. Derivatives pass; stop them where they must not.

    Raises:
        ValueError: fewer than 2 elements along ``axis``, or a weight of another shape.

    Example:
        >>> print(leave_one_out([1.0, 2.0, 6.0]))
        [4.  3.5 1.5]

    References:
        Salimans and Knowles, On using control variates with stochastic approximation (2014);
        Kool, van Hoof and Welling, Buy 4 REINFORCE samples, get a baseline for free (2019),
        equation 8.
    """
    x = as_float(x)
    if x.ndim == 0 or x.shape[axis] < 2:
        raise ValueError(
            f"leave_one_out needs at least 2 samples along axis {axis}, got an array of shape "
            f"{x.shape}: with one sample there is no other one to average."
        )
    n = x.shape[axis]
    x = x if weight is None else gathered(x, axis)
    # (sum - x) / (n - 1) cancels when x carries a large offset; this form does not.
    mean = jnp.mean(x, axis, keepdims=True)
    plain = mean - (x - mean) * (1 / (n - 1))  # n - 1 may be beyond the range of 16 bits
    if weight is None:
        return plain
    weight = jnp.broadcast_to(_leading(jnp.asarray(weight, x.dtype), x, "weight"), x.shape)
    others = sum_of_others(weight, axis)
    shifted = sum_of_others(weight * (x - mean), axis)
    return jnp.where(others > 0, mean + shifted / jnp.where(others > 0, others, 1), plain)


def sum_of_others(x: jax.Array, axis: int = 0) -> jax.Array:
    """The sum of the other elements along an axis, for each element, without cancellation."""
    x = gathered(x, axis)
    # Two running sums instead of total - x: nothing of x_i itself remains through rounding.
    front = jax.lax.slice_in_dim(jnp.cumsum(x, axis), 0, x.shape[axis] - 1, axis=axis)
    back = jnp.flip(jnp.cumsum(jnp.flip(x, axis), axis), axis)
    back = jax.lax.slice_in_dim(back, 1, x.shape[axis], axis=axis)
    edge = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
    return jnp.concatenate([edge, front], axis) + jnp.concatenate([back, edge], axis)


def gathered(x: jax.Array, axis: int) -> jax.Array:
    """The array with all of an axis on each device, as running sums need it.

    Where axes are sharded explicitly this has to be said; else the compiler sees to it.
    """
    sharding: Any = jax.typeof(x).sharding
    parts = list(sharding.spec)
    if parts[axis] is None:
        return x
    parts[axis] = None
    return jax.sharding.reshard(x, jax.sharding.PartitionSpec(*parts))


def spread_like(x: jax.Array, like: jax.Array) -> jax.Array:
    """The array with its leading axis on the devices as another's: what `gathered` undoes."""
    sharding: Any = jax.typeof(like).sharding
    if not sharding.spec or sharding.spec[0] is None:
        return x
    return jax.sharding.reshard(x, jax.sharding.PartitionSpec(sharding.spec[0]))


def zero_along(x: jax.Array, weight: jax.Array) -> jax.Array:
    """A scalar 0, whose derivative along x is the weight: it carries an estimate into a cost."""
    return jnp.sum(weight * (x - jax.lax.stop_gradient(x)))


def _leading(x: jax.Array, like: jax.Array, name: str) -> jax.Array:
    """Appends axes of length 1 so that x lines up with the leading axes of `like`."""
    if x.shape != like.shape[: x.ndim]:
        raise ValueError(
            f"{name} has shape {x.shape}, which is not a leading part of {like.shape}, the shape "
            f"that it must line up with; broadcasting the two would pair every draw with every "
            f"other one. Reshape {name}, or sum the log-probability over its event axes."
        )
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))
