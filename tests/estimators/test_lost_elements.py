"""A lost element of an array has a derivative of nan, and nothing else has."""

from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
import tensorflow_probability.substrates.jax as tfp

import scorefn as sf
from scorefn import vi

KEY = jax.random.key(0)
P = jnp.array([0.3, 0.8])
MASK = jnp.array([True, False])
STOP = jax.lax.stop_gradient
Build = Callable[[jax.Array], Any]


def square(x: jax.Array) -> jax.Array:
    return jnp.sum(jnp.square(x))


def normal(mean: jax.Array, x: jax.Array) -> jax.Array:
    return jnp.sum(-0.5 * (x - mean) ** 2)


def forgetful(p: jax.Array, key: jax.Array) -> jax.Array:
    return p[0] + p[1] * jax.random.normal(key)


def shifted(p: jax.Array, key: jax.Array) -> jax.Array:
    return p + jax.random.normal(key, (2,))


def record(log_prob: Any, sample: Any = shifted) -> Build:
    return lambda p: sf.Distribution(log_prob, sample, p)


# The draw depends on both elements of p, its score on the first.
HALF: dict[str, Build] = {
    "packed": record(lambda p, x: normal(p[0], x), forgetful),
    "packed, jitted": record(jax.jit(lambda p, x: normal(p[0], x)), jax.jit(forgetful)),
    "packed, split": record(lambda p, x: normal(jnp.split(p, 2)[0], x), forgetful),
    "packed, closed over": lambda p: sf.Distribution(
        lambda _, x: normal(p[0], x), lambda _, key: forgetful(p, key), None
    ),
    "packed, rounded": record(lambda p, x: normal(p[0], x) + jnp.round(p[1]) * x, forgetful),
    "a slice of terms": record(lambda p, x: jnp.sum(-(((x - p) ** 2)[:1]))),
    "a slice of both": record(lambda p, x: normal(p[:1], x[:1])),
    "terms by index": record(lambda p, x: jnp.sum(-((x - p) ** 2)[jnp.array([0, 0])])),
    "terms times numbers": record(lambda p, x: jnp.sum(-((x - p) ** 2) * jnp.array([1.0, 0.0]))),
    "a product of matrices": record(lambda p, x: -jnp.dot(jnp.array([1.0, 0.0]), (x - p) ** 2)),
    "selected terms": record(lambda p, x: jnp.sum(jnp.where(MASK, -((x - p) ** 2), 0.0))),
    "concatenated": record(lambda p, x: normal(jnp.concatenate([p[:1], jnp.zeros(1)]), x)),
    "set": record(lambda p, x: normal(p.at[1].set(0.0), x)),
    "numpyro, masked": lambda p: npd.Normal(p, 1.0).mask(MASK).to_event(1),
    "numpyro, masked gamma": lambda p: npd.Gamma(p, 1.0).mask(MASK),
    "numpyro, masked bits": lambda p: npd.Bernoulli(logits=p).mask(MASK),
    "a part without the key": record(
        lambda p, x: normal(p[0], x[0]),
        lambda p, key: jnp.stack([p[0] + jax.random.normal(key), p[1]]),
    ),
}
# The score of the second element depends on a mask that is known at run time only.
MASKED: dict[str, Callable[[jax.Array, jax.Array], Any]] = {
    "numpyro": lambda p, mask: npd.Normal(p, 1.0).mask(mask),
    "selected": lambda p, mask: record(lambda p, x: jnp.sum(jnp.where(mask, -((x - p) ** 2), 0)))(
        p
    ),
    "multiplied": lambda p, mask: record(lambda p, x: jnp.sum(mask * -((x - p) ** 2)))(p),
    "numpyro bits": lambda p, mask: npd.Bernoulli(logits=p).mask(mask),
    "in params": lambda p, mask: sf.Distribution(
        lambda p, x: jnp.sum(jnp.where(p["mask"][:, None], -((x - p["m"]) ** 2), 0)),
        lambda p, key: p["m"] + jax.random.normal(key, (2, 1)),
        {"m": p[:, None], "mask": mask},
    ),
}
# Draws of which each element that is used has a score.
WHOLE: dict[str, Build] = {
    "masks of both": lambda p: npd.Normal(p, 1.0).mask(jnp.array([True, True])),
    "a triangle": lambda p: distrax.MultivariateNormalTri(
        jnp.zeros(2), jnp.eye(2) + p * jnp.ones((2, 2))
    ),
    "a triangle of TFP": lambda p: tfp.distributions.MultivariateNormalTriL(
        jnp.zeros(2), jnp.eye(2) + p * jnp.ones((2, 2))
    ),
    "a triangle of numpyro": lambda p: npd.MultivariateNormal(
        jnp.zeros(2),
        scale_tril=jnp.diag(jnp.exp(p)) + p[:, None] * jnp.array([[0.0, 0.0], [1.0, 0.0]]),
    ),
    "a precision": lambda p: npd.MultivariateNormal(p, precision_matrix=2 * jnp.eye(2) + square(p)),
    "a covariance": lambda p: npd.MultivariateNormal(p, 2 * jnp.eye(2) + square(p)),
    "a mixture": lambda p: distrax.MixtureSameFamily(
        distrax.Categorical(logits=p), distrax.Normal(p, jnp.ones(2))
    ),
    "a factor that is not used": record(
        lambda p, x: normal(p[:1], x), lambda p, key: p[:1] + jax.random.normal(key, (1,))
    ),
    "an unknown operation": record(
        lambda p, x: normal(p[0], x), lambda p, key: jnp.sort(p)[0] + jax.random.normal(key)
    ),
}


