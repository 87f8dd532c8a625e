"""DeltaMethod: no variance where f is quadratic, unbiased elsewhere, and what it may cost."""

from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from support.exact import FAST, derivatives, exact_moments, hermite
from support.noise import noise_keys
from tensorflow_probability.substrates.jax import distributions as tfd

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

once = partial(jax.jit, compiler_options=FAST)
MATRIX = np.array([[2.0, 0.3, -1.0], [0.0, -1.5, 0.4], [0.2, 0.1, 0.7]])
LOWER = np.array([[1.2, 0.0, 0.0], [0.4, 0.8, 0.0], [-0.3, 0.2, 0.5]])


def quadratic(x):
    return {"a": x @ MATRIX @ x + x[0] - 4, "b": jnp.stack([x @ x, 3 * x[1]])}


def full(library):
    return lambda p: library(p["loc"], p["lower"])


def numpyro_full(loc, lower):
    return npd.MultivariateNormal(loc, scale_tril=jnp.tril(lower))


FULL = {
    "distrax": full(distrax.MultivariateNormalTri),
    "tfd": full(tfd.MultivariateNormalTriL),
    "numpyro": full(numpyro_full),
}
DIAGONAL = {
    "distrax": lambda p: distrax.Normal(p["loc"], p["scale"]),
    "independent": lambda p: distrax.Independent(distrax.Normal(p["loc"], p["scale"]), 1),
    "diag": lambda p: distrax.MultivariateNormalDiag(p["loc"], p["scale"]),
    "tfd": lambda p: tfd.Normal(p["loc"], p["scale"]),
    "numpyro": lambda p: npd.Normal(p["loc"], p["scale"]).to_event(1),
}


def exact_quadratic(p):
    root = jnp.tril(p["lower"]) if "lower" in p else jnp.diag(p["scale"])
    covariance = root @ root.T
    along = jnp.trace(jnp.asarray(MATRIX) @ covariance)
    m = p["loc"]
    return {
        "a": m @ MATRIX @ m + along + m[0] - 4,
        "b": jnp.stack([m @ m + jnp.trace(covariance), 3 * m[1]]),
    }


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
@pytest.mark.parametrize("name", ["distrax", "numpyro"])
def test_in_16_bits_a_covariance_has_a_root(name: str, dtype: Any) -> None:
    def loss(t: jax.Array) -> jax.Array:
        normal = FULL[name]({"loc": t * jnp.ones(3, dtype), "lower": jnp.asarray(LOWER, dtype)})
        estimator = sf.DeltaMethod(sf.Pathwise())
        key = jax.random.key(0)
        return sf.expectation(lambda x: jnp.sum(x) ** 2, normal, key, estimator, num_samples=4)

    slope = jax.grad(loss)(jnp.ones((), dtype))
    assert slope.dtype == dtype
    np.testing.assert_allclose(float(slope), 18, rtol=0.02)


@pytest.mark.parametrize(
    ("build", "scale"),
    [pytest.param(b, {"lower": LOWER}, id=f"full-{n}") for n, b in FULL.items()]
    + [
        pytest.param(b, {"scale": np.array([0.5, 1.0, 2.0])}, id=f"diagonal-{n}")
        for n, b in DIAGONAL.items()
    ],
)
def test_a_quadratic_has_no_variance(build: Any, scale: Any) -> None:
    params = jax.tree.map(jnp.asarray, {"loc": np.array([0.3, -1.0, 0.6]), **scale})

    @once
    def of_key(key):
        def mean(p):
            return sf.expectation(quadratic, build(p), key, sf.DeltaMethod(sf.Pathwise()))

        return mean(params), jax.jacrev(mean)(params)

    desired = exact_quadratic(params), jax.jacrev(exact_quadratic)(params)
    for seed in (0, 1):
        found = of_key(jax.random.key(seed))
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(desired), strict=True):
            np.testing.assert_allclose(a, b, rtol=0, atol=1e-11)


def test_degree_one_leaves_a_linear_cost_no_variance() -> None:
    def mean(loc, key):
        normal, estimator = distrax.Normal(loc, 2.0), sf.DeltaMethod(sf.Pathwise(), 1)
        return sf.expectation(lambda x: 3 * x - 1, normal, key, estimator)

    for key in jax.random.split(jax.random.key(0), 3):
        np.testing.assert_allclose(mean(0.7, key), 1.1, atol=1e-12)


def rough(x):
    return jnp.sum(jnp.sin(2 * x)) + x[0] * x[1] ** 2


