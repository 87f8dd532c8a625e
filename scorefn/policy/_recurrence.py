"""The recurrence behind all sums over time."""

from __future__ import annotations

from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ._arrays import Steps, aligned, floats, steps_of


def reverse_recurrence(
    a: ArrayLike,
    b: ArrayLike,
    init: ArrayLike = 0.0,
    *,
    axis: int = -1,
    where: ArrayLike | None = None,
    acted: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    """The solution of ``x_t = b_t + a_t x_{t+1}`` along an axis.

    It starts at ``x_T = init``. A step that does not exist keeps ``x_t = x_{t+1}``. If a is 0, the
    later steps are not read. Exact, in one pass over the T steps, with derivatives of every order.

    Args:
        a: shaped like b, or a scalar.
        b: any shape with an axis of time.
        init: x after the last step: a scalar, or shaped like b without its axis of time; for packed
            rows also [..., num_segments], one for each sequence.
        axis: the axis of time.
        where: shaped like b, True where a step exists; None means everywhere.
        acted: shaped like b, True where the policy chose. It has no effect here: other existing
            steps are treated like actions.
        segment_ids: shaped like b, integers: the sequences packed into one row, one run of ids
            each, starting at 1; 0 is padding. Each sequence ends with init.
        num_segments: the largest id, a static int.

    Returns:
        x, shaped like b, in float32 at least.

    Raises:
        ValueError: the shapes do not match; the axis does not exist.
        TypeError: the mask holds floats.

    Example:
        >>> print(reverse_recurrence(0.5, [1.0, 1.0, 4.0]))
        [2.5 3.  4. ]
    """
    b, a, init = floats(b, a, init)
    steps = steps_of(b, "b", axis, where, acted, segment_ids, num_segments)
    b, a = aligned(steps.exist, b=b, a=a)
    return solve(a, b, steps, ends_of(init, b, steps))[0]


def next_value(
    value: ArrayLike,
    bootstrap: ArrayLike = 0.0,
    where: ArrayLike | None = None,
    acted: ArrayLike | None = None,
    *,
    axis: int = -1,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> jax.Array:
    """The value at the next action; the bootstrap after the last action.

    It is the next_value of `gae`, `lambda_returns`, `vtrace` and `n_step_returns`.

    Args:
        value: the value of the state before each step, any shape with an axis of time.
        bootstrap: the value of the last state, 0 if the episode has ended: a scalar, or shaped like
            value without its axis of time; for packed rows also [..., num_segments].
        where: shaped like value, True where a step exists.
        acted: shaped like value, True where the policy chose; None means all existing steps. The
            values of other steps are not read.
        axis: the axis of time.
        segment_ids: as for `reverse_recurrence`: each sequence ends with the bootstrap.
        num_segments: the largest id, a static int.

    Returns:
        Shaped like value.

    Raises:
        ValueError: the shapes do not match; the axis does not exist.
        TypeError: the mask holds floats.

    Example:
        >>> print(next_value([1.0, 9.0, 3.0], bootstrap=5.0, acted=[True, False, True]))
        [3. 3. 5.]
    """
    value, bootstrap = floats(value, bootstrap)
    steps = steps_of(value, "value", axis, where, acted, segment_ids, num_segments)
    (value,) = aligned(steps.act, value=value)
    acts = steps._replace(exist=steps.act)
    return solve(jnp.zeros_like(value), value, acts, ends_of(bootstrap, value, steps))[1]


def solve(
    a: jax.Array, b: jax.Array, steps: Steps, end: jax.Array, run: jax.Array | None = None
) -> tuple[jax.Array, jax.Array]:
    """The solution x, and the x after each step (`end` after the last one).

    Args:
        a: shaped like b.
        b: any shape.
        steps: the masks; only existing steps are read.
        end: x after a row or packed sequence, without the axis of time; or shaped like b, the x
            after each step if it is the last of its sequence.
        run: shaped like b, integers: a sequence also ends where these change.
    """
    axis = steps.axis
    a, b = jnp.where(steps.exist, a, 1), jnp.where(steps.exist, b, 0)
    a, b, exist = (jnp.moveaxis(x, axis, 0) for x in (a, b, steps.exist))
    tags = [jnp.moveaxis(x, axis, 0) for x in (steps.ids, run) if x is not None]
    # The sum of no steps is 0 and shaped like one step. It has the sharding, the device axes and
    # the mapped axes of the steps, as a carry must.
    zero = jnp.sum(a[:0], 0) + jnp.sum(b[:0], 0)

    def step(x: jax.Array, a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
        # A non-finite x after the end of an episode is not read.
        x = jnp.where((a == 0) & ~jnp.isfinite(x), 0, x)
        return b + a * x, x

    def whole_row(x: jax.Array, now: Any) -> Any:
        x, following = step(x, *now)
        return x, (x, following)

    def up_to_a_border(carry: Any, now: Any) -> Any:
        x, last = carry
        a, b, exists, end, here = now
        border = reduce(jnp.logical_or, [i != j for i, j in zip(here, last, strict=True)])
        x, following = step(jnp.where(exists & border, end, x), a, b)
        last = [jnp.where(exists, i, j) for i, j in zip(here, last, strict=True)]
        return (x, last), (x, following)

    if end.ndim < b.ndim and not tags:
        # An associative scan takes fewer steps, but is slower on a CPU.
        _, found = jax.lax.scan(whole_row, zero + end, (a, b), reverse=True)
    else:
        by_step = end.ndim == b.ndim
        ends = jnp.moveaxis(end, axis, 0) if by_step else jnp.broadcast_to(zero + end, b.shape)
        tags = tags or [jnp.zeros_like(b, jnp.int32)]
        # No tag is -1, so the last step is at a border.
        start = (
            zero + jnp.sum(ends[:0], 0),
            [jnp.sum(tag[:0], 0, dtype=jnp.int32) - 1 for tag in tags],
        )
        xs = (a, b, exist, ends, tags)
        _, found = jax.lax.scan(up_to_a_border, start, xs, reverse=True)
    x, following = (jnp.moveaxis(found, 0, axis) for found in found)
    return x, following


def ends_of(end: jax.Array, like: jax.Array, steps: Steps) -> jax.Array:
    """The x after a sequence, for whole rows or at the steps of packed sequences."""
    row = jnp.moveaxis(like, steps.axis, -1).shape[:-1]
    if end.shape in ((), row):
        return end
    if steps.ids is not None and end.shape == (*row, steps.segments):
        return steps.spread(end)
    raise ValueError(
        f"init, the value after the last step, has shape {end.shape}; it must be a scalar, or have "
        f"the shape {row} of the other arrays without their axis of time, or for packed rows "
        f"{(*row, 'num_segments')}."
    )
