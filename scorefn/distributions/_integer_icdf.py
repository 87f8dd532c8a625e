"""Bits and categories drawn by the inverse cdf, from one uniform integer each, in integers.

A word is a uniform integer of 32 bits, of 64 if logits are float64. Probabilities become whole
numbers first. Their cumulative sums are exact, where those of floats round: what has probability 0
owns no word, whatever stands before it, and no word lies beyond the last border. For one set of
logits and many keys, as under vmap, the sums are the same for all keys and are made once.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import wide

# Up to so many borders are compared with a word one by one, which XLA keeps in registers; a binary
# search is faster from there on.
_FEW = 32

# Up to so many categories may each be rounded on its own: together they move a border by 2^-21.
_MANY = 4096


def words(key: jax.Array, shape: tuple[int, ...], logits: jax.Array) -> jax.Array:
    """Uniform integers, of the size that such logits take. The key is consumed."""
    return jax.random.bits(key, shape, _word(logits))


def words_at(u: jax.Array, logits: jax.Array) -> jax.Array:
    """The words that stand at numbers u, 0 <= u < 1, of the size that such logits take."""
    word = _word(logits)
    return (u * 2.0 ** jnp.iinfo(word).bits).astype(word)


def bits_at(words: jax.Array, logits: jax.Array) -> jax.Array:
    """Bits [...] from words [...] and log-odds [...]: 1 where the word lies low."""
    logits = _wide(logits)
    positive = logits >= 0
    # As many words as the rarer value owns, half of them at most, so that none overflows.
    rarer = jax.nn.sigmoid(jnp.where(positive, -logits, logits))
    rarer = jnp.round(rarer * 2.0 ** jnp.iinfo(words.dtype).bits).astype(words.dtype)
    return jnp.where(positive, words <= ~rarer, words < rarer)


def categories_at(words: jax.Array, logits: jax.Array) -> jax.Array:
    """Indices [...] from words [...] and logits [..., C], ascending with the word."""
    borders = _cumulative(_wide(logits), words.dtype)
    place = _high_half(words, borders[..., -1])  # uniform from 0 to the sum, less 1
    borders = borders[..., :-1]
    if borders.shape[-1] <= _FEW:
        return jnp.sum(borders <= place[..., None], axis=-1, dtype=jnp.int32)
    # In a loop an accelerator starts its kernels anew for each step of the search.
    method = "scan" if jax.default_backend() == "cpu" else "scan_unrolled"
    search = partial(jnp.searchsorted, side="right", method=method)
    return jnp.vectorize(search, signature="(n),()->()")(borders, place)


def _wide(logits: jax.Array) -> jax.Array:
    logits = jnp.asarray(logits)
    return logits.astype(wide(logits.dtype))


def _word(logits: jax.Array) -> Any:
    return jnp.uint64 if _wide(logits).dtype == jnp.float64 else jnp.uint32


def _cumulative(logits: jax.Array, word: Any) -> jax.Array:
    """The cumulative sums of whole numbers in proportion to the probabilities, [..., C]."""
    categories, bits = logits.shape[-1], jnp.iinfo(word).bits
    # A little less than all words, so that roundings together do not overflow.
    numbers = jax.nn.softmax(logits) * ((1 - 2.0**-6) * 2.0**bits)
    if categories <= _MANY:
        return jnp.cumsum(jnp.round(numbers).astype(word), axis=-1, dtype=word)
    # What rounding takes from many small ones would add up, so that fractions are summed as well.
    whole, spare = jnp.floor(numbers), bits - categories.bit_length()
    parts = ((numbers - whole) * 2.0**spare).astype(word)
    carried = jnp.cumsum(parts, axis=-1, dtype=word) >> spare
    return jnp.cumsum(whole.astype(word), axis=-1, dtype=word) + carried


def _high_half(a: jax.Array, b: jax.Array) -> jax.Array:
    """The upper half of the product of two words: floor(a b / 2^bits)."""
    half = jnp.iinfo(a.dtype).bits // 2
    a_high, a_low = a >> half, a & (2**half - 1)
    b_high, b_low = b >> half, b & (2**half - 1)
    # No sum here exceeds a word: (2^half - 1)^2 + 2 (2^half - 1) is the largest there is.
    middle = a_high * b_low + (a_low * b_low >> half)
    other = a_low * b_high + (middle & (2**half - 1))
    return a_high * b_high + (middle >> half) + (other >> half)
