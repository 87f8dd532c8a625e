"""The expectation of a statistic of n costs: exact over all samples, and closed forms."""

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
from scipy.special import ndtr
from support.exact import Noise, derivatives, exact_moments, hermite, pieces
from support.noise import noise_keys
from support.transformations import both, fast

import scorefn as sf
from scorefn import vi

x64 = pytest.mark.usefixtures("x64")
REWARDS = np.array([0.0, 0.2, 0.5, 1.0])
LOGITS = np.log([0.4, 0.3, 0.2, 0.1])
DIE = pieces(*np.cumsum(np.exp(LOGITS))[:-1])
STATISTICS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "best of 2": lambda costs: sf.expected_max(costs, 2),
    "cvar": lambda costs: sf.cvar(costs, 0.6),
    "median": lambda costs: jnp.quantile(costs, 0.5, axis=0),
    "entropic risk": lambda costs: sf.entropic_risk(costs, 1.5),
    "variance": lambda costs: jnp.var(costs, axis=0, ddof=1),
    "share above": lambda costs: jnp.mean(costs > 0.3, axis=0, dtype=costs.dtype) ** 2,
}
BASELINES: dict[str, Callable[[], sf.Baseline]] = {
    "leave one out": sf.LeaveOneOut,
    "constant": lambda: sf.ConstantBaseline(0.3),
    "optimal": sf.OptimalBaseline,
    "learned": lambda: sf.LearnedBaseline(jnp.multiply, jnp.array(0.7), jnp.array(0.4)),
}


def die(logits: jax.Array) -> sf.Distribution:
    """A category that is drawn from one uniform number."""

    def sample(logits: jax.Array, key: jax.Array) -> jax.Array:
        return jnp.sum(jax.random.uniform(key) > jnp.cumsum(jax.nn.softmax(logits))[:-1])

    return sf.Distribution(lambda logits, x: jax.nn.log_softmax(logits)[x], sample, logits)


def reward(x: jax.Array) -> jax.Array:
    return jnp.asarray(REWARDS)[x]


def estimate(
    statistic: Any, n: int, estimator: Any = None, **options: Any
) -> Callable[[jax.Array, jax.Array], jax.Array]:
    around = sf.SampleStatistic(estimator or sf.ScoreFunction(), statistic)
    return lambda logits, key: sf.expectation(
        reward, die(logits), key, around, num_samples=n, **options
    )


def exact(statistic: Any, n: int) -> Callable[[jax.Array], jax.Array]:
    """The mean of the statistic over all samples of n, as a function of the logits."""
    draws = np.array(list(itertools.product(range(4), repeat=n)))
    values = jax.vmap(statistic)(jnp.asarray(REWARDS[draws]))
    return lambda logits: jnp.prod(jax.nn.softmax(logits)[draws], 1) @ values


def moments(fn: Any, n: int, order: int) -> tuple[list[jax.Array], list[jax.Array]]:
    by_order = lambda key: derivatives(lambda q: fn(q, key), LOGITS, order)  # noqa: E731
    return exact_moments(by_order, DIE, n)