@pytest.mark.parametrize("degree", [1, 2])
@pytest.mark.parametrize("inner", [sf.Pathwise(), sf.ScoreFunction(sf.ConstantBaseline(0.3))])
def test_hutchinson_is_unbiased_for_any_smooth_cost(inner: sf.Estimator, degree: int) -> None:
    """By quadrature over two normals, and by both signs of each direction."""
    estimator = sf.DeltaMethod(inner, degree, 0.8, trace="hutchinson")
    params = {"loc": jnp.array([0.2, -0.4]), "scale": jnp.array([0.3, 0.2])}
    draws = hermite(20) ** 2
    # `split` hands half of the numbers to the draw; a sign is one bit of the others.
    signs = np.array([[0.2, 0.2], [0.2, 0.8], [0.8, 0.2], [0.8, 0.8]])
    points = np.array([[*x, *s] for x in draws.points for s in signs])
    weights = np.repeat(draws.weights, 4) / 4
    if degree == 1:
        points, weights = draws.points, draws.weights

    def term(p, key):
        return estimator(rough, distrax.Normal(p["loc"], p["scale"]), key[None])[0]

    @once
    def mean(keys):
        each = jax.vmap(lambda k: derivatives(lambda p: term(p, k), params, 2))(keys)
        return [jnp.tensordot(weights, one, 1) for one in each]

    def exact(p):
        m, v = p["loc"], p["scale"] ** 2
        return jnp.sum(jnp.sin(2 * m) * jnp.exp(-2 * v)) + m[0] * (m[1] ** 2 + v[1])

    for found, desired in zip(mean(noise_keys(points)), derivatives(exact, params, 2), strict=True):
        np.testing.assert_allclose(found, desired, rtol=0, atol=1e-9)


@pytest.mark.parametrize("degree", [1, 2])
def test_the_variance_of_a_mean_is_that_of_one_term_divided_by_their_number(degree: int) -> None:
    """What `moments` reports of one term is what K terms deliver, by quadrature."""
    estimator = sf.DeltaMethod(sf.Pathwise(), degree)

    def gradient(params, key, n):
        def loss(params):
            normal, f = distrax.Normal(*params), lambda x: jnp.sin(2 * x) + x**3  # noqa: E731
            return sf.expectation(f, normal, key, estimator, num_samples=n)

        return jax.grad(loss)(params)

    params = jnp.array([0.2, 0.3])
    one, two, three = (
        exact_moments(lambda key, n=n: gradient(params, key, n), hermite(12), n)[1]
        for n in (1, 2, 3)
    )
    assert (one > 1e-3).all()
    np.testing.assert_allclose(2 * two, one, rtol=1e-10)
    np.testing.assert_allclose(3 * three, one, rtol=1e-10)


def test_it_lowers_the_variance_where_f_is_smooth_and_raises_it_where_f_is_rough() -> None:
    keys = jax.random.split(jax.random.key(0), 4000)

    def variance(frequency, estimator):
        def loss(loc, key):
            f = lambda x: jnp.cos(frequency * x)  # noqa: E731
            return sf.expectation(f, distrax.Normal(loc, 0.3), key, estimator)

        return jnp.var(jax.vmap(jax.grad(loss), (None, 0))(0.5, keys))

    plain, delta = sf.Pathwise(), sf.DeltaMethod(sf.Pathwise())
    assert once(lambda: variance(1.0, delta) / variance(1.0, plain))() < 0.05
    assert once(lambda: variance(8.0, delta) / variance(8.0, plain))() > 2


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (lambda: sf.DeltaMethod(sf.Pathwise), TypeError, r"write Pathwise\("),
        (lambda: sf.DeltaMethod(sf.Pathwise(), 3), ValueError, "degree must be one of 1, 2"),
        (
            lambda: sf.DeltaMethod(sf.Pathwise(), trace="full"),
            ValueError,
            "trace must be one of 'exact', 'hutchinson'",
        ),
    ],
)
def test_arguments_that_do_not_exist(build: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        build()


CORRELATED = {
    "distrax.Dirichlet": lambda: distrax.Dirichlet(jnp.ones(3)),
    "tfd.Dirichlet": lambda: tfd.Dirichlet(jnp.ones(3)),
    "npd.Dirichlet": lambda: npd.Dirichlet(jnp.ones(3)),
    "a mixture of vectors": lambda: tfd.MixtureSameFamily(
        tfd.Categorical(logits=jnp.zeros(2)),
        tfd.Independent(tfd.Normal(jnp.array([[0.0, 0.0], [1.0, 1.0]]), 1.0), 1),
    ),
    "inside Independent": lambda: tfd.Independent(tfd.Dirichlet(jnp.ones((2, 3))), 1),
}


@pytest.mark.parametrize("name", CORRELATED)
def test_variances_alone_are_not_taken_for_a_covariance(name: str) -> None:
    with pytest.raises(TypeError, match="Give moments"):
        sf.expectation(
            lambda x: jnp.prod(x),
            CORRELATED[name](),
            jax.random.key(0),
            sf.DeltaMethod(sf.ScoreFunction(sf.ConstantBaseline(0.0))),
        )


@pytest.mark.parametrize(
    ("distribution", "moments", "error", "message"),
    [
        (sf.Categorical(jnp.zeros(3)), None, TypeError, "one array of floats"),
        (sf.Deterministic(jnp.zeros(3)), None, TypeError, "Give moments"),
        (sf.Deterministic(jnp.zeros(3)), lambda _: (0.0, 1.0), ValueError, "mean must be shaped"),
        (
            sf.Deterministic(jnp.zeros(3)),
            lambda _: (jnp.zeros(3), 1.0),
            ValueError,
            "scale must be shaped",
        ),
    ],
)
def test_moments_that_do_not_fit(
    distribution: Any, moments: Any, error: type[Exception], message: str
) -> None:
    estimator = sf.DeltaMethod(sf.Pathwise(), moments=moments)
    with pytest.raises(error, match=message):
        sf.expectation(jnp.sum, distribution, jax.random.key(0), estimator)
