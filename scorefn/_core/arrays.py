"""Helpers for arrays and keys: dtypes, stopped gradients, sharding."""

from collections.abc import Callable, Iterable
from functools import reduce
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from .types import PyTree

T = TypeVar("T")


def is_number(x: Any) -> bool:
    """Whether x is a number or an array of numbers for jax.numpy, traced or not."""
    return isinstance(x, jax.Array | np.ndarray | np.generic | bool | int | float | complex)


def is_float(x: Any) -> bool:
    """Whether x is a real floating-point number or an array of such numbers."""
    return is_number(x) and jnp.issubdtype(jnp.result_type(x), jnp.floating)


def as_float(x: Any) -> jax.Array:
    """The number or array as a float array; floats keep their precision."""
    x = jnp.asarray(x)
    return x if jnp.issubdtype(x.dtype, jnp.floating) else x.astype(jnp.result_type(float))


def picked(xs: Iterable[T], flags: Iterable[bool]) -> list[T]:
    """The flagged elements."""
    return [x for x, flag in zip(xs, flags, strict=True) if flag]


def merged(xs: Iterable[Any], flags: Iterable[bool], some: Iterable[Any]) -> list[Any]:
    """The elements, with others in place of the flagged ones."""
    rest = iter(some)
    return [next(rest) if flag else x for x, flag in zip(xs, flags, strict=True)]


def reuse_key(keys: jax.Array) -> jax.Array:
    """The keys, cloned so that JAX's check of key reuse allows a second use."""
    return jax.random.clone(keys) if jnp.issubdtype(keys.dtype, jax.dtypes.prng_key) else keys


def abstract_key(keys: PyTree) -> Any:
    """The shape and dtype of one of the keys, or given draws, for tracing.

    ``keys[0]`` does not work here: JAX's check of key reuse counts it as a use, and an axis that is
    sharded explicitly cannot be indexed.
    """
    return jax.tree.map(lambda keys: jax.ShapeDtypeStruct(keys.shape[1:], keys.dtype), keys)


def wide(*dtypes: Any) -> Any:
    """The widest float among the dtypes, at least float32; also under strict promotion."""
    floats = [jnp.dtype(dtype) for dtype in dtypes if jnp.issubdtype(dtype, jnp.floating)]
    return max([jnp.dtype(jnp.float32), *floats], key=lambda dtype: jnp.finfo(dtype).bits)


def stop(tree: Any) -> Any:
    """The pytree with stopped gradients; leaves that are not arrays are unchanged."""

    def stopped(leaf: Any) -> Any:
        # asarray, because under an eager grad of a Python float jax 0.10 returns a Python float.
        return jnp.asarray(jax.lax.stop_gradient(leaf)) if isinstance(leaf, jax.Array) else leaf

    return jax.tree.map(stopped, tree)


def convert_closure(fn: Callable[..., Any], *examples: Any) -> tuple[Callable[..., Any], list[Any]]:
    """The function with the float tracers that it closes over as further arguments, and these.

    As ``jax.closure_convert``, which misses the tracers of ``jax.experimental.jet``: through them
    `stop` would have no effect.
    """
    jaxpr, shape = jax.make_jaxpr(fn, return_shape=True)(*examples)
    traced = [is_float(c) and isinstance(c, jax.core.Tracer) for c in jaxpr.consts]

    def converted(*arguments: Any) -> Any:
        own, others = arguments[: len(examples)], arguments[len(examples) :]
        consts = merged(jaxpr.consts, traced, others)
        outputs = jax.core.eval_jaxpr(jaxpr.jaxpr, consts, *jax.tree.leaves(own))
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return converted, picked(jaxpr.consts, traced)


def held_fixed(fn: Callable[..., Any], *examples: Any) -> Callable[..., Any]:
    """`fn`, differentiated along its arguments only: every array that it closes over is fixed.

    The examples are arguments of the shapes and dtypes that it will be called with.
    """
    hoisted, closed_over = convert_closure(fn, *examples)
    fixed = stop(closed_over)
    return lambda *arguments: hoisted(*arguments, *fixed)


