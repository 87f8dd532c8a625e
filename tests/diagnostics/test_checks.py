"""check_unbiased and check_score: they pass what is right and fail what is wrong."""

import re
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest

import scorefn as sf

KEY = jax.random.key(3)


def loss(params, key):
    normal = distrax.Normal(params["mean"], params["scale"])
    estimator = sf.ScoreFunction()
    return sf.expectation(lambda x: jnp.sum(x**2), normal, key, estimator, num_samples=4)


PARAMS = {"mean": jnp.array([0.5, -1.0]), "scale": jnp.array([1.0, 2.0])}
EXACT = {"mean": jnp.array([1.0, -2.0]), "scale": jnp.array([2.0, 4.0])}


def test_an_unbiased_gradient_passes():
    report = sf.check_unbiased(loss, PARAMS, KEY, exact=EXACT, num_repeats=20_000)
    assert report.passed
    assert report.threshold == pytest.approx(5.1577, abs=1e-3)  # two-sided 1e-6 over 4 components
    np.testing.assert_allclose(report.estimate["mean"], EXACT["mean"], rtol=0, atol=0.5)
    z = (report.estimate["mean"] - EXACT["mean"]) / report.standard_error["mean"]
    np.testing.assert_allclose(report.z["mean"], z, rtol=1e-4, atol=1e-4)
    assert "passed" in str(report)
    assert "['scale']" in str(report)


def test_a_biased_gradient_fails():
    wrong = {**EXACT, "scale": jnp.array([2.0, 4.6])}
    report = sf.check_unbiased(loss, PARAMS, KEY, exact=wrong, num_repeats=20_000)
    assert not report.passed
    assert abs(report.z["scale"][1]) > report.threshold
    assert np.max(np.abs(report.z["mean"])) < report.threshold
    assert "FAILED" in str(report)


@pytest.mark.parametrize(("value", "passed"), [(3.0, True), (3.01, False)])
def test_without_variance_only_equality_passes(value, passed):
    report = sf.check_unbiased(lambda p, _: 3.0 * p, 1.0, KEY, exact=value, num_repeats=10)
    assert report.passed is passed


def test_nan_fails():
    report = sf.check_unbiased(lambda p, _: p * jnp.nan, 1.0, KEY, exact=0.0, num_repeats=10)
    assert not report.passed


def test_empty_parameters_are_left_out():
    params = {"a": jnp.ones(()), "empty": jnp.zeros((0, 2))}
    report = sf.check_unbiased(
        lambda p, _: 2 * p["a"], params, KEY, exact={**params, "a": 2.0}, num_repeats=5
    )
    assert report.passed
    assert "['a']" in str(report)


def test_exact_of_another_shape_is_an_error():
    with pytest.raises(ValueError, match="exact must be a pytree of shapes"):
        sf.check_unbiased(loss, PARAMS, KEY, exact={"mean": 0.0, "scale": 1.0}, num_repeats=5)


def normal(log_prob):
    return sf.Distribution(
        log_prob, lambda p, key: p[0] + p[1] * jax.random.normal(key), jnp.array([0.3, 1.5])
    )


def log_density(p, x):
    return -((x - p[0]) ** 2) / (2 * p[1] ** 2) - jnp.log(p[1])


SCORES = {
    "right": (normal(log_density), True),
    "scale 5% off": (normal(lambda p, x: log_density(p * jnp.array([1.0, 1.05]), x)), False),
    "no normaliser": (normal(lambda p, x: log_density(p, x) + jnp.log(p[1])), False),
    "scale as variance": (normal(lambda p, x: log_density(jnp.sqrt(p), x)), False),
    "raw logits": (
        sf.Distribution(lambda p, x: p[x], lambda p, k: jax.random.categorical(k, p), jnp.zeros(3)),
        False,
    ),
    "of a library": (distrax.Gamma(jnp.array(2.0), jnp.array(0.7)), True),
    "logits exactly 0": (sf.Bernoulli(jnp.zeros(2)), True),
    "a draw all but certain": (sf.Bernoulli(jnp.array([0.2, 40.0])), True),
    "no normalizer of a large rate": (
        sf.Distribution(lambda p, x: -x + p / 1e6, lambda _, k: jax.random.normal(k), 1e6),
        False,
    ),
}


@pytest.mark.parametrize("name", SCORES)
def test_the_score_has_mean_zero_or_is_reported(name):
    distribution, passed = SCORES[name]
    report = sf.check_score(distribution, KEY, num_samples=20_000)
    assert report.passed is passed, str(report)


def truncated(mean):
    return npd.TruncatedNormal(mean, 0.005, low=-1.0, high=1.0)


def far_away(params, x):
    """A density that depends on its parameter only where no draw comes."""
    return jnp.where(x > 1e6, params * x, -jnp.abs(x))


