"""Antithetic draws: no variance of what is odd around the centre, twice that of what is even."""

from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from tensorflow_probability.substrates.jax import distributions as tfd

import scorefn as sf

pytestmark = [pytest.mark.usefixtures("x64"), pytest.mark.slow]

LOC, SCALE = np.array([0.3, -1.0]), np.array([0.5, 2.0])
SYMMETRIC = {
    "distrax.Normal": lambda m: distrax.Normal(m, SCALE),
    "distrax.Independent": lambda m: distrax.Independent(distrax.Normal(m, SCALE), 1),
    "distrax.Laplace": lambda m: distrax.Laplace(m, SCALE),
    "distrax.Logistic": lambda m: distrax.Logistic(m, SCALE),
    "distrax.Uniform": lambda m: distrax.Uniform(m - 1, m + 1),
    "distrax.MultivariateNormalDiag": lambda m: distrax.MultivariateNormalDiag(m, SCALE),
    "tfd.StudentT": lambda m: tfd.StudentT(4.0, m, SCALE),
    "tfd.Normal": lambda m: tfd.Normal(m, SCALE),
    "numpyro.Normal": lambda m: npd.Normal(m, SCALE).to_event(1),
    "numpyro.MultivariateNormal": lambda m: npd.MultivariateNormal(m, jnp.diag(SCALE**2)),
    "numpyro.Uniform": lambda m: npd.Uniform(m - 1, m + 1),
}


@pytest.mark.parametrize("name", SYMMETRIC)
def test_the_derivative_of_a_quadratic_along_the_centre_has_no_variance(name: str) -> None:
    def loss(loc, key):
        estimator = sf.Antithetic(sf.Pathwise())
        return sf.expectation(lambda x: x @ x, SYMMETRIC[name](loc), key, estimator)

    keys = jax.random.split(jax.random.key(0), 5)
    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(jnp.asarray(LOC), keys)
    np.testing.assert_allclose(gradients, np.tile(2 * LOC, (5, 1)), rtol=1e-12)


def test_the_variance_along_the_scale_is_that_of_one_draw() -> None:
    """It is even around the centre: the mirror image adds nothing."""

    def gradients(estimator):
        def loss(scale, key):
            normal = distrax.Normal(0.4, scale)
            return sf.expectation(lambda x: (x - 0.4) ** 2, normal, key, estimator)

        keys = jax.random.split(jax.random.key(0), 5)
        return jax.vmap(jax.grad(loss), (None, 0))(1.3, keys)

    np.testing.assert_allclose(
        gradients(sf.Antithetic(sf.Pathwise())), gradients(sf.Pathwise()), rtol=1e-12
    )


def test_a_fair_bit_and_its_opposite_know_everything() -> None:
    def loss(logit, key):
        inner = sf.ScoreFunction(sf.ConstantBaseline(0.0))
        f = lambda b: 3 * b - 1  # noqa: E731
        return sf.expectation(f, sf.Bernoulli(logit), key, sf.Antithetic(inner))

    for key in jax.random.split(jax.random.key(0), 3):
        value, slope = jax.value_and_grad(loss)(0.0, key)
        np.testing.assert_allclose([value, slope], [0.5, 0.75], rtol=1e-12)


@pytest.mark.parametrize("distribution", [distrax.Gamma(2.0, 1.0), tfd.NormalInverseGaussian])
def test_without_symmetry_or_inverse_cdf_one_must_be_given(distribution: Any) -> None:
    if isinstance(distribution, type):
        distribution = distribution(0.0, 2.0, 1.0, 1.0)
    with pytest.raises(TypeError, match="icdf=lambda params, u"):
        sf.expectation(jnp.sin, distribution, jax.random.key(0), sf.Antithetic(sf.Pathwise()))