def loss(build: Build, f: Any = square, estimator: Any = None, **options: Any) -> Any:
    options = {"num_samples": 4} | options
    estimator = estimator or sf.ScoreFunction()
    return lambda p: sf.expectation(f, build(p), KEY, estimator, **options)


def assert_lost(gradient: jax.Array) -> None:
    np.testing.assert_array_equal(jnp.isnan(gradient), [False, True])


@pytest.mark.parametrize("name", list(HALF))
def test_an_element_without_a_score_is_nan_unless_it_is_stopped(name: str) -> None:
    fn = loss(HALF[name])
    lost = jax.grad(fn)(P)
    assert_lost(lost)
    for stopped in (
        lambda p: fn(p.at[1].set(STOP(p[1]))),
        lambda p: fn(jnp.concatenate([p[:1], STOP(p[1:])])),
    ):
        gradient = jax.grad(stopped)(P)
        np.testing.assert_allclose(gradient, [lost[0], 0.0])
    assert np.all(np.isfinite(jax.value_and_grad(fn)(P)[0]))


@pytest.mark.parametrize("name", [name for name in HALF if not name.startswith("packed")])
def test_an_element_that_the_cost_does_not_use_is_right(name: str) -> None:
    @jax.jit
    def f(x: jax.Array) -> jax.Array:
        x = x.astype(float)
        one = jnp.array([1.0, 0.0])
        return x[0] + jnp.sum(jnp.where(MASK, x, 0.0)) + jnp.sum(x * one) + one @ x

    assert np.all(np.isfinite(jax.grad(loss(HALF[name], f))(P)))


@pytest.mark.parametrize("name", list(MASKED))
def test_a_traced_mask_is_asked_when_it_is_known(name: str) -> None:
    def gradient(mask: jax.Array, f: Any = square) -> jax.Array:
        return jax.grad(loss(lambda p: MASKED[name](p, mask), f))(P)

    assert_lost(jax.jit(gradient)(MASK))
    assert np.all(np.isfinite(jax.jit(gradient)(~MASK | MASK)))

    def hidden(mask: jax.Array) -> jax.Array:
        return gradient(mask, lambda x: jnp.sum(jnp.where(mask, x.ravel(), 0.0)))

    def multiplied(mask: jax.Array) -> jax.Array:
        numbers = mask.astype(float)
        return gradient(mask, lambda x: jnp.dot(numbers, 1.0 * x.ravel()))

    assert np.all(np.isfinite(jax.jit(hidden)(MASK)))
    assert np.all(np.isfinite(jax.jit(multiplied)(MASK)))