def check(found: list[jax.Array], objective: Any) -> None:
    for a, b in zip(found, derivatives(objective, LOGITS, len(found) - 1), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


@x64
@pytest.mark.parametrize("name", STATISTICS)
def test_every_statistic_is_unbiased_to_second_order(name: str) -> None:
    mean, _ = moments(estimate(STATISTICS[name], 3), 3, 2)
    assert jnp.abs(mean[1]).max() > 1e-2
    check(mean, exact(STATISTICS[name], 3))


@x64
def test_a_jump_of_the_statistic_at_a_mean_of_the_others_is_no_bias() -> None:
    """Three costs have mean 0.3, up to rounding, which must not depend on the fourth."""
    mean, _ = moments(estimate(STATISTICS["share above"], 4), 4, 1)
    check(mean, exact(STATISTICS["share above"], 4))


@x64
@pytest.mark.parametrize("name", BASELINES)
def test_every_baseline_is_unbiased_to_second_order(name: str) -> None:
    fn = estimate(STATISTICS["best of 2"], 3, sf.ScoreFunction(BASELINES[name]()))
    check(moments(fn, 3, 2)[0], exact(STATISTICS["best of 2"], 3))


@x64
@pytest.mark.parametrize(("n", "k"), [(2, 2), (4, 3), (5, 1)])
def test_the_best_of_k_is_unbiased_for_any_number_of_draws(n: int, k: int) -> None:
    mean, _ = moments(estimate(partial(sf.expected_max, k=k), n), n, 1)

    def objective(logits: jax.Array) -> jax.Array:
        below = jnp.cumsum(jax.nn.softmax(logits)) ** k
        return jnp.diff(below, prepend=jnp.zeros(1)) @ REWARDS

    check(mean, objective)


@x64
@pytest.mark.parametrize(
    ("n", "k", "variance", "of_policy"), [(4, 2, 0.0549, 0.0618), (4, 3, 0.0878, 0.0879)]
)
def test_the_variance_is_below_that_of_the_advantages_of_policy(
    n: int, k: int, variance: float, of_policy: float
) -> None:
    _, found = moments(estimate(partial(sf.expected_max, k=k), n), n, 1)
    np.testing.assert_allclose(found[1].sum(), variance, atol=6e-5)
    assert variance < of_policy

    def by_policy(logits: jax.Array, key: jax.Array, baseline: str) -> jax.Array:
        keys = jax.vmap(partial(jax.random.fold_in, key))(jnp.arange(n))
        x = jax.vmap(die(jnp.asarray(LOGITS)).draw)(keys)
        advantage = sf.policy.best_of(reward(x), k, baseline=baseline)
        return jnp.mean(advantage * jax.nn.log_softmax(logits)[x])

    best = min(moments(partial(by_policy, baseline=b), n, 1)[1][1].sum() for b in ("others", "k-1"))
    np.testing.assert_allclose(best, of_policy, atol=6e-5)


@x64
def test_a_pytree_of_costs_with_parameters_of_its_own() -> None:
    """Each number has its own statistic, and its derivative passes through the costs, too."""
    statistic = STATISTICS["cvar"]

    def costs(slope: jax.Array, x: jax.Array) -> Any:
        a = reward(x) * slope + jnp.sin(3 * slope * x)
        return {"one": a, "pair": jnp.stack([a**2, slope - a])}

    def fn(p: Any, key: jax.Array) -> Any:
        around = sf.SampleStatistic(sf.ScoreFunction(), statistic)
        f = partial(costs, p["slope"])
        return sf.expectation(f, die(p["logits"]), key, around, num_samples=3)

    draws = np.array(list(itertools.product(range(4), repeat=3)))

    def objective(p: Any) -> Any:
        each = jax.tree.map(lambda c: c[draws], jax.vmap(partial(costs, p["slope"]))(jnp.arange(4)))
        weights = jnp.prod(jax.nn.softmax(p["logits"])[draws], 1)
        return jax.tree.map(lambda c: jnp.tensordot(weights, jax.vmap(statistic)(c), 1), each)

    p = {"logits": LOGITS, "slope": np.array(0.8)}
    mean, _ = exact_moments(lambda key: derivatives(lambda q: fn(q, key), p, 1), DIE, 3)
    for a, b in zip(mean, derivatives(objective, p, 1), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


# ------------------------------------------------------------------------------ Gaussian draws


def two_normals() -> Noise:
    """A rule for two normal numbers, smooth on either side of where they are equal."""
    mean = hermite(6)
    nodes, weights = np.polynomial.legendre.leggauss(40)
    gap = np.concatenate([4 * (nodes + 1), -4 * (nodes + 1)])
    gap_weights = 4 * np.concatenate([weights, weights]) * np.exp(-(gap**2) / 2)
    gap_weights /= math.sqrt(2 * math.pi)
    center = np.asarray(jax.scipy.special.ndtri(jnp.asarray(mean.points)))
    pair = np.stack([center + gap, center - gap], -1).reshape(-1, 2) / math.sqrt(2)
    points = np.clip(ndtr(pair), 2.0**-52, 1 - 2.0**-52)
    return Noise(points, np.outer(mean.weights, gap_weights).ravel())


@x64
@pytest.mark.parametrize("estimator", [sf.Pathwise(), sf.ScoreFunction()], ids=["path", "score"])
def test_the_best_of_two_normals(estimator: sf.Estimator) -> None:
    """E max of two is mean + scale / sqrt(pi)."""
    around = sf.SampleStatistic(estimator, STATISTICS["best of 2"])
    rule = two_normals()

    def value(p: jax.Array, key: jax.Array) -> jax.Array:
        normal = distrax.Normal(p[0], p[1])
        return sf.expectation(lambda x: x, normal, key, around, num_samples=2)

    @fast
    def run(keys: jax.Array) -> list[jax.Array]:
        each = jax.vmap(lambda key: derivatives(lambda p: value(p, key), np.array([0.7, 1.3]), 1))
        return [jnp.tensordot(rule.weights, one, 1) for one in each(keys)]

    found, gradient = run(noise_keys(rule.points, 1))
    np.testing.assert_allclose(found, [0.7 + 1.3 / math.sqrt(math.pi)], atol=1e-11)
    np.testing.assert_allclose(gradient, [[1, 1 / math.sqrt(math.pi)]], atol=1e-11)


@x64
def test_the_bound_of_vimco_is_a_statistic() -> None:
    def bound(p: jax.Array, key: jax.Array, *, by_vimco: bool) -> jax.Array:
        bits, log_joint = sf.Bernoulli(p), lambda b: -jnp.sum((b - 0.3) ** 2 * p)
        if by_vimco:
            return vi.vimco(log_joint, bits, key, num_samples=5)
        around = sf.SampleStatistic(sf.ScoreFunction(), lambda w: sf.entropic_risk(w, 1.0))
        f = lambda b: log_joint(b) - jnp.sum(bits.log_prob(b))  # noqa: E731
        return sf.expectation(f, bits, key, around, num_samples=5)

    p, key = jnp.array([0.4, -1.0]), jax.random.key(3)
    ours, theirs = fast(
        lambda p: [jax.value_and_grad(partial(bound, by_vimco=by))(p, key) for by in (False, True)]
    )(p)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-13)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-12)


