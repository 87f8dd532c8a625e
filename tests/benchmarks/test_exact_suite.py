"""The suite `exact`, against sums that are made in another way."""

import itertools
from collections.abc import Iterable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from support.results import committed

from benchmarks.suites.exact import (
    greeks,
    group_size,
    moments,
    particles,
    random_walk,
    unrolls,
)
from benchmarks.suites.exact.policies import POLICIES


def _found(rows: Iterable[dict[str, object]]) -> dict[object, tuple[object, object]]:
    return {row["estimator"]: (row["bias"], row["deviation"]) for row in rows}


def test_groups_stand_for_all_ordered_draws() -> None:
    """With three draws of four answers, over all 64 triples."""
    answers = POLICIES["graded rewards"]
    triples = np.array(list(itertools.product(range(4), repeat=3)))
    weights = np.prod(answers.probs[triples], axis=1)
    f = answers.rewards[triples]
    others = (f.sum(axis=1, keepdims=True) - f) / 2
    expected = moments.row(
        "", "", "", 3, answers.gradient, answers.estimates(triples, f - others), weights
    )
    found = _found(group_size._rows("", answers, 3))
    for name in (group_size.LEAVE_ONE_OUT, group_size.FORMULA):
        np.testing.assert_allclose(found[name], (0, expected["deviation"]), rtol=1e-6, atol=1e-7)
    assert np.sum(answers.groups(3)[1]) == pytest.approx(1)


@pytest.mark.parametrize(("n", "bias"), [(2, 0.828), (3, 0.461)])
def test_the_particle_filter_agrees_with_the_page(n: int, bias: float) -> None:
    """docs/particle_filter.md, whose numbers are sums over all runs of `resample` itself."""
    found = _found(particles.rows({"particles": [n]}))
    np.testing.assert_allclose(found[particles.LOG_LIKELIHOOD][0], bias, atol=5e-4)
    assert found[particles.LIKELIHOOD][0] < 1e-12


def test_the_random_walk_agrees_with_a_sum_over_all_walks() -> None:
    """Four steps, of which one is changed; after it both walks take theirs on their own."""
    n, p = 4, random_walk.PLACE

    def up(x: int) -> float:
        return float(np.exp(-x / p))

    def slope(x: int) -> float:
        return up(x) * x / p**2

    def all_moves(length: int) -> Iterable[tuple[int, ...]]:
        return itertools.product((1, -1), repeat=length)

    def walk(x: int, moves: tuple[int, ...]) -> tuple[int, float, float]:
        """The last place, the probability of the moves, and their score."""
        chance, score = 1.0, 0.0
        for move in moves:
            chance *= up(x) if move > 0 else 1 - up(x)
            if 0 < chance:
                score += slope(x) / (up(x) if move > 0 else up(x) - 1)
            x += move
        return x, chance, score

    walks = [walk(0, moves) for moves in all_moves(n)]
    gradient = sum(chance * score * x**2 for x, chance, score in walks if chance > 0)
    square = sum(chance * (score * x**2) ** 2 for x, chance, score in walks if chance > 0)
    mean = changed = 0.0
    for t in range(n):
        for before in all_moves(t):
            x, chance, _ = walk(0, before)
            for one, other in itertools.product(all_moves(n - t - 1), repeat=2):
                if chance == 0:
                    continue
                (y, first, _), (z, second, _) = walk(x + 1, one), walk(x - 1, other)
                if x == 0:
                    continue
                estimate, weight = n * slope(x) * (y**2 - z**2), chance * first * second / n
                mean, changed = mean + weight * estimate, changed + weight * estimate**2
    np.testing.assert_allclose(mean, gradient, rtol=1e-12)
    found = _found(random_walk.rows({"walks": [n]}))
    for name, second_moment in ((random_walk.SCORE, square), (random_walk.ALONE, changed)):
        deviation = np.sqrt(second_moment - gradient**2) / gradient
        np.testing.assert_allclose(found[name][1], deviation, rtol=1e-10)


def test_european_greeks_are_those_of_black_and_scholes() -> None:
    spot, vol = map(float, greeks.AT)
    spread = vol * np.sqrt(greeks.TIME)
    drift = greeks.RATE - greeks.DIVIDEND
    d1 = (np.log(spot / greeks.STRIKE) + drift * greeks.TIME) / spread + spread / 2
    discount = np.exp(-greeks.DIVIDEND * greeks.TIME)
    density = discount * scipy.stats.norm.pdf(d1)
    expected = {
        "delta": discount * scipy.stats.norm.cdf(d1),
        "vega": spot * density * np.sqrt(greeks.TIME),
        "gamma": density / (spot * spread),
    }
    line = np.linspace(-7, 7, 20_001)
    weights = scipy.stats.norm.pdf(line) / np.sum(scipy.stats.norm.pdf(line))
    for greek, names in greeks.GREEKS.items():
        for name in names:
            each = jax.jit(jax.vmap(greeks._estimates(name, greek)))(
                jnp.asarray(line, jnp.float32)[:, None]
            )
            np.testing.assert_allclose(weights @ np.asarray(each), expected[greek], rtol=1e-3)


def test_both_gradients_of_an_unroll_have_the_same_mean() -> None:
    found = _found(unrolls.rows({"unrolls": [5], "unroll points": 100_000}))
    assert found[unrolls.PATH][0] < 1e-6
    assert found[unrolls.STRATEGY][0] == 0


def test_biases_are_where_they_are_known_to_be() -> None:
    rows = committed("exact")["rows"]
    none = [
        row["bias"]
        for row in rows
        if row["estimator"]
        in (group_size.LEAVE_ONE_OUT, particles.LIKELIHOOD, "k1 in the reward", "k2 in the loss")
        and "older" not in row["case"]
    ]
    assert max(none) < 1e-5
    grpo = [row for row in rows if row["estimator"] == group_size.WHITENED]
    assert min(row["bias"] for row in grpo if row["size"] > 2) > 0.3
