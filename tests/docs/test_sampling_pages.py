"""The pages on MCMC samples and particle filters: their code runs, their numbers are exact."""

import itertools
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from support.particles import THETA, filtered, likelihood, means

import scorefn as sf

DOCS = Path(__file__).parents[2] / "docs"


def code_of(name: str) -> dict[str, Any]:
    """The names that the code of a page defines."""
    scope: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", (DOCS / name).read_text(), re.DOTALL):
        exec(block, scope)
    return scope


def numbers_of(name: str) -> list[list[float]]:
    """The numbers that end the rows of the table of figures."""
    rows = re.findall(r"^\| (?:[^|]*\|)+? ((?:-?[\d.]+ \|[ \n])+)", (DOCS / name).read_text(), re.M)
    return [[float(x) for x in row.split("|") if x.strip()] for row in rows]


@pytest.mark.usefixtures("x64")
def test_the_biases_over_mcmc_samples_are_as_shown() -> None:
    x, theta, n = jnp.arange(4), 0.5, 4
    f, probs = (x + 1.0) ** 2, jax.nn.softmax(-theta * x)
    draws = jnp.array(list(itertools.product(range(4), repeat=n)))
    weights = probs[draws].prod(1)

    def mean_gradient(baseline: Any) -> jax.Array:
        def one(theta: Any, draws: jax.Array) -> jax.Array:
            costs = f[draws]
            return jnp.mean(sf.attach_score(costs, -theta * draws, baseline(draws, costs)))

        return weights @ jax.vmap(jax.grad(one), (None, 0))(theta, draws)

    def given(theta: Any, draws: jax.Array) -> jax.Array:
        p = sf.Given(draws, lambda theta, x: -theta * x, theta)
        return sf.expectation(
            lambda x: f[x], p, jax.random.key(0), sf.ScoreFunction(), num_samples=n
        )

    def weighted(draws: jax.Array, costs: jax.Array) -> jax.Array:
        return sf.OptimalBaseline()(costs, draws.astype(float) ** 2)

    exact = jax.grad(lambda theta: jax.nn.softmax(-theta * x) @ f)(theta)
    means = [
        0.0,
        mean_gradient(lambda *_: jnp.zeros(n)),
        mean_gradient(lambda *_: jnp.full(n, 0.9 * probs @ f)),
        mean_gradient(lambda _, costs: jnp.full(n, costs.mean())),
        mean_gradient(weighted),
        weights @ jax.vmap(jax.grad(given), (None, 0))(theta, draws),
    ]
    shown = np.array(numbers_of("mcmc.md"))
    np.testing.assert_allclose(shown[:, 0], np.array(means) / exact, atol=5.01e-4)
    np.testing.assert_allclose(means[-1], exact, rtol=1e-12)


def test_the_code_on_mcmc_samples_runs_and_its_gradient_is_that_of_the_integral() -> None:
    scope = code_of("mcmc.md")

    def moment(power: float) -> float:
        density = lambda x: np.exp(-scope["theta"] * np.abs(x) ** 1.5)  # noqa: E731
        return quad(lambda x: density(x) * np.abs(x) ** power, -np.inf, np.inf)[0]

    z = moment(0)
    exact = moment(2) / z * moment(1.5) / z - moment(3.5) / z
    # 6 standard errors of a covariance of 1024 draws.
    draws = np.asarray(scope["draws"])
    spread = np.std((draws**2 - moment(2) / z) * (np.abs(draws) ** 1.5 - moment(1.5) / z)) / 32
    for name in ("gradient", "by_chains"):
        assert abs(scope[name] - exact) < 6 * spread
    assert spread < 0.2 * abs(exact)
    assert scope["hessian"] > 0
    assert 100 < scope["size"] < scope["CHAINS"]
    assert scope["slope"] < 0 < scope["value"]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("n", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_the_biases_of_a_particle_filter_are_as_shown(n: int) -> None:
    def estimates(theta: Any, run: Any) -> jax.Array:
        ignored, _ = filtered(theta, run, carried=True, stopped=True)
        carried, _ = filtered(theta, run, carried=True)
        plain, log_prob = filtered(theta, run, carried=False)
        target = plain * jnp.exp(log_prob - jax.lax.stop_gradient(log_prob))
        scored = sf.attach_score(plain, log_prob)
        return jnp.stack([jnp.exp(ignored), jnp.exp(carried), ignored, carried, scored, target])

    _, found = means(n, estimates)
    of_z = jax.grad(likelihood)(THETA)
    of_log_z = of_z / likelihood(THETA)
    exact = jnp.stack([of_z, of_z, of_log_z, of_log_z, found[5]])
    shown = np.array(numbers_of("particle_filter.md"))
    np.testing.assert_allclose(shown[:, n - 2], found[:5] / exact, atol=5.01e-4)
    assert {2: "82.8 %", 3: "46.1 %"}[n] in (DOCS / "particle_filter.md").read_text()
    np.testing.assert_allclose(1 - found[3] / of_log_z, {2: 0.828, 3: 0.461}[n], atol=5e-4)


def test_the_code_on_particle_filters_runs_and_is_unbiased() -> None:
    """A statistical test with a fixed key: a false alarm in 1e-9 of the keys."""
    scope = code_of("particle_filter.md")
    exact, key = jax.grad(likelihood)(THETA), jax.random.key(1)
    options: dict[str, Any] = {"num_repeats": 2000, "alpha": 1e-9}
    report = sf.check_unbiased(scope["likelihood"], THETA, key, exact=exact, **options)
    assert report.passed, report
    # The value of the bound is that of the carried weights, up to their derivatives.
    log_z, _ = jax.jit(scope["bound"])(THETA, key)
    assert abs(log_z - jnp.log(jax.jit(scope["likelihood"])(THETA, key))) < 1e-5
    assert scope["gradient"] != 0
    assert scope["step"] != 0
    assert scope["bound_gradient"] != 0