# ------------------------------------------------------------------------------------- the rest


@x64
@pytest.mark.parametrize("chunk_size", [3])
def test_chunks_give_the_same_gradient(chunk_size: int) -> None:
    logits, key = jnp.asarray(LOGITS), jax.random.key(1)
    losses = [estimate(STATISTICS["cvar"], 7, chunk_size=c) for c in (None, chunk_size)]
    whole, parts = both(*losses)(logits, key)
    assert jnp.abs(whole[1]).max() > 1e-2
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-13)
    np.testing.assert_allclose(parts[1], whole[1], rtol=1e-12)


def test_a_large_offset_of_the_costs_loses_no_digits() -> None:
    def gradient(offset: float) -> jax.Array:
        around = sf.SampleStatistic(sf.ScoreFunction(), STATISTICS["best of 2"])
        f = lambda x: reward(x) * 8 + offset  # noqa: E731
        loss = lambda p: sf.expectation(  # noqa: E731
            f, die(p), jax.random.key(2), around, num_samples=16
        )
        return jax.grad(loss)(jnp.asarray(LOGITS, jnp.float32))

    np.testing.assert_allclose(gradient(4096.0), gradient(0.0), rtol=0, atol=2e-2)


@x64
def test_an_impossible_draw_has_no_score_and_leaves_the_others_theirs() -> None:
    proposal = jnp.array([0.3, 0.3, 0.2, 0.2])

    def log_prob(logits: jax.Array, x: jax.Array) -> jax.Array:
        return jnp.where(x == 3, -jnp.inf, jax.nn.log_softmax(logits)[x])

    def loss(logits: jax.Array, log_prob: Any) -> jax.Array:
        sample = lambda _, key: jax.random.choice(key, 4, p=proposal)  # noqa: E731
        drawn = sf.Distribution(log_prob, sample, logits)
        around = sf.SampleStatistic(sf.ScoreFunction(), STATISTICS["best of 2"])
        return sf.expectation(reward, drawn, jax.random.key(0), around, num_samples=12)

    got = jax.grad(loss)(jnp.asarray(LOGITS), log_prob)
    fixed = lambda logits, x: jnp.where(x == 3, 0.0, jax.nn.log_softmax(logits)[x])  # noqa: E731
    np.testing.assert_allclose(got, jax.grad(loss)(jnp.asarray(LOGITS), fixed), rtol=1e-12)
    assert jnp.abs(got).max() > 1e-2


