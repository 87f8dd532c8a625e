"""Samples on several devices: where they lie, and how each device takes its own in chunks."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def placed(x: jax.Array, sharding: NamedSharding) -> jax.Array:
    """The array, laid out over the devices like that."""
    place = jax.sharding.reshard if _explicit(sharding) else jax.lax.with_sharding_constraint
    return place(x, sharding)


def chunks_on_each_device(
    fn: Callable[[Any], Any], *, chunk_size: int, sharding: NamedSharding
) -> Callable[[Any], Any]:
    """``vmap(fn)`` in which each device goes through its own samples in chunks, all at once.

    A scan over the samples would take each device's in turn, and have all devices compute all of
    them. So the samples are dealt to an axis of devices, and the scan goes over what each one has.
    """
    axis = sharding.spec[0]

    def mapped(xs: Any) -> Any:
        n = jax.tree.leaves(xs)[0].shape[0]
        devices = math.prod(sharding.mesh.shape[name] for name in _axes(sharding))
        if n % devices:
            # Not the samples: a support, say, which every device goes through.
            return jax.lax.map(jax.checkpoint(fn), xs, batch_size=chunk_size)

        def dealt(x: jax.Array) -> jax.Array:
            rows = jnp.swapaxes(x.reshape(devices, n // devices, *x.shape[1:]), 0, 1)
            return placed(rows, NamedSharding(sharding.mesh, PartitionSpec(None, axis)))

        def collected(y: jax.Array) -> jax.Array:
            return placed(jnp.swapaxes(y, 0, 1).reshape(n, *y.shape[2:]), sharding)

        each, parameters = _with_parameters_on_each_device(fn, xs, devices, sharding)
        together = jax.vmap(jax.checkpoint(each))
        rows = jax.lax.map(
            lambda row: together(row, *parameters), jax.tree.map(dealt, xs), batch_size=chunk_size
        )
        return jax.tree.map(collected, rows)

    return mapped


def _with_parameters_on_each_device(
    fn: Callable[[Any], Any], xs: Any, devices: int, sharding: NamedSharding
) -> tuple[Callable[..., Any], list[jax.Array]]:
    """The function with what it closes over as arguments, and these, a copy for each device.

    Then each device sums the derivatives of its own copy over its chunks, and devices communicate
    once. With one copy for all they would communicate after each chunk.
    """
    if _explicit(sharding):
        # What closure_convert has traced cannot be mapped over an explicit axis, up to jax 0.12.
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
