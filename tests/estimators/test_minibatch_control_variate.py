"""MinibatchControlVariate: unbiased over minibatches and draws, and nothing left of quadratics."""

import itertools
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST, derivatives, hermite
from support.noise import noise_keys

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

once = partial(jax.jit, compiler_options=FAST)
N, B = 3, 2
WITH_REPLACEMENT = np.array(list(itertools.product(range(N), repeat=B)))
WITHOUT = np.array(list(itertools.permutations(range(N), B)))
SHIFT = np.array([[0.3, -1.0], [1.2, 0.4], [-0.7, 2.0]])
PARAMS = {"loc": np.array([0.2, -0.4]), "scale": np.array([0.3, 0.5])}


def rough(x, batch):
    return jnp.sum(jnp.sin(2 * (x - jnp.asarray(SHIFT)[batch])), axis=-1) + x[0] * x[1] ** 2 * (
        batch + 1
    )


def separable(x, batch):
    """Quadratic in each coordinate: diagonals tell all of it."""
    return jnp.sum((batch[:, None] + 1.0) * (x - jnp.asarray(SHIFT)[batch]) ** 2, axis=-1)


def everything(costs):
    return lambda x: jnp.sum(costs(x, np.arange(N)))


def exact_rough(p):
    m, v = p["loc"], p["scale"] ** 2
    waves = jnp.sin(2 * (m - SHIFT)) * jnp.exp(-2 * v)
    return jnp.sum(waves) + 6 * m[0] * (m[1] ** 2 + v[1])


def a_table() -> sf.DatumSurrogates:
    rng = np.random.default_rng(0)
    slope, curvature = (jnp.asarray(rng.normal(size=(N, 2))) for _ in range(2))
    return sf.DatumSurrogates(slope, curvature, jnp.zeros(2), jnp.zeros(2)).resummed()


def term(costs, stored, p, key, batch, inner):
    estimator = sf.MinibatchControlVariate(inner, stored, batch, 0.8)

    def f(x):
        return N / B * jnp.sum(costs(x, batch))

    return estimator(f, distrax.Normal(p["loc"], p["scale"]), key[None])[0]


@pytest.mark.parametrize("batches", [WITH_REPLACEMENT, WITHOUT], ids=["with", "without"])
@pytest.mark.parametrize("inner", [sf.Pathwise(), sf.ScoreFunction(sf.ConstantBaseline(0.3))])
def test_over_all_minibatches_and_draws_it_is_unbiased(
    batches: np.ndarray, inner: sf.Estimator
) -> None:
    rule, params = hermite(20) ** 2, jax.tree.map(jnp.asarray, PARAMS)

    @once
    def mean(keys):
        def one(key, batch):
            return derivatives(lambda p: term(rough, a_table(), p, key, batch, inner), params, 2)

        each = jax.vmap(jax.vmap(one, (0, None)), (None, 0))(keys, batches)
        return [jnp.tensordot(rule.weights, jnp.mean(v, axis=0), 1) for v in each]

    found, desired = mean(noise_keys(rule.points)), derivatives(exact_rough, params, 2)
    for a, b in zip(found, desired, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-8)


def test_quadratics_leave_no_noise_of_draws_or_minibatches() -> None:
    stored = sf.DatumSurrogates.zeros(N, (2,))
    for batch in ([0, 1], [2, 2]):
        batch = jnp.array(batch)
        centre = jnp.array([5.0, -3.0]) + batch[0]
        stored = stored.refresh(partial(separable, batch=batch), centre, batch)

    def loss(loc, batch, key):
        estimator = sf.MinibatchControlVariate(sf.Pathwise(), stored, batch)
        f = lambda x: N / B * jnp.sum(separable(x, batch))  # noqa: E731
        return sf.expectation(f, distrax.Normal(loc, 0.7), key, estimator)

    loc, keys = jnp.asarray(PARAMS["loc"]), jax.random.split(jax.random.key(0), 3)
    gradients = jax.vmap(jax.vmap(jax.grad(loss), (None, None, 0)), (None, 0, None))(
        loc, jnp.asarray(WITH_REPLACEMENT), keys
    )
    desired = jax.grad(everything(separable))(loc)
    np.testing.assert_allclose(gradients, np.broadcast_to(desired, (9, 3, 2)), atol=1e-12)


def test_the_sums_are_those_of_the_table_even_where_a_datum_occurs_twice() -> None:
    stored = a_table()
    for batch in ([1, 1], [0, 2], [2, 0], [2, 2]):
        batch = jnp.array(batch)
        centre = jnp.array([0.4, 0.1]) * (1 + batch[0])
        stored = stored.refresh(partial(rough, batch=batch), centre, batch)
        anew = stored.resummed()
        np.testing.assert_allclose(stored.slope_sum, anew.slope_sum, atol=1e-13)
        np.testing.assert_allclose(stored.curvature_sum, anew.curvature_sum, atol=1e-13)


def test_a_refreshed_surrogate_has_the_derivatives_of_the_cost() -> None:
    centre, batch = jnp.array([0.4, -0.3]), jnp.array([2, 0])
    costs = partial(rough, batch=batch)
    stored = a_table().refresh(costs, centre, batch)
    slopes = stored.slope[batch] + stored.curvature[batch] * centre
    np.testing.assert_allclose(slopes, jax.jacrev(costs)(centre), atol=1e-12)
    second = jnp.diagonal(jax.jacfwd(jax.jacrev(costs))(centre), axis1=1, axis2=2)
    np.testing.assert_allclose(stored.curvature[batch], second, atol=1e-12)
    np.testing.assert_array_equal(stored.slope[1], a_table().slope[1])
    flat = a_table().refresh(costs, centre, batch, degree=1)
    np.testing.assert_array_equal(flat.curvature[batch], 0)
    np.testing.assert_allclose(flat.slope[batch], jax.jacrev(costs)(centre), atol=1e-12)


def test_a_full_covariance_counts_by_its_diagonal() -> None:
    lower = jnp.array([[1.2, 0.0], [0.4, 0.8]])
    batch = jnp.arange(N)
    stored = sf.DatumSurrogates.zeros(N, (2,)).refresh(
        partial(separable, batch=batch), jnp.zeros(2), batch
    )

    def loss(lower):
        normal = distrax.MultivariateNormalTri(jnp.asarray(PARAMS["loc"]), lower)
        estimator = sf.MinibatchControlVariate(sf.Pathwise(), stored, batch)
        return sf.expectation(everything(separable), normal, jax.random.key(0), estimator)

    desired = jax.grad(lambda low: 6 * jnp.sum(jnp.tril(low) ** 2))(lower)
    np.testing.assert_allclose(jax.grad(loss)(lower), desired, atol=1e-12)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: sf.MinibatchControlVariate(
                sf.Pathwise(), sf.DatumSurrogates.zeros(3, (4,)), jnp.arange(2)
            ),
            ValueError,
            r"needs surrogates \[N, ...\] of draws \(2,\).*got \(3, 4\)",
        ),
        (
            lambda: sf.MinibatchControlVariate(sf.Pathwise(), a_table(), 1),
            ValueError,
            r"a batch \[B\]",
        ),
        (
            lambda: sf.MinibatchControlVariate(sf.Pathwise, a_table(), jnp.arange(2)),
            TypeError,
            r"write Pathwise\(",
        ),
    ],
)
def test_what_does_not_fit(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        sf.expectation(jnp.sum, distrax.Normal(np.zeros(2), 1.0), jax.random.key(0), build())
