"""The samples of one call: their keys, and the map that evaluates them."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
import jax.numpy as jnp

from scorefn._core.checks import check_chunk, check_count, check_key, check_sharding
from scorefn._core.derivatives import recomputed
from scorefn._core.types import Vmap

from .devices import chunks_on_each_device, placed

ChunkSize = int | Literal["auto"] | None


def check_samples(
    key: jax.Array,
    num_samples: int,
    chunk_size: ChunkSize = None,
    sharding: jax.sharding.NamedSharding | None = None,
    *,
    at_least: int = 1,
    name: str = "num_samples",
) -> jax.Array:
    """The key, after checks of all arguments.

    Raises:
        TypeError: an argument has the wrong type.
        ValueError: a size does not fit.
    """
    key = check_key(key)
    check_count(name, num_samples, at_least=at_least)
    if chunk_size != "auto":
        check_chunk(chunk_size, num_samples)
    check_sharding(sharding, num_samples)
    return key


def sample_keys(
    key: jax.Array,
    num_samples: int,
    chunk_size: ChunkSize = None,
    sharding: jax.sharding.NamedSharding | None = None,
) -> tuple[jax.Array, Vmap]:
    """The keys ``fold_in(key, i)`` of all samples, [n], and the vmap for them.

    `check_samples` must have checked the arguments. Here "auto" means no chunking: callers of this
    function cannot stream.
    """
    indices = jnp.arange(num_samples, dtype=jnp.uint32)
    if sharding is not None:
        indices = placed(indices, sharding)
    keys = keys_of(key, indices)
    if chunk_size is None or chunk_size == "auto":
        return keys, jax.vmap
    if sharding is None:
        return keys, partial(chunked_vmap, chunk_size=chunk_size)
    return keys, partial(chunks_on_each_device, chunk_size=chunk_size, sharding=sharding)


def keys_of(key: jax.Array, indices: jax.Array) -> jax.Array:
    """The keys of the samples with these indices, [n]."""
    return jax.vmap(jax.random.fold_in, (None, 0))(key, indices)


def chunked_vmap(fn: Callable[[Any], Any], *, chunk_size: int | None) -> Callable[[Any], Any]:
    """``vmap(fn)`` that evaluates the samples in chunks and stores no intermediate values."""
    if chunk_size is None:
        return jax.vmap(fn)
    # The backward pass computes each chunk again.
    return lambda xs: jax.lax.map(recomputed(fn), xs, batch_size=chunk_size)