def as_local(tree: Any, like: Any) -> Any:
    """The arrays, varying over mapped device axes like `like`; keys are unchanged."""

    def is_key(leaf: Any) -> bool:
        return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)

    def no_elements(leaf: Any) -> jax.Array:
        leaf = jax.random.key_data(reuse_key(leaf)) if is_key(leaf) else leaf
        # The sum of no elements is 0 and varies over the devices over which the elements vary.
        return jnp.sum(jnp.ravel(leaf)[:0] != 0, dtype=jnp.float32)

    zero = reduce(
        jnp.add, [no_elements(leaf) for leaf in jax.tree.leaves(like)], jnp.zeros((), jnp.float32)
    )

    def local(leaf: Any) -> jax.Array:
        return leaf if is_key(leaf) else jnp.asarray(leaf) + zero.astype(jnp.result_type(leaf))

    return jax.tree.map(local, tree)


def gathered(x: jax.Array, axis: int) -> jax.Array:
    """The array with one axis replicated on all devices, for running sums.

    Needed for explicitly sharded axes only; otherwise the compiler does it.
    """
    sharding: Any = jax.typeof(x).sharding
    parts = list(sharding.spec)
    if parts[axis] is None:
        return x
    parts[axis] = None
    return jax.sharding.reshard(x, jax.sharding.PartitionSpec(*parts))


def spread_like(x: jax.Array, like: jax.Array) -> jax.Array:
    """The array with its leading axis sharded like that of another; undoes `gathered`."""
    sharding: Any = jax.typeof(like).sharding
    if not sharding.spec or sharding.spec[0] is None:
        return x
    return jax.sharding.reshard(x, jax.sharding.PartitionSpec(sharding.spec[0]))


def finite_product(zero: jax.Array, weight: jax.Array) -> jax.Array:
    """The product ``zero * weight``, with the value 0 for every weight.

    A non-finite weight makes the derivative non-finite and not the value.
    """
    # 0 * inf would make the value nan; sqrt(0) is 0 and has an infinite derivative.
    usable = jnp.isfinite(jax.lax.stop_gradient(weight))
    alarm = jnp.sqrt(jnp.where(usable, 1, zero))
    return jnp.where(usable, zero * jnp.where(usable, weight, 0), alarm)


def leading(x: jax.Array, like: jax.Array, name: str) -> jax.Array:
    """The array x with axes of length 1 appended, to broadcast against `like`."""
    if x.shape != like.shape[: x.ndim]:
        raise ValueError(
            f"{name} has shape {x.shape}, which is not a leading part of the shape {like.shape}: "
            f"broadcasting would pair every draw with every other one. Reshape {name}, or sum the "
            f"log-probability over its event axes."
        )
    return x.reshape(x.shape + (1,) * (like.ndim - x.ndim))


def as_mask(name: str, x: Any) -> jax.Array:
    """The mask as booleans, from booleans or integers 0 and 1; floats raise."""
    mask = jnp.asarray(x)
    if not (mask.dtype == jnp.bool_ or jnp.issubdtype(mask.dtype, jnp.integer)):
        raise TypeError(
            f"{name} must be boolean, or integers of 0 and 1, got {mask.dtype}. Weights are no "
            f"mask: multiply by them, or compare, as in {name} > 0."
        )
    if mask.dtype != jnp.bool_ and is_readable(x) and np.any((np.asarray(x) | 1) != 1):
        raise ValueError(f"{name} must hold 0 and 1 only, got {np.unique(np.asarray(x))[:5]}.")
    return mask.astype(bool)


def as_segments(segment_ids: Any, num_segments: int | None) -> jax.Array:
    """The ids of packed sequences: integers from 1 on, 0 where nothing is."""
    ids = jnp.asarray(segment_ids)
    if not jnp.issubdtype(ids.dtype, jnp.integer):
        raise TypeError(f"segment_ids must be integers, 0 for padding, got {ids.dtype}.")
    if is_readable(segment_ids) and ids.size:
        known = np.asarray(segment_ids)
        most = np.inf if num_segments is None else num_segments
        if known.min() < 0 or known.max() > most:
            raise ValueError(
                f"segment_ids must lie in 0 (padding) to num_segments={num_segments}, got "
                f"{known.min()} to {known.max()}."
            )
    return ids.astype(jnp.int32)


def is_readable(x: Any) -> bool:
    """Whether the numbers are known while tracing, on this process."""
    return not isinstance(x, jax.Array) or (
        not isinstance(x, jax.core.Tracer) and x.is_fully_addressable
    )
