"""Preparation of arguments: a common dtype, matching shapes, masks."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from scorefn._core.arrays import as_mask, as_segments, wide
from scorefn._core.checks import check_count
from scorefn._core.derivatives import Arrays, linear

# Ratios of probabilities are bounded by exp(20); larger ones carry no more information.
LIMIT = 20.0


def floats(*arrays: ArrayLike) -> list[jax.Array]:
    """The arrays in their widest float dtype, at least float32, ignoring numbers and integers."""
    found = [jnp.asarray(x) for x in arrays]
    strong = [x.dtype for x in found if jnp.issubdtype(x.dtype, jnp.floating) and not x.weak_type]
    dtype = wide(*strong) if strong else jnp.result_type(float)
    return [x.astype(dtype) for x in found]


def same_shape(**arrays: ArrayLike) -> list[jax.Array]:
    """The arrays in one dtype and in the shape of the first one."""
    found = floats(*arrays.values())
    first, *others = arrays
    shape = found[0].shape
    for name, x in zip(others, found[1:], strict=True):
        if x.shape not in ((), shape):
            raise ValueError(
                f"{name} has shape {x.shape}, but {first} has shape {shape}: they must be equal, "
                f"or {name} a scalar. Broadcasting would pair elements of different steps."
            )
    # A sum, which is sharded over devices as the first one is.
    return [x if x.shape == shape else x + jnp.zeros_like(found[0]) for x in found]


def aligned(mask: jax.Array, **arrays: ArrayLike) -> list[jax.Array]:
    """The arrays in one dtype, shaped like the first one, 0 where masked.

    Masked elements may be anything, including nan, and must not affect sums or derivatives.
    """
    return [jnp.where(mask, x, 0) for x in same_shape(**arrays)]


def lined_up(x: jax.Array, like: jax.Array, name: str, axis: int) -> jax.Array:
    """The array or its repetition along the axis of time, shaped like log-probabilities."""
    if x.shape == like.shape:
        return x
    if x.ndim:
        check_axis(axis, like, "the log-probabilities")
    shape = jnp.moveaxis(like, axis, -1).shape if x.ndim else like.shape
    if x.shape != shape[: x.ndim]:
        raise ValueError(
            f"{name} has shape {x.shape}, but the log-probabilities have shape {like.shape}: it "
            f"must be equal, or a leading part of the shape without the axis of time, {axis}, as "
            f"one number for each sequence is. Broadcasting would pair elements of different steps."
        )
    x = jnp.broadcast_to(x.reshape(x.shape + (1,) * (like.ndim - x.ndim)), shape)
    return jnp.moveaxis(x, -1, axis) if x.ndim else x


def mask_like(where: ArrayLike | None, like: jax.Array, name: str) -> jax.Array:
    """The mask as booleans, shaped like the array of that name; None is all True."""
    return jnp.ones_like(like, bool) if where is None else _shaped("where", where, like, name)


def check_axis(axis: int, like: jax.Array, name: str) -> None:
    """Raises ``ValueError`` unless the array of that name has the axis."""
    if not isinstance(axis, int | np.integer):
        raise TypeError(f"axis must be a static int, one axis of {name}, got {axis!r}.")
    if not -like.ndim <= axis < like.ndim:
        raise ValueError(f"axis {axis} does not exist in {name}, of shape {like.shape}.")


class Steps(NamedTuple):
    """Masks of the steps of an array, each shaped like the array.

    Attributes:
        exist: the steps that exist.
        act: the existing steps at which the policy chose.
        ids: the ids of the sequences packed into one row, starting at 1; None if a row is one
            sequence.
        segments: the largest id.
        axis: the axis of time.
    """

    exist: jax.Array
    act: jax.Array
    ids: jax.Array | None
    segments: int | None
    axis: int

    def by_sequence(self, x: jax.Array) -> jax.Array:
        """The sums over the steps of each sequence, [..., segments], or [..., 1] without ids."""
        x = jnp.where(self.exist, x, 0)
        if self.ids is None:
            return jnp.sum(jnp.moveaxis(x, self.axis, -1), -1, keepdims=True)
        own = jnp.moveaxis(x, self.axis, -1)[..., None]
        return jnp.sum(jnp.where(self._belongs(), own, 0), -2)

    def spread(self, sums: jax.Array) -> jax.Array:
        """The number of each sequence at each of its steps; 0 at padding."""
        if self.ids is None:
            at_steps = jnp.broadcast_to(sums, jnp.moveaxis(self.exist, self.axis, -1).shape)
        else:
            at_steps = jnp.sum(jnp.where(self._belongs(), sums[..., None, :], 0), -1)
        return jnp.moveaxis(at_steps, -1, self.axis)

    def flipped(self) -> "Steps":
        """The steps in the opposite order of time."""
        exist, act = (jnp.flip(x, self.axis) for x in (self.exist, self.act))
        ids = None if self.ids is None else jnp.flip(self.ids, self.axis)
        return Steps(exist, act, ids, self.segments, self.axis)

    def _belongs(self) -> jax.Array:
        """Whether a step belongs to a sequence, [..., T, segments]."""
        if self.ids is None or self.segments is None:
            raise ValueError("segment_ids need num_segments here, the largest id: a static int.")
        ids = jnp.moveaxis(self.ids, self.axis, -1)
        return ids[..., None] == jnp.arange(1, self.segments + 1)


def steps_of(
    like: jax.Array,
    name: str,
    axis: int,
    where: ArrayLike | None = None,
    acted: ArrayLike | None = None,
    segment_ids: ArrayLike | None = None,
    num_segments: int | None = None,
) -> Steps:
    """The masks given by the user as the `Steps` of the array of that name."""
    check_axis(axis, like, name)
    exist = mask_like(where, like, name)
    ids = None
    if num_segments is not None:
        check_count("num_segments", num_segments)
    if segment_ids is not None:
        ids = as_segments(segment_ids, num_segments)
        if ids.shape != like.shape:
            raise ValueError(f"segment_ids has shape {ids.shape}, but {name} has {like.shape}.")
        exist = exist & (ids > 0)
    act = exist if acted is None else exist & _shaped("acted", acted, like, name)
    return Steps(exist, act, ids, num_segments, axis)


def _shaped(mask_name: str, mask: ArrayLike, like: jax.Array, name: str) -> jax.Array:
    if np.shape(mask) != like.shape:
        raise ValueError(
            f"{mask_name} has shape {np.shape(mask)}, but {name} has shape {like.shape}: they "
            f"must be equal."
        )
    return as_mask(mask_name, mask)


def scored(value: jax.Array, weight: jax.Array, log_prob: jax.Array) -> jax.Array:
    """The value, whose derivative is weight times that of the log-probability.

    Elements removed by a later mask have derivative 0 even if the weight is nan.
    """
    # If the weight varies between devices, the factor must vary too.
    return _scored(value, weight, log_prob + jnp.zeros_like(weight))


@jax.custom_jvp
def _scored(value: jax.Array, weight: jax.Array, log_prob: jax.Array) -> jax.Array:
    del weight, log_prob
    return value


@_scored.defjvp
def _scored_jvp(
    primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[jax.Array, jax.Array]:
    value, weight, _ = primals
    return value, product(weight, tangents[2])


def product(weight: jax.Array, x: jax.Array) -> jax.Array:
    """The weight times x, for a weight without a derivative.

    Elements removed by a later mask have derivative 0 even if the weight is nan.
    """

    def forward(fixed: Arrays, x: Arrays) -> list[jax.Array]:
        return [fixed[0] * x[0]]

    def transpose(fixed: Arrays, cotangents: Arrays) -> list[jax.Array]:
        return [jnp.where(cotangents[0] == 0, 0, fixed[0] * cotangents[0])]

    return linear(forward, transpose, [weight], [x], [x])[0]


def clamped(value: jax.Array, moving: jax.Array, low: float = -jnp.inf) -> jax.Array:
    """The log-ratio, at most 20, with the derivative of `moving`, not affected by the bound."""
    value = jnp.clip(jax.lax.stop_gradient(value), low, LIMIT)
    return value + (moving - jax.lax.stop_gradient(moving))
