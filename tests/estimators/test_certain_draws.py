"""Bits and categories of probability exactly 0 and 1: by logits or probs, in every library.

For each estimator and form the mean over keys of value and gradient is the exact one. Along a
parameter that makes a value certain or impossible the gradient is the right one or exactly 0.
"""

from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as nd
import pytest
from tensorflow_probability.substrates import jax as tfp

import scorefn as sf

tfd = tfp.distributions
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:Explicitly requested dtype int64:UserWarning"),
]

# Two-sided P(|z| > 7.5) = 7e-14; the file makes fewer than 15_000 comparisons.
CRITICAL, REPEATS, SAMPLES = 7.5, 2048, 3
INF = jnp.inf

BITS = {
    "sf.logits": sf.Bernoulli,
    "distrax.logits": lambda v: distrax.Bernoulli(logits=v),
    "tfd.logits": lambda v: tfd.Bernoulli(logits=v),
    "numpyro.logits": lambda v: nd.Bernoulli(logits=v),
    "distrax.probs": lambda v: distrax.Bernoulli(probs=v),
    "tfd.probs": lambda v: tfd.Independent(tfd.Bernoulli(probs=v), 1),
    "numpyro.probs": lambda v: nd.Bernoulli(probs=v).to_event(1),
}
CATEGORIES = {
    "sf.logits": sf.Categorical,
    "distrax.logits": lambda v: distrax.Categorical(logits=v),
    "tfd.logits": lambda v: tfd.Categorical(logits=v),
    "numpyro.logits": lambda v: nd.Categorical(logits=v),
    "distrax.probs": lambda v: distrax.Categorical(probs=v),
    "tfd.probs": lambda v: tfd.Categorical(probs=v / v.sum()),
    "numpyro.probs": lambda v: nd.Categorical(probs=v / v.sum()),
}
ONE_HOT = {
    "sf.logits": sf.OneHotCategorical,
    "distrax.logits": lambda v: distrax.OneHotCategorical(logits=v),
    "tfd.logits": lambda v: tfd.OneHotCategorical(logits=v, dtype=jnp.float32),
    "distrax.probs": lambda v: distrax.OneHotCategorical(probs=v),
    "tfd.probs": lambda v: tfd.OneHotCategorical(probs=v / v.sum(), dtype=jnp.float32),
}


def _score(baseline: float) -> sf.Estimator:
    return sf.ScoreFunction(sf.ConstantBaseline(baseline))


def _surrogate(params: Any, z: Any) -> Any:
    return params * jnp.sum(jax.nn.sigmoid(z))


def _pair(params: Any, value: Any, slope: Any) -> Any:
    return params[0] * value + slope, params[1] * slope


ANY: dict[str, Callable[[], sf.Estimator]] = {
    "ScoreFunction": sf.ScoreFunction,
    "ConstantBaseline": lambda: _score(0.7),
    "OptimalBaseline": lambda: sf.ScoreFunction(sf.OptimalBaseline()),
    "Enumerate": sf.Enumerate,
    "LocalExpectation": sf.LocalExpectation,
    "MeasureValued": sf.MeasureValued,
    "GO": sf.GO,
    "RELAX": lambda: sf.RELAX(_surrogate, jnp.array(1.5)),
    "Stratified": lambda: sf.Stratified(_score(0.7)),
    "QuasiMonteCarlo": lambda: sf.QuasiMonteCarlo(_score(0.7)),
    "Antithetic": lambda: sf.Antithetic(_score(0.7)),
}
OF_BITS: dict[str, Callable[[], sf.Estimator]] = {
    **ANY,
    "ARM": sf.ARM,
    "DisARM": sf.DisARM,
    "ARMS": sf.ARMS,
    "BitFlip": sf.BitFlip,
    "DoubleCV": sf.DoubleCV,
    "RODEO": lambda: sf.RODEO(_pair, jnp.array([0.5, 2.0])),
    "REBAR": sf.REBAR,
}
OF_CATEGORIES: dict[str, Callable[[], sf.Estimator]] = {
    **ANY,
    "CoupledCategorical": sf.CoupledCategorical,
    "UnorderedSet": sf.UnorderedSet,
    "SumAndSample": lambda: sf.SumAndSample(1),
    "StochasticSumAndSample": lambda: sf.StochasticSumAndSample(1),
}
OF_ONE_HOT = {**OF_CATEGORIES, "REBAR": sf.REBAR}
BIASED: dict[str, Callable[[], sf.Estimator]] = {
    "GumbelSoftmax": lambda: sf.GumbelSoftmax(0.5),
    "GumbelRao": lambda: sf.GumbelRao(0.5),
    "STGS": lambda: sf.StraightThroughGumbelSoftmax(0.5),
    "StraightThrough": sf.StraightThrough,
    "ReinMax": sf.ReinMax,
}


