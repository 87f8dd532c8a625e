"""Random keys that carry the index of their sample.

These keys behave like any other key and also carry a sample index, which only point sets read.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl

# The number of a key without an index.
_NONE = np.uint32(2**32 - 1)


def numbered_keys(keys: jax.Array, numbers: jax.Array) -> jax.Array:
    """Keys [n] with their numbers, [n], below 2^32 - 1. The keys are consumed."""
    words = jax.vmap(lambda key: jax.random.bits(key, (2,), jnp.uint32))(keys)
    data = jnp.concatenate([words, numbers.astype(jnp.uint32)[:, None]], axis=1)
    return jax.random.wrap_key_data(data, impl=_IMPL)


def number_of(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The number of a key, and whether it has one."""
    number = jax.random.key_data(jax.random.clone(key))[2]
    return number, number != _NONE


def _plain(key: jax.Array) -> jax.Array:
    return jax.random.wrap_key_data(key[:2], impl="threefry2x32")


def _unnumbered(key: jax.Array) -> jax.Array:
    return jnp.append(jax.random.key_data(key), _NONE)


def _split(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    # Only the first key inherits the number: two draws must not use one point.
    keys = jax.random.split(_plain(key), shape)
    first = jnp.arange(keys.size, dtype=jnp.uint32).reshape(*shape, 1) == 0
    number = jnp.where(first, key[2], _NONE)
    return jnp.concatenate([jax.random.key_data(keys), number], axis=-1)


def _fold_in(key: jax.Array, data: Any) -> jax.Array:
    return _unnumbered(jax.random.fold_in(_plain(key), data))


def _random_bits(key: jax.Array, bit_width: int, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.bits(_plain(key), shape, f"uint{bit_width}")


_IMPL = define_prng_impl(
    key_shape=(3,),
    seed=lambda seed: _unnumbered(jax.random.key(seed, impl="threefry2x32")),
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="scorefn_numbered",
    tag="nb",
)
