"""LocalExpectation: exact moments over every draw, for bits, categories and one-hot vectors."""

import itertools
from functools import partial

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from support.gumbel import draws, log_softmax, product
from support.noise import noise_keys
from tensorflow_probability.substrates.jax import distributions as tfd

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

TABLE = np.random.default_rng(0).normal(size=(4, 4))
CATEGORIES = [
    ((0.0, 0.0), (0.0, 0.0)),
    ((0.3, -0.4), (6.0, 0.0)),
    ((0.0, 0.0, 0.0), (8.0, 0.0, -8.0)),
    ((0.5, -1.0, 2.0, 0.1), (0.0, 1.0, 1.0, -1.0)),
]
BITS = [(0.0, 0.0, 0.0), (0.7, -1.1, 0.2), (-9.0, 12.0, 0.0)]


def two_indices(x):
    return jnp.asarray(TABLE)[x[0], x[1]]


def three_bits(b):
    return (b[0] - 0.4) * (2 * b[1] + b[2]) + 3 * b[2] * b[0] - b[1]


def rule(rows):
    """Every draw of each factor, by the Gumbel noise that picks it."""
    return product(*(draws(row, 1)[1:] for row in rows))


@partial(jax.jit, static_argnums=(0, 1, 2))
@partial(jax.vmap, in_axes=(None, None, None, None, 0))
def value_and_grad(f, make, estimator, logits, keys):
    def value(logits):
        return jnp.mean(estimator(f, make(logits), keys))

    return jax.value_and_grad(value)(logits)


def moments(f, make, logits, weighted, **options):
    points, weights = weighted
    estimator, keys = sf.LocalExpectation(**options), noise_keys(points[:, None])
    values, gradients = value_and_grad(f, make, estimator, jnp.asarray(logits), keys)
    mean = np.tensordot(weights, gradients, 1)
    return weights @ values, mean, np.tensordot(weights, (gradients - mean) ** 2, 1)


def exact(f, make, logits):
    keys = jax.random.key(0)[None, None]
    value, gradient = value_and_grad(f, make, sf.Enumerate(), jnp.asarray(logits), keys)
    return value[0], gradient[0]


def close(actual, desired, atol=1e-10):
    np.testing.assert_allclose(actual, desired, rtol=0, atol=atol)


@pytest.mark.parametrize("options", [{}, {"chunk_size": 2}, {"chunk_size": 99}])
@pytest.mark.parametrize("logits", BITS)
def test_bits_are_unbiased_and_of_the_known_variance(logits, options):
    weighted = rule([(0.0, logit) for logit in logits])
    value, gradient, variance = moments(three_bits, sf.Bernoulli, logits, weighted, **options)
    close(value, exact(three_bits, sf.Bernoulli, logits)[0])
    close(gradient, exact(three_bits, sf.Bernoulli, logits)[1])
    p = 1 / (1 + np.exp(-np.array(logits)))
    known = []
    for i in range(3):
        outcomes, weights = [], []
        for b in itertools.product([0.0, 1.0], repeat=3):
            one, zero = (three_bits([v if j == i else b[j] for j in range(3)]) for v in (1.0, 0.0))
            outcomes.append(p[i] * (1 - p[i]) * (one - zero))
            weights.append(np.prod([q if bit else 1 - q for q, bit in zip(p, b, strict=True)]))
        mean = np.dot(weights, outcomes)
        known.append(np.dot(weights, (np.array(outcomes) - mean) ** 2))
    close(variance, known)


@pytest.mark.parametrize("options", [{}, {"chunk_size": 3}])
@pytest.mark.parametrize("logits", CATEGORIES)
def test_categories_are_unbiased_and_of_the_known_variance(logits, options):
    found = moments(two_indices, sf.Categorical, logits, rule(logits), **options)
    close(found[0], exact(two_indices, sf.Categorical, logits)[0])
    close(found[1], exact(two_indices, sf.Categorical, logits)[1])
    p, q = np.exp(log_softmax(logits))
    table = TABLE[: len(p), : len(p)]
    # Given the other index y: p (f(., y) - sum_c p(c) f(c, y)).
    first = p[:, None] * (table - p @ table)
    second = q[:, None] * (table.T - q @ table.T)
    variance = [(first**2) @ q - (first @ q) ** 2, (second**2) @ p - (second @ p) ** 2]
    close(found[2], variance)


def test_one_hot_draws_and_any_batch_shape():
    logits = np.array([[[1.2, -0.7, 0.4]], [[-1.0, 0.2, 2.0]]])

    def f(x):
        return x[0, 0] @ jnp.asarray(TABLE[:3, :3]) @ x[1, 0]

    found = moments(f, sf.OneHotCategorical, logits, rule(logits[:, 0]))
    close(found[1][:, 0], exact(two_indices, sf.Categorical, logits[:, 0])[1])