EVERY_FORM = ("ConstantBaseline", "Enumerate", "DisARM", "GO")


def measured(estimator: sf.Estimator, build: Any, cases: Any, f: Any) -> tuple[Any, Any]:
    """Values [cases, n] and gradients [cases, n, D] for many keys, by one program."""

    def loss(values: Any, case: jax.Array, key: jax.Array) -> jax.Array:
        distribution = build(values)
        return sf.expectation(
            lambda x: f(x, case), distribution, key, estimator, num_samples=SAMPLES
        )

    keys = jax.random.split(jax.random.key(3), REPEATS)
    both = jax.vmap(jax.value_and_grad(loss), (None, None, 0))
    numbers = jnp.arange(len(cases))
    value, slope = jax.jit(jax.vmap(both, (0, 0, None)))(jnp.array(cases), numbers, keys)
    return np.asarray(value, np.float64), np.asarray(slope, np.float64)


def assert_mean(draws: np.ndarray, exact: Any, *, or_zero: Any = False) -> None:
    """Each mean is the exact one, by a z-test; where `or_zero`, it may be exactly 0 instead."""
    assert np.all(np.isfinite(draws))
    error = draws.std(0) / np.sqrt(len(draws)) + 1e-5
    right = np.abs(draws.mean(0) - exact) <= CRITICAL * error
    zero = np.all(draws == 0, axis=0) | (np.abs(draws.mean(0)) <= CRITICAL * error)
    assert np.all(right | (np.asarray(or_zero) & zero)), (draws.mean(0), exact)


def grid(estimators: dict[str, Any], forms: dict[str, Any]) -> Any:
    # All estimators read the same facts: two forms are enough for most of them.
    rows = [
        pytest.param(build, form, id=f"{name}-{form}")
        for name, build in estimators.items()
        for form in forms
        if name in EVERY_FORM or form in ("sf.logits", "distrax.probs", "numpyro.probs")
    ]
    return pytest.mark.parametrize(("estimator", "form"), rows)


def spelled(cases: dict[str, list[list[float]]], form: str) -> list[list[float]]:
    return cases[form.split(".")[1]]


# ------------------------------------------------------------------------------------------- bits

BITS_GIVEN = {"logits": [[0.4, -INF, INF]], "probs": [[0.6, 0.0, 1.0]]}


def bit_cost(b: Any, _: Any) -> jax.Array:
    b = jnp.asarray(b, jnp.float32)
    return 1.5 * b[0] - 2 * b[0] * b[1] + b[2] + 0.5 * b[0] * b[2] + 3 * b[1]


@grid(OF_BITS, BITS)
def test_bits(estimator: Any, form: str) -> None:
    [value], [slope] = measured(estimator(), BITS[form], spelled(BITS_GIVEN, form), bit_cost)
    by_probs = form.endswith("probs")
    p = 0.6 if by_probs else 1 / (1 + np.exp(-0.4))
    assert_mean(value, 2.0 * p + 1)
    rate = 1.0 if by_probs else p * (1 - p)
    # Along the certain bits: E f at 1 less E f at 0, by probs; nothing moves by logits.
    along = [2.0 * rate, (3 - 2 * p) * by_probs, (1 + 0.5 * p) * by_probs]
    assert_mean(slope, np.array(along), or_zero=[False, True, True])


@grid(BIASED, BITS)
def test_relaxed_bits_are_finite(estimator: Any, form: str) -> None:
    value, slope = measured(estimator(), BITS[form], spelled(BITS_GIVEN, form), bit_cost)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(slope))


