"""Random keys whose noise is given: an integral over noise becomes an exact sum over points.

The data of such a key are the uniform numbers that it will produce. `jax.random.uniform` on it
returns them in order, as does all that is made of uniforms (logistic, Gumbel, exponential, normal),
and `jax.random.split(key, m)` deals them out in m equal blocks. So the real sampling code of an
estimator can be driven through every node of a quadrature rule.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl

CAPACITY = 48


def noise_keys(uniforms: np.ndarray) -> jax.Array:
    """Keys [...] from their uniforms [..., w] in (0, 1), w <= CAPACITY; float64 needs x64."""
    uniforms = np.asarray(uniforms, np.float64)
    bits = np.floor(uniforms * 2.0**52).astype(np.uint64) << np.uint64(12)
    halves = np.stack([bits >> np.uint64(32), bits & np.uint64(2**32 - 1)], -1).astype(np.uint32)
    data = np.zeros((*uniforms.shape[:-1], CAPACITY, 2), np.uint32)
    data[..., : uniforms.shape[-1], :] = halves
    length = np.full((*uniforms.shape[:-1], 1), uniforms.shape[-1], np.uint32)
    flat = data.reshape(*uniforms.shape[:-1], 2 * CAPACITY)
    return jax.random.wrap_key_data(jnp.asarray(np.concatenate([length, flat], -1)), impl=_IMPL)


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    children = int(np.prod(shape))
    block = key[0] // children
    halves = key[1:].reshape(CAPACITY, 2)
    rows = jnp.arange(children)[:, None] * block + jnp.arange(CAPACITY)[None]
    dealt = halves[jnp.clip(rows, 0, CAPACITY - 1)].reshape(children, -1)
    lengths = jnp.full((children, 1), block, jnp.uint32)
    return jnp.concatenate([lengths, dealt], 1).reshape(*shape, 1 + 2 * CAPACITY)


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    n = int(np.prod(shape))
    assert n <= CAPACITY, f"{n} numbers asked of a key that holds {CAPACITY}"
    high, low = key[1:].reshape(CAPACITY, 2)[:n].T
    if bit_width == 64:
        return (high.astype(jnp.uint64) << 32 | low.astype(jnp.uint64)).reshape(shape)
    return (high >> (32 - bit_width)).astype(f"uint{bit_width}").reshape(shape)


def _fold_in(key: jax.Array, data: jax.Array) -> jax.Array:
    return _split(key, (8,))[data]


_IMPL = define_prng_impl(
    key_shape=(1 + 2 * CAPACITY,),
    seed=lambda seed: jnp.zeros(1 + 2 * CAPACITY, jnp.uint32) + jnp.uint32(seed),
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="given_noise",
    tag="gn",
)
