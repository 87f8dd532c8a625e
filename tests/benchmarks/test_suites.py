"""Parts of single suites that have a right answer."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import scorefn as sf
from benchmarks.suites.sample_size import tables as sample_size_tables
from benchmarks.suites.speed import torch_training as speed_torch_training
from benchmarks.suites.speed import vae as speed_vae
from benchmarks.suites.vi.problem import gradient, started, tuned
from benchmarks.suites.vi.targets import TARGETS
from benchmarks.suites.vi.techniques import PLAIN


def test_runs_that_went_astray_have_no_median() -> None:
    curves = {"Pathwise, 1": {"elbo": [[-9.0, -1.0], [-9.0, None], [-9.0, -4.0]]}}
    found = sample_size_tables.last_elbo({"curves": curves}, "Pathwise", 1)
    np.testing.assert_array_equal(found, [-1.0, np.nan, -4.0])
    assert sample_size_tables._elbo(found) == ("-2.5", "-4.0 to -1.0", "1")
    assert sample_size_tables._elbo(found[1:2]) == ("", "", "1")


def test_sampled_divergence_is_sticking_with_coefficient_zero() -> None:
    """For a Gaussian: along the path its log-density has no noise."""
    params = TARGETS["logistic"].start(jax.random.key(0))
    names = ("Pathwise, KL sampled", "sticking the landing, a learned")
    problems = [started("logistic", name, PLAIN, params, 4) for name in names]
    one, other = (gradient(problem, jax.random.key(1)) for problem in problems)
    for name in one:
        np.testing.assert_allclose(one[name], other[name], rtol=1e-4, atol=1e-3)


def test_leaves_are_learned() -> None:
    """A narrow posterior, to which the data add almost nothing: a = s^2, by the prior alone."""
    params = {"mean": jnp.zeros(31), "log_scale": jnp.full(31, -1.0)}
    problem = started("logistic", "sticking the landing, a learned", PLAIN, params, 8)
    few = replace(problem.data, weight=1e-4)
    found = tuned(replace(problem, data=few), jax.random.key(0), num_steps=300)
    np.testing.assert_allclose(found.learned["a"], np.exp(-2.0), rtol=0.05)


def test_a_training_run_is_gradient_descent() -> None:
    """With all values of the coin: by its exact gradient."""
    run = speed_torch_training.trained("bernoulli", sf.Enumerate(), steps=50)
    logit = np.float64(0.3)
    for _ in range(50):
        p = 1 / (1 + np.exp(-logit))
        logit -= speed_torch_training.RATE * p * (1 - p) * (0.55**2 - 0.45**2)
    np.testing.assert_allclose(run(jax.random.key(0)), [logit], rtol=1e-5)


def test_digits_are_enlarged() -> None:
    small, large = speed_vae.images(3), speed_vae.images(3, pixels=256)
    assert large.shape == (3, 256)
    corners = large.reshape(3, 8, 2, 8, 2)[:, :, 0, :, 0]
    np.testing.assert_array_equal(corners.reshape(3, 64), small)
    assert jnp.sum(large) == 4 * jnp.sum(small)
