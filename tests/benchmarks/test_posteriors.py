"""The suite `posteriors`: log evidences, approximations and distances that are known exactly."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from benchmarks.suites.posteriors import gradients, tables, training
from benchmarks.suites.posteriors.families import FAMILIES, FULL
from benchmarks.suites.posteriors.forms import DREG, STICKING
from benchmarks.suites.posteriors.targets import GAUSSIAN, target

# The components given which the others are Gaussian, and a grid for them.
SCALES = {
    GAUSSIAN: ([], []),
    "eight schools": ([1], [np.linspace(-2.0, 10.0, 61)]),
    "Brownian motion, unknown scales": (
        [0, 1],
        [np.linspace(-8.0, 1.0, 46), np.linspace(-8.0, 1.0, 46)],
    ),
}


@pytest.mark.parametrize("name", SCALES)
def test_the_log_evidence_integrates_the_log_joint_density(name: str) -> None:
    """Over Gaussian components in closed form, over scales by the trapezoid rule."""
    posterior, (at, grids) = target(name), SCALES[name]
    others = np.delete(np.arange(posterior.size), at)

    def log_joint(some: jax.Array, scales: jax.Array) -> jax.Array:
        z = jnp.zeros(posterior.size).at[others].set(some)
        return posterior.log_joint(z.at[np.array(at, int)].set(scales))

    @jax.jit
    @jax.vmap
    def parts(scales: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        # A quadratic function around a point that is not its maximum.
        some = jnp.full(len(others), 0.1)
        values = jax.value_and_grad(log_joint)(some, scales)
        return *values, jax.hessian(log_joint)(some, scales)

    points = np.array(list(itertools.product(*grids)))
    value, slope, curvature = (np.asarray(x, np.float64) for x in parts(jnp.float32(points)))
    step = np.linalg.solve(-curvature, slope[..., None])[..., 0]
    _, volume = np.linalg.slogdet(-curvature / (2 * np.pi))
    inner = value + np.sum(slope * step, -1) / 2 - volume / 2
    width = sum(np.log(grid[1] - grid[0]) for grid in grids)
    found = scipy.special.logsumexp(inner) + width
    # The log joint density is computed in float32.
    np.testing.assert_allclose(found, posterior.log_evidence, atol=2e-3)
    if name == "eight schools":
        weights = np.exp(inner - scipy.special.logsumexp(inner))
        # Of 80 000 draws: their standard error is 0.004 deviations.
        error = (weights @ points[:, 0] - posterior.mean[1]) / posterior.deviation[1]
        assert abs(error) < 6 * 0.004


def _exact() -> dict[str, jax.Array]:
    """The parameters of the posterior of the Brownian motion, which is Gaussian."""
    log_joint, size = target(GAUSSIAN).log_joint, target(GAUSSIAN).size
    slope, curvature = jax.grad(log_joint)(jnp.zeros(size)), jax.hessian(log_joint)(jnp.zeros(size))
    covariance = np.linalg.inv(-np.asarray(curvature, np.float64))
    root = np.linalg.cholesky(covariance)
    scale = np.diagonal(root)
    return {
        "mean": jnp.float32(covariance @ np.asarray(slope, np.float64)),
        "log_scale": jnp.float32(np.log(scale)),
        "below": jnp.float32(root / scale[:, None]),
    }


def test_the_exact_posterior_is_at_no_distance_and_has_no_noise() -> None:
    params, posterior = _exact(), target(GAUSSIAN)
    elbo, bound, mean, _ = training.evaluate(GAUSSIAN, FULL, params, jax.random.key(0), 200)
    np.testing.assert_allclose([elbo, bound], posterior.log_evidence, atol=1e-3)
    root = np.exp(params["log_scale"])[:, None] * params["below"]
    deviation = np.sqrt(np.diagonal(root @ root.T))
    found = training.distances(GAUSSIAN, params["mean"], deviation)
    # The true moments are those of a long run of a sampler.
    assert found["mean_error_worst"] < 0.02
    np.testing.assert_allclose(found["deviation_ratio"], 1, atol=0.01)
    np.testing.assert_allclose(found["deviation_ratio_least"], 1, atol=0.02)
    # Sampled means of 200 draws: 6 standard errors.
    np.testing.assert_array_less(np.abs(mean - params["mean"]), 6 * deviation / np.sqrt(200))
    for form in (STICKING, DREG):
        problem = gradients.Problem(params, GAUSSIAN, FULL, form, 4)
        assert jnp.max(jnp.abs(gradients.gradient(problem, jax.random.key(0))["q"])) < 0.01


def test_a_full_covariance_has_the_density_of_its_draws() -> None:
    params = {
        "mean": jnp.array([1.0, -2.0, 0.5]),
        "log_scale": jnp.log(jnp.array([0.5, 2.0, 1.0])),
        "below": jnp.array([[9.0, 9.0, 9.0], [0.7, 9.0, 9.0], [-0.3, 1.5, 9.0]]),
    }
    # Only what is below the diagonal counts.
    root = np.diag([0.5, 2.0, 1.0]) @ np.array([[1, 0, 0], [0.7, 1, 0], [-0.3, 1.5, 1]])
    q, key = FAMILIES[FULL].posterior(params), jax.random.key(1)
    noise = jax.random.normal(key, (3,))
    np.testing.assert_allclose(q.draw(key), params["mean"] + root @ noise, rtol=1e-5)
    z = np.array([0.3, 0.1, -0.7], np.float32)
    expected = scipy.stats.multivariate_normal(params["mean"], root @ root.T).logpdf(z)
    np.testing.assert_allclose(q.log_density(z), expected, rtol=1e-5)


def test_the_slope_is_that_of_a_power_law() -> None:
    ratios = np.outer(np.array([4, 16, 64]) ** -0.5, np.ones(6))
    results = {"settings": {"samples": [4, 16, 64]}, "curves": {"a: signals of b": ratios}}
    np.testing.assert_allclose(tables.slope_of(results, "a", "b"), (-0.5, 0), atol=1e-12)


def test_a_gap_is_to_the_evidence_or_at_least_to_the_best_bound() -> None:
    row = {"target": "a", "elbo": -3.0, "bound": -1.0, "landed": 2, "log_evidence": -0.5}
    other = row | {"elbo": None, "bound": None}
    unknown = {"log_evidence": None}
    results = {"settings": {"seeds": 2}, "rows": [row, other]}
    assert tables.gap(results, row) == "2.5"
    assert tables.gap(results, row | {"landed": 1}) == "2.5 (1 of 2 runs)"
    assert tables.gap(results, row | {"elbo": -0.50001}) == "0"
    assert tables.gap(results, other) == "diverged"
    results = {"settings": {"seeds": 2}, "rows": [row | unknown, other | unknown]}
    assert tables.gap(results, row) == "at least 2"


def test_a_goal_is_reached_at_the_first_state_that_is_as_high() -> None:
    assert tables.reached([0, 10, 20], [-9.0, -2.0, -1.0], -2.0) == 10
    assert tables.reached([0, 10, 20], [-9.0, None, None], -2.0) is None


def test_the_signal_is_measured_without_the_noise_of_the_mean() -> None:
    """20 gradients, half of them (1, 2), half (-1, 0): mean (0, 1), variance 20/19 of each."""
    noise = np.tile([1.0, -1.0], 10)
    groups = np.stack([noise, noise + 1], -1).reshape(5, 4, 2)
    variance = 2 * 20 / 19
    expected = np.sqrt((1 - variance / 20) / variance)
    found = gradients.signal_to_noise(groups)
    assert len(found) == 1 + 5
    np.testing.assert_allclose(found[0], expected)
    assert gradients.signal_to_noise(groups[..., :1])[0] == 0