def gaussian(statistic: Any, f: Any = jnp.sin) -> Callable[[jax.Array], jax.Array]:
    around = sf.SampleStatistic(sf.Pathwise(), statistic)
    return lambda mean: sf.expectation(
        f, distrax.Normal(mean, 1.0), jax.random.key(0), around, num_samples=6
    )


@pytest.mark.parametrize("name", ["best of 2", "cvar", "median"])
def test_a_second_derivative_through_a_sort_raises(name: str) -> None:
    loss = gaussian(STATISTICS[name])
    assert jax.grad(loss)(0.3) != 0
    with pytest.raises(TypeError, match="the derivative of statistic depends on"):
        jax.hessian(loss)(0.3)


@pytest.mark.parametrize("name", ["entropic risk", "variance"])
def test_a_smooth_statistic_has_a_second_derivative(name: str) -> None:
    assert jnp.isfinite(jax.hessian(gaussian(STATISTICS[name]))(0.3))


def test_a_statistic_that_counts_raises_for_pathwise() -> None:
    with pytest.raises(TypeError, match="statistic depends on .* only through"):
        jax.grad(gaussian(STATISTICS["share above"]))(0.3)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: sf.SampleStatistic(sf.DisARM(), jnp.max), TypeError, "ScoreFunction or Pathwise"),
        (
            lambda: sf.SampleStatistic(sf.ScoreFunction(factor_ndim=1), jnp.max),
            TypeError,
            "factor_ndim=1",
        ),
        (lambda: sf.SampleStatistic(sf.Pathwise(), 2.0), TypeError, "statistic must be a function"),
        (
            lambda: estimate(lambda costs: costs, 3)(jnp.asarray(LOGITS), jax.random.key(0)),
            ValueError,
            r"statistic must return one number, or an array \(\), for costs \(3,\), got",
        ),
        (
            lambda: sf.expectation(
                jnp.square,
                sf.Given(jnp.ones(3), lambda p, x: p * x, 1.0),
                jax.random.key(0),
                sf.SampleStatistic(sf.ScoreFunction(), jnp.max),
                num_samples=3,
            ),
            TypeError,
            "draws were made elsewhere",
        ),
        (
            lambda: sf.Stratified(sf.SampleStatistic(sf.Pathwise(), jnp.max)),
            TypeError,
            "SampleStatistic needs independent draws",
        ),
        (
            lambda: sf.SampleStatistic(sf.Antithetic(sf.Pathwise()), jnp.max),
            TypeError,
            "must be ScoreFunction or Pathwise",
        ),
    ],
)
def test_what_does_not_fit_raises(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call()


def test_check_unbiased_finds_the_best_of_k_unbiased_and_its_mean_biased() -> None:
    def exact_gradient(logits: jax.Array) -> jax.Array:
        below = jnp.cumsum(jax.nn.softmax(logits)) ** 2
        return jnp.diff(below, prepend=jnp.zeros(1)) @ REWARDS

    logits = jnp.asarray(LOGITS, jnp.float32)
    options: Any = {"exact": jax.grad(exact_gradient)(logits), "num_repeats": 2000}
    loss = estimate(STATISTICS["best of 2"], 6)
    assert sf.check_unbiased(loss, logits, jax.random.key(5), alpha=1e-9, **options).passed
    wrong = estimate(lambda costs: jnp.max(costs, axis=0), 6)
    assert not sf.check_unbiased(wrong, logits, jax.random.key(5), **options).passed
