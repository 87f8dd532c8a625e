"""Arrays and keys: dtypes, stopping, sharding."""

from collections.abc import Callable
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def is_number(x: Any) -> bool:
    """Whether jax.numpy takes it for a number or an array of numbers, traced ones included."""
    return isinstance(x, jax.Array | np.ndarray | np.generic | bool | int | float | complex)


def is_float(x: Any) -> bool:
    """Whether it is a real floating-point number or an array of such."""
    return is_number(x) and jnp.issubdtype(jnp.result_type(x), jnp.floating)


def as_float(x: Any) -> jax.Array:
    """The same as a float array; floats keep their precision."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def reuse_key(keys: jax.Array) -> jax.Array:
    """The same keys once more, on purpose: the same draws are wanted."""
    return jax.random.clone(keys) if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) else keys


def abstract_key(keys: jax.Array) -> Any:
    """One of the keys, to trace with and not to draw with.

    ``keys[0]`` would not do: JAX's check of key reuse takes it for a use, and along an axis that is
    sharded explicitly it cannot be taken.
    """
    return jax.ShapeDtypeStruct(keys.shape[1:], keys.dtype)


def wide(*dtypes: Any) -> Any:
    """The widest float among the dtypes, float32 at least; under strict promotion as well."""
    floats = [jnp.dtype(dtype) for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return max([jnp.dtype(jnp.float32), *floats], key=lambda dtype: jnp.finfo(dtype).bits)


def stop(tree: Any) -> Any:
    """The pytree with no derivative passing through; leaves that are no arrays stay as they are."""

    def stopped(leaf: Any) -> Any:
        # asarray, since under an eager grad of a Python float the primal is a float to jax 0.10.
        return jnp.asarray(jax.lax.stop_gradient(leaf)) if isinstance(leaf, jax.Array) else leaf

    return jax.tree.map(stopped, tree)


def held_fixed(fn: Callable[..., Any], *examples: Any) -> Callable[..., Any]:
    """`fn`, differentiated along its arguments only: every array that it closes over is fixed.

    The examples are arguments of the shapes and dtypes that it will be called with.
    """
    hoisted, closed_over = jax.closure_convert(fn, *examples)
    fixed = stop(closed_over)
    return lambda *arguments: hoisted(*arguments, *fixed)


def as_local(tree: Any, like: Any) -> Any:
    """The float arrays unchanged, and inside shard_map as local to each device as others are."""
    # The sum of no elements is 0 and as local as the elements.
    sums = [jnp.sum(jnp.ravel(leaf)[:0], dtype=jnp.float32) for leaf in jax.tree.leaves(like)]
    zero = reduce(jnp.add, sums, jnp.zeros((), jnp.float32))

    def local(leaf: Any) -> jax.Array:
        leaf = jnp.asarray(leaf)
        return leaf + zero.astype(leaf.dtype)

    return jax.tree.map(local, tree)


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


def finite_product(zero: jax.Array, weight: jax.Array) -> jax.Array:
    """``zero * weight``, of a zero whose derivative is wanted: the value is 0 for every weight.

    A weight that is not finite makes the derivative so, and leaves the value alone.
    """
    # 0 * inf is nan, which would spoil the value; sqrt(0) is 0 with an infinite derivative.
    usable = jnp.isfinite(weight)
    alarm = jnp.sqrt(jnp.where(usable, 1, zero))
    return jnp.where(usable, zero * jnp.where(usable, weight, 0), alarm)


def leading(x: jax.Array, like: jax.Array, name: str) -> jax.Array:
    """Appends axes of length 1 so that x lines up with the leading axes of `like`."""
    if x.shape != like.shape[: x.ndim]:
        raise ValueError(
            f"{name} has shape {x.shape}, which is not a leading part of {like.shape}, the shape "
            f"that it must line up with; broadcasting the two would pair every draw with every "
            f"other one. Reshape {name}, or sum the log-probability over its event axes."
        )
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))
