"""The suites' exact values, by enumeration, quadrature and closed forms."""

import itertools
import math
from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.stats

import scorefn as sf
from benchmarks._models import logistic as models_logistic
from benchmarks.suites.bernoulli import exact as bernoulli_exact
from benchmarks.suites.bernoulli.entries import ENTRIES
from benchmarks.suites.bernoulli.exact import Coin
from benchmarks.suites.bernoulli.problem import Problem
from benchmarks.suites.bernoulli.problem import problem as coin_problem
from benchmarks.suites.gaussian import exact as gaussian_exact
from benchmarks.suites.vi import bounds_exact as vi_bounds_exact

COINS = [Coin(0.1, 0.45), Coin(0.35, 0.499), Coin(0.5, 0.45), Coin(0.8, 0.49)]


SCORE_FUNCTIONS = [
    name
    for name, entry in ENTRIES.items()
    if isinstance(entry.estimator(COINS[0]), sf.ScoreFunction)
]


@jax.jit
@partial(jax.vmap, in_axes=(None, 0))
def _gradient_of_bits(problem: Problem, bits: jax.Array) -> jax.Array:
    """The library's gradient for given bits: a sampler that returns its key."""

    def loss(logit: jax.Array) -> jax.Array:
        coin = sf.Distribution(
            lambda logit, bit: sf.Bernoulli(logit).log_prob(bit), lambda _, key: key, logit
        )
        return jnp.mean(problem.estimator(lambda b: (b - problem.t) ** 2, coin, bits))

    return jax.grad(loss)(problem.logit)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("coin", COINS)
@pytest.mark.parametrize("name", SCORE_FUNCTIONS)
def test_bernoulli_variance_over_all_tuples(name: str, coin: Coin) -> None:
    entry = ENTRIES[name]
    problem = coin_problem(entry, coin)
    bits = np.array(list(itertools.product([0.0, 1.0], repeat=entry.num_samples)))
    probability = np.prod(np.where(bits == 1, coin.theta, 1 - coin.theta), axis=1)
    gradients = np.asarray(_gradient_of_bits(problem, bits))
    mean = probability @ gradients
    np.testing.assert_allclose(mean, coin.gradient, rtol=1e-10)
    variance = probability @ (gradients - mean) ** 2
    np.testing.assert_allclose(entry.variance(coin), variance, rtol=1e-9, atol=1e-18)


@pytest.mark.parametrize("coin", COINS)
def test_pair_variances_over_the_uniform(coin: Coin) -> None:
    u = (np.arange(200_000) + 0.5) / 200_000
    first, second = u > 1 - coin.theta, u < coin.theta
    change = coin.step * (first.astype(float) - second)
    arm = change * (u - 0.5)
    disarm = change / 2 * np.where(second, -1, 1) * (first != second)
    disarm = disarm * max(coin.theta, 1 - coin.theta)
    for found, variance in ((arm, bernoulli_exact.arm), (disarm, bernoulli_exact.disarm)):
        np.testing.assert_allclose(np.mean(found), coin.gradient, rtol=1e-4)
        np.testing.assert_allclose(np.var(found), variance(coin), rtol=1e-4, atol=1e-15)


@pytest.mark.parametrize("coin", COINS)
def test_arms_of_two_is_disarm(coin: Coin) -> None:
    disarm = bernoulli_exact.disarm(coin)
    np.testing.assert_allclose(bernoulli_exact.arms(coin, 2), disarm, rtol=1e-9, atol=1e-18)
    assert bernoulli_exact.arms(coin, 4) < bernoulli_exact.leave_one_out(coin, 4)


