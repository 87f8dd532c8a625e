"""Rankings without replacement: exactly, against all of them; large, infinite, 16-bit logits."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import gumbel
from support.exact import FAST
from support.noise import noise_keys

import scorefn as sf

INF = np.inf
KEY = jax.random.key(3)
x64 = pytest.mark.usefixtures("x64")
fast = partial(jax.jit, compiler_options=FAST)


def log_prob_of(k):
    return lambda logits, x: sf.PlackettLuce(logits, k).log_prob(x)


def one_by_one(logits, x):
    """The log-probability as a product of choices."""
    left = jnp.array([[i not in x[:j] for i in range(len(logits))] for j in range(len(x))])
    totals = jax.nn.logsumexp(jnp.where(left, logits, -INF), axis=-1)
    return jnp.sum(logits[jnp.asarray(x)] - totals)


@x64
@pytest.mark.parametrize("spread", [1.0, 80.0])
@pytest.mark.parametrize("k", [1, 2, None])
def test_the_log_probability_is_a_product_of_choices(k, spread):
    logits = jnp.array([0.3, -0.5, 1.0, 0.1]) * spread
    rows = sf.PlackettLuce(logits, k).values()
    assert len(np.unique(rows, axis=0)) == len(rows) == sf.PlackettLuce(logits, k).num_values

    @fast
    def run(logits):
        fn = log_prob_of(k)
        found = [jax.vmap(d, (None, 0))(logits, rows) for d in (fn, jax.grad(fn), jax.hessian(fn))]
        exact = []
        for derivative in (lambda fn: fn, jax.grad, jax.hessian):
            each = [derivative(partial(one_by_one, x=row))(logits) for row in np.asarray(rows)]
            exact.append(jnp.stack(each))
        return found, exact

    found, exact = run(logits)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-13, atol=1e-13), found, exact)
    np.testing.assert_allclose(jnp.exp(found[0]).sum(), 1, rtol=1e-13)


@x64
@pytest.mark.parametrize("k", [2, None])
def test_draws_have_their_probabilities_exactly(k):
    logits = np.array([0.3, -0.5, 0.9])
    rows, points, weights = gumbel.draws(logits, k or 3)
    ranking = sf.PlackettLuce(jnp.asarray(logits), k)
    drawn, log_probs = fast(
        lambda keys: (jax.vmap(ranking.sample)(keys), jax.vmap(ranking.log_prob)(np.array(rows)))
    )(noise_keys(points))
    np.testing.assert_array_equal(drawn, rows)
    np.testing.assert_allclose(jnp.exp(log_probs), weights, rtol=1e-13)
    assert drawn.dtype == jnp.int32


@x64
@pytest.mark.parametrize("k", [50, None])
def test_a_thousand_items_in_float32(k):
    logits = jnp.clip(40 * jax.random.normal(KEY, 1000, jnp.float32), -80, 80)
    x = sf.PlackettLuce(logits, k).sample(KEY)
    assert len(np.unique(x)) == (k or 1000)
    run = fast(jax.value_and_grad(log_prob_of(k)))
    (value, score), (exact, slope) = run(logits, x), run(logits.astype(jnp.float64), x)
    assert value.dtype == score.dtype == jnp.float32
    np.testing.assert_allclose(value, exact, rtol=1e-5)
    np.testing.assert_allclose(score, slope, rtol=0, atol=2e-4)


INFINITE = np.array(
    [
        [INF, 0.0, 1.0, -INF],
        [INF, INF, 0.0, 2.0],
        [-INF, -INF, -INF, 0.3],
        [-INF] * 4,
        [INF] * 4,
    ]
)


@x64
@pytest.mark.parametrize("k", [1, 2, 3, None])
def test_infinite_logits_are_first_or_last_without_a_derivative(k):
    rows = np.asarray(sf.PlackettLuce(jnp.zeros(4), k).values())

    @fast
    @jax.vmap
    def run(logits):
        fn, ranking = log_prob_of(k), sf.PlackettLuce(logits, k)
        probs = jnp.exp(jax.vmap(ranking.log_prob)(rows))
        scores = jax.vmap(jax.grad(fn), (None, 0))(logits, rows)
        curvatures = jax.vmap(jax.hessian(fn), (None, 0))(logits, rows)
        return probs, scores, curvatures, jax.vmap(ranking.sample)(jax.random.split(KEY, 40))

    results = run(jnp.asarray(INFINITE))
    for i, logits in enumerate(INFINITE):
        probs, scores, curvatures, draws = (np.asarray(result[i]) for result in results)
        # The limit is what 300 in place of infinity gives, up to exp(-300).
        large = jnp.clip(jnp.asarray(logits), -300, 300)
        exact = [jnp.exp(one_by_one(large, row)) for row in rows]
        np.testing.assert_allclose(probs, exact, rtol=0, atol=1e-13)
        for derivative in (scores, curvatures):
            assert np.isfinite(derivative).all()
            assert np.all(derivative[:, np.isinf(logits)] == 0)
        possible = rows[probs > 0]
        drawn = [np.flatnonzero(np.all(draw == possible, axis=1)) for draw in draws]
        assert all(len(found) == 1 for found in drawn)
        # Ties are drawn, not sorted by index.
        assert len(possible) == 1 or len(np.unique(np.concatenate(drawn))) > 1


def test_other_arrays_are_impossible():
    others = jnp.array([[0, 0], [1, 3], [-1, 2], [2, 2]])
    ranking = sf.PlackettLuce(jnp.array([0.1, 0.2, 0.3]), 2)
    np.testing.assert_array_equal(fast(jax.vmap(ranking.log_prob))(others), -INF)


@x64
def test_a_batch_is_independent_rankings_and_the_checks_pass():
    logits = jnp.array([[0.3, -0.5, 0.9], [1.0, 0.2, -0.4]])

    @fast
    def run(logits):
        batch, x = sf.PlackettLuce(logits, 2), sf.PlackettLuce(logits, 2).sample(KEY)
        each = jax.vmap(lambda row, x: sf.PlackettLuce(row, 2).log_prob(x))(logits, x)
        return x, each, batch.log_probs(x), batch.log_prob(x)

    x, each, log_probs, log_prob = run(logits)
    assert x.shape == (2, 2)
    np.testing.assert_allclose(log_probs, each, rtol=1e-13)
    np.testing.assert_allclose(log_prob, each.sum(), rtol=1e-13)
    assert sf.check_score(sf.PlackettLuce(logits, 2), KEY, num_samples=2000).passed

    def loss(logits, key, estimator):
        f = lambda x: jnp.sum((x[:, 0] - 2.0 * x[:, 1]) ** 2)  # noqa: E731
        ranking = sf.PlackettLuce(logits, 2)
        return sf.expectation(f, ranking, key, estimator, num_samples=4)

    exact = fast(jax.grad(partial(loss, estimator=sf.Enumerate())))(logits, KEY)
    scored = partial(loss, estimator=sf.ScoreFunction())
    assert sf.check_unbiased(scored, logits, KEY, exact=exact, num_repeats=2000).passed


def test_sixteen_bits_and_bad_arguments():
    logits = jnp.array([0.5, -1.0, 2.0], jnp.bfloat16)
    x = sf.PlackettLuce(logits).sample(KEY)
    assert jax.eval_shape(log_prob_of(None), logits, x).dtype == jnp.float32
    assert jax.eval_shape(jax.grad(log_prob_of(None)), logits, x).dtype == jnp.bfloat16
    with pytest.raises(ValueError, match=r"k must be at most the number of items, 3 .* got 4"):
        sf.PlackettLuce(logits, 4)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        sf.PlackettLuce(logits, 0)
    with pytest.raises(TypeError, match="k must be a static Python int, got 1.5"):
        sf.PlackettLuce(logits, 1.5)
    with pytest.raises(ValueError, match=r"PlackettLuce needs logits of shape \[..., n\]"):
        sf.PlackettLuce(jnp.zeros(()))
