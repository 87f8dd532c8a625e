"""One-pass mean and variance of a function of a key, in constant memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import wide
from scorefn._core.checks import check_count, check_keys
from scorefn._core.types import PyTree


def moments(
    fn: Callable[[jax.Array], PyTree], keys: jax.Array, *, chunk_size: int | None = None
) -> tuple[PyTree, PyTree, int]:
    """The mean, the variance and the count of ``fn(key)`` over many keys.

    Chunks are evaluated and merged one after the other, so memory depends on the chunk size and not
    on the number of keys, and a large offset loses no digits. Works for any function of a key,
    including gradients. Evaluates fn once for each key; mean and variance are unbiased.

    Args:
        fn: a function of one key that returns a pytree of real arrays.
        keys: [n], typed or raw; n >= 2. All are consumed.
        chunk_size: keys evaluated at a time; None means 256 or fewer.

    Returns:
        ``(mean, variance, count)``: the sample mean and the sample variance of ONE value (divisor
        count - 1), each shaped like what fn returns, and the number of keys, an int. The variance
        of the mean is variance / count.

    Raises:
        TypeError: keys is not an array of keys; fn returns complex numbers.
        ValueError: fewer than 2 keys.

    Example:
        >>> import jax, scorefn as sf
        >>> keys = jax.random.split(jax.random.key(0), 10_000)
        >>> mean, variance, count = sf.moments(jax.random.uniform, keys)
        >>> print(f"{mean:.1f} {variance:.2f} {count}")
        0.5 0.08 10000

    References:
        Chan, Golub and LeVeque, Algorithms for computing the sample variance (1983), equation 2.1.
    """
    n = len(check_keys(keys))
    if n < 2:
        raise ValueError(f"keys must hold at least 2 keys, as from jax.random.split, got {n}.")
    chunk_size = _chunk(n) if chunk_size is None else min(n, check_count("chunk_size", chunk_size))
    whole = n // chunk_size * chunk_size
    values = jax.vmap(lambda key: jax.tree.map(_as_float, fn(key)))

    def merge(state: tuple[PyTree, PyTree, PyTree, jax.Array], chunk: jax.Array) -> Any:
        pilot, mean, squares, count = state
        x = values(chunk)
        # Deviations from the first value: a large offset would lose digits even in a short mean.
        pilot = jax.tree.map(lambda p, x: jnp.where(count == 0, x[0], p), pilot, x)
        x = jax.tree.map(jnp.subtract, x, pilot)
        size = len(chunk)
        share = size / (count + size)

        def merged_mean(mean: jax.Array, x: jax.Array) -> jax.Array:
            return mean + (jnp.mean(x, 0) - mean) * share.astype(mean.dtype)

        def merged_squares(squares: jax.Array, mean: jax.Array, x: jax.Array) -> jax.Array:
            center = jnp.mean(x, 0)
            between = jnp.square(center - mean) * (count * share).astype(mean.dtype)
            return squares + jnp.sum(jnp.square(x - center), 0) + between

        state = (
            pilot,
            jax.tree.map(merged_mean, mean, x),
            jax.tree.map(merged_squares, squares, mean, x),
            count + size,
        )
        return state, None

    shapes = jax.eval_shape(values, keys[:1])
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), shapes)
    state = (zeros, zeros, zeros, jnp.zeros((), jnp.result_type(float)))
    chunks = keys[:whole].reshape(whole // chunk_size, chunk_size, *keys.shape[1:])
    state, _ = jax.lax.scan(merge, state, chunks)
    if whole < n:
        state, _ = merge(state, keys[whole:])
    pilot, mean, squares, _ = state
    mean = jax.tree.map(jnp.add, pilot, mean)
    return mean, jax.tree.map(lambda total: total / (n - 1), squares), n


def _chunk(n: int) -> int:
    """The default chunk size: a divisor of n if possible, at most 256."""
    whole = [size for size in range(1, 257) if n % size == 0]
    return whole[-1] if n <= 256 or whole[-1] >= 128 else 256


def _as_float(x: Any) -> jax.Array:
    if jnp.iscomplexobj(x):
        raise TypeError(
            f"fn must return real arrays, got {jnp.result_type(x)}: a complex number has no "
            f"variance of one number. Return its real and its imaginary part."
        )
    return jnp.asarray(x, wide(jnp.result_type(x)))
