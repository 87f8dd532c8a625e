"""What all functions do with their arguments first: one dtype, shapes that line up, a mask."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from scorefn._core.arrays import wide


def floats(*arrays: ArrayLike) -> list[jax.Array]:
    """The arrays in the widest float among them, float32 at least; Python numbers have no say."""
    found = [jnp.asarray(x) for x in arrays]
    strong = [x.dtype for x in found if not x.weak_type]
    dtype = wide(*strong) if strong else jnp.result_type(float)
    return [x.astype(dtype) for x in found]


def aligned(where: ArrayLike | None, **arrays: ArrayLike) -> list[jax.Array]:
    """The arrays in one dtype and in the shape of the first one, 0 where they are masked.

    What is masked may be anything, nan included: it must reach no sum and no derivative.
    """
    found = floats(*arrays.values())
    first, *others = arrays
    shape = found[0].shape
    for name, x in zip(others, found[1:], strict=True):
        if x.shape not in ((), shape):
            raise ValueError(
                f"{name} has shape {x.shape}, but {first} has shape {shape}: they must be equal, "
                f"or {name} a scalar. Broadcasting them would pair what does not belong together."
            )
    found = [jnp.broadcast_to(x, shape) for x in found]
    if where is None:
        return found
    mask = mask_like(where, found[0], first)
    return [jnp.where(mask, x, 0) for x in found]


def leading(x: jax.Array, like: jax.Array, name: str) -> jax.Array:
    """Appends axes of length 1 so that x lines up with the leading axes of log-probabilities."""
    if x.shape != like.shape[: x.ndim]:
        raise ValueError(
            f"{name} has shape {x.shape}, but the log-probabilities have shape {like.shape}: it "
            f"must be the same, or a leading part of it, as one number for each sequence is. "
            f"Broadcasting the two would pair what does not belong together."
        )
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def mask_like(where: ArrayLike | None, like: jax.Array, name: str) -> jax.Array:
    """The mask as booleans, shaped like the array of that name; None is all True."""
    if where is None:
        return jnp.ones(like.shape, bool)
    mask = jnp.asarray(where)
    if mask.shape != like.shape:
        raise ValueError(f"where has shape {mask.shape}, but {name} has shape {like.shape}.")
    return mask.astype(bool)


def check_axis(axis: int, like: jax.Array, name: str) -> None:
    """An axis that the array of that name has."""
    if not -like.ndim <= axis < like.ndim:
        raise ValueError(f"axis {axis} does not exist in {name}, of shape {like.shape}.")