@pytest.mark.parametrize("coin", COINS)
def test_surrogate_moments_over_the_bit(coin: Coin) -> None:
    probability, slopes = np.array([1 - coin.theta, coin.theta]), np.array(coin.slopes)
    through = coin.spread * slopes
    middle = (coin.theta + np.array([0.0, 1.0])) / 2
    reinmax = (2 * middle * (1 - middle) - coin.spread / 2) * slopes
    means = {"through": probability @ through, "reinmax": probability @ reinmax}
    np.testing.assert_allclose(means["through"], bernoulli_exact.straight_through_mean(coin))
    np.testing.assert_allclose(means["reinmax"], coin.gradient)
    variance = probability @ (through - means["through"]) ** 2
    np.testing.assert_allclose(variance, bernoulli_exact.straight_through(coin))
    variance = probability @ (reinmax - means["reinmax"]) ** 2
    np.testing.assert_allclose(variance, bernoulli_exact.reinmax(coin))


GAUSSIANS = [("square", 3.0, 0.5), ("square", -1.0, 2.0), ("exp", 10.0, 1.0), ("cos", 5.0, 1.5)]


def _gaussian(cost: str, k: float, sigma: float, parameter: str) -> gaussian_exact.Problem:
    return gaussian_exact.Problem(gaussian_exact.COSTS[cost], k, 1.0, sigma, parameter)


@pytest.mark.parametrize(("cost", "k", "sigma"), GAUSSIANS)
@pytest.mark.parametrize("parameter", ["mu", "sigma"])
def test_gaussian_gradient_two_ways(cost: str, k: float, sigma: float, parameter: str) -> None:
    problem = _gaussian(cost, k, sigma, parameter)
    by_score = gaussian_exact.mean(problem.f * problem.score)
    np.testing.assert_allclose(problem.gradient, by_score, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("cost", "k", "sigma"), GAUSSIANS)
@pytest.mark.parametrize("parameter", ["mu", "sigma"])
def test_leave_one_out_variance_over_all_pairs(
    cost: str, k: float, sigma: float, parameter: str
) -> None:
    problem = _gaussian(cost, k, sigma, parameter)
    weights = gaussian_exact.WEIGHTS[::10] / np.sum(gaussian_exact.WEIGHTS[::10])
    f, h = problem.f[::10], problem.score[::10]
    # (f1 - f2) h1 / 2 + (f2 - f1) h2 / 2
    pairs = (f[:, None] - f) * (h[:, None] - h) / 2
    mean = weights @ pairs @ weights
    variance = weights @ (pairs - mean) ** 2 @ weights
    np.testing.assert_allclose(mean, problem.gradient, rtol=1e-8, atol=1e-12)
    np.testing.assert_allclose(gaussian_exact.leave_one_out(problem, 2), variance, rtol=1e-8)


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_square_cost_in_closed_form(sigma: float) -> None:
    mu, scale = (_gaussian("square", 3.0, sigma, parameter) for parameter in ("mu", "sigma"))
    d2, s2 = (1.0 - 3.0) ** 2, sigma**2
    score = (d2**2 + 14 * d2 * s2 + 15 * s2**2) / s2
    np.testing.assert_allclose(gaussian_exact.pathwise(mu, 1), 4 * s2)
    np.testing.assert_allclose(gaussian_exact.pathwise(scale, 1), 4 * d2 + 8 * s2)
    np.testing.assert_allclose(gaussian_exact.score_function(mu, 1), score)
    np.testing.assert_allclose(gaussian_exact.score_function(mu, 3), score / 3)
    np.testing.assert_allclose(gaussian_exact.measure_valued(mu, 1), d2 * (16 / np.pi - 4))


@pytest.mark.parametrize(("cost", "k", "sigma"), GAUSSIANS)
def test_measure_valued_variance_along_sigma(cost: str, k: float, sigma: float) -> None:
    """Over the noise as it is drawn: z normal, r of Rayleigh's density."""
    problem = _gaussian(cost, k, sigma, "sigma")
    # Only up to 8: what lies beyond has no weight. By symmetry of the sign, z > 0 and z < 0 apart.
    half = (np.arange(1200) + 0.5) / 150
    weights = np.exp(-(half**2) / 2)
    normal, rayleigh = weights / (2 * np.sum(weights)), half * weights / np.sum(half * weights)
    mean = square = 0.0
    for sign in (-1, 1):
        z = 1.0 + sigma * sign * half
        m = 1.0 + sigma * sign * np.hypot(half[:, None], half)
        f = problem.cost.value
        change = (np.asarray(f(m, k)) - np.asarray(f(z, k))[:, None]) / sigma
        mean += normal @ change @ rayleigh
        square += normal @ change**2 @ rayleigh
    np.testing.assert_allclose(mean, problem.gradient, rtol=1e-4, atol=1e-6)
    found = gaussian_exact.measure_valued(problem, 1)
    np.testing.assert_allclose(found, square - mean**2, rtol=1e-3)


