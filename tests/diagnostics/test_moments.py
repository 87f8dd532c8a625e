"""moments: one pass, constant memory, the numbers of numpy."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scorefn as sf


def draw(key):
    a, b = jax.random.split(key)
    return {"x": jax.random.normal(a, (3,)), "y": 5 + jax.random.exponential(b)}


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("chunk_size", [None, 1, 7, 100, 1000])
@pytest.mark.parametrize("raw", [False, True])
def test_mean_and_variance_are_those_of_numpy(chunk_size, raw):
    keys = jax.random.split((jax.random.PRNGKey if raw else jax.random.key)(0), 100)
    values = jax.vmap(draw)(keys)
    mean, variance, count = sf.moments(draw, keys, chunk_size=chunk_size)
    assert count == 100
    for name, value in values.items():
        np.testing.assert_allclose(mean[name], np.mean(value, 0), rtol=0, atol=1e-13)
        np.testing.assert_allclose(variance[name], np.var(value, 0, ddof=1), rtol=0, atol=1e-12)


def test_a_large_offset_does_not_cancel():
    keys = jax.random.split(jax.random.key(0), 10_000)
    mean, variance, _ = jax.jit(lambda keys: sf.moments(lambda k: 1e6 + draw(k)["x"], keys))(keys)
    values = np.asarray(jax.vmap(lambda k: 1e6 + draw(k)["x"])(keys), np.float64)
    assert variance.dtype == jnp.float32
    np.testing.assert_allclose(mean, values.mean(0), rtol=3e-7, atol=0)
    np.testing.assert_allclose(variance, values.var(0, ddof=1), rtol=1e-3, atol=0)


def test_memory_does_not_grow_with_the_number_of_keys():
    def temporary(n):
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), n))
        run = jax.jit(lambda keys: sf.moments(lambda k: jax.random.normal(k, (1000,)), keys)[:2])
        return run.lower(keys).compile().memory_analysis().temp_size_in_bytes

    # The chunks are a view of the keys: a copy of them, 8 bytes each, is all that may grow.
    assert temporary(256 * 400) - temporary(256 * 40) <= 8 * 256 * 360
    assert temporary(256 * 40) < 5 * 256 * 1000 * 4  # a few chunks of float32


def test_moments_of_a_gradient():
    def loss(mean, key):
        normal = sf.Distribution(
            lambda m, x: -((x - m) ** 2) / 2, lambda m, k: m + jax.random.normal(k), mean
        )
        return sf.expectation(lambda x: x**2, normal, key, sf.Pathwise())

    keys = jax.random.split(jax.random.key(1), 4096)
    mean, variance, _ = sf.moments(lambda key: jax.grad(loss)(1.5, key), keys)
    # The gradient is 2 x, of mean 3 and variance 4. 7 standard errors: alpha = 3e-12.
    np.testing.assert_allclose(mean, 3, rtol=0, atol=7 * np.sqrt(4 / 4096))
    np.testing.assert_allclose(variance, 4, rtol=0, atol=7 * 4 * np.sqrt(2 / 4096))


def test_one_key_is_too_few():
    with pytest.raises(ValueError, match="keys must hold at least 2 keys.*got 1"):
        sf.moments(draw, jax.random.split(jax.random.key(0), 1))


def test_a_nan_is_not_hidden():
    keys = jax.random.split(jax.random.key(0), 10)
    mean, variance, _ = sf.moments(lambda k: jnp.where(jax.random.bernoulli(k), jnp.nan, 1.0), keys)
    assert np.isnan(mean)
    assert np.isnan(variance)


@pytest.mark.parametrize(("n", "times"), [(10_000, 2), (1000, 2), (509, 3), (7, 2)])
def test_fn_is_traced_for_its_shape_and_once_for_each_size_of_chunk(n, times):
    traces = []

    def fn(key):
        traces.append(key)
        return jax.random.normal(key)

    jax.make_jaxpr(lambda keys: sf.moments(fn, keys))(jax.random.split(jax.random.key(0), n))
    assert len(traces) == times


@pytest.mark.parametrize("make", [jax.random.key, jax.random.PRNGKey])
def test_one_key_is_no_array_of_keys(make: Any) -> None:
    with pytest.raises(TypeError, match=r"keys must be an array of random keys \[n\].*split"):
        sf.moments(jax.random.uniform, make(0))
    sf.moments(jax.random.uniform, jax.random.split(make(0), 2))


def test_complex_numbers_are_refused_in_all_parts() -> None:
    keys = jax.random.split(jax.random.key(0), 4)
    with pytest.raises(TypeError, match="fn must return real arrays, got complex64"):
        sf.moments(lambda key: {"a": 1.0, "b": 1j * jax.random.uniform(key)}, keys)
