"""Samples on several devices: their placement, and chunks on each device."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from scorefn._core.derivatives import recomputed


def placed(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """The array with the given sharding."""
    place = jax.sharding.reshard if _explicit(sharding) else jax.lax.with_sharding_constraint
    return place(x, sharding)


def chunks_on_each_device(
    fn: Callable[[Any], Any], *, chunk_size: int, sharding: NamedSharding
) -> Callable[[Any], Any]:
    """``vmap(fn)`` in which all devices evaluate their own samples in chunks, in parallel.

    A scan over the sample axis would make every device compute all samples. So the samples are
    reshaped to [samples of a device, devices], and the scan runs over the first axis.
    """
    axis = sharding.spec[0]

    def mapped(xs: Any) -> Any:
        n = jax.tree.leaves(xs)[0].shape[0]
        devices = math.prod(sharding.mesh.shape[name] for name in _axes(sharding))
        if n % devices:
            # Not samples but, for example, a support, which every device evaluates.
            return jax.lax.map(recomputed(fn), xs, batch_size=chunk_size)

        def dealt(x: jax.Array) -> jax.Array:
            rows = jnp.swapaxes(x.reshape(devices, n // devices, *x.shape[1:]), 0, 1)
            return placed(rows, NamedSharding(sharding.mesh, PartitionSpec(None, axis)))

        def collected(y: jax.Array) -> jax.Array:
            return placed(jnp.swapaxes(y, 0, 1).reshape(n, *y.shape[2:]), sharding)

        each, parameters = _with_parameters_on_each_device(fn, xs, devices, sharding)
        together = jax.vmap(recomputed(each))
        rows = jax.lax.map(
            lambda row: together(row, *parameters), jax.tree.map(dealt, xs), batch_size=chunk_size
        )
        return jax.tree.map(collected, rows)

    return mapped


def _with_parameters_on_each_device(
    fn: Callable[[Any], Any], xs: Any, devices: int, sharding: NamedSharding
) -> tuple[Callable[..., Any], list[jax.Array]]:
    """The function with closed-over arrays as arguments, and a copy of these for each device.

    Each device sums the derivatives of its own copy over its chunks, and devices communicate once.
    With one shared copy they would communicate after each chunk.
    """
    if _explicit(sharding):
        # Up to jax 0.12 a result of closure_convert cannot be mapped over an explicit axis.
        return fn, []
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), xs)
    hoisted, closed_over = jax.closure_convert(fn, one)

    def copies(x: Any) -> jax.Array:
        free = [PartitionSpec.UNCONSTRAINED] * jnp.ndim(x)
        spec = PartitionSpec(sharding.spec[0], *free)
        copied = jnp.broadcast_to(x, (devices, *jnp.shape(x)))
        return placed(copied, NamedSharding(sharding.mesh, spec))

    return hoisted, [copies(x) for x in closed_over]


def _axes(sharding: NamedSharding) -> list[str]:
    """The axes of the mesh over which an array is spread."""
    entries = [entry for entry in sharding.spec if isinstance(entry, str | tuple)]
    return [name for entry in entries for name in ([entry] if isinstance(entry, str) else entry)]


def _explicit(sharding: NamedSharding) -> bool:
    types = dict(zip(sharding.mesh.axis_names, sharding.mesh.axis_types, strict=True))
    return any(types[name] == AxisType.Explicit for name in _axes(sharding))