def test_one_coordinate_and_sums_over_coordinates_are_exact():
    def added(x):
        return jnp.sum(jnp.asarray(TABLE)[0][x] * jnp.asarray([1.0, -2.0]))

    for f, logits in ((added, CATEGORIES[3]), (lambda x: added(x[None]), CATEGORIES[3][0])):
        rows = np.atleast_2d(logits)
        _, gradient, variance = moments(f, sf.Categorical, logits, rule(rows))
        close(gradient, exact(f, sf.Categorical, logits)[1])
        close(variance, 0)


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_one_category_is_no_choice(chunk_size):
    found = moments(
        lambda x: 2.0 + x[0],
        sf.Categorical,
        np.zeros((1, 1)),
        (np.full((1, 1), 0.5), np.ones(1)),
        chunk_size=chunk_size,
    )
    close(found[0], 2.0)
    close(found[1], 0.0)


def test_impossible_categories_count_for_nothing():
    logits = jnp.array([[0.3, -jnp.inf, -0.8], [0.0, 0.0, -jnp.inf]])
    costs = jnp.array([[1.0, 2.0, jnp.nan], [jnp.inf] * 3, [0.5, -2.0, jnp.nan]])

    def value(logits):
        keys = jax.random.split(jax.random.key(0), 64)
        return jnp.mean(
            sf.LocalExpectation()(lambda x: costs[x[0], x[1]], sf.Categorical(logits), keys)
        )

    gradient = jax.jit(jax.grad(value))(logits)
    assert np.all(np.isfinite(gradient))
    close(gradient[:, [1, 2]][[0, 1], [0, 1]], 0)


@pytest.mark.parametrize("size", [1, 4])
def test_memory_grows_with_the_chunk(size):
    # 256 coordinates: all at once there are 256 changed draws of 256 numbers.
    bits = jnp.zeros(256, jnp.float32)

    def bytes_of(chunk_size):
        def value(logits):
            estimator = sf.LocalExpectation(chunk_size=chunk_size)
            f = lambda b: jnp.sum(jnp.tanh(jnp.cumsum(b) * logits[0]))  # noqa: E731
            return estimator(f, sf.Bernoulli(logits), jax.random.key(0)[None])[0]

        return jax.jit(jax.grad(value)).lower(bits).compile().memory_analysis().temp_size_in_bytes

    assert bytes_of(size) < bytes_of(None) / 10


@pytest.mark.parametrize("chunk_size", [0, -1, 2.0, True])
def test_a_chunk_that_does_not_fit_is_an_error(chunk_size):
    with pytest.raises((TypeError, ValueError), match="chunk_size"):
        sf.LocalExpectation(chunk_size=chunk_size)


@pytest.mark.parametrize("library", [distrax, tfd, npd])
def test_what_a_library_gives_probability_0_adds_nothing(library) -> None:
    f, probs = jnp.array([2.0, -1.0, 9.0, 0.5]), jnp.array([0.5, 0.3, 0.0, 0.2])

    def loss(probs):
        die = library.Categorical(probs=probs)
        return sf.expectation(lambda x: f[x], die, jax.random.key(0), sf.LocalExpectation())

    # The library divides by the sum of the probabilities.
    desired = jnp.where(probs > 0, f - probs @ f, 0)
    np.testing.assert_allclose(jax.jit(jax.grad(loss))(probs), desired, rtol=0, atol=1e-6)

    def loss_of_bits(probs):
        bits = library.Bernoulli(probs=probs)
        return sf.expectation(lambda b: f @ b, bits, jax.random.key(0), sf.LocalExpectation())

    ends = jnp.array([0.0, 1.0, 0.3, 0.9])
    desired = jnp.where((ends > 0) & (ends < 1), f, 0)
    np.testing.assert_allclose(jax.jit(jax.grad(loss_of_bits))(ends), desired, rtol=0, atol=2e-6)


@pytest.mark.parametrize("record", [sf.Bernoulli, sf.Categorical, sf.OneHotCategorical])
@pytest.mark.parametrize("size", [None, 2])
def test_without_elements_the_derivatives_are_those_of_f(record, size) -> None:
    empty = record(jnp.zeros((0,) if record is sf.Bernoulli else (0, 3)))

    def loss(weight):
        f = lambda x: weight**2 + jnp.sum(x * 1.0)  # noqa: E731
        return sf.expectation(f, empty, jax.random.key(0), sf.LocalExpectation(chunk_size=size))

    found = loss(3.0), jax.grad(loss)(3.0), jax.hessian(loss)(3.0)
    np.testing.assert_array_equal(found, (9.0, 6.0, 2.0))
