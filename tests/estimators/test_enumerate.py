"""Enumerate: supports read off or given, impossible values, incomplete supports."""

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest

import scorefn as sf

KEY = jax.random.key(0)
LOGITS = jnp.array([0.3, -1.0, 0.5])


def value(f, distribution, support=None, **options):
    return sf.expectation(f, distribution, KEY, sf.Enumerate(support, **options))


OBJECTS = {
    "bits": (lambda x: sf.Bernoulli(x), 8),
    "distrax bits": (lambda x: distrax.Bernoulli(logits=x), 8),
    "independent": (lambda x: distrax.Independent(distrax.Bernoulli(logits=x), 1), 8),
    "probs": (lambda x: distrax.Bernoulli(probs=jax.nn.sigmoid(x)), 8),
    "category": (lambda x: sf.Categorical(x), 3),
    "categories": (lambda x: distrax.Categorical(logits=jnp.stack([x, 2 * x])), 9),
    "one-hot": (lambda x: distrax.OneHotCategorical(logits=x), 3),
    "numpyro": (lambda x: npd.CategoricalProbs(jax.nn.softmax(x)), 3),
    "numpyro event": (lambda x: npd.BernoulliLogits(x).to_event(1), 8),
    "binomial": (lambda x: npd.Binomial(4, logits=x[0]), 5),
}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("name", OBJECTS)
def test_the_support_is_complete_and_each_value_counts_once(name):
    build, size = OBJECTS[name]
    logits = jnp.asarray(np.asarray(LOGITS))
    estimator = sf.Enumerate()
    one, support = sf.expectation(
        lambda x: (jnp.ones(()), x), build(logits), KEY, estimator, has_aux=True
    )
    assert len(np.unique(np.asarray(support).reshape(len(support), -1), axis=0)) == size
    assert support.dtype == jax.eval_shape(sample, build(logits)).dtype
    np.testing.assert_allclose(one, 1, rtol=0, atol=1e-6)
    # E[score] = 0 is the derivative of a constant.
    gradient = jax.grad(lambda x: value(lambda _: 1.0, build(x)))(logits)
    np.testing.assert_allclose(gradient, 0, rtol=0, atol=1e-6)


def sample(distribution):
    return (
        distribution.sample(seed=KEY)
        if "distrax" in repr(type(distribution))
        else distribution.sample(KEY)
    )


def test_a_given_support_has_values_of_the_shape_of_a_draw() -> None:
    # The log_prob of an object may broadcast each of these values over its three factors.
    three = distrax.Bernoulli(logits=jnp.zeros(3))
    with pytest.raises(ValueError, match=r"with leaves of shapes \[\(3,\)\], got \[\(\)\]"):
        value(lambda b: b, three, jnp.array([0.0, 1.0]))


@pytest.mark.usefixtures("x64")
def test_a_given_support_of_pytrees():
    def log_prob(p, x):
        return jax.nn.log_softmax(p["a"])[x["i"]] + sf.Bernoulli(p["b"] * x["i"]).log_prob(x["j"])

    pair = sf.Distribution(log_prob, lambda _, __: None, {"a": jnp.array([0.1, 0.9]), "b": 0.7})
    support = {"i": jnp.array([0, 0, 1, 1]), "j": jnp.array([0.0, 1.0, 0.0, 1.0])}
    found = value(lambda x: x["i"] * (1 + 3 * x["j"]), pair, support)
    p = jax.nn.softmax(jnp.array([0.1, 0.9]))[1]
    np.testing.assert_allclose(found, p * (1 + 3 * jax.nn.sigmoid(0.7)), rtol=0, atol=1e-12)


@pytest.mark.parametrize("support", [jnp.array([0, 1]), jnp.array([0, 1, 2, 2])])
def test_an_incomplete_or_repeated_support_is_an_error_and_nan_if_traced(support):
    def loss(logits):
        return value(lambda x: 1.0 * x, sf.Categorical(logits), support)

    for eager in (loss, jax.grad(loss)):
        with pytest.raises(ValueError, match="add up to 1"):
            eager(LOGITS)
    assert np.isnan(jax.jit(loss)(LOGITS))
    assert np.isnan(jax.jit(jax.grad(loss))(LOGITS)).all()


LOW = {
    "bits": lambda x: sf.Bernoulli(x),
    "probs": lambda x: distrax.Categorical(probs=jax.nn.softmax(x)),
    "density": lambda x: sf.Distribution(
        lambda p, x: jax.nn.log_softmax(p)[x], lambda p, k: jax.random.categorical(k, p), x
    ),
}


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", LOW)
def test_in_16_bits_a_sum_is_allowed_its_rounding_and_no_more(name, dtype):
    logits = jax.random.normal(KEY, (2 if name == "bits" else 64,)).astype(dtype)
    support = None if name == "bits" else jnp.arange(64)

    def loss(logits, support):
        return value(lambda x: jnp.sum(x).astype(dtype) / 8, LOW[name](logits), support)

    exact = jax.grad(loss)(logits.astype(jnp.float32), support)
    found = jax.grad(loss)(logits, support)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, exact, atol=0.05 * float(jnp.abs(exact).max()))
    some = jnp.array([[0, 0], [0, 1], [1, 0]]) if name == "bits" else jnp.arange(56)
    with pytest.raises(ValueError, match="add up to 1"):
        loss(logits, some)


@pytest.mark.parametrize("record", [sf.Bernoulli, sf.Categorical])
def test_integer_logits_are_those_of_floats(record):
    found, exact = (
        value(lambda x: jnp.sum(x) ** 2.0, record(jnp.array([0, 1], dtype)))
        for dtype in (int, float)
    )
    assert found == exact


def test_impossible_values_count_for_nothing():
    logits = jnp.array([0.0, 1.0, -jnp.inf])
    costs = jnp.array([1.0, 2.0, jnp.inf])

    def loss(logits):
        die = sf.Distribution(
            lambda p, x: jax.nn.log_softmax(p)[x], lambda p, k: jax.random.categorical(k, p), logits
        )
        return value(lambda x: costs[x], die, jnp.arange(3))

    p = jax.nn.sigmoid(1.0)
    np.testing.assert_allclose(loss(logits), 1 + p, rtol=1e-6, atol=0)
    np.testing.assert_allclose(
        jax.grad(loss)(logits), [-p * (1 - p), p * (1 - p), 0], rtol=1e-5, atol=1e-7
    )


@pytest.mark.usefixtures("x64")
def test_the_hessian_is_that_of_the_sum():
    costs = jnp.array([1.0, -2.0, 5.0])

    def by_hand(x):
        return jax.nn.softmax(x) @ (costs * x[0])

    def ours(x):
        return value(lambda i: costs[i] * x[0], sf.Categorical(x))

    x = jnp.array([0.3, -1.0, 0.5])
    np.testing.assert_allclose(jax.hessian(ours)(x), jax.hessian(by_hand)(x), rtol=0, atol=1e-12)


def test_the_largest_support_can_be_raised():
    bits = sf.Bernoulli(jnp.zeros(13))
    found = value(lambda b: b.sum(), bits, max_size=8192)
    np.testing.assert_allclose(found, 6.5, rtol=1e-5, atol=0)


def test_all_terms_are_the_same():
    terms = sf.Enumerate()(lambda b: b.sum(), sf.Bernoulli(jnp.zeros(2)), jax.random.split(KEY, 5))
    np.testing.assert_array_equal(terms, np.ones(5))
