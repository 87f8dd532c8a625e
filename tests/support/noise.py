"""Random keys whose noise is given: an integral over noise becomes an exact sum over points.

The data of such a key are the uniform numbers that it will produce. `jax.random.uniform` on it
returns them in order, as does all that is made of uniforms (logistic, Gumbel, exponential, normal).
``jax.random.split(key, m)`` deals the numbers of a key out in m equal blocks, and
``jax.random.fold_in(key, i)`` moves on to block i. So the real sampling code of an estimator, and
`expectation` itself, can be driven through every node of a quadrature rule, unaware; a key that is
used twice shows as a bias.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl

CAPACITY = 64


def noise_keys(uniforms: np.ndarray, width: int | None = None) -> jax.Array:
    """Keys [...] from their uniforms [..., w] in (0, 1), w <= CAPACITY; float64 needs x64.

    Each ``fold_in`` of a key owns `width` numbers; None means all of them.
    """
    uniforms = np.asarray(uniforms, np.float64)
    assert uniforms.shape[-1] <= CAPACITY, "more noise than one key carries"
    bits = np.floor(uniforms * 2.0**52).astype(np.uint64) << np.uint64(12)
    # The lowest of 64 bits serve random integers alone: they repeat the highest ones.
    bits |= bits >> np.uint64(52)
    halves = np.stack([bits >> np.uint64(32), bits & np.uint64(2**32 - 1)], -1).astype(np.uint32)
    data = np.zeros((*uniforms.shape[:-1], 1 + 2 * CAPACITY), np.uint32)
    data[..., 0] = uniforms.shape[-1] if width is None else width
    data[..., 1 : 1 + 2 * uniforms.shape[-1]] = halves.reshape(*uniforms.shape[:-1], -1)
    return jax.random.wrap_key_data(jnp.asarray(data), impl=_IMPL)


def _part(key: jax.Array, width: jax.Array, i: jax.Array) -> jax.Array:
    """The key whose noise begins at number ``i * width`` and which owns `width` numbers."""
    shift = -2 * (width * i.astype(jnp.uint32)).astype(jnp.int32)
    return jnp.concatenate([width[None], jnp.roll(key[1:], shift)])


def _fold_in(key: jax.Array, i: jax.Array) -> jax.Array:
    return _part(key, key[0], i)


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    n = math.prod(shape)
    parts = jax.vmap(partial(_part, key, key[0] // np.uint32(n)))(jnp.arange(n))
    return parts.reshape(*shape, *key.shape)


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    n = math.prod(shape)
    assert n <= CAPACITY, f"{n} numbers asked of a key that holds {CAPACITY}"
    high, low = key[1 : 1 + 2 * n].reshape(n, 2).T
    if bit_width == 64:
        return (high.astype(jnp.uint64) << np.uint64(32) | low).reshape(shape)
    return (high >> (32 - bit_width)).astype(f"uint{bit_width}").reshape(shape)


_IMPL = define_prng_impl(
    key_shape=(1 + 2 * CAPACITY,),
    seed=lambda seed: jnp.zeros(1 + 2 * CAPACITY, jnp.uint32) + jnp.uint32(seed),
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="given_noise",
    tag="gn",
)