FAULTS = {
    "draws outside of the support": (
        sf.Distribution(
            lambda p, x: truncated(p).log_prob(x), lambda p, k: truncated(p).sample(k), 1.1
        ),
        r"1000 of 1000 draws lie outside of the support",
    ),
    "draws outside of the ends that a library states": (
        truncated(jnp.array(1.1)),
        r"1000 of 1000 draws lie outside of the support",
    ),
    "draws that the density excludes": (
        sf.Distribution(
            lambda p, x: jnp.where(x > 0, jnp.log(p) - p * x, -jnp.inf),
            lambda p, k: jax.random.laplace(k) / p,
            1.0,
        ),
        r"\d+ of 1000 draws lie outside of the support",
    ),
    "log_prob is nan": (
        sf.Distribution(
            lambda p, x: jnp.log(x - 0.1) * p, lambda p, k: p * jax.random.uniform(k), 1.0
        ),
        r"\d+ of 1000 draws lie outside of the support",
    ),
    "a score that never varies": (
        sf.Distribution(far_away, lambda p, k: p + jax.random.laplace(k), 1.0),
        r"params \(float32\[\]\): its score is the same for all draws",
    ),
    "a forgotten scale": (
        sf.Distribution(
            lambda p, x: -((x - p[0]) ** 2) / 2,
            lambda p, k: p[0] + p[1] * jax.random.normal(k),
            (0.3, 1.0),
        ),
        r"\[1\] \(float32\[\]\): the sampler depends on it and log_prob does not",
    ),
    "a support that moves": (
        distrax.Uniform(jnp.array(-1.0), jnp.array(1.0)),
        r"low \(float32\[\]\): the support .* depends on it",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_what_a_mean_of_zero_cannot_show_is_a_fault(name):
    distribution, fault = FAULTS[name]
    report = sf.check_score(distribution, KEY, num_samples=1000)
    assert not report.passed
    assert any(re.search(fault, each) for each in report.faults), report.faults
    assert report.faults[0] in str(report)


SOUND = {
    "an unused leaf": sf.Distribution(
        lambda p, x: -((x - p[0]) ** 2) / 2, lambda p, k: p[0] + jax.random.normal(k), (0.3, 1.0)
    ),
    "two copies": distrax.MixtureSameFamily(
        distrax.Categorical(logits=jnp.zeros(2)), distrax.Normal(jnp.arange(2.0), jnp.ones(2))
    ),
    "StudentT keeps a chi2": npd.StudentT(5.0, 0.3, 1.0),
    "one value only": sf.Categorical(jnp.array([0.3, -jnp.inf])),
    "a draw on the end": npd.Beta(0.05, 3.0),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_distributions_have_no_faults(name):
    assert sf.check_score(SOUND[name], KEY, num_samples=1000).faults == ()


def test_a_distribution_without_parameters_is_an_error():
    nothing = sf.Distribution(lambda _, x: -(x**2), lambda _, k: jax.random.normal(k), ())
    with pytest.raises(ValueError, match="distribution must have float parameters"):
        sf.check_score(nothing, KEY, num_samples=10)


@pytest.mark.parametrize(
    "estimator", [sf.DisARM(), sf.BitFlip(), sf.Enumerate(), sf.ScoreFunction()]
)
@pytest.mark.parametrize("offset", [0.0, 100.0, -1e4])
def test_rounding_of_large_costs_is_no_bias(estimator: sf.Estimator, offset: float) -> None:
    """A bit whose cost moves by 0.34; the offset changes nothing but rounding."""

    def loss(logit: jax.Array, key: jax.Array, wrong: float = 0.0) -> jax.Array:
        f = lambda b: offset + 0.34 * b + wrong * logit  # noqa: E731
        return sf.expectation(f, sf.Bernoulli(logit), key, estimator, num_samples=4)

    p = 1 / (1 + np.exp(-0.3))
    options: Any = {"exact": 0.34 * p * (1 - p), "num_repeats": 1000}
    assert sf.check_unbiased(loss, 0.3, jax.random.key(0), **options).passed
    # Still a tenth of the gradient is found, where rounding does not hide it.
    if offset != -1e4:
        biased = partial(loss, wrong=0.03)
        assert not sf.check_unbiased(biased, 0.3, jax.random.key(0), **options).passed


def test_too_few_repeats_are_named_as_the_argument_is() -> None:
    loss = lambda x, key: x  # noqa: E731, ARG005
    with pytest.raises(ValueError, match="num_repeats must be at least 2, got 1"):
        sf.check_unbiased(loss, 1.0, jax.random.key(0), exact=1.0, num_repeats=1)
    with pytest.raises(ValueError, match="num_samples must be at least 2, got 1"):
        sf.check_score(sf.Bernoulli(0.3), jax.random.key(0), num_samples=1)