def test_a_number_under_a_traced_mask_is_asked_as_well() -> None:
    @jax.jit
    def gradient(mask: jax.Array) -> jax.Array:
        return jax.grad(loss(lambda m: npd.Normal(m, 1.0).mask(mask)))(0.3)

    assert jnp.isnan(gradient(MASK[1]))
    assert not jnp.isnan(gradient(MASK[0]))


@pytest.mark.parametrize("name", list(WHOLE))
def test_elements_with_a_score_are_right(name: str) -> None:
    assert np.all(np.isfinite(jax.grad(loss(WHOLE[name]))(P)))


def step(x: jax.Array) -> jax.Array:
    return x[0] ** 2 + jnp.where(x[1] > 0, 1.0, 0.0)


def gaussian(p: jax.Array) -> Any:
    return distrax.MultivariateNormalDiag(p, jnp.ones(2))


# From p to a loss without the derivative along its second element.
LOSSES: dict[str, Callable[[jax.Array], jax.Array]] = {
    "score": loss(HALF["numpyro, masked"]),
    "chunks": loss(HALF["numpyro, masked"], num_samples=5, chunk_size=2),
    "no baseline": loss(
        HALF["numpyro, masked"], estimator=sf.ScoreFunction(sf.ConstantBaseline(0.0))
    ),
    "ImportanceWeighted": loss(
        HALF["numpyro, masked"], estimator=sf.ImportanceWeighted(gaussian(P))
    ),
    "SelfNormalized": loss(HALF["numpyro, masked"], estimator=sf.SelfNormalized(gaussian(P))),
    "LAX": loss(HALF["numpyro, masked"], estimator=sf.LAX(lambda c, x: c * square(x), 1.0)),
    "vimco": lambda p: vi.vimco(
        lambda x: -square(x), HALF["numpyro, masked"](p), KEY, num_samples=3
    ),
    "a cost that is compared": loss(HALF["numpyro, masked"], lambda x: jnp.sum(x > 0)),
    "Pathwise": loss(gaussian, step, sf.Pathwise()),
    "Pathwise in chunks": loss(gaussian, step, sf.Pathwise(), num_samples=5, chunk_size=2),
}
TRANSFORMED: dict[str, Callable[[Any], Any]] = {
    "jit": lambda fn: jax.jit(jax.grad(fn)),
    "jacfwd": jax.jacfwd,
    "vmap": lambda fn: lambda p: jax.vmap(jax.grad(fn))(p[None])[0],
    "grad of vmap": lambda fn: jax.grad(lambda p: jnp.sum(jax.vmap(fn)(p[None]))),
    "checkpoint": lambda fn: jax.grad(jax.checkpoint(fn)),
    "scan": lambda fn: jax.grad(
        lambda p: jax.lax.scan(lambda c, _: (c + fn(p), None), 0.0, length=1)[0]
    ),
    "hessian": lambda fn: lambda p: jax.jit(jax.hessian(fn))(p)[:, 1] * jnp.array([0.0, 1.0]),
}


@pytest.mark.parametrize("name", list(LOSSES))
def test_no_estimator_loses_an_element(name: str) -> None:
    assert_lost(jax.grad(LOSSES[name])(P))


@pytest.mark.parametrize("transformation", list(TRANSFORMED))
@pytest.mark.parametrize("name", ["score", "chunks", "Pathwise"])
def test_no_transformation_loses_it(name: str, transformation: str) -> None:
    gradient = TRANSFORMED[transformation](LOSSES[name])(P)
    assert jnp.isnan(gradient[1])
    assert transformation == "hessian" or not jnp.isnan(gradient[0])


def test_forward_mode_along_the_other_element_is_right() -> None:
    for fn in (LOSSES["score"], LOSSES["Pathwise"]):
        slope = jax.jvp(fn, (P,), (jnp.array([1.0, 0.0]),))[1]
        np.testing.assert_allclose(slope, jax.grad(fn)(P)[0], rtol=1e-5)


def test_check_score_names_the_element() -> None:
    report = sf.check_score(HALF["packed"](P), KEY, num_samples=100)
    assert not report.passed
    assert any("params (float32[2]), element [1]: the sampler depends" in x for x in report.faults)


