"""Properties that hold for any logits up to 80, costs of any size, and arrays of any length.

Numbers are made by hypothesis, the same in every run; programs are compiled once for each shape.
"""

import itertools
from functools import cache
from typing import Any

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from hypothesis.extra.numpy import arrays
from support.exact import FAST
from support.noise import noise_keys

import scorefn as sf

pytestmark = pytest.mark.usefixtures("x64")
many = hypothesis.settings(max_examples=60, derandomize=True, deadline=None, database=None)
LOGITS = st.floats(-80, 80) | st.sampled_from([0.0, -80.0, 80.0, -1e-300])
VALUES = st.floats(-1, 1).map(lambda x: round(x, 6))
SCALES = st.sampled_from([1e-30, 1e-8, 1.0, 1e8, 1e30])
OFFSETS = st.sampled_from([0.0, 1.0, 1e8])
ESTIMATORS = {
    "constant": (sf.ScoreFunction(sf.ConstantBaseline(0.0)), 1),
    "leave one out": (sf.ScoreFunction(), 2),
    "Enumerate": (sf.Enumerate(), 1),
}


def rows_of(size: int) -> np.ndarray:
    return np.array(list(itertools.product((0.0, 1.0), repeat=size))).reshape(2**size, size)


@cache
def program(name: str, size: int, kind: type) -> Any:
    """``run(logits, table, keys, weights)``: the mean over all draws of value and gradient."""
    estimator, n = ESTIMATORS[name]
    places = 2 ** np.arange(size)[::-1]

    def loss(logits: jax.Array, table: jax.Array, key: jax.Array) -> jax.Array:
        if kind is sf.Bernoulli:
            f = lambda x: table[jnp.sum(x.astype(int) * places)]  # noqa: E731
        else:
            f = lambda x: table[x.astype(int)]  # noqa: E731
        return sf.expectation(f, kind(logits), key, estimator, num_samples=n)

    def run(logits: jax.Array, table: jax.Array, keys: jax.Array, weights: jax.Array) -> Any:
        one = jax.vmap(jax.value_and_grad(loss), (None, None, 0))
        return [jnp.tensordot(weights, found, 1) for found in one(logits, table, keys)]

    return jax.jit(run, compiler_options=FAST)


def check(name: str, kind: type, logits: np.ndarray, table: np.ndarray) -> None:
    n = ESTIMATORS[name][1]
    if kind is sf.Bernoulli:
        # A bit is 1 where the number is below its probability.
        ones = scipy.special.expit(logits)
        pieces = [([(1 + p) / 2, p / 2], [1 - p, p]) for p in ones]
        probs = [
            np.prod(np.where(row == 1, ones, scipy.special.expit(-logits)))
            for row in rows_of(logits.size)
        ]
        slopes = np.array([row - ones for row in rows_of(logits.size)])
    else:
        probs = scipy.special.softmax(logits)
        edges = np.concatenate([[0], np.cumsum(probs)])
        pieces = [((edges[1:] + edges[:-1]) / 2, probs)]
        slopes = np.eye(logits.size) - probs
    points = list(itertools.product(*[p for p, _ in pieces] * n))
    weights = [np.prod(w) for w in itertools.product(*[w for _, w in pieces] * n)]
    # Numbers of a key lie below 1, and one of probability 0 counts for nothing.
    points = np.clip(np.array(points).reshape(len(points), -1), 0, 1 - 2**-52)
    keys = noise_keys(points, len(pieces))
    value, gradient = program(name, logits.size, kind)(logits, table, keys, np.array(weights))
    largest = np.abs(table).max()
    probs = np.asarray(probs)
    np.testing.assert_allclose(value, probs @ table, rtol=0, atol=1e-13 * largest)
    # Of a score only differences of costs count.
    exact = (probs * (table - probs @ table)) @ slopes
    np.testing.assert_allclose(gradient, exact, rtol=0, atol=4e-13 * largest)


@pytest.mark.parametrize("size", [0, 1, 2])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_any_bits(name: str, size: int) -> None:
    @many
    @hypothesis.given(
        arrays(float, size, elements=LOGITS),
        arrays(float, 2**size, elements=VALUES),
        SCALES,
        OFFSETS,
    )
    def holds(logits: Any, table: Any, scale: float, offset: float) -> None:
        check(name, sf.Bernoulli, logits, scale * (table + offset))

    holds()


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("name", ESTIMATORS)
def test_any_categories(name: str, size: int) -> None:
    @many
    @hypothesis.given(
        arrays(float, size, elements=LOGITS), arrays(float, size, elements=VALUES), SCALES, OFFSETS
    )
    def holds(logits: Any, table: Any, scale: float, offset: float) -> None:
        check(name, sf.Categorical, logits, scale * (table + offset))

    holds()
