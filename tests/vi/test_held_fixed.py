"""Parameters that an objective holds fixed are fixed wherever the distribution keeps them."""

from collections.abc import Callable
from typing import Any

import distrax
import flowjax.distributions as fjd
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
import tensorflow_probability.substrates.jax as tfp

import scorefn as sf
from scorefn import vi

tfd = tfp.distributions

KEY = jax.random.key(0)
B = jnp.array([0.3, -0.2])
K = 4


def log_normal(b: jax.Array, x: Any) -> jax.Array:
    return jnp.sum(jax.scipy.stats.norm.logpdf(x, b, 0.8))


def shifted(b: jax.Array, key: jax.Array) -> jax.Array:
    return b + 0.8 * jax.random.normal(key, (2,))


class Plain:
    """A class that is no pytree."""

    def __init__(self, b: jax.Array) -> None:
        self.b = b

    def log_prob(self, x: jax.Array) -> jax.Array:
        return log_normal(self.b, x)

    def sample(self, key: jax.Array) -> jax.Array:
        return shifted(self.b, key)


def flow(b: jax.Array) -> Any:
    """A coupling flow whose conditioner closes over b."""

    def conditioner(x: jax.Array) -> jax.Array:
        return jnp.tanh(x @ jnp.ones((2, 2)) + b)[..., None, :]

    coupling = distrax.MaskedCoupling(
        jnp.array([True, False]),
        conditioner,
        lambda c: distrax.ScalarAffine(c[..., 0], log_scale=0.5 * c[..., 1]),
    )
    base = distrax.MultivariateNormalDiag(jnp.zeros(2), jnp.ones(2))
    return distrax.Transformed(base, coupling)


FORMS: dict[str, Callable[[jax.Array], Any]] = {
    "record": lambda b: sf.Distribution(log_normal, shifted, b),
    "closures": lambda b: sf.Distribution(
        lambda _, x: log_normal(b, x), lambda _, key: shifted(b, key), None
    ),
    "plain class": Plain,
    "distrax": lambda b: distrax.Independent(distrax.Normal(b, 0.8)),
    "distrax flow": flow,
    "distrax joint": lambda b: distrax.Joint([distrax.Normal(b[i], 0.8) for i in range(2)]),
    "TFP": lambda b: tfd.MultivariateNormalDiag(b, jnp.full(2, 0.8)),
    "TFP joint of closures": lambda b: tfd.JointDistributionSequential(
        [lambda: tfd.Normal(b[0], 0.8), lambda x: tfd.Normal(b[1] + x, 0.8)]
    ),
    "numpyro": lambda b: npd.Normal(b, 0.8).to_event(1),
    "numpyro transformed": lambda b: npd.TransformedDistribution(
        npd.Normal(jnp.zeros(2), 0.8).to_event(1), npd.transforms.AffineTransform(b, 1.5)
    ),
    "flowjax": lambda b: fjd.Normal(b, 0.8),
}
every_form = pytest.mark.parametrize("form", list(FORMS))


def log_joint(z: Any) -> jax.Array:
    z = jnp.stack(z) if isinstance(z, list | tuple) else z
    return -0.5 * jnp.sum((z - jnp.array([1.0, -0.5])) ** 2)


KEYS = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(K, dtype=jnp.uint32))


def moved(form: str, b: jax.Array) -> Any:
    """The draws of one call of an objective, moved by b."""
    return sf.Pathwise()(lambda z: z, FORMS[form](b), KEYS)


def log_density(form: str, z: Any, b: jax.Array = B) -> jax.Array:
    """A log-density of the distribution at b, a number: nothing there can be differentiated."""
    distribution = FORMS[form](b)
    if isinstance(distribution, sf.Distribution):
        return distribution.log_prob(distribution.params, z)
    return sum(map(jnp.sum, jax.tree.leaves(distribution.log_prob(z))))


def log_weights(form: str, z: Any) -> jax.Array:
    return jax.vmap(lambda z: log_joint(z) - log_density(form, z))(z)


def flat_prior() -> sf.Distribution:
    return sf.Distribution(lambda *_: jnp.zeros(()), lambda *_: jnp.zeros(2), None)


def landing(form: str, b: jax.Array) -> jax.Array:
    return jnp.mean(log_weights(form, moved(form, b)))


def doubly(form: str, b: jax.Array) -> jax.Array:
    weights = jax.nn.softmax(log_weights(form, moved(form, B)))
    return jnp.square(weights) @ log_weights(form, moved(form, b))


# Each objective, and the function whose derivative it has: b moves the draws and nothing else.
OBJECTIVES = {
    "sticking_the_landing": (vi.sticking_the_landing, landing),
    "dreg": (vi.dreg, doubly),
    "gdreg": (
        lambda log_joint, q, key, **options: vi.gdreg(
            log_joint, flat_prior(), q, key, path=lambda _, z: z, **options
        ),
        doubly,
    ),
}


@every_form
@pytest.mark.parametrize("objective", list(OBJECTIVES))
def test_the_parameters_of_q_are_held_fixed_in_its_density(objective: str, form: str) -> None:
    bound, surrogate = OBJECTIVES[objective]
    got = jax.grad(lambda b: bound(log_joint, FORMS[form](b), KEY, num_samples=K))(B)
    wanted = jax.grad(lambda b: surrogate(form, b))(B)
    assert np.min(np.abs(wanted)) > 1e-3
    np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=1e-6)


@every_form
def test_the_parameters_of_the_prior_are_held_fixed_in_its_density(form: str) -> None:
    q = FORMS[form](B + 0.4)

    def along(z: Any, b: jax.Array) -> Any:
        """The path of a prior whose draws b shifts."""
        shifts = b - jax.lax.stop_gradient(b)
        if isinstance(z, list | tuple):
            return [leaf + shifts[i] for i, leaf in enumerate(z)]
        return z + shifts

    def bound(b: jax.Array) -> jax.Array:
        prior = FORMS[form](b)
        path = lambda _, z: along(z, b)  # noqa: E731
        return vi.gdreg(log_joint, prior, q, KEY, num_samples=K, path=path)

    def surrogate(b: jax.Array) -> jax.Array:
        def log_weight(z: Any) -> jax.Array:
            return log_joint(z) + log_density(form, z) - log_density(form, z, B + 0.4)

        z = sf.Pathwise()(lambda z: z, q, KEYS)
        weights = jax.nn.softmax(jax.vmap(log_weight)(z))
        moved = jax.vmap(along, (0, None))(z, b)
        likelihood, ratio = jax.vmap(log_joint)(moved), jax.vmap(log_weight)(moved)
        return weights @ likelihood - jnp.square(weights) @ ratio

    wanted = jax.grad(surrogate)(B)
    assert np.min(np.abs(wanted)) > 1e-3
    np.testing.assert_allclose(jax.grad(bound)(B), wanted, rtol=2e-5, atol=1e-6)


@every_form
def test_all_noise_vanishes_at_the_posterior(form: str) -> None:
    def bound(b: jax.Array) -> jax.Array:
        posterior = lambda z: log_density(form, z)  # noqa: E731
        return vi.sticking_the_landing(posterior, FORMS[form](b), KEY)

    np.testing.assert_allclose(jax.jit(jax.grad(bound))(B), jnp.zeros(2), rtol=0, atol=1e-6)
