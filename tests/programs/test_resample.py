"""Resampling: the gradients of three targets, over every particle and ancestor; a Kalman filter."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST, Noise, assert_close, pieces
from support.noise import noise_keys
from support.particles import THETA, filtered, likelihood, means
from support.transformations import TRANSFORMATIONS

import scorefn as sf

KEY = jax.random.key(0)
x64 = pytest.mark.usefixtures("x64")
once = partial(jax.jit, compiler_options=FAST)


def value(theta: Any, run: Any) -> jax.Array:
    """Z-hat with the weights that carry the derivative."""
    return jnp.exp(filtered(theta, run, carried=True)[0])


# ------------------------------------------------------------------------------------ three targets


@x64
@pytest.mark.parametrize(("n", "order"), [(2, 3), (3, 1)])
def test_every_derivative_of_the_likelihood_is_unbiased(n: int, order: int) -> None:
    wanted = [likelihood]
    for _ in range(order):
        wanted.append(jax.jacfwd(wanted[-1]))
    assert_close(means(n, value, order), [fn(THETA) for fn in wanted], atol=1e-13)


@x64
@pytest.mark.parametrize(("n", "error"), [(2, 0.828), (3, 0.461)])
def test_the_gradient_of_the_log_likelihood_is_too_small(n: int, error: float) -> None:
    exact = jax.grad(lambda theta: jnp.log(likelihood(theta)))(THETA)
    _, found = means(n, lambda theta, run: filtered(theta, run, carried=True)[0])
    np.testing.assert_allclose(1 - found / exact, error, atol=5e-4)


@x64
def test_without_the_weights_the_gradient_of_the_likelihood_is_wrong() -> None:
    ignored = lambda theta, run: jnp.exp(filtered(theta, run, carried=True, stopped=True)[0])  # noqa: E731
    value, slope = means(2, ignored)
    assert_close(value, likelihood(THETA), atol=1e-13)
    assert abs(slope / jax.grad(likelihood)(THETA) - 1) > 0.1


@x64
def test_the_gradient_of_the_bound_takes_the_scores_of_all_draws() -> None:
    """Against the derivative of the sum of probability times log(Z-hat) over all runs."""
    plain = partial(filtered, carried=False)

    def scored(theta: Any, run: Any) -> jax.Array:
        return sf.attach_score(*plain(theta, run))

    def bound(theta: Any, run: Any) -> jax.Array:
        # With the factor of `means`, the derivative of probability times value.
        log_z, log_prob = plain(theta, run)
        return log_z * jnp.exp(log_prob - jax.lax.stop_gradient(log_prob))

    wanted = means(2, bound, order=2)
    assert_close(means(2, scored, order=2), wanted, atol=1e-12)
    assert wanted[0] < jnp.log(likelihood(THETA))
    # The carried weights, without scores, are an estimate of another thing.
    _, carried = means(2, lambda theta, run: filtered(theta, run, carried=True)[0])
    assert abs(carried - wanted[1]) > 1e-3


# --------------------------------------------------------------------------------------- one step

LOG_WEIGHTS = np.array([0.3, -1.0, 0.8])
HEIGHTS = np.array([2.0, -1.0, 4.0])


def weighted_mean(log_weights: Any, key: Any = None, ancestors: Any = None) -> jax.Array:
    found = sf.resample(log_weights, key, ancestors=ancestors)
    return jnp.mean(jnp.exp(found.log_weights) * jnp.asarray(HEIGHTS)[found.ancestors])


def exact_mean(log_weights: Any) -> jax.Array:
    return jnp.mean(jnp.exp(log_weights) * HEIGHTS)


@x64
def test_the_drawn_ancestors_are_independent_and_weighted() -> None:
    """Through the real keys: every triple of pieces of the inverse cdf."""
    probs = np.exp(LOG_WEIGHTS) / np.exp(LOG_WEIGHTS).sum()
    rule: Noise = pieces(*np.cumsum(probs)[:-1]) ** 3
    keys = noise_keys(rule.points, 3)

    def mean(log_weights: Any) -> jax.Array:
        return rule.weights @ jax.vmap(partial(weighted_mean, log_weights))(keys)

    for derivative in (lambda f: f, jax.grad, jax.hessian):
        got, wanted = (once(derivative(f))(LOG_WEIGHTS) for f in (mean, exact_mean))
        assert_close(got, wanted, atol=1e-9)
    drawn, _, log_probs = jax.vmap(lambda key: sf.resample(LOG_WEIGHTS, key))(keys)
    assert len(set(map(tuple, np.asarray(drawn).tolist()))) == 27
    np.testing.assert_allclose(np.exp(log_probs), probs[np.asarray(drawn)].prod(1), rtol=1e-12)


@x64
def test_systematic_ancestors_are_unbiased_too() -> None:
    borders = np.cumsum(np.exp(LOG_WEIGHTS)) / np.exp(LOG_WEIGHTS).sum()
    rule = pieces(*(3 * borders % 1))
    strata = (rule.points + np.arange(3)) / 3
    ancestors = np.sum(strata[..., None] > borders[:-1], -1)

    def mean(log_weights: Any) -> jax.Array:
        each = jax.vmap(lambda a: weighted_mean(log_weights, ancestors=a))(ancestors)
        return rule.weights @ each

    got, wanted = (once(jax.grad(f))(LOG_WEIGHTS) for f in (mean, exact_mean))
    assert_close(got, wanted, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_keep_their_dtype(dtype: str) -> None:
    found = sf.resample(jnp.array([0.0, -1.0, 2.0], dtype), KEY)
    assert found.log_weights.dtype == jnp.dtype(dtype)
    assert found.ancestors.shape == (3,)


def test_impossible_particles_are_never_drawn_and_add_no_nan() -> None:
    def total(log_weights: Any, key: jax.Array) -> jax.Array:
        found = sf.resample(jnp.where(jnp.arange(3) == 1, -jnp.inf, log_weights), key)
        return jnp.sum(found.log_weights) + found.log_prob

    keys = jax.random.split(KEY, 64)
    weights = jnp.array([0.0, 50.0, 2.0])
    drawn = jax.vmap(lambda key: sf.resample(weights.at[1].set(-jnp.inf), key).ancestors)(keys)
    assert set(np.unique(drawn)) == {0, 2}
    slopes = jax.vmap(jax.grad(total), (None, 0))(weights, keys)
    assert jnp.all(jnp.isfinite(slopes))
    assert jnp.all(slopes[:, 1] == 0)


def test_a_likelihood_of_zero_stays_zero() -> None:
    def likelihood(scale: Any) -> jax.Array:
        found = sf.resample(jnp.full(4, -jnp.inf) + scale, KEY)
        return jnp.mean(jnp.exp(found.log_weights))

    estimate, slope = jax.value_and_grad(likelihood)(1.0)
    assert estimate == 0
    assert slope == 0


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match=r"log_weights must be \[n\]"):
        sf.resample(jnp.zeros((2, 3)), KEY)
    with pytest.raises(ValueError, match="a key, or the ancestors"):
        sf.resample(jnp.zeros(3))
    with pytest.raises(ValueError, match="a key, or the ancestors"):
        sf.resample(jnp.zeros(3), KEY, ancestors=jnp.arange(3))
    with pytest.raises(TypeError, match="ancestors must be 3 integers"):
        sf.resample(jnp.zeros(3), ancestors=jnp.zeros(3))
    with pytest.raises(TypeError, match="ancestors must be 3 integers"):
        sf.resample(jnp.zeros(3), ancestors=jnp.arange(2))
    with pytest.raises(TypeError, match="key must be a random key"):
        sf.resample(jnp.zeros(3), 0)


# --------------------------------------------------------------------------------- a Kalman filter

OBSERVATIONS = np.array([0.4, -0.3, 1.1, 0.9, -0.2, 0.5])
KALMAN = {"pull": np.array(0.8), "move": np.array(0.6), "see": np.array(0.5)}


def normal(x: Any, mean: Any, scale: Any) -> jax.Array:
    return jax.scipy.stats.norm.logpdf(x, mean, scale)


def kalman(params: Any) -> jax.Array:
    """log Z of x' = pull x + move noise, y = x + see noise, from x = 0."""
    mean, variance, total = jnp.zeros(()), jnp.zeros(()), jnp.zeros(())
    for y in OBSERVATIONS:
        mean = params["pull"] * mean
        variance = params["pull"] ** 2 * variance + params["move"] ** 2
        seen = variance + params["see"] ** 2
        total += normal(y, mean, jnp.sqrt(seen))
        mean += variance / seen * (y - mean)
        variance -= variance**2 / seen
    return total


