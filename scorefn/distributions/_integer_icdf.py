"""Bits and categories drawn by the inverse cdf from uniform integers.

A word is a uniform integer of 32 bits, or 64 if the logits are float64. Probabilities are first
rounded to integers, whose cumulative sums are exact, unlike those of floats: a category of
probability 0 is never drawn, and every word maps to a category. With one set of logits and many
keys, as under vmap, the sums are computed once.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import wide

# Up to this number of borders a word is compared with each, which XLA keeps in registers; for more
# borders a binary search is faster.
_FEW = 32

# Up to this number of categories each is rounded separately: together this moves a border by at
# most 2^-21.
_MANY = 4096


def words(key: jax.Array, shape: tuple[int, ...], logits: jax.Array) -> jax.Array:
    """Uniform integers, of the word size for these logits. The key is consumed."""
    return jax.random.bits(key, shape, _word(logits))


def words_at(u: jax.Array, logits: jax.Array) -> jax.Array:
    """The words at numbers u in [0, 1), of the word size for these logits."""
    word = _word(logits)
    return (u * 2.0 ** jnp.iinfo(word).bits).astype(word)


def bits_at(words: jax.Array, logits: jax.Array) -> jax.Array:
    """Bits [...] from words [...] and log-odds [...]: 1 for low words."""
    logits = _wide(logits)
    positive = logits >= 0
    # The number of words of the rarer value, at most half of all, so that it does not overflow.
    rarer = jax.nn.sigmoid(jnp.where(positive, -logits, logits))
    rarer = jnp.round(rarer * 2.0 ** jnp.iinfo(words.dtype).bits).astype(words.dtype)
    return jnp.where(positive, words <= ~rarer, words < rarer)


def categories_at(words: jax.Array, logits: jax.Array) -> jax.Array:
    """Indices [...] from words [...] and logits [..., C], increasing with the word."""
    borders = _cumulative(_wide(logits), words.dtype)
    place = _high_half(words, borders[..., -1])  # uniform from 0 to the sum, less 1
    borders = borders[..., :-1]
    if borders.shape[-1] <= _FEW:
        return jnp.sum(borders <= place[..., None], axis=-1, dtype=jnp.int32)
    # In a loop an accelerator launches kernels for each step of the search.
    method = "scan" if jax.default_backend() == "cpu" else "scan_unrolled"
    search = partial(jnp.searchsorted, side="right", method=method)
    return jnp.vectorize(search, signature="(n),()->()")(borders, place)


def _wide(logits: jax.Array) -> jax.Array:
    logits = jnp.asarray(logits)
    return logits.astype(wide(logits.dtype))


def _word(logits: jax.Array) -> Any:
    return jnp.uint64 if _wide(logits).dtype == jnp.float64 else jnp.uint32


def _cumulative(logits: jax.Array, word: Any) -> jax.Array:
    """The cumulative sums of integers proportional to the probabilities, [..., C]."""
    categories, bits = logits.shape[-1], jnp.iinfo(word).bits
    # Slightly fewer than all words, so that rounding cannot overflow the sum.
    numbers = jax.nn.softmax(logits) * ((1 - 2.0**-6) * 2.0**bits)
    if categories <= _MANY:
        return jnp.cumsum(jnp.round(numbers).astype(word), axis=-1, dtype=word)
    # Rounding errors of many small numbers would add up, so the fractions are summed as well.
    whole, spare = jnp.floor(numbers), bits - categories.bit_length()
    parts = ((numbers - whole) * 2.0**spare).astype(word)
    carried = jnp.cumsum(parts, axis=-1, dtype=word) >> spare
    return jnp.cumsum(whole.astype(word), axis=-1, dtype=word) + carried


def _high_half(a: jax.Array, b: jax.Array) -> jax.Array:
    """The upper half of the product of two words: floor(a b / 2^bits)."""
    half = jnp.iinfo(a.dtype).bits // 2
    a_high, a_low = a >> half, a & (2**half - 1)
    b_high, b_low = b >> half, b & (2**half - 1)
    # No sum here exceeds a word: the largest is (2^half - 1)^2 + 2 (2^half - 1).
    middle = a_high * b_low + (a_low * b_low >> half)
    other = a_low * b_high + (middle & (2**half - 1))
    return a_high * b_high + (middle >> half) + (other >> half)