INFINITE = {k: v for k, v in OF_BITS.items() if k not in ("DoubleCV", "RODEO", "REBAR")}


@grid(INFINITE, {"sf.logits": 0, "numpyro.probs": 0})
def test_bits_with_a_cost_that_is_infinite_where_impossible(estimator: Any, form: str) -> None:
    def cost(b: Any, _: Any) -> jax.Array:
        b = jnp.asarray(b, jnp.float32)
        return 1.5 * b[0] + jnp.where((b[1] > 0) | (b[2] < 1), jnp.inf, 0.5)

    [value], [slope] = measured(estimator(), BITS[form], spelled(BITS_GIVEN, form), cost)
    by_probs = form.endswith("probs")
    p = 0.6 if by_probs else 1 / (1 + np.exp(-0.4))
    assert_mean(value, 1.5 * p + 0.5)
    along = [1.5 * (1.0 if by_probs else p * (1 - p)), 0, 0]
    assert_mean(slope, np.array(along), or_zero=[False, True, True])


# ------------------------------------------------------------------------------------- categories

# One masked, one certain, and the first or the last one impossible.
SHARES = {
    "logits": [[0.4, -INF, -0.3], [-INF, 0.2, -INF], [-INF, 0.4, -0.3], [0.4, -0.3, -INF]],
    "probs": [[0.4, 0.0, 0.6], [0.0, 1.0, 0.0], [0.0, 0.4, 0.6], [0.4, 0.6, 0.0]],
}
TABLE = np.array([1.0, 3.0, -2.0])


def category_cost(x: Any, _: Any) -> jax.Array:
    return jnp.array(TABLE, jnp.float32)[jnp.asarray(x, jnp.int32)]


def one_hot_cost(x: Any, _: Any) -> jax.Array:
    return jnp.asarray(x, jnp.float32) @ jnp.array(TABLE, jnp.float32)


def assert_categories(value: Any, slope: Any, form: str, tables: Any) -> None:
    for case, given in enumerate(np.array(spelled(SHARES, form))):
        table = tables[case]
        by_probs = form.endswith("probs")
        p = given / given.sum() if by_probs else np.exp(given) / np.exp(given).sum()
        possible = p > 0
        mean = p[possible] @ table[possible]
        assert_mean(value[case], mean)
        # Along shares the derivative of the normalized probabilities, along logits p (f - E f).
        right = (
            table - mean
            if by_probs
            else np.where(possible, p * (np.where(possible, table, 0) - mean), 0)
        )
        assert_mean(slope[case], np.where(np.isfinite(right), right, 0), or_zero=~possible)


@grid(OF_CATEGORIES, CATEGORIES)
def test_categories(estimator: Any, form: str) -> None:
    found = measured(estimator(), CATEGORIES[form], spelled(SHARES, form), category_cost)
    assert_categories(*found, form, [TABLE] * 4)


@grid(OF_ONE_HOT, ONE_HOT)
def test_one_hot(estimator: Any, form: str) -> None:
    found = measured(estimator(), ONE_HOT[form], spelled(SHARES, form), one_hot_cost)
    assert_categories(*found, form, [TABLE] * 4)


@grid(BIASED, ONE_HOT)
def test_relaxed_one_hot_is_finite(estimator: Any, form: str) -> None:
    value, slope = measured(estimator(), ONE_HOT[form], spelled(SHARES, form), one_hot_cost)
    assert np.all(np.isfinite(value))
    assert np.all(np.isfinite(slope))


@grid(OF_CATEGORIES, {"sf.logits": 0, "numpyro.probs": 0})
def test_categories_with_a_cost_that_is_infinite_where_impossible(
    estimator: Any, form: str
) -> None:
    given = np.array(spelled(SHARES, form))
    impossible = np.isneginf(given) if form.endswith("logits") else given == 0
    tables = np.where(impossible, np.inf, TABLE)

    def cost(x: Any, case: Any) -> jax.Array:
        return jnp.array(tables, jnp.float32)[case, x]

    found = measured(estimator(), CATEGORIES[form], spelled(SHARES, form), cost)
    assert_categories(*found, form, tables)