def ratio(params: Any, key: jax.Array, *, n: int, scored: bool) -> jax.Array:
    """Z-hat / Z, whose gradient has the mean grad log Z."""
    stop = jax.lax.stop_gradient

    def step(carry: Any, given: Any) -> Any:
        (x, log_weights), (y, key) = carry, given
        resample_key, noise_key = jax.random.split(key)
        ancestors, log_weights, _ = sf.resample(log_weights, resample_key)
        mean = params["pull"] * x[ancestors]
        x = mean + params["move"] * jax.random.normal(noise_key, (n,))
        if scored:
            x = stop(x)
            log_density = normal(x, mean, params["move"])
            log_weights += log_density - stop(log_density)
        return (x, log_weights + normal(y, x, params["see"])), None

    keys = jax.random.split(key, len(OBSERVATIONS))
    start = jnp.zeros(n), jnp.zeros(n)
    (_, log_weights), _ = jax.lax.scan(step, start, (jnp.asarray(OBSERVATIONS), keys))
    return jnp.mean(jnp.exp(log_weights - stop(kalman(params))))


@pytest.mark.slow
@x64
@pytest.mark.parametrize("scored", [True, False])
def test_the_gradient_agrees_with_a_kalman_filter(*, scored: bool) -> None:
    """Particles by their score, and by their path. A false alarm in 1e-9 of the keys."""
    params = jax.tree.map(jnp.asarray, KALMAN)
    loss = partial(ratio, n=64, scored=scored)
    exact = jax.grad(kalman)(params)
    report = sf.check_unbiased(loss, params, KEY, exact=exact, num_repeats=4096, alpha=1e-9)
    assert report.passed, report
    spread = jax.tree.map(lambda se, e: abs(se / e), report.standard_error, report.exact)
    assert max(jax.tree.leaves(spread)) < 0.1, "the test would see an error of a few tenths"


@pytest.mark.slow
@x64
def test_every_transformation_gives_the_same_gradient() -> None:
    flat = jnp.array([0.8, 0.6, 0.5])

    def loss(flat: jax.Array, key: jax.Array) -> jax.Array:
        return ratio(dict(zip(KALMAN, flat, strict=True)), key, n=3, scored=True)

    def all_of_them(flat: jax.Array, key: jax.Array) -> Any:
        return {name: by(loss)(flat, key) for name, by in TRANSFORMATIONS.items()}

    found = once(all_of_them)(flat, KEY)
    wanted = once(jax.grad(loss))(flat, KEY)
    assert np.ptp(wanted) > 1e-3
    assert_close(found, dict.fromkeys(found, wanted), atol=1e-12)
    hessians = [jax.hessian(loss), jax.jacrev(jax.jacrev(loss))]
    one, other = once(lambda flat, key: [h(flat, key) for h in hessians])(flat, KEY)
    assert_close(one, other, atol=1e-11)
