"""QuadraticSurrogate: no variance where it is f, unbiased elsewhere, and it can be learned."""

from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.exact import FAST, derivatives, hermite
from support.noise import noise_keys

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

once = partial(jax.jit, compiler_options=FAST)
SLOPE = np.array([1.0, -0.5, 2.0])
DIAGONAL = np.array([0.7, 2.0, -1.0])
MATRIX = np.array([[2.0, 0.3, -1.0], [0.5, -1.5, 0.4], [0.2, 0.1, 0.7]])
CENTRE = np.array([0.2, 0.0, -0.4])
LOWER = np.array([[1.2, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.3, 0.2, 0.5]])


def quadratic(curvature, centre):
    matrix = np.diag(curvature) if curvature.ndim == 1 else curvature
    return lambda x: 3.0 + SLOPE @ (x - centre) + (x - centre) @ matrix @ (x - centre) / 2


def diagonal_normal(p):
    return distrax.Normal(p["loc"], p["scale"])


def full_normal(p):
    return distrax.MultivariateNormalTri(p["loc"], p["scale"])


@pytest.mark.parametrize("curvature", [DIAGONAL, MATRIX], ids=["diagonal", "matrix"])
@pytest.mark.parametrize(
    ("build", "scale"), [(diagonal_normal, np.array([0.5, 1.0, 2.0])), (full_normal, LOWER)]
)
@pytest.mark.parametrize("inner", [sf.Pathwise(), sf.ScoreFunction(sf.ConstantBaseline(3.0))])
def test_where_it_is_f_there_is_no_variance(
    curvature: np.ndarray, build: Any, scale: np.ndarray, inner: sf.Estimator
) -> None:
    params = {"loc": jnp.array([0.3, -1.0, 0.6]), "scale": jnp.asarray(scale)}
    estimator = sf.QuadraticSurrogate(inner, SLOPE, curvature, center=CENTRE)
    f = quadratic(curvature, CENTRE)

    def mean(p, key):
        return sf.expectation(f, build(p), key, estimator)

    def exact(p):
        root = jnp.tril(p["scale"]) if p["scale"].ndim == 2 else jnp.diag(p["scale"])
        matrix = np.diag(curvature) if curvature.ndim == 1 else curvature
        return f(p["loc"]) + jnp.trace(matrix @ root @ root.T) / 2

    desired = jax.value_and_grad(exact)(params)
    for seed in (0, 1):
        found = once(jax.value_and_grad(mean))(params, jax.random.key(seed))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(desired), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("centre", [None, CENTRE[:2]])
@pytest.mark.parametrize("inner", [sf.Pathwise(), sf.ScoreFunction(sf.ConstantBaseline(0.3))])
def test_it_is_unbiased_for_any_f(inner: sf.Estimator, centre: Any) -> None:
    estimator = sf.QuadraticSurrogate(inner, SLOPE[:2], MATRIX[:2, :2], center=centre)
    params = {"loc": jnp.array([0.2, -0.4]), "scale": jnp.array([0.3, 0.2])}
    draws = hermite(20) ** 2

    def term(p, key):
        f = lambda x: jnp.sum(jnp.sin(2 * x)) + x[0] * x[1] ** 2  # noqa: E731
        return estimator(f, diagonal_normal(p), key[None])[0]

    @once
    def mean(keys):
        each = jax.vmap(lambda k: derivatives(lambda p: term(p, k), params, 2))(keys)
        return [jnp.tensordot(draws.weights, one, 1) for one in each]

    def exact(p):
        m, v = p["loc"], p["scale"] ** 2
        return jnp.sum(jnp.sin(2 * m) * jnp.exp(-2 * v)) + m[0] * (m[1] ** 2 + v[1])

    found = mean(noise_keys(draws.points))
    for a, b in zip(found, derivatives(exact, params, 2), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)


def test_learned_it_finds_the_quadratic() -> None:
    params = jnp.array([0.3, -1.0]), jnp.array([0.5, 1.0])

    def loss(params, key, estimator):
        f = lambda x: jnp.sum(jnp.array([1.0, -2.0]) * x**2) + x[0]  # noqa: E731
        return sf.expectation(f, distrax.Normal(*params), key, estimator)

    adam = optax.adam(optax.exponential_decay(0.1, 300, 0.5))

    def step(carry, key):
        estimator, memory = carry
        slope = jax.grad(sf.squared_gradient, argnums=3)(loss, params, key, estimator)
        change, memory = adam.update(slope, memory)
        return (optax.apply_updates(estimator, change), memory), None

    def variance(estimator):
        keys = jax.random.split(jax.random.key(1), 500)
        gradients = jax.vmap(jax.grad(loss), (None, 0, None))(params, keys, estimator)
        return sum(jnp.sum(jnp.var(g, axis=0)) for g in gradients)

    @once
    def train(start):
        keys = jax.random.split(jax.random.key(0), 3000)
        (learned, _), _ = jax.lax.scan(step, (start, adam.init(start)), keys)
        return learned, variance(learned) / variance(start)

    learned, ratio = train(sf.QuadraticSurrogate(sf.Pathwise(), jnp.zeros(2), jnp.zeros(2)))
    assert ratio < 0.01
    np.testing.assert_allclose(learned.curvature, [2.0, -4.0], atol=0.1)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: sf.QuadraticSurrogate(sf.Pathwise(), 1.0, DIAGONAL), "slope must be shaped"),
        (
            lambda: sf.QuadraticSurrogate(sf.Pathwise(), SLOPE, np.ones((3, 2))),
            r"curvature must be shaped like a draw, \(3,\), or \(3, 3\), got \(3, 2\)",
        ),
        (
            lambda: sf.QuadraticSurrogate(sf.Pathwise(), SLOPE, DIAGONAL, center=np.ones(2)),
            "center must be shaped",
        ),
    ],
)
def test_shapes_that_do_not_fit(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sf.expectation(jnp.sum, distrax.Normal(np.zeros(3), 1.0), jax.random.key(0), build())


def test_what_has_no_known_moments() -> None:
    estimator = sf.QuadraticSurrogate(sf.Pathwise(), SLOPE, DIAGONAL)
    with pytest.raises(TypeError, match="QuadraticSurrogate needs the mean.*Give moments"):
        sf.expectation(jnp.sum, sf.Deterministic(jnp.zeros(3)), jax.random.key(0), estimator)
    with pytest.raises(TypeError, match=r"write Pathwise\("):
        sf.QuadraticSurrogate(sf.Pathwise, SLOPE, DIAGONAL)
