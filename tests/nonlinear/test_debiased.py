"""Statistics without bias: exact at each level, and closed forms over all levels."""

import itertools
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import betaln, digamma, polygamma
from support.exact import FAST, derivatives, exact_moments, pieces
from support.transformations import fast

import scorefn as sf
from scorefn._nonlinear.debiased import Level, _level_of

x64 = pytest.mark.usefixtures("x64")
RATIO = 2**-1.5
VALUES, PROB = np.array([0.5, 2.0]), 0.3
STATISTICS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "log": lambda x: jnp.log(jnp.mean(x, 0)),
    "inverse": lambda x: 1 / jnp.mean(x, 0),
    "cvar": lambda x: sf.cvar(x, 0.6),
    "ratio": lambda x: jnp.mean(jnp.sin(x)) / jnp.mean(x),
}


def level_of(level: int, ratio: float = RATIO) -> Level:
    """The level with its probability, as `random_level` returns it."""
    return _level_of(ratio ** (level + 0.5), ratio)


# ------------------------------------------------------------------------------------- each level


def coins(n: int) -> tuple[np.ndarray, np.ndarray]:
    """All samples of n costs of two values, and their probabilities."""
    ones = np.array(list(itertools.product([0, 1], repeat=n)))
    return VALUES[ones], np.where(ones == 1, PROB, 1 - PROB).prod(1)


def mean_over_coins(statistic: Callable[[jax.Array], jax.Array], n: int) -> float:
    costs, weights = coins(n)
    return float(weights @ fast(jax.vmap(statistic))(jnp.asarray(costs)))


