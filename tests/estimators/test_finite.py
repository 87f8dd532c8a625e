"""Log-densities that are known to be finite: no value, every derivative, and nan where broken."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scorefn as sf
from scorefn._core.finite import score_alone

X = jnp.array([0.3, -1.2])


def gaussian(params: Any, x: jax.Array) -> jax.Array:
    mean, log_scale = params
    return jnp.sum(-0.5 * ((x - mean) / jnp.exp(log_scale)) ** 2 - log_scale)


def inside_jit(params: Any, x: jax.Array) -> jax.Array:
    mean, log_scale = params
    square = jax.jit(lambda z, scale: jnp.sum(-0.5 * (z / scale) ** 2))
    return square(x - mean, jnp.exp(log_scale)) - jnp.sum(log_scale)


def bits(params: Any, x: jax.Array) -> jax.Array:
    return sf.Bernoulli(params[0]).log_prob(x)


def halved(params: Any, x: jax.Array) -> jax.Array:
    """A division by a literal, which has no hash in a jaxpr."""
    return jnp.sum(-((x - params[0]) ** 2) / 2 - params[1])


PLAIN = {"gaussian": gaussian, "inside jit": inside_jit, "bits": bits, "halved": halved}
PARAMS = (jnp.array([0.5, 0.1]), jnp.array([0.2, -0.3]))


@pytest.mark.parametrize("name", PLAIN)
def test_only_derivatives_are_left_of_a_finite_log_density(name: str) -> None:
    log_prob = PLAIN[name]
    alone = lambda params: score_alone(lambda x: log_prob(params, x), X)  # noqa: E731
    whole = lambda params: log_prob(params, X)  # noqa: E731
    for transform in (jax.grad, jax.jacfwd, jax.hessian):
        found, due = transform(alone)(PARAMS), transform(whole)(PARAMS)
        for one, other in zip(*map(jax.tree.leaves, (found, due)), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
    assert alone(PARAMS) == 0 != whole(PARAMS)
    series = [[p, 0 * p] for p in PARAMS]
    _, terms = jax.experimental.jet.jet(lambda *params: alone(params), PARAMS, series)
    _, due = jax.experimental.jet.jet(lambda *params: whole(params), PARAMS, series)
    np.testing.assert_allclose(terms, due, atol=1e-5)


UNKNOWN = {
    "a selection": lambda p, x: jnp.sum(jnp.where(x > 0, -p * x, -jnp.inf)),
    "a logarithm": lambda p, x: jnp.sum(jnp.log(x) * p),
    "a division by the draw": lambda p, x: jnp.sum(p / x),
    "a maximum": lambda p, x: jnp.sum(jnp.maximum(p * x, -jnp.inf)),
    "a table": lambda p, x: jnp.array([p, -jnp.inf])[x.astype(int)].sum(),
    "a power": lambda p, x: jnp.sum(p * x**-2),
    "an infinite number": lambda p, x: jnp.sum(p * x) - jnp.inf,
    "no draw": lambda p, x: p + 0 * len(x),
    "a literal": lambda *_: 1.5,
    "a table inside jit": lambda p, x: jax.jit(lambda p, x: p[x.astype(int)].sum())(p + X, x),
    "a parameter inside jit": lambda p, x: jax.jit(lambda p, x: jnp.sum(x) * jnp.log(p))(p, x),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_all_others_keep_their_value(name: str) -> None:
    fn = UNKNOWN[name]
    x = jnp.array([0.0, 1.0])
    assert score_alone(lambda x: fn(jnp.array(0.5), x), x) == fn(jnp.array(0.5), x)


def test_what_is_not_used_does_not_count() -> None:
    def log_prob(x: jax.Array) -> jax.Array:
        jnp.log(x - jnp.array(jnp.nan))
        return jnp.sum(x * 2.0)

    assert score_alone(log_prob, X) == 0


@pytest.mark.parametrize(
    "params", [(jnp.array([jnp.nan, 0.0]), jnp.zeros(2)), (jnp.zeros(2), jnp.array([0.0, -200.0]))]
)
def test_broken_parameters_stay_visible(params: Any) -> None:
    assert jnp.isnan(score_alone(lambda x: gaussian(params, x), X))

    def loss(params: Any) -> jax.Array:
        normal = sf.Distribution(gaussian, lambda _, key: jax.random.normal(key, (2,)), params)
        key = jax.random.key(0)
        return sf.expectation(jnp.sum, normal, key, sf.ScoreFunction(), num_samples=4)

    assert jnp.isnan(loss(params))


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_broken_parameters_are_seen_in_chunks_too(chunk_size: int | None) -> None:
    def loss(logits: jax.Array) -> jax.Array:
        f, key = (lambda x: 1.0 * (x > 0)), jax.random.key(0)
        arguments = {"num_samples": 4, "chunk_size": chunk_size}
        return sf.expectation(f, sf.Categorical(logits), key, sf.ScoreFunction(), **arguments)

    assert jnp.isnan(loss(jnp.array([0.0, jnp.nan])))


def test_a_small_divisor_is_not_broken() -> None:
    # Its inverse overflows, and the quotient does not.
    x, scale = jnp.array([2e-5, -1e-5], jnp.float16), jnp.array(1e-5, jnp.float16)
    assert score_alone(lambda x: jnp.sum(x / scale), x) == 0


@pytest.mark.parametrize("divisor", [0.0, np.nan])
def test_a_literal_that_is_no_divisor_keeps_the_value(divisor: float) -> None:
    assert not jnp.isfinite(score_alone(lambda x: jnp.sum(x / divisor), X**2))


def test_an_infinite_scale_is_a_number_to_divide_by() -> None:
    scale = jnp.array(jnp.inf)
    assert score_alone(lambda x: jnp.sum(x / scale), X) == 0
    assert jnp.isnan(score_alone(lambda x: jnp.sum(x / (0 * jnp.sum(PARAMS[0]))), X))


@pytest.mark.parametrize("record", [sf.Categorical, sf.OneHotCategorical])
def test_categories_that_cannot_be_drawn_are_no_reason_to_look(record: Any) -> None:
    def loss(logits: jax.Array) -> jax.Array:
        f = lambda x: jnp.sum(x * 1.0)  # noqa: E731
        key = jax.random.key(0)
        return sf.expectation(f, record(logits), key, sf.ScoreFunction(), num_samples=8)

    value, slope = jax.value_and_grad(loss)(jnp.array([0.1, -jnp.inf, 0.3]))
    assert jnp.isfinite(value)
    assert jnp.isfinite(slope).all()
    assert slope[1] == 0
    assert jnp.isnan(loss(jnp.array([0.1, jnp.nan, 0.3])))


def test_given_draws_may_be_impossible() -> None:
    def log_prob(mean: jax.Array, x: jax.Array) -> jax.Array:
        return -0.5 * (x - mean) ** 2

    def loss(mean: jax.Array) -> jax.Array:
        draws = sf.Given(jnp.array([0.1, -0.4, 1e30, 1.3]), log_prob, mean)
        f = lambda x: jnp.where(x > 1e20, 2.0, x)  # noqa: E731
        return sf.expectation(f, draws, jax.random.key(0), sf.ScoreFunction(), num_samples=4)

    # Its square overflows. With its score the gradient would be some 1e30.
    assert abs(jax.grad(loss)(0.3)) < 10
