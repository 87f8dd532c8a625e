"""Statistics of costs: against all subsets, all samples, and other programs in more digits."""

import itertools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import gammaln

import scorefn as sf

x64 = pytest.mark.usefixtures("x64")
COSTS = np.array([0.5, 2.0, -1.0, 2.0, 7.0, 0.0])
VALUES, PROBS = np.array([0.0, 0.2, 0.5, 1.0]), np.array([0.4, 0.3, 0.2, 0.1])


def mean_over_samples(statistic: Callable[[Any], Any], n: int) -> np.ndarray:
    """The exact mean of a statistic over all samples of n of four values."""
    draws = np.array(list(itertools.product(range(4), repeat=n)))
    return PROBS[draws].prod(1) @ np.asarray(jax.vmap(statistic)(jnp.asarray(VALUES[draws])))


# -------------------------------------------------------------------------------- the largest of k


@x64
@pytest.mark.parametrize("k", range(1, 7))
def test_the_largest_of_k_is_the_mean_over_all_subsets(k: int) -> None:
    subsets = [max(s) for s in itertools.combinations(COSTS, k)]
    np.testing.assert_allclose(sf.expected_max(COSTS, k), np.mean(subsets), atol=1e-14)


@x64
@pytest.mark.parametrize(("n", "k"), [(1, 1), (3, 3), (5, 2), (6, 4)])
def test_the_largest_of_k_is_unbiased(n: int, k: int) -> None:
    found = mean_over_samples(lambda costs: sf.expected_max(costs, k), n)
    below = np.cumsum(PROBS) ** k
    np.testing.assert_allclose(found, VALUES @ np.diff(below, prepend=0), atol=1e-14)


@x64
def test_the_derivative_of_the_largest_of_k_is_that_of_the_subsets() -> None:
    found = jax.grad(lambda costs: sf.expected_max(costs, 3))(jnp.asarray(COSTS + 1e-3 * COSTS**2))
    largest = [max(s, key=COSTS.__getitem__) for s in itertools.combinations(range(6), 3)]
    share = np.bincount(largest, minlength=6) / len(largest)
    # Two costs are equal: their shares may go to either.
    np.testing.assert_allclose(np.sort(found), np.sort(share), atol=1e-14)


@pytest.mark.parametrize("k", [1, 2, 50, 10_000, 19_999, 20_000])
def test_the_largest_of_k_of_many_in_single_precision(k: int) -> None:
    """Against logarithms of binomials in double precision, with and without a large offset."""
    n = 20_000
    costs = np.random.default_rng(0).normal(size=n).astype(np.float32)
    i = np.arange(k, n + 1)
    log = gammaln(i) - gammaln(k) - gammaln(i - k + 1)
    log -= gammaln(n + 1) - gammaln(k + 1) - gammaln(n - k + 1)
    for offset, atol in ((0, 3e-6), (4096, 6e-4)):
        moved = costs + np.float32(offset)
        desired = np.exp(log) @ np.sort(moved.astype(float))[k - 1 :]
        desired /= np.exp(log).sum()
        np.testing.assert_allclose(sf.expected_max(moved, k), desired, rtol=0, atol=atol)


# ------------------------------------------------------------------------------------------- CVaR


@x64
@pytest.mark.parametrize("level", [0.0, 0.1, 0.5, 0.6, 0.75, 0.9, 0.999])
def test_cvar_is_the_minimum_of_rockafellar_and_uryasev(level: float) -> None:
    # The minimum lies at one of the costs.
    lines = [t + np.maximum(COSTS - t, 0).mean() / (1 - level) for t in COSTS]
    np.testing.assert_allclose(sf.cvar(COSTS, level), min(lines), atol=1e-12)
    # At the smallest t that is a minimum, costs above it count by 1 / (n (1 - level)).
    gradient = jax.grad(sf.cvar)(jnp.asarray(COSTS), level)
    np.testing.assert_allclose(gradient.sum(), 1, atol=1e-12)
    assert gradient.min() >= 0
    assert gradient.max() <= 1 / min(6 * (1 - level), 6) + 1e-12 or level > 5 / 6


def order_statistics(n: int) -> np.ndarray:
    """The expected values of n sorted exponential costs."""
    return np.cumsum(1 / np.arange(n, 0, -1))