@pytest.mark.parametrize(("cost", "k"), [("exp", 10.0), ("cos", 5.0)])
def test_score_function_wins_on_rough_costs(cost: str, k: float) -> None:
    problem = _gaussian(cost, k, 1.0, "mu")
    path = gaussian_exact.pathwise(problem, 1)
    assert 12 < path / gaussian_exact.score_function(problem, 1) < 26
    assert 40 < path / gaussian_exact.measure_valued(problem, 1) < 48


@pytest.mark.parametrize("step", [0.0, 0.7])
def test_exact_elbo_by_adaptive_quadrature(step: float) -> None:
    """At the prior, where logits spread most, and elsewhere."""
    data = models_logistic.breast_cancer()
    # The widest case and an ordinary one.
    chosen = [int(np.argmax(np.linalg.norm(data.features, axis=1))), 0]
    few = replace(data, features=data.features[chosen], labels=data.labels[chosen], weight=3.0)
    params = {"mean": np.full(31, 0.1 * step), "log_scale": np.full(31, -step)}
    expected = 0.0
    for x, y in zip(few.features, few.labels, strict=True):
        centre, spread = x @ params["mean"], np.linalg.norm(x) * np.exp(-step)

        def density(z: float, shift: float = -y * centre, spread: float = spread) -> float:
            gauss = math.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
            return float(np.logaddexp(0, shift + spread * z)) * gauss

        expected += 3 * scipy.integrate.quad(density, -12, 12, limit=500, epsabs=1e-10)[0]
    scale, mean = np.exp(params["log_scale"]), params["mean"]
    expected += np.sum((scale**2 + mean**2 - 1) / 2 - np.log(scale))
    found = models_logistic.exact_loss(jax.tree.map(jnp.asarray, params), few)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


@pytest.mark.parametrize(("power", "degree"), [(1, 0), (2, 1), (3, 1), (4, 2)])
@pytest.mark.parametrize("doubly", [False, True])
def test_moments_of_weights_by_quadrature(power: int, degree: int, *, doubly: bool) -> None:
    """Moments of weights of the linear-Gaussian model, from its densities."""
    e = np.linspace(-12, 12, 4001)
    mean, scale = 0.5 + 0.05, math.sqrt(2 / 3)
    z = mean + scale * e
    w = scipy.stats.norm.pdf(z, 0.5, math.sqrt(0.5)) / scipy.stats.norm.pdf(z, mean, scale)
    derivative = 1 - 2 * z + ((z - mean) / scale**2 if doubly else 0)
    density = scipy.stats.norm.pdf(e) * (e[1] - e[0])
    slope = vi_bounds_exact._PATH if doubly else vi_bounds_exact._WHOLE
    found = vi_bounds_exact._moment(power, degree, slope)
    np.testing.assert_allclose(found, density @ (w**power * derivative**degree), rtol=1e-9)


def test_data() -> None:
    data = models_logistic.breast_cancer()
    assert data.features.shape == (569, 31)
    np.testing.assert_allclose(data.features[:, :-1].mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(data.features[:, :-1].std(0), 1, atol=1e-5)
    assert set(data.features[:, -1]) == {1.0}
    assert set(data.labels) == {-1.0, 1.0}
    batch = data.minibatch(jax.random.key(0), 32)
    assert batch.features.shape == (32, 31)
    assert batch.weight * 32 == 569