# ------------------------------------------------------------------------------------- in the cost

# From a draw or parameter x to a cost that has lost the derivative along x[1].
STEPS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "where": step,
    "rounded": lambda x: x[0] * 2.0 + jnp.sum(jnp.round(x[1:])),
    "a product": lambda x: x[0] * jnp.sign(x[1]),
    "a mask": lambda x: jnp.sum(jnp.where(jnp.array([True, False]), x**2, jnp.floor(x))),
    "an index": lambda x: x[0] + jnp.arange(9.0)[x[1].astype(int)],
    "a branch": lambda x: jax.lax.cond(x[1] > 0, lambda: x[0], lambda: 2 * x[0]),
    "jit": jax.jit(step),
    "two costs": lambda x: jnp.stack([x[0], jnp.sign(x[1])]),
}
SMOOTH: dict[str, Callable[[jax.Array], jax.Array]] = {
    "relu": lambda x: jnp.sum(jax.nn.relu(x)),
    "where": lambda x: jnp.sum(jnp.where(x > 0, x, x**2)),
    "max": jnp.max,
    "sort": lambda x: jnp.sort(x)[0],
    "argmax": lambda x: x[jnp.argmax(x)],
    "clip": lambda x: jnp.sum(jnp.clip(x, -0.5, 0.5)),
    "stopped result": lambda x: x[0] ** 2 + STOP(jnp.where(x[1] > 0, 1.0, 0.0)),
    "stopped element": lambda x: x[0] ** 2 + jnp.where(STOP(x[1]) > 0, 1.0, 0.0),
    "not nan": lambda x: jnp.where(jnp.isnan(x[1]), 0.0, x[0]),
    "the fractional part": lambda x: jnp.sum(x - jnp.floor(x)),
    "a rule of its own": lambda x: x[0] + jnp.sum(_straight(x)),
    "a matrix": lambda x: jnp.sum(jnp.sign(jnp.ones((2, 2)) @ x) + x**2),
    "a loop": lambda x: jax.lax.fori_loop(0, 3, lambda _, c: jnp.where(c > 0, c, 2 * c), x).sum(),
}


@jax.custom_jvp
def _straight(x: jax.Array) -> jax.Array:
    return jnp.round(x)


_straight.defjvp(lambda primals, tangents: (jnp.round(primals[0]), tangents[0]))


def at_draw(f: Any) -> Any:
    return loss(gaussian, f, sf.Pathwise())


def at_parameter(f: Any) -> Any:
    return lambda p: sf.expectation(
        lambda x: f(p) * x[0], gaussian(STOP(p)), KEY, sf.ScoreFunction(), num_samples=4
    )


@pytest.mark.parametrize("at", [at_draw, at_parameter])
@pytest.mark.parametrize("name", list(STEPS))
def test_an_element_without_a_derivative_in_the_cost_is_nan(name: str, at: Any) -> None:
    fn = lambda p: jnp.sum(at(STEPS[name])(p))  # noqa: E731
    lost = jax.grad(fn)(P)
    assert_lost(lost)
    gradient = jax.grad(lambda p: fn(p.at[1].set(STOP(p[1]))))(P)
    np.testing.assert_allclose(gradient, [lost[0], 0.0])


@pytest.mark.parametrize("at", [at_draw, at_parameter])
@pytest.mark.parametrize("name", list(SMOOTH))
def test_an_element_with_a_derivative_in_the_cost_is_right(name: str, at: Any) -> None:
    assert np.all(np.isfinite(jax.grad(at(SMOOTH[name]))(P)))


def test_the_score_function_needs_no_derivative_along_the_draw() -> None:
    assert np.all(np.isfinite(jax.grad(loss(gaussian, step))(P)))


def test_an_infinite_constant_that_becomes_an_integer_warns_of_nothing() -> None:
    def f(x: jax.Array) -> jax.Array:
        return x[0] ** 2 + step(x) * (1 + jnp.full(2, jnp.inf).astype(int)[0] * 0)

    assert jnp.isnan(jax.grad(jax.jit(loss(gaussian, f, sf.Pathwise())))(P)[1])