@x64
def test_cvar_is_biased_downward_by_the_inverse_of_the_number_of_samples() -> None:
    """Exact for exponential costs: the statistic is linear in the sorted costs."""
    bias = {n: sf.cvar(order_statistics(n), 0.9) - (1 + math.log(10)) for n in (20, 40, 400, 4000)}
    np.testing.assert_allclose([bias[20], bias[400]], [-0.2048, -0.0112], atol=6e-5)
    np.testing.assert_allclose(4000 * bias[4000], 400 * bias[400], rtol=0.02)


@x64
@pytest.mark.parametrize("k", [1, 2, 10, 20])
def test_the_largest_of_k_exponential_costs(k: int) -> None:
    found = sf.expected_max(order_statistics(20), k)
    np.testing.assert_allclose(found, np.sum(1 / np.arange(1, k + 1)), atol=1e-13)


@x64
def test_the_level_is_swept_and_differentiated() -> None:
    levels = jnp.array([0.2, 0.55, 0.7])
    both = jax.vmap(jax.value_and_grad(sf.cvar, argnums=1), (None, 0))(jnp.asarray(COSTS), levels)
    step = 1e-6
    for level, value, slope in zip(levels, *both, strict=True):
        assert value == sf.cvar(COSTS, level)
        difference = sf.cvar(COSTS, level + step) - sf.cvar(COSTS, level - step)
        np.testing.assert_allclose(slope, difference / (2 * step), rtol=1e-6)


# -------------------------------------------------------------------------------------- all of them

STATISTICS: dict[str, Callable[[Any], jax.Array]] = {
    "expected_max": lambda costs: sf.expected_max(costs, 2),
    "cvar": lambda costs: sf.cvar(costs, 0.6),
    "entropic_risk": lambda costs: sf.entropic_risk(costs, 0.7),
}


@x64
@pytest.mark.parametrize("name", STATISTICS)
def test_they_reduce_the_first_axis_of_any_array(name: str) -> None:
    costs = np.random.default_rng(1).normal(size=(5, 2, 3)) * 3
    with jax.numpy_rank_promotion("raise"):
        whole = STATISTICS[name](costs)
    assert whole.shape == (2, 3)
    for i, j in np.ndindex(2, 3):
        one = STATISTICS[name](costs[:, i, j])
        np.testing.assert_allclose(whole[i, j], one, atol=1e-14)


@pytest.mark.parametrize("name", STATISTICS)
def test_they_keep_the_dtype(name: str) -> None:
    for dtype in (jnp.bfloat16, jnp.float16, jnp.float32):
        with jax.numpy_dtype_promotion("strict"):
            value = STATISTICS[name](jnp.asarray(COSTS, dtype))
        assert value.dtype == dtype
        desired = STATISTICS[name](jnp.asarray(COSTS, jnp.float32))
        np.testing.assert_allclose(float(value), desired, rtol=float(jnp.finfo(dtype).eps) * 2)


@pytest.mark.parametrize("name", STATISTICS)
def test_an_impossible_cost_stays_visible(name: str) -> None:
    assert STATISTICS[name]([1.0, math.inf, 2.0]) == math.inf
    # A cost of weight 0 adds nothing.
    assert sf.expected_max([1.0, -math.inf, 2.0], 3) == 2
    assert sf.cvar([1.0, -math.inf, 2.0], 0.7) == 2


@x64
@pytest.mark.parametrize("aversion", [-1.3, 0.0, 1e-7, 0.7])
def test_the_entropic_risk_is_the_logarithm_of_the_mean(aversion: float) -> None:
    value = sf.entropic_risk(COSTS, aversion)
    if aversion == 0:
        np.testing.assert_allclose(value, COSTS.mean(), atol=1e-14)
    else:
        exact = np.log1p(np.mean(np.expm1(aversion * COSTS))) / aversion
        np.testing.assert_allclose(value, exact, atol=1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sf.expected_max(COSTS, 7), "k must be at most the number of costs, 6, got 7"),
        (lambda: sf.expected_max(COSTS, 0), "k must be at least 1"),
        (lambda: sf.expected_max(1.0, 1), r"costs must be an array \[n, ...\] of n samples"),
        (lambda: sf.cvar(COSTS, 1.0), "level must be below 1"),
        (lambda: sf.cvar(COSTS, -0.1), "level must be at least 0"),
        (lambda: sf.entropic_risk(jnp.zeros(0), 1.0), r"costs must be an array \[n, ...\]"),
    ],
)
def test_what_does_not_fit_raises(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
