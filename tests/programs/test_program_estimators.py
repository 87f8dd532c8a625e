"""Estimators in the middle of a program: exact over every draw, where one bends what they get."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial, reduce
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import expit
from support import gumbel
from support.exact import FAST, Noise, assert_close, derivatives, hermite, pieces, scale
from support.noise import noise_keys

import scorefn as sf

x64 = pytest.mark.usefixtures("x64")
CONSTANT = sf.ScoreFunction(sf.ConstantBaseline(0.7))
P = {
    "mean": np.array(0.4),
    "bits": np.array([0.3, -0.6]),
    "category": np.array([0.9, -0.2, 0.3]),
    "normal": np.array([0.5, -0.4]),
    "last": np.array([0.8, -0.3]),
    "price": np.array(1.2),
}

# ----------------------------------------------------------- the choice in the middle, given z


def logits_of(p: Any, kind: str, z: Any) -> Any:
    """The natural parameters of the choice: a draw before it moves them."""
    return p[kind] + z * np.array([0.5, -0.3, 0.2])[: len(p[kind])]


BUILD: dict[str, Callable[[Any], Any]] = {
    "bits": sf.Bernoulli,
    "category": sf.Categorical,
    "normal": lambda x: distrax.Normal(x[0], jnp.exp(x[1])),
}


def value_of(kind: str, x: Any) -> jax.Array:
    """One number out of a draw."""
    if kind == "bits":
        return x[0] - 1.5 * x[1] + 0.7 * x[0] * x[1]
    return jnp.array([0.4, -1.0, 1.7])[x] if kind == "category" else x


def support_of(kind: str, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Every draw, or the nodes that stand for all of them, and their probabilities."""
    if kind == "bits":
        rows = jnp.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        return rows, jnp.prod(jax.nn.sigmoid((2 * rows - 1) * logits), axis=1)
    if kind == "category":
        return jnp.arange(3), jax.nn.softmax(logits)
    nodes, weights = np.polynomial.hermite_e.hermegauss(6)
    return logits[0] + jnp.exp(logits[1]) * nodes, jnp.asarray(weights / weights.sum())


# ------------------------------------------------------------------------- the program around it


def program(kind: str, estimator: sf.Estimator, num_samples: int) -> Any:
    """A Gaussian by its path, the choice, a Gaussian by its score; a cost of each."""

    @sf.program
    def model(p: Any) -> Any:
        z = yield sf.sample(distrax.Normal(p["mean"], 1.0), sf.Pathwise())
        choice = BUILD[kind](logits_of(p, kind, z))
        x = yield sf.sample(choice, estimator, num_samples=num_samples)
        v = value_of(kind, x)
        yield sf.cost(jnp.sin(z) * p["price"], depends_on=[z])
        yield sf.cost((v + 0.3) ** 2 * p["price"], depends_on=[x])
        y = yield sf.sample(distrax.Normal(p["last"][0] * v + p["last"][1] * z, 1.0), CONSTANT)
        return (y - p["price"] * v + z) ** 2

    return model


FIRST, LAST = hermite(3), hermite(3)


def nodes_of(rule: Noise) -> jax.Array:
    return jax.scipy.special.ndtri(jnp.asarray(rule.points[:, 0]))


def expected(p: Any, kind: str) -> jax.Array:
    total = jnp.zeros(())
    for node, weight in zip(nodes_of(FIRST), FIRST.weights, strict=True):
        z = p["mean"] + node
        xs, probs = support_of(kind, logits_of(p, kind, z))
        v = jax.vmap(lambda x: value_of(kind, x))(xs)[:, None]
        y = p["last"][0] * v + p["last"][1] * z + nodes_of(LAST)
        costs = (y - p["price"] * v + z) ** 2 @ LAST.weights + (v[:, 0] + 0.3) ** 2 * p["price"]
        total += weight * (probs @ costs + jnp.sin(z) * p["price"])
    return total


# ------------------------------------------------------------------- every outcome of its noise


def joined(*rules: Noise) -> Noise:
    return reduce(lambda a, b: a * b, rules)


def fixed(*numbers: float) -> Noise:
    return Noise(np.array([numbers]).reshape(1, -1), np.ones(1))


def flipped(logits: np.ndarray) -> Noise:
    # The lowest bit of the second number says which of the two bits is flipped.
    which = Noise(np.array([[0.5], [0.5 + 2.0**-12]]), np.full(2, 0.5))
    return joined(fixed(0.5), which, *(pieces(expit(x)) for x in logits))


def tail(logits: np.ndarray) -> Noise:
    drawn, points, weights = gumbel.draws(logits, 1)
    rest = [i for i, (x,) in enumerate(drawn) if x != np.argmax(logits)]
    return Noise(points[rest], weights[rest] / weights[rest].sum())


def each_factor(logits: np.ndarray) -> Noise:
    return joined(*(Noise(*gumbel.draws((0.0, x), 1)[1:]) for x in logits))


def by_levels(logits: np.ndarray) -> Noise:
    levels = np.cumsum(np.exp(logits) / np.exp(logits).sum())[:-1]
    return pieces(*levels, *(1 - levels))


def shifted(logits: np.ndarray, n: int) -> Noise:
    """All shifts of the sequence, which all samples share, under one matrix."""
    levels = np.cumsum(np.exp(logits) / np.exp(logits).sum())[:-1]
    shift = pieces(*levels, *((levels + 0.5) % 1), 0.5)
    return joined(fixed(0.0), shift, fixed(*[0.5] * (4 * n - 2)))