@x64
@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize(("level", "n"), [(0, 1), (0, 3), (1, 2), (2, 1)])
def test_the_mean_at_a_level_is_a_step_of_the_telescoping_sum(
    name: str, level: int, n: int
) -> None:
    statistic, chosen = STATISTICS[name], level_of(level)
    found = mean_over_coins(sf.debiased(statistic, chosen), n * chosen.size)
    block, half, whole = (
        mean_over_coins(statistic, m) for m in (n, n * chosen.size // 2, n * chosen.size)
    )
    assert abs(whole - half) > 1e-4
    np.testing.assert_allclose(found, block + (whole - half) / chosen.probability, atol=1e-12)


@x64
@pytest.mark.parametrize("name", STATISTICS)
@pytest.mark.parametrize(("level", "n", "ratio"), [(0, 3, RATIO), (1, 2, 0.4), (2, 1, RATIO)])
def test_roulette_adds_every_step_over_the_chance_to_reach_it(
    name: str, level: int, n: int, ratio: float
) -> None:
    statistic, chosen = STATISTICS[name], level_of(level, ratio)
    found = mean_over_coins(sf.debiased(statistic, chosen, roulette=True), n * chosen.size)
    means = [mean_over_coins(statistic, n * 2**j) for j in range(level + 2)]
    assert abs(means[-1] - means[0]) > 1e-4
    reached = [1 - sum(level_of(i, ratio).probability for i in range(j)) for j in range(level + 1)]
    steps = [(means[j + 1] - means[j]) / reached[j] for j in range(level + 1)]
    np.testing.assert_allclose(found, means[0] + sum(steps), atol=1e-12)


def test_roulette_over_all_levels_is_the_limit() -> None:
    """Exponential costs: beyond level 45 the value is that of the last to 1e-12."""
    means = [mean_of_log(2**j) for j in range(47)]
    steps = [(means[j + 1] - means[j]) / RATIO**j for j in range(46)]
    values = [means[0] + sum(steps[: i + 1]) for i in range(46)]
    total = sum(level_of(i).probability * value for i, value in enumerate(values))
    assert abs(means[0]) > 0.1
    assert abs(total + RATIO**46 * values[-1]) < 1e-12


@x64
@pytest.mark.parametrize("name", ["log", "inverse"])
def test_derivatives_by_scores_at_a_level(name: str) -> None:
    """Derivatives of the same sum along the probability of the coin, to second order."""
    level, statistic = level_of(1), STATISTICS[name]
    around = sf.SampleStatistic(sf.ScoreFunction(), sf.debiased(statistic, level))

    def loss(logit: jax.Array, key: jax.Array) -> jax.Array:
        f = lambda b: jnp.asarray(VALUES)[b.astype(int)]  # noqa: E731
        return sf.expectation(f, sf.Bernoulli(logit), key, around, num_samples=4)

    def exact(logit: jax.Array) -> jax.Array:
        def mean(m: int) -> jax.Array:
            ones = np.arange(m + 1)
            p = jax.nn.sigmoid(logit)
            chances = np.array([math.comb(m, k) for k in ones]) * p**ones * (1 - p) ** (m - ones)
            costs = np.array([[VALUES[int(i < k)] for i in range(m)] for k in ones])
            return chances @ jax.vmap(statistic)(jnp.asarray(costs))

        return mean(1) + (mean(4) - mean(2)) / level.probability

    logit = np.array(math.log(PROB / (1 - PROB)))
    by_order = lambda key: derivatives(lambda x: loss(x, key), logit, 2)  # noqa: E731
    found, _ = exact_moments(by_order, pieces(PROB), 4)
    for a, b in zip(found, derivatives(exact, logit, 2), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


# ------------------------------------------------------------------------------------- all levels


def mean_of_log(n: int | float) -> float:
    """E log of the mean of n exponential costs of mean 1."""
    # digamma(n) - log(n) by its series, where their difference would lose its digits.
    return digamma(n) - math.log(n) if n < 1e4 else -1 / (2 * n) - 1 / (12 * n**2)


def mean_of_inverse(n: float) -> float:
    return n / (n - 1)


@pytest.mark.parametrize(
    ("mean", "n", "limit"), [(mean_of_log, 1, 0.0), (mean_of_log, 4, 0.0), (mean_of_inverse, 3, 1)]
)
def test_the_sum_over_all_levels_is_the_limit(
    mean: Callable[[float], float], n: int, limit: float
) -> None:
    """Closed forms for exponential costs: what is left beyond level 45 is below 1e-12."""
    levels = [level_of(i) for i in range(46)]
    steps = [mean(n * 2 ** (x.level + 1)) - mean(n * 2**x.level) for x in levels]
    total = sum(
        x.probability * (mean(n) + step / x.probability)
        for x, step in zip(levels, steps, strict=True)
    )
    assert abs(mean(n) - limit) > 0.1
    assert abs(total - limit) < 1e-12
    # One statistic of as many costs as are used on average is still biased.
    used = n * 2 * (1 - RATIO) / (1 - 2 * RATIO)
    assert abs(mean(used) - limit) > 1e-2


def variance_of_log(m: np.ndarray) -> np.ndarray:
    """E of the squared difference in brackets for the logarithm, halves of m exponential costs."""
    # It is log(4 b (1 - b)) / -2 for b ~ Beta(m, m).
    mean = 2 * digamma(m) - 2 * digamma(2 * m) + math.log(4)
    return (mean**2 + 2 * polygamma(1, m) - 4 * polygamma(1, 2 * m)) / 4


def variance_of_inverse(m: np.ndarray) -> np.ndarray:
    """The same for the inverse of the mean: (m / sum) (2 - 1 / (2 b (1 - b)))."""
    first, second = (np.exp(betaln(m - i, m - i) - betaln(m, m)) for i in (1, 2))
    return m**2 / ((2 * m - 1) * (2 * m - 2)) * (4 - 2 * first + second / 4)


@pytest.mark.parametrize(
    ("variance", "n", "total"), [(variance_of_log, 1, 1.198), (variance_of_inverse, 4, 0.531)]
)
def test_the_variance_is_finite_for_smooth_functions_of_a_mean(
    variance: Callable[[np.ndarray], np.ndarray], n: int, total: float
) -> None:
    levels = [level_of(i) for i in range(10)]
    found = variance(n * 2.0 ** np.arange(10))
    # It falls by a factor of 4 for each level, the probability by a factor of 2.83.
    np.testing.assert_allclose(found[7:] / found[6:-1], 0.25, rtol=1e-2)
    parts = found / [x.probability for x in levels]
    rest = parts[-1] * 0.7071 / (1 - 0.7071)
    np.testing.assert_allclose(parts.sum() + rest, total, rtol=5e-3)
    # Without the other half of the costs it would fall by 2, and the variance would be infinite.
    assert np.all(parts[6:] / parts[5:-1] < 0.715)


def test_the_variance_of_cvar_and_quantiles() -> None:
    """Slopes by the level, in powers of 2, of 2,048 samples of blocks of 8 costs.

    Finite below -1.25 with the ratio 2^-1.25. Standard errors of a variance are 5% to 10%, of the
    slope 0.04: the bands are 6 of them wide.
    """
    noise = np.random.default_rng(0).normal(size=(2, 2048, 256)).astype(np.float32)

    @partial(jax.jit, static_argnames="level", compiler_options=FAST)
    def variances(noise: jax.Array, level: Level) -> jax.Array:
        def statistic(costs: jax.Array) -> jax.Array:
            return jnp.stack([sf.cvar(costs, 0.8), jnp.quantile(costs, 0.8)])

        def bracket(noise: jax.Array) -> jax.Array:
            def values(slope: jax.Array) -> tuple[jax.Array, jax.Array]:
                costs = noise[0] + slope * noise[1]
                blocks = jax.vmap(statistic)(costs.reshape(level.size, -1))
                random = sf.debiased(statistic, level)(costs) - jnp.mean(blocks, 0)
                return level.probability * random, level.probability * random

            slopes, found = jax.jacfwd(values, has_aux=True)(1.0)
            return jnp.concatenate([found, slopes])

        return jnp.mean(jax.vmap(bracket, 1)(noise) ** 2, 0)

    found = [variances(noise[..., : 8 * x.size], level=x) for x in map(level_of, range(5))]
    cvar, quantile, of_cvar, of_quantile = np.polyfit(range(5), np.log2(found), 1)[0]
    assert -2.25 < cvar < -1.75
    assert -1.65 < quantile < -1.2
    assert -1.7 < of_cvar < -1.3
    assert -0.4 < of_quantile < 0.4  # infinite for every ratio


# ------------------------------------------------------------------------------------ in a program


@x64
def test_a_function_of_an_inner_expectation() -> None:
    """E over x of log E over y, at level 0, by its mean over 20,000 keys."""

    def model(level: Level) -> Any:
        around = sf.SampleStatistic(
            sf.ScoreFunction(), sf.debiased(lambda c: jnp.log(jnp.mean(c)), level)
        )

        @sf.program
        def model(p: Any) -> Any:
            x = yield sf.sample(sf.Bernoulli(p["outer"]), sf.ScoreFunction(sf.ConstantBaseline(0)))
            y = yield sf.sample(sf.Bernoulli(p["inner"] + 0.5 * x), around, num_samples=level.size)
            return 0.5 + 1.5 * y + x

        return model

    def exact(p: Any, level: Level) -> jax.Array:
        total = jnp.zeros(())
        for x in (0, 1):
            q = jax.nn.sigmoid(p["inner"] + 0.5 * x)

            def mean(m: int, x: int = x, q: jax.Array = q) -> jax.Array:
                ones = np.arange(m + 1)
                combinations = np.array([math.comb(m, k) for k in ones])
                chances = combinations * q**ones * (1 - q) ** (m - ones)
                return chances @ jnp.log(0.5 + 1.5 * ones / m + x)

            inner = mean(1) + (mean(level.size) - mean(level.size // 2)) / level.probability
            total += jax.nn.sigmoid((2 * x - 1) * p["outer"]) * inner
        return total

    p = {"outer": np.array(-0.4), "inner": np.array(0.3)}
    level = level_of(0)
    keys = jax.random.split(jax.random.key(0), 20_000)

    @fast
    def run(keys: jax.Array) -> Any:
        each = jax.vmap(lambda key: jax.value_and_grad(lambda p: model(level)(p)(key))(p))(keys)
        return jax.tree.map(lambda z: (z.mean(0), z.std(0) / len(z) ** 0.5), each)

    found = run(keys)
    desired = jax.value_and_grad(exact)(jax.tree.map(jnp.asarray, p), level)
    pairs = jax.tree.leaves(found)
    for mean, error, exactly in zip(pairs[::2], pairs[1::2], jax.tree.leaves(desired), strict=True):
        assert abs(mean - exactly) < 6.2 * error  # 3 numbers: alpha 2e-9


# --------------------------------------------------------------------------------- random levels


def test_levels_have_their_probabilities() -> None:
    for ratio in (RATIO, 0.3, 2**-1.25):
        # A level is drawn for uniform numbers in (ratio^(l + 1), ratio^l].
        for level in (0, 1, 5, 40):
            high, low = ratio**level, ratio ** (level + 1)
            for uniform in (high * (1 - 1e-9), low * (1 + 1e-9)):
                assert _level_of(uniform, ratio).level == level
            np.testing.assert_allclose(_level_of(high, ratio).probability, high - low, rtol=1e-12)


def test_levels_are_drawn_at_these_probabilities() -> None:
    """The counts of levels of 1,000 keys, by a chi-square of 4 degrees: alpha 1e-9 at 48.6."""
    levels = [sf.random_level(jax.random.key(i)) for i in range(1000)]
    counts = np.bincount([min(x.level, 4) for x in levels], minlength=5)
    chances = (1 - RATIO) * RATIO ** np.arange(5)
    chances[4] = RATIO**4
    assert np.sum((counts - 1000 * chances) ** 2 / (1000 * chances)) < 48.6
    assert all(x.size == 2 ** (x.level + 1) for x in levels)
    assert sf.random_level(jax.random.PRNGKey(3)) == levels[3]


def test_a_level_is_static_under_jit() -> None:
    def loss(mean: jax.Array, key: jax.Array, level: Level) -> jax.Array:
        around = sf.SampleStatistic(sf.Pathwise(), sf.debiased(STATISTICS["log"], level))
        normal = distrax.Normal(mean, 0.3)
        return sf.expectation(jnp.exp, normal, key, around, num_samples=2 * level.size)

    key = jax.random.key(0)
    step = jax.jit(jax.grad(loss), static_argnames="level")
    for level in (level_of(0), level_of(2)):
        assert jnp.isfinite(step(0.3, key, level=level))
    with pytest.raises(TypeError, match="level must be a result of random_level.*static_argnames"):
        jax.jit(jax.grad(loss))(0.3, key, level_of(0))
    with pytest.raises(TypeError, match="call it outside of jit"):
        jax.jit(sf.random_level)(key)


def test_check_unbiased_passes_over_levels_and_fails_for_one_statistic() -> None:
    """E of log E exp(x), a normal x of scale 0.8: the gradient along the scale is the scale."""

    def risk(costs: jax.Array) -> jax.Array:
        return sf.entropic_risk(costs, 1.0)

    def loss(scale: jax.Array, key: jax.Array, statistic: Any, n: int) -> jax.Array:
        around = sf.SampleStatistic(sf.Pathwise(), statistic)
        normal = distrax.Normal(0.0, scale)
        return sf.expectation(lambda x: x, normal, key, around, num_samples=n)

    # The third level with the probability of all that follow: the bias is that of 128 costs.
    levels = [level_of(0), level_of(1), Level(2, RATIO**2)]

    def over_levels(scale: jax.Array, key: jax.Array) -> jax.Array:
        parts = [
            x.probability * loss(scale, key, sf.debiased(risk, x), 16 * x.size) for x in levels
        ]
        return sum(parts, start=jnp.zeros(()))

    options: Any = {"exact": 0.8, "num_repeats": 500, "alpha": 1e-9}
    assert sf.check_unbiased(over_levels, 0.8, jax.random.key(1), **options).passed
    one = partial(loss, statistic=risk, n=4)
    assert not sf.check_unbiased(one, 0.8, jax.random.key(1), **options).passed


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sf.debiased(2.0, level_of(0)), TypeError, "statistic must be a function"),
        (lambda: sf.debiased(jnp.mean, 3), TypeError, "level must be a result of random_level"),
        (
            lambda: sf.debiased(jnp.mean, level_of(1))(jnp.ones(6)),
            ValueError,
            "multiple of 4, level.size, got 6",
        ),
        (lambda: sf.random_level(jax.random.key(0), ratio=0.5), ValueError, "below 0.5"),
        (lambda: sf.random_level(jax.random.key(0), ratio=0.25), ValueError, "above 0.25"),
    ],
)
def test_what_does_not_fit_raises(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()
