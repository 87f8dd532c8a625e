"""Bits and categories made of integers: exactly which of them each value owns, and its share."""

from functools import partial

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from support.exact import FAST

import scorefn as sf

INF = np.inf
KEY = jax.random.key(5)
fast = partial(jax.jit, compiler_options=FAST)
# Categories that are compared one by one, the most of these, searched, and rounded together.
SIZES = {"float32": (1, 3, 33, 34, 20_000), "float64": (3, 34, 5000)}
TYPES = {"bfloat16": 32, "float16": 32, "float32": 32, "float64": 64}
UNITS = {32: jnp.uint32, 64: jnp.uint64}


def logits_of(size, bits=32):
    """Three factors [3, size], of which many are impossible, the first and the last among them.

    They are steep, far from 0, and flat; with a large size, nearly all are four tenths of a word.
    """
    rng = np.random.default_rng(size)
    logits = rng.normal(size=(3, size)) * [[12.0], [3.0], [0.5]] + [[0.0], [1e4], [0.0]]
    if size > 1000:
        logits[2] = np.log(0.4) - bits * np.log(2)
        logits[2, 7] = 0
    if size > 3:
        logits[:, rng.integers(8, size, size=size // 5)] = -INF
        logits[:, [0, 1, -1]] = -INF
    return logits


def probabilities(logits):
    """With 64 bits of mantissa."""
    logits = np.asarray(logits, np.float64).astype(np.longdouble)
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def drawing(distribution, bits):
    """Draws [n, ...] of words [n, ...], in integers of any size."""
    run = fast(jax.vmap(lambda d, w: d.draw_from(w), (None, 0)))

    def draw(words):
        array = np.array(words, np.uint64).astype(UNITS[bits])
        return np.asarray(run(distribution, array)).astype(np.int64)

    return draw


def first_words(draw, size, factors, bits):
    """The first word of each of `size` values that ascend with the word, by bisection: [size, ...].

    It is 2^bits for those that come after all words.
    """
    values = np.arange(size)[:, None]
    low = np.zeros((size, factors), object)
    high = np.full((size, factors), 2**bits, object)
    for _ in range(bits + 1):
        middle = (low + high) // 2
        reached = draw(np.minimum(middle, 2**bits - 1)) >= values
        searching = low < high
        low = np.where(searching & ~reached, middle + 1, low)
        high = np.where(searching & reached, middle, high)
    return low


def shares(first, bits):
    """The share of all words that maps to each value."""
    last = np.full((1, first.shape[1]), 2**bits, object)
    owned = np.diff(np.concatenate([first, last]), axis=0)
    return owned.astype(np.longdouble) * np.longdouble(2.0**-bits)


@pytest.mark.parametrize(("dtype", "size"), [(d, size) for d in SIZES for size in SIZES[d]])
@pytest.mark.usefixtures("x64")
def test_each_category_owns_its_probability_of_the_words(dtype, size):
    bits = TYPES[dtype]
    logits = jnp.asarray(logits_of(size, bits), dtype)
    draw = drawing(sf.Categorical(logits), bits)
    first = first_words(draw, size, 3, bits)
    p, q = probabilities(logits).T, shares(first, bits)
    assert np.all(q[p == 0] == 0)
    bound = 2.0 ** (2 - bits) + p * 2.0 ** (-18 if bits == 32 else -47)
    assert np.all(np.abs(q - p) <= bound)
    # Neighbours together as well: what is rounded does not add up.
    assert np.all(np.abs(np.cumsum(q - p, axis=0)) <= 2.0 ** (-20 if bits == 32 else -52))
    # Bisection supposed that they ascend.
    words = np.random.default_rng(0).integers(2**bits, size=(size, 3), dtype=np.uint64)
    owner = [np.searchsorted(f, w, side="right") - 1 for f, w in zip(first.T, words.T, strict=True)]
    np.testing.assert_array_equal(draw(words), np.transpose(owner))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.usefixtures("x64")
def test_each_bit_owns_its_probability_of_the_words(dtype):
    bits = TYPES[dtype]
    sizes = [0.0, 1e-3, 0.7, 5, 14, 20, 23, 42, 300, 1e4, INF]
    logits = jnp.asarray([*sizes, *(-size for size in sizes)], dtype)
    draw = drawing(sf.Bernoulli(logits), bits)
    first = first_words(lambda words: 1 - draw(words), 2, len(logits), bits)
    # The rarer of the two values, so that 1 - p does not cancel.
    p = scipy.special.expit(-np.abs(np.asarray(logits, np.longdouble)))
    q = np.where(np.asarray(logits) < 0, *shares(first, bits))
    assert np.all(np.abs(q - p) <= 2.0**-bits + p * 2.0 ** (-20 if bits == 32 else -48))
    assert np.all(first[0] == 0)


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.usefixtures("x64")
def test_the_other_words_draw_the_mirror_image(bits):
    logits = jnp.array([0.0, 0.3, -2.0, 25.0, -70.0], "float32" if bits == 32 else "float64")
    words = jax.random.bits(KEY, (4096, 5), UNITS[bits])
    draw = fast(lambda z, w: sf.Bernoulli(z).draw_from(w))
    np.testing.assert_array_equal(draw(logits, words), 1 - draw(-logits, ~words))


def test_a_sample_is_that_of_its_words_and_one_hot_categories_are_the_same():
    logits = jnp.asarray(logits_of(40)[:2], jnp.float32)
    words = jax.random.bits(KEY, (2,), jnp.uint32)
    dice, one_hot = sf.Categorical(logits), sf.OneHotCategorical(logits)
    index, hot = fast(lambda: (dice.sample(KEY), one_hot.sample(KEY)))()
    np.testing.assert_array_equal(index, fast(dice.draw_from)(words))
    np.testing.assert_array_equal(hot, np.eye(40)[index])


def test_logits_of_nan_draw_some_category():
    die, keys = sf.Categorical(jnp.full(50, jnp.nan)), jax.random.split(KEY, 64)
    draws = fast(jax.vmap(die.sample))(keys)
    assert jnp.all((draws >= 0) & (draws < 50))


def test_draws_and_log_probs_take_no_memory_for_the_categories():
    def value(logits, keys):
        def one(key):
            x = sf.Categorical(logits).sample(key)
            return sf.Categorical(logits).log_prob(x)

        return jnp.mean(jax.vmap(one)(keys))

    logits, keys = jnp.zeros((20, 1000)), jax.random.split(KEY, 1000)
    compiled = jax.jit(jax.grad(value)).lower(logits, keys).compile()
    # Some numbers for each draw and for each logit; with Gumbel noise it is 4000 for each logit.
    assert compiled.memory_analysis().temp_size_in_bytes < 32 * 20 * 1000 + 32 * logits.size


def test_objects_of_libraries_keep_their_own_sampler():
    logits = jnp.array([[0.3, -1.0, 0.5], [0.0, 2.0, 1.0]])
    theirs, keys = distrax.Categorical(logits=logits), jax.random.split(KEY, 64)
    f = lambda x: (1.0 * x.sum(), x)  # noqa: E731
    ours = fast(lambda keys: sf.ScoreFunction()(f, theirs, keys, has_aux=True)[1])(keys)
    np.testing.assert_array_equal(ours, fast(jax.vmap(lambda k: theirs.sample(seed=k)))(keys))


@pytest.mark.parametrize("size", [34, 20_000])
def test_the_search_of_accelerators_finds_the_same(monkeypatch, size):
    words = jax.random.bits(KEY, (500, 3))
    draw = fast(jax.vmap(lambda w: sf.Categorical(jnp.float32(logits_of(size))).draw_from(w)))
    texts, found = [], []
    for backend in ("cpu", "gpu"):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        jax.clear_caches()
        texts.append(draw.lower(words).as_text())
        found.append(np.asarray(draw(words)))
    assert ["while" in text for text in texts] == [True, False]
    np.testing.assert_array_equal(*found)
