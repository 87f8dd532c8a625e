"""Subsets of a given size: exactly, against all of them; large, infinite and 16-bit logits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import (
    FAST,
    assert_close,
    derivatives,
    exact_derivatives,
    exact_moments,
    pieces,
    scale,
)
from support.noise import noise_keys
from support.registry import problem

import scorefn as sf

INF = np.inf
KEY = jax.random.key(3)
x64 = pytest.mark.usefixtures("x64")
fast = partial(jax.jit, compiler_options=FAST)


def log_prob_of(k):
    return lambda logits, x: sf.Subset(logits, k).log_prob(x)


def logits_of(size, spread, dtype=np.float64):
    logits = np.random.default_rng(size).normal(size=size) * spread
    return jnp.asarray(np.clip(logits, -80, 80), dtype)


@x64
@pytest.mark.parametrize("spread", [1.0, 80.0])
def test_five_of_ten_are_the_sum_over_252_subsets(spread):
    logits = logits_of(10, spread)
    rows = sf.Subset(logits, 5).values()
    assert rows.shape == (252, 10)
    assert len(np.unique(rows, axis=0)) == 252 == sf.Subset(logits, 5).num_values
    np.testing.assert_array_equal(rows.sum(-1), 5)

    def by_rows(logits):
        return jax.nn.log_softmax(rows @ logits)

    def entropy_by_rows(logits):
        return -jnp.sum(jnp.exp(by_rows(logits)) * by_rows(logits))

    @fast
    def run():
        subset, p = sf.Subset(logits, 5), jnp.exp(by_rows(logits))
        mean = p @ rows
        covariance = (rows - mean).T @ (p[:, None] * (rows - mean))
        entropy = lambda logits: sf.Subset(logits, 5).entropy()  # noqa: E731
        log_prob = log_prob_of(5)
        found = {
            "log_prob": jax.vmap(subset.log_prob)(rows),
            "score": jax.vmap(jax.grad(log_prob), (None, 0))(logits, rows),
            "curvature": jax.hessian(log_prob)(logits, rows[0]),
            "marginals": subset.marginals(),
            "covariance": subset.covariance(),
            "entropy": jax.value_and_grad(entropy)(logits),
        }
        exact = {
            "log_prob": by_rows(logits),
            "score": rows - mean,
            "curvature": -covariance,
            "marginals": mean,
            "covariance": covariance,
            "entropy": jax.value_and_grad(entropy_by_rows)(logits),
        }
        return found, exact

    jax.tree.map(partial(np.testing.assert_allclose, rtol=0, atol=1e-12), *run())


@x64
def test_draws_have_their_probabilities_exactly():
    logits, rows = logits_of(4, 1.0), np.asarray(sf.Subset(jnp.zeros(4), 2).values())
    p = np.exp(rows @ np.asarray(logits))
    p /= p.sum()

    def chance(*before):
        """The probability that the next item is drawn, given the items before."""
        fits = np.all(rows[:, : len(before)] == before, axis=1)
        return p[fits] @ rows[fits, len(before)] / p[fits].sum()

    # Items 0, 1, 2 are drawn by one number each, and the last one is what is missing.
    rule = pieces(chance()) * pieces(chance(0), chance(1))
    rule = rule * pieces(chance(0, 1), chance(1, 0)) * pieces()
    drawn = jax.vmap(sf.Subset(logits, 2).sample)(noise_keys(rule.points))
    found = [rule.weights[np.all(drawn == row, axis=1)].sum() for row in rows]
    np.testing.assert_allclose(found, p, rtol=0, atol=1e-12)


@x64
@pytest.mark.parametrize("spread", [0.0, 1.0, 40.0])
def test_fifty_of_a_thousand_in_float64_and_float32(spread):
    logits = logits_of(1000, spread)
    log_sums = np.full(51, -INF, np.longdouble)
    log_sums[0] = 0
    for logit in np.asarray(logits, np.longdouble):
        log_sums[1:] = np.logaddexp(log_sums[1:], log_sums[:-1] + logit)
    x = sf.Subset(logits, 50).sample(KEY)
    exact = x @ logits - float(log_sums[50])
    for dtype, rtol, atol in ((jnp.float64, 1e-13, 1e-12), (jnp.float32, 2e-6, 2e-5)):
        at, draw = logits.astype(dtype), x.astype(dtype)
        value, score = fast(jax.value_and_grad(log_prob_of(50)))(at, draw)
        subset = sf.Subset(at, 50)
        assert value.dtype == score.dtype == dtype
        # A draw of logits of 80 is rounded before anything is computed.
        np.testing.assert_allclose(value, exact, rtol=rtol, atol=atol * (1 + spread))
        marginals = fast(subset.marginals)()
        np.testing.assert_allclose(score, draw - marginals, rtol=0, atol=10 * atol)
        np.testing.assert_allclose(marginals.sum(), 50, rtol=10 * rtol)
        drawn = fast(jax.vmap(subset.sample))(jax.random.split(KEY, 8))
        assert drawn.dtype == dtype
        np.testing.assert_array_equal(drawn.sum(-1), 50)
        # Certain to 5 digits or drawn: no draw of probability 1e-8 among 8000.
        assert jnp.all(jnp.where(drawn == 1, marginals, 1 - marginals) > 1e-8)


# Infinite logits, and finite ones that are as good as infinite.
CERTAIN = np.array(
    [
        [INF, 0.0, 1.0, -INF],
        [INF, INF, 0.0, 2.0],
        [-INF, -INF, -INF, 0.3],
        [-INF] * 4,
        [INF] * 4,
        [1e30, 0.3, -0.2, 0.9],
        [-1e30, 0.3, -0.2, 0.9],
        [1e4, 1e4, 0.3, -0.2],
        [-300.0, 0.3, -300.0, 0.9],
    ]
)


@x64
@pytest.mark.parametrize("k", range(5))
def test_certain_and_impossible_items_are_limits_without_a_derivative(k):
    rows = np.asarray(sf.Subset(jnp.zeros(4), k).values())

    @fast
    @jax.vmap
    def run(logits):
        subset = sf.Subset(logits, k)
        entropy = lambda logits: sf.Subset(logits, k).entropy()  # noqa: E731
        scores = jax.vmap(jax.grad(log_prob_of(k)), (None, 0))(logits, rows)
        curvature = jax.hessian(log_prob_of(k))(logits, rows[0])
        found = jnp.exp(jax.vmap(subset.log_prob)(rows)), subset.marginals(), subset.entropy()
        draws = jax.vmap(subset.sample)(jax.random.split(KEY, 20))
        return found, (scores, curvature, jax.grad(entropy)(logits)), draws

    results = run(jnp.asarray(CERTAIN))
    for i, logits in enumerate(CERTAIN):
        found, derivatives, draws = jax.tree.map(lambda x, i=i: np.asarray(x[i]), results)
        # In the limit only subsets of the most certain items and the fewest impossible remain.
        certain = np.abs(logits) >= 300
        order = rows @ np.where(certain, np.sign(logits), 0)
        p = np.where(order == order.max(), np.exp(rows @ np.where(certain, 0, logits)), 0)
        p /= p.sum()
        entropy = -np.sum(p[p > 0] * np.log(p[p > 0]))
        for value, exact in zip(found, (p, p @ rows, entropy), strict=True):
            np.testing.assert_allclose(value, exact, rtol=0, atol=1e-13)
        score = np.where(np.isinf(logits), 0, rows - p @ rows)
        np.testing.assert_allclose(derivatives[0][p > 0], score[p > 0], rtol=0, atol=1e-13)
        assert all(np.isfinite(x).all() for x in derivatives)
        assert all(np.all(np.where(np.isinf(logits), x, 0) == 0) for x in derivatives)
        assert all(np.any(np.all(draw == rows[p > 0], axis=1)) for draw in draws)


@x64
def test_a_logit_of_nan_stays_visible():
    logits = jnp.array([0.0, np.nan, 1.0])
    assert jnp.isnan(sf.Subset(logits, 2).log_prob(jnp.array([1.0, 1.0, 0.0])))


def test_other_vectors_are_impossible():
    subset = sf.Subset(jnp.array([0.1, 0.2, 0.3]), 2)
    others = [[1.0, 0, 0], [1.0, 1.0, 1.0], [2.0, 0, 0], [0.5, 0.5, 1.0], [1.0, 2.0, -1.0]]
    np.testing.assert_array_equal(fast(jax.vmap(subset.log_prob))(jnp.array(others)), -INF)


@x64
def test_a_batch_is_independent_subsets():
    logits = jnp.stack([logits_of(5, 1.0), logits_of(6, 2.0)[:5]])

    def results(subset, x):
        return subset.log_prob(x), subset.entropy(), subset.marginals()

    @fast
    def run(logits):
        batch, x = sf.Subset(logits, 2), sf.Subset(logits, 2).sample(KEY)
        each = jax.vmap(lambda row, x: results(sf.Subset(row, 2), x))(logits, x)
        cost = lambda b: (b @ jnp.arange(5.0)) ** 2  # noqa: E731
        joint = sf.expectation(lambda b: jnp.sum(cost(b)), batch, KEY, sf.Enumerate())
        one_by_one = sf.expectation(cost, batch, KEY, sf.Enumerate(factor_ndim=1))
        return x, results(batch, x), batch.log_probs(x), each, joint, one_by_one

    x, (log_prob, entropy, marginals), log_probs, each, joint, one_by_one = run(logits)
    np.testing.assert_array_equal(x.sum(-1), 2)
    np.testing.assert_allclose(log_probs, each[0], rtol=1e-13)
    np.testing.assert_allclose([log_prob, entropy], [each[0].sum(), each[1].sum()], rtol=1e-13)
    np.testing.assert_allclose(marginals, each[2], rtol=1e-13)
    np.testing.assert_allclose(joint, one_by_one.sum(), rtol=1e-13)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_draws_have_the_dtype_of_the_logits_and_sums_at_least_32_bits(dtype):
    @fast
    def run(logits):
        subset, wide = sf.Subset(logits, 2), sf.Subset(logits.astype(jnp.float32), 2)
        x = subset.sample(KEY)
        score = jax.grad(log_prob_of(2))(logits, x)
        return x, subset.marginals(), subset.log_prob(x), wide.log_prob(x), score

    x, marginals, narrow, wide, score = run(jnp.array([0.5, -1.0, 2.0, 0.0], dtype))
    assert x.dtype == score.dtype == dtype
    assert marginals.dtype == jnp.float32
    assert narrow == wide
    assert jax.eval_shape(sf.Subset([0, 1, 2], 1).sample, KEY).dtype == jnp.float32


def test_bad_arguments_raise():
    with pytest.raises(ValueError, match=r"k must be at most the number of items, 3 .* got 4"):
        sf.Subset(jnp.zeros((2, 3)), 4)
    with pytest.raises(ValueError, match="k must be at least 0, got -1"):
        sf.Subset(jnp.zeros(3), -1)
    with pytest.raises(TypeError, match="k must be a static Python int, got 1.5"):
        sf.Subset(jnp.zeros(3), 1.5)
    with pytest.raises(TypeError, match="k must be a static Python int, got a traced value"):
        jax.jit(lambda k: sf.Subset(jnp.zeros(3), k).entropy())(2)
    with pytest.raises(ValueError, match=r"Subset needs logits of shape \[..., n\]"):
        sf.Subset(jnp.zeros(()), 0)
    with pytest.raises(TypeError, match="Subset takes logits, got probs"):
        sf.Subset(probs=jnp.ones(3), k=1)
    with pytest.raises(ValueError, match="would sum over 92378 values, more than max_size=4096"):
        sf.expectation(jnp.sum, sf.Subset(jnp.zeros(19), 9), KEY, sf.Enumerate())


@x64
def test_the_checks_pass():
    logits = logits_of(6, 1.0)
    assert sf.check_score(sf.Subset(logits, 3), KEY, num_samples=2000).passed

    def loss(logits, key, estimator=None):
        estimator = estimator or sf.ScoreFunction()
        f = lambda b: (b @ jnp.arange(6.0)) ** 2  # noqa: E731
        return sf.expectation(f, sf.Subset(logits, 3), key, estimator, num_samples=4)

    exact = fast(jax.grad(partial(loss, estimator=sf.Enumerate())))(logits, KEY)
    report = sf.check_unbiased(loss, logits, KEY, exact=exact, num_repeats=2000)
    assert report.passed
    # SIMPLE is caught: its bias is far beyond the threshold.
    biased = partial(loss, estimator=sf.StraightThrough())
    assert not sf.check_unbiased(biased, logits, KEY, exact=exact, num_repeats=2000).passed


@x64
def test_simple_has_the_mean_of_its_formula():
    # Over all draws: J(marginals) df/db, which is not the gradient.
    logits = jnp.array([0.3, -0.5, 0.9])
    subset = sf.Subset(logits, 2)
    f = lambda b: jnp.sum(b * jnp.array([1.0, -2.0, 0.5])) ** 3 + jnp.prod(b[:2])  # noqa: E731
    p = jnp.exp(jax.vmap(subset.log_prob)(subset.values()))
    first = p @ subset.values()[:, 0]
    second = p[0] / first
    rule = pieces(float(first)) * pieces(float(second)) * pieces()

    def loss(logits, key, estimator):
        return sf.expectation(f, sf.Subset(logits, 2), key, estimator)

    def gradient(key):
        return jax.value_and_grad(loss)(logits, key, sf.StraightThrough())

    (value, mean), _ = exact_moments(gradient, rule, 1)

    @fast
    def formula(logits):
        slopes = jax.vmap(jax.grad(f))(subset.values())
        jacobian = jax.jacobian(lambda logits: sf.Subset(logits, 2).marginals())(logits)
        return p @ slopes @ jacobian, jax.value_and_grad(loss)(logits, KEY, sf.Enumerate())

    desired, (exact_value, exact) = formula(logits)
    np.testing.assert_allclose(value, exact_value, atol=1e-13)
    np.testing.assert_allclose(mean, desired, atol=1e-13)
    assert jnp.abs(mean - exact).max() > 0.1


@x64
@pytest.mark.parametrize("degree", [1, 2])
def test_the_delta_method_reads_the_moments(degree):
    p = problem("subset")
    estimator = sf.DeltaMethod(sf.ScoreFunction(sf.ConstantBaseline(0.0)), degree)
    estimate = p.estimate(estimator)
    mean, variance = exact_moments(
        lambda key: derivatives(lambda params: estimate(params, key), p.params, 2), p.noise, 1
    )
    exact = exact_derivatives(p, 2)
    assert_close(mean, exact, atol=1e-12 * scale(exact))
    # The cost is quadratic: with degree 2 its value has no variance.
    assert (float(variance[0].max()) < 1e-24) == (degree == 2)


@x64
@pytest.mark.parametrize("logits", [[0.3, -80.0, 80.0, 1.0, -0.5], [INF, 0.0, -INF, 1.0, 50.0]])
def test_the_covariance_of_nearly_certain_items_has_a_root(logits):
    f = lambda b: (b @ jnp.array([1.0, -2.0, 0.5, 3.0, 0.7])) ** 2  # noqa: E731
    plain = sf.ScoreFunction(sf.ConstantBaseline(0.0))

    @fast
    def run(logits):
        loss = lambda logits, e: sf.expectation(f, sf.Subset(logits, 3), KEY, e)  # noqa: E731
        return [jax.grad(loss)(logits, e) for e in (sf.DeltaMethod(plain), sf.Enumerate())]

    for dtype, atol in ((jnp.float64, 1e-13), (jnp.float32, 2e-5)):
        found, exact = run(jnp.array(logits, dtype))
        np.testing.assert_allclose(found, exact, rtol=0, atol=atol)
    with pytest.raises(ValueError, match=r"covariance takes logits \[n\], got \(2, 3\)"):
        sf.Subset(jnp.zeros((2, 3)), 1).covariance()
