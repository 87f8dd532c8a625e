"""The samples of one call: their keys, and how a function of one is applied to all of them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from ._arguments import check_chunk, check_count, check_key, check_sharding
from ._devices import chunks_on_each_device, placed

Vmap = Callable[[Callable[[Any], Any]], Callable[[Any], Any]]


def sample_keys(
    key: jax.Array,
    num_samples: int,
    chunk_size: int | None = None,
    sharding: jax.sharding.NamedSharding | None = None,
    *,
    at_least: int = 1,
    name: str = "num_samples",
) -> tuple[jax.Array, Vmap]:
    """The keys [n], that of sample i being ``fold_in(key, i)``, and the vmap to use on them.

    Raises:
        TypeError: an argument of the wrong kind.
        ValueError: a size that does not fit.
    """
    key = check_key(key)
    num_samples = check_count(name, num_samples, at_least=at_least)
    chunk_size = check_chunk(chunk_size, num_samples)
    sharding = check_sharding(sharding, num_samples)
    indices = jnp.arange(num_samples, dtype=jnp.uint32)
    if sharding is not None:
        indices = placed(indices, sharding)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, indices)
    if chunk_size is None:
        return keys, jax.vmap
    if sharding is None:
        return keys, partial(chunked_vmap, chunk_size=chunk_size)
    return keys, partial(chunks_on_each_device, chunk_size=chunk_size, sharding=sharding)


def chunked_vmap(fn: Callable[[Any], Any], *, chunk_size: int) -> Callable[[Any], Any]:
    """``vmap(fn)`` that goes through the samples in chunks, and keeps nothing of them."""
    # What a chunk computes is forgotten and computed again in the backward pass.
    return lambda xs: jax.lax.map(jax.checkpoint(fn), xs, batch_size=chunk_size)