def in_strata(logits: np.ndarray, n: int) -> Noise:
    """Both orders of the strata, and each piece of each stratum."""
    levels = np.cumsum(np.exp(logits) / np.exp(logits).sum())[:-1]
    within = pieces(*(n * levels % 1))
    words, uniforms = words_of(256)
    piece = np.searchsorted(np.cumsum(within.weights)[:-1], uniforms)
    own = Noise(
        np.array([[words[piece == i][0], 0.0] for i in range(len(within.weights))]), within.weights
    )
    orders = np.array(list(itertools.permutations((0.2, 0.8)[-n:])))
    shared = Noise(orders, np.full(len(orders), 1 / len(orders)))
    # JAX sorts by the second half of the noise of the key that all samples share.
    first = joined(fixed(*[0.5] * n), shared, own, fixed(*[0.5] * (2 * n - 2)))
    others = joined(fixed(*[0.5] * (2 * n)), own, fixed(*[0.5] * (2 * n - 2)))
    return joined(first, *[others] * (n - 1))


@cache
def words_of(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of noise that make a key of their own, and the uniform number which that gives."""
    words = np.arange(size, dtype=np.uint32)
    data = jnp.stack([jnp.asarray(words), jnp.zeros_like(words)], axis=1)
    keys = jax.random.wrap_key_data(data, impl="threefry2x32")
    bits = jax.vmap(lambda key: jax.random.bits(key, (1,), jnp.uint32))(keys)
    return (words + 0.5) / 2.0**32, np.asarray(bits[:, 0], np.float64) / 2.0**32


@dataclass(frozen=True)
class Case:
    """An estimator, the choice that it is for, and its noise.

    Attributes:
        noise: of n draws side by side, for given parameters of the choice.
        maps: over how many branches the estimator maps the rest, each time that it does.
    """

    estimator: sf.Estimator
    kind: str
    noise: Callable[[Any, int], Noise]
    order: int = 2
    maps: Callable[[int], list[int]] = lambda n: [n]


def alone(rule: Callable[[Any], Noise]) -> Callable[[Any, int], Noise]:
    return lambda logits, n: rule(logits) ** n


CASES = {
    "BitFlip": Case(sf.BitFlip(), "bits", alone(flipped), 1),
    "LocalExpectation": Case(sf.LocalExpectation(), "bits", alone(each_factor), 1),
    "SumAndSample": Case(sf.SumAndSample(1), "category", alone(tail), maps=lambda n: [1, n]),
    "Antithetic": Case(
        sf.Antithetic(sf.Pathwise()), "normal", alone(lambda _: hermite(4)), maps=lambda n: [n, n]
    ),
    "AntitheticByCdf": Case(
        sf.Antithetic(CONSTANT), "category", alone(by_levels), maps=lambda n: [n, n]
    ),
    "QuasiMonteCarlo": Case(sf.QuasiMonteCarlo(CONSTANT), "category", shifted),
    "Stratified": Case(sf.Stratified(CONSTANT), "category", in_strata),
}


def every_key(case: Case, num_samples: int) -> tuple[jax.Array, np.ndarray]:
    """One key for each outcome of all choices, and its weight."""
    maps = case.maps(num_samples)
    numbers, weights = [], []
    for node, first, weight in zip(nodes_of(FIRST), FIRST.points, FIRST.weights, strict=True):
        middle = case.noise(logits_of(P, case.kind, P["mean"] + float(node)), num_samples)
        last = LAST ** sum(maps)
        rule = middle * last
        # A key is a half to draw with, in parts for the samples, and a half for what follows;
        # where that is mapped once more, the noise is what comes next.
        width = middle.width // num_samples
        half = max(middle.width, 2 * max(maps))
        starts = 2 * half + half // num_samples * np.arange(num_samples)
        rests = [
            (3 + j) * half + i * (half // branches)
            for j, branches in enumerate(maps)
            for i in range(branches)
        ]
        rows = np.full((len(rule.points), (3 + len(maps)) * half), 0.5)
        rows[:, 0] = first[0]
        draws = (starts[:, None] + np.arange(width)).ravel()
        rows[:, np.concatenate([draws, rests])] = rule.points
        numbers.append(rows)
        weights.append(weight * rule.weights)
    return noise_keys(np.concatenate(numbers), 4 * half), np.concatenate(weights)


@x64
@pytest.mark.parametrize("num_samples", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_an_estimator_in_the_middle_of_a_program_is_exact(name: str, num_samples: int) -> None:
    case = CASES[name]
    model = program(case.kind, case.estimator, num_samples)
    keys, weights = every_key(case, num_samples)

    @partial(jax.jit, compiler_options=FAST)
    def mean_and_exact(keys: jax.Array, weights: jax.Array) -> Any:
        each = jax.vmap(lambda key: derivatives(lambda p: model(p)(key), P, case.order))(keys)
        mean = [jnp.tensordot(weights, v, 1) for v in each]
        return mean, derivatives(lambda p: expected(p, case.kind), P, case.order)

    mean, exact = mean_and_exact(keys, weights)
    np.testing.assert_allclose(weights.sum(), 1, rtol=0, atol=1e-12)
    assert_close(mean, exact, atol=1e-12 * scale(exact))
