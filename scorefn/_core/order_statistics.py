"""Probabilities of ranks in random subsets of samples."""

import jax
import jax.numpy as jnp


def chance_of_largest(size: int | jax.Array, others: jax.Array, n: int) -> jax.Array:
    """The probability that the j-th smallest of m is the largest of `size` of them.

    ``C(j - 1, size - 1) / C(m, size)`` for j = 1 ... n, from the last one down; m is `others`.
    """
    size = jnp.asarray(size, others.dtype)
    j = jnp.arange(1, n + 1, dtype=others.dtype)
    factor = jnp.where((j > 1) & (j <= others), (j - size) / jnp.maximum(j - 1, 1), 1)
    # The product of the factors from j + 1 to m.
    down = jnp.flip(jnp.cumprod(jnp.flip(factor, -1), axis=-1), -1)
    down = jnp.concatenate([down[..., 1:], jnp.ones_like(down[..., :1])], -1)
    return jnp.where((j <= others) & (j >= size), down * size / jnp.maximum(others, 1), 0)
