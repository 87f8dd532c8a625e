"""Paths of a Markov chain: density, draws and scores are those of the sum over all paths."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from support.exact import FAST, assert_close, derivatives, exact_moments, pieces, scale
from support.noise import noise_keys

import scorefn as sf

x64 = pytest.mark.usefixtures("x64")
fast = partial(jax.jit, compiler_options=FAST)
KEY = jax.random.key(5)
PATHS = np.array(list(itertools.product(range(3), repeat=3)))
PARAMS = {
    "start": np.array([0.2, -0.5, 0.7]),
    "move": np.array([[0.1, 1.0, -0.3], [0.5, -0.2, 0.4], [-1.0, 0.3, 0.8]]),
    "seen": np.array([-1.0, 0.2, 1.5]),
}
SEEN = np.array([0.3, -0.8, 1.1])


def chain(p: Any, *, weighted: bool = True) -> sf.MarkovChain:
    return sf.MarkovChain(
        sf.Categorical(p["start"]),
        lambda z, t: sf.Categorical(jnp.asarray(p["move"])[z] + 0.1 * t),
        length=3,
        log_weight=(lambda z, t: -((jnp.asarray(p["seen"])[z] - jnp.asarray(SEEN)[t]) ** 2))
        if weighted
        else None,
    )


def log_probs(p: Any, *, weighted: bool = True) -> jax.Array:
    """The log-probabilities of all paths, written without the library."""
    moves = jnp.stack([jax.nn.log_softmax(p["move"] + 0.1 * t) for t in (1, 2)])
    start, (a, b, c) = jax.nn.log_softmax(p["start"]), PATHS.T
    total = start[a] + moves[0, a, b] + moves[1, b, c]
    if weighted:
        total -= jnp.sum((p["seen"][PATHS] - SEEN) ** 2, axis=-1)
    return jax.nn.log_softmax(total)


def price(z: jax.Array) -> jax.Array:
    """A cost that does not add up along the path."""
    return jnp.max(z * jnp.arange(1, 4)) ** 2.0 + z[0] * z[2]


def rule() -> Any:
    """Numbers that lead to every path: the last one draws the last state, and so on backwards."""
    p = np.exp(log_probs(PARAMS)).reshape(3, 3, 3)
    last, second = p.sum((0, 1)), p.sum(0)
    first = np.cumsum(p / p.sum(0), axis=0)[:2]
    middle = np.cumsum(second / second.sum(0), axis=0)[:2]
    return pieces(*first.ravel()) * pieces(*middle.ravel()) * pieces(*np.cumsum(last)[:2])


@x64
@pytest.mark.parametrize("weighted", [True, False])
def test_the_log_probability_is_that_of_the_sum_over_all_paths(*, weighted: bool) -> None:
    @fast
    def run() -> Any:
        found = lambda p: jax.vmap(chain(p, weighted=weighted).log_prob)(PATHS)  # noqa: E731
        exact = partial(log_probs, weighted=weighted)
        return [derivatives(fn, PARAMS, 2) for fn in (found, exact)]

    found, exact = run()
    assert_close(found, exact, atol=1e-12 * scale(exact))


@x64
def test_paths_are_drawn_with_their_probabilities_exactly() -> None:
    noise = rule()
    drawn = fast(jax.vmap(chain(PARAMS).sample))(noise_keys(noise.points))
    found = [noise.weights[np.all(drawn == path, axis=1)].sum() for path in PATHS]
    np.testing.assert_allclose(found, np.exp(log_probs(PARAMS)), rtol=0, atol=1e-12)


@x64
def test_scores_of_paths_have_the_exact_mean() -> None:
    estimator = sf.ScoreFunction(sf.ConstantBaseline(3.0))

    def loss(p: Any, key: jax.Array) -> jax.Array:
        return sf.expectation(price, chain(p), key, estimator)

    mean, _ = exact_moments(lambda key: derivatives(lambda p: loss(p, key), PARAMS, 1), rule(), 1)
    prices = np.array([price(path) for path in PATHS])
    exact = derivatives(lambda p: jnp.exp(log_probs(p)) @ prices, PARAMS, 1)
    assert_close(mean, exact, atol=1e-12 * scale(exact))
    summed = lambda p: sf.expectation(price, chain(p), KEY, sf.Enumerate(PATHS))  # noqa: E731
    gradient = fast(jax.grad(summed))(PARAMS)
    assert_close(ravel_pytree(gradient)[0], exact[1][0], atol=1e-12 * scale(exact))
    report = sf.check_unbiased(
        lambda p, key: sf.expectation(price, chain(p), key, sf.ScoreFunction(), num_samples=4),
        PARAMS,
        KEY,
        exact=gradient,
        num_repeats=1000,
    )
    assert report.passed


@x64
def test_a_long_chain_with_impossible_states_and_a_support_of_pytrees() -> None:
    states = {"x": jnp.array([0.0, 1.0, 0.0, 1.0]), "y": jnp.array([0, 0, 1, 1])}

    def log_prob(p: Any, z: Any) -> jax.Array:
        return sf.Bernoulli(p).log_prob(z["x"]) + sf.Bernoulli(2 * p).log_prob(z["y"])

    def long(p: jax.Array) -> sf.MarkovChain:
        pair = lambda logit: sf.Distribution(log_prob, lambda *_: None, logit)  # noqa: E731
        return sf.MarkovChain(
            pair(p),
            lambda z, _: pair(p + z["x"]),
            length=500,
            # Never two ones at once.
            log_weight=lambda z, _: jnp.where(z["x"] * z["y"] == 1, -jnp.inf, p * z["x"]),
            support=states,
        )

    @fast
    def run(p: jax.Array) -> Any:
        z = long(p).sample(KEY)
        both = jax.tree.map(jnp.ones_like, z)
        value = lambda p, z: long(p).log_prob(z)  # noqa: E731
        return z, jax.value_and_grad(value)(p, z), jax.value_and_grad(value)(p, both)

    z, (value, score), (impossible, slope) = run(jnp.array(0.3))
    assert z["x"].shape == z["y"].shape == (500,)
    assert z["y"].dtype == states["y"].dtype
    assert {*zip(np.array(z["x"]), np.array(z["y"]), strict=True)} == {(0, 0), (1, 0), (0, 1)}
    assert np.isfinite([value, score, slope]).all()
    assert impossible == -np.inf


def test_bad_arguments_raise() -> None:
    with pytest.raises(ValueError, match="length must be at least 1, got 0"):
        sf.MarkovChain(sf.Bernoulli(0.1), lambda *_: sf.Bernoulli(0.1), length=0)
    pair = sf.MarkovChain(sf.Bernoulli(0.1), lambda *_: sf.Bernoulli(0.1), length=1)
    assert pair.sample(KEY).shape == (1,)
    normal = sf.Distribution(lambda m, x: -((x - m) ** 2), lambda m, _: m, 0.0)
    with pytest.raises(ValueError, match="Enumerate cannot read the support of"):
        sf.MarkovChain(normal, lambda *_: normal, length=2).sample(KEY)
