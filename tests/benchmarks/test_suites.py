"""Parts of single suites that have a right answer."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import scorefn as sf
from benchmarks._reporting import claims
from benchmarks.suites.mnist import data as mnist_data
from benchmarks.suites.mnist import model as mnist_model
from benchmarks.suites.mnist import moments as mnist_moments
from benchmarks.suites.mnist import tables as mnist_tables
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


def test_a_bound_is_reached_between_two_states() -> None:
    curve = {
        "step": [0, 10, 20],
        "test": [[-9.0, -5.0, -3.0], [-9.0, -8.0, -7.0], [-4.0, -3.0, 0.0]],
    }
    assert mnist_tables.reached(curve, -4.0) == [15.0, None, 0.0]


def test_an_ordering_is_decided_by_student_s_interval() -> None:
    def verdict(*differences: list[float]) -> str:
        return claims.above_zero("", "", "", [np.array(x) for x in differences]).verdict

    # For three seeds the half width is 4.30 standard errors: 2.48 standard deviations.
    clear, unclear = [9.0, 10.0, 11.0], [1.0, 2.0, 4.0]
    assert verdict(clear) == "holds"
    assert verdict(unclear) == "undecided"
    assert verdict(clear, unclear) == "partly"
    assert verdict([-x for x in clear]) == "does not hold"
    assert claims.signed("", "", "", [(-2.0, 1.0), (-1.0, 0.001)], -1).verdict == "holds"
    assert claims.signed("", "", "", [(-2.0, 1.0), (-1.0, 1.5)], -1).verdict == "partly"
    assert claims.signed("", "", "", [(2.0, 1.0)], -1).verdict == "does not hold"


def test_the_error_of_a_norm_is_that_of_its_repetitions() -> None:
    """40 blocks of 5 components, each block of equal components: fully correlated."""
    rng = np.random.default_rng(0)
    noise = np.repeat(rng.normal(size=(4000, 40)), 5, axis=1) * 0.1
    b = np.repeat(rng.normal(size=40), 5) * 0.2
    squares = np.sum((b + noise) ** 2, axis=1) - 200 * 0.01
    norm, error = mnist_moments.error_of_root(float(b @ b), 200 * 0.01, 40)
    assert norm == np.linalg.norm(b)
    np.testing.assert_allclose(error, np.std(np.sqrt(np.maximum(squares, 0))), rtol=0.1)


def test_the_images_are_those_of_mnist() -> None:
    train, test = mnist_data.intensities()
    assert train.shape == (4000, 784)
    assert test.shape == (1000, 784)
    assert 0 == train.min() < train.max() == 1
    np.testing.assert_allclose([train.mean(), test.mean()], 0.1307, atol=0.002)
    drawn = mnist_data.binarized(train, jax.random.key(0))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_allclose(drawn.mean(), train.mean(), atol=1e-3)


def test_the_bound_of_categories_and_of_bits_is_the_evidence_for_the_exact_posterior() -> None:
    """With a decoder that ignores the code, any fair posterior is exact."""
    image = jnp.ones(784)
    for name, network in mnist_model.NETWORKS.items():
        decoder = jax.tree.map(jnp.zeros_like, network.start(jax.random.key(0))["decoder"])
        logits = jnp.zeros(network.code)
        code = mnist_model.posterior(logits).sample(jax.random.key(1))
        found = mnist_model.negative_bound(decoder, logits, image, code)
        np.testing.assert_allclose(found, 784 * np.log(2), rtol=1e-5, err_msg=name)


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
