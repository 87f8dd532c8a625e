"""Credit: surrogate, one cost for each factor, and costs of a program that say what they need."""

import itertools
from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as npd
import pytest
from support.exact import FAST, Noise, assert_close, derivatives, exact_moments, pieces, scale
from support.program_draws import check

import scorefn as sf

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)


def fast(fn: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(fn, compiler_options=FAST)


# --------------------------------------------------------------------- surrogate, on three choices

PARAMS = np.array([0.4, -0.7, 0.5, 0.8])
# Choice 0 leads to 1; choice 2 is by itself. Cost 0 comes of choice 0 alone, 1 of 0 and 1, 2 of 2,
# 3 of all.
INFLUENCE = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 1], [1, 1, 1]], bool)


def log_probs_of(p: jax.Array, bits: jax.Array) -> jax.Array:
    logits = jnp.stack([p[0], p[1] + p[2] * bits[0], p[3]])
    return jax.nn.log_sigmoid((2 * bits - 1) * logits)


def costs_of(p: jax.Array, bits: jax.Array) -> jax.Array:
    a, b, c = bits
    return jnp.stack([3 * a + p[1], (a - 2 * b + p[0]) ** 2, 5 * c * p[3], a * b * c - 2 * c + b])


def baselines_of(bits: jax.Array) -> jax.Array:
    """The values that may be known before each choice."""
    return jnp.stack([1.5 + 0 * bits[0], 2 * bits[0] - 1, 4 + bits[0] - 3 * bits[1]])


@x64
@pytest.mark.parametrize("baseline", ["none", "number", "known before"])
def test_the_surrogate_is_exact_to_third_order(baseline: str) -> None:
    support = jnp.array(list(itertools.product((0.0, 1.0), repeat=3)))
    baselines = {"none": lambda _: 0.0, "number": lambda _: 1.7, "known before": baselines_of}

    def loss(p: jax.Array, bits: jax.Array) -> jax.Array:
        given = baselines[baseline](bits)
        return sf.surrogate(costs_of(p, bits), log_probs_of(p, bits), INFLUENCE, given)

    def expected(p: jax.Array) -> jax.Array:
        probs = jnp.exp(jax.vmap(lambda b: log_probs_of(p, b).sum())(support))
        return probs @ jax.vmap(lambda b: costs_of(p, b))(support)

    @fast
    def run() -> Any:
        each = jax.vmap(lambda bits: derivatives(lambda p: loss(p, bits), PARAMS, 3))(support)
        probs = jnp.exp(jax.vmap(lambda b: log_probs_of(PARAMS, b).sum())(support))
        return [jnp.tensordot(probs, v, 1) for v in each], derivatives(expected, PARAMS, 3), each[0]

    mean, exact, values = run()
    assert_close(mean, exact, atol=1e-13 * scale(exact))
    np.testing.assert_array_equal(values, fast(jax.vmap(lambda b: costs_of(PARAMS, b)))(support))


@x64
def test_the_gradient_of_one_draw_weighs_each_score_by_what_it_can_change() -> None:
    bits = jnp.array([1.0, 0.0, 1.0])
    baselines = jnp.array([1.5, -0.5, 2.5])

    def loss(p: jax.Array) -> jax.Array:
        costs = costs_of(jnp.asarray(PARAMS), bits)
        return sf.surrogate(costs, log_probs_of(p, bits), INFLUENCE, baselines).sum()

    @fast
    def run(p: jax.Array) -> Any:
        weights = costs_of(p, bits) @ INFLUENCE - baselines
        return jax.grad(loss)(p), weights @ jax.jacobian(log_probs_of)(p, bits)

    np.testing.assert_allclose(*run(PARAMS), rtol=0, atol=1e-13)


@x64
def test_one_cost_of_all_choices_is_attach_score() -> None:
    bits, given = jnp.array([1.0, 0.0, 1.0]), jnp.float64(0.6)

    def matrix(p: jax.Array) -> jax.Array:
        costs, all_of_them = costs_of(p, bits)[1:2], np.ones((1, 3), bool)
        return sf.surrogate(costs, log_probs_of(p, bits), all_of_them, given)

    def plain(p: jax.Array) -> jax.Array:
        return sf.attach_score(
            costs_of(p, bits)[1:2], log_probs_of(p, bits).sum()[None], given[None]
        )

    one, other = (fast(lambda f=f: derivatives(f, PARAMS, 3))() for f in (matrix, plain))
    assert_close(one, other, atol=1e-13 * scale(other))


def test_an_impossible_choice_keeps_the_scores_of_the_others() -> None:
    def loss(log_probs: jax.Array) -> jax.Array:
        return sf.surrogate(jnp.array([2.0]), log_probs, np.ones((1, 2), bool)).sum()

    value, gradient = fast(jax.value_and_grad(loss))(jnp.array([-0.5, -jnp.inf]))
    assert value == 2
    np.testing.assert_array_equal(gradient, [2.0, 0.0])


def test_the_surrogate_refuses_shapes_that_do_not_line_up() -> None:
    costs, log_probs, influence = np.zeros(2), np.zeros(3), np.ones((2, 3), bool)
    assert sf.surrogate(costs, log_probs, influence).shape == (2,)
    assert sf.surrogate(costs, jnp.zeros(0), np.ones((2, 0), bool)).shape == (2,)
    with pytest.raises(
        ValueError, match=r"influence \[C, N\], got shapes \(2,\), \(3,\) and \(3, 2"
    ):
        sf.surrogate(costs, log_probs, influence.T)
    with pytest.raises(ValueError, match=r"use jax\.vmap"):
        sf.surrogate(costs[None], log_probs[None], influence)
    with pytest.raises(ValueError, match=r"one for each choice, \(3,\), got shape \(2,\)"):
        sf.surrogate(costs, log_probs, influence, costs)
    with pytest.raises(TypeError, match="influence must be boolean, got float32"):
        sf.surrogate(costs, log_probs, influence.astype(np.float32))


# ------------------------------------------------------------------------- a cost for each factor

LOGITS = np.array([0.4, -0.7])
FACTORS: dict[str, Callable[[jax.Array], Any]] = {
    "record": sf.Bernoulli,
    "distrax": lambda x: distrax.Bernoulli(logits=x),
    "Independent": lambda x: distrax.Independent(distrax.Bernoulli(logits=x), 1),
    "numpyro": lambda x: npd.BernoulliLogits(x).to_event(1),
    "function": lambda x: sf.Distribution(
        lambda p, b: jax.nn.log_sigmoid((2 * b - 1) * p),
        lambda p, key: sf.Bernoulli(p).sample(key),
        x,
    ),
}


def factor_costs(p: jax.Array, b: jax.Array) -> dict[str, jax.Array]:
    cost = (b - 0.3) ** 2 + p * b
    return {"one": cost, "two": jnp.stack([cost, b * jnp.array([3.0, -2.0])], axis=-1)}


def of_each_factor(p: jax.Array) -> dict[str, jax.Array]:
    one = jax.nn.sigmoid(p)
    on, off = factor_costs(p, jnp.ones(2)), factor_costs(p, jnp.zeros(2))

    def mean(x: jax.Array, y: jax.Array) -> jax.Array:
        w = one.reshape(2, *(1 for _ in x.shape[1:]))
        return w * x + (1 - w) * y

    return jax.tree.map(mean, on, off)


@x64
@pytest.mark.parametrize("kind", FACTORS)
def test_each_factor_earns_its_own_score_exactly(kind: str) -> None:
    estimator = sf.ScoreFunction(factor_ndim=1)

    def loss(p: jax.Array, key: jax.Array) -> Any:
        # A library's coin gives integers.
        def f(b: jax.Array) -> Any:
            b = b.astype(p.dtype)
            return factor_costs(p, b), jnp.prod(b + p)

        return sf.expectation(f, FACTORS[kind](p), key, estimator, num_samples=2)

    def exact_mean(p: jax.Array) -> Any:
        # The scalar depends on both factors, and so it has the scores of both.
        return of_each_factor(p), jnp.prod(jax.nn.sigmoid(p) + p)

    # Each library compares its uniform number from either side.
    ones = 1 / (1 + np.exp(-LOGITS))
    one, other = (pieces(p, 1 - p) for p in ones)
    mean, _ = exact_moments(
        lambda key: derivatives(lambda p: loss(p, key), LOGITS, 2), one * other, 2
    )
    exact = fast(lambda: derivatives(exact_mean, LOGITS, 2))()
    assert_close(mean, exact, atol=1e-13 * scale(exact))


@x64
@pytest.mark.parametrize("kind", FACTORS)
def test_factors_are_summed_side_by_side(kind: str) -> None:
    support = jnp.array([0.0, 1.0]) if kind == "function" else None
    estimator = sf.Enumerate(support, factor_ndim=1)
    evaluations = []

    def loss(p: jax.Array) -> Any:
        def f(b: jax.Array) -> Any:
            jax.debug.callback(lambda _: evaluations.append(None), b)
            return factor_costs(p, b.astype(p.dtype))

        return sf.expectation(f, FACTORS[kind](p), KEY, estimator)

    found, exact = (fast(lambda f=f: derivatives(f, LOGITS, 3))() for f in (loss, of_each_factor))
    assert_close(found, exact, atol=1e-6 * scale(exact))
    assert_close(found[:2], exact[:2], atol=1e-6)


def test_blocks_of_factors_and_categories() -> None:
    # Three independent rows of two categories each: a cost for each row.
    logits = jax.random.normal(KEY, (3, 2, 4))
    table = jnp.arange(12.0).reshape(3, 4)

    def f(x: jax.Array) -> jax.Array:
        return jnp.take_along_axis(table, x, axis=1).prod(-1)

    joint = jax.nn.softmax(logits)
    exact = jnp.einsum("ri,rj,ri,rj->r", joint[:, 0], joint[:, 1], table, table)
    estimator = sf.Enumerate(factor_ndim=1)
    found = fast(lambda: sf.expectation(f, sf.Categorical(logits), KEY, estimator))()
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=0)
    hot = lambda x: f(jnp.argmax(x, -1))  # noqa: E731
    found = fast(lambda: sf.expectation(hot, sf.OneHotCategorical(logits), KEY, estimator))()
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=0)


def test_costs_that_are_not_of_the_factors_are_refused() -> None:
    bits = sf.Bernoulli(jnp.zeros(3))
    for estimator in (sf.ScoreFunction(factor_ndim=1), sf.Enumerate(factor_ndim=1)):
        with pytest.raises(ValueError, match=r"one cost for each factor, of shape \(3,\)"):
            sf.expectation(jnp.sum, bits, KEY, estimator, num_samples=2)
    scalar = sf.Distribution(lambda p, x: jnp.sum(p * x), lambda p, _: p, jnp.zeros(3))
    with pytest.raises(ValueError, match="one float for each factor"):
        sf.expectation(jnp.cos, scalar, KEY, sf.ScoreFunction(factor_ndim=1), num_samples=2)
    with pytest.raises(ValueError, match="give factor_ndim=1"):
        sf.expectation(jnp.sum, sf.Bernoulli(jnp.zeros(13)), KEY, sf.Enumerate())
    with pytest.raises(ValueError, match="factor_ndim must be at least 0, got -1"):
        sf.ScoreFunction(factor_ndim=-1)


@x64
def test_twenty_coins_with_twenty_costs_have_a_variance_hundreds_of_times_smaller() -> None:
    logits, n = jnp.linspace(-1.0, 1.0, 20), 200
    weights = jnp.linspace(1.0, 2.0, 20)
    none = sf.ConstantBaseline(0.0)

    def gradients(estimator: sf.Estimator, f: Callable[[jax.Array], jax.Array]) -> jax.Array:
        def loss(logits: jax.Array, key: jax.Array) -> jax.Array:
            return jnp.sum(sf.expectation(f, sf.Bernoulli(logits), key, estimator))

        return fast(jax.vmap(jax.grad(loss), (None, 0)))(logits, jax.random.split(KEY, n))

    apart = gradients(sf.ScoreFunction(none, factor_ndim=1), lambda b: weights * b)
    joint = gradients(sf.ScoreFunction(none), lambda b: jnp.sum(weights * b))
    # Each draw's gradient is its closed form, which has these variances.
    p = jax.nn.sigmoid(logits)
    bits = jax.vmap(lambda key: sf.Bernoulli(logits).sample(jax.random.fold_in(key, 0)))(
        jax.random.split(KEY, n)
    )
    np.testing.assert_allclose(apart, weights * bits * (bits - p), rtol=0, atol=1e-12)
    total = (weights * bits).sum(1, keepdims=True)
    np.testing.assert_allclose(joint, total * (bits - p), rtol=0, atol=1e-12)
    mean, spread = weights * p, weights**2 * p * (1 - p)
    rest, rest_spread = mean.sum() - mean, spread.sum() - spread
    g = weights * p * (1 - p)
    own = weights**2 * p * (1 - p) ** 2
    variance_apart = (own - g**2).sum()
    both = own + 2 * weights * p * (1 - p) ** 2 * rest + (rest_spread + rest**2) * p * (1 - p)
    # As docs/programs.md has it.
    np.testing.assert_allclose((both - g**2).sum() / variance_apart, 511.0, rtol=1e-3, atol=0)


# --------------------------------------------------------------------- costs inside of a program

COINS = {"a": np.array(0.4), "b": np.array([-0.7, 0.5]), "c": np.array([0.3, -0.6])}
NONE = sf.ScoreFunction(sf.ConstantBaseline(0.0))


def tree(first: sf.Estimator, second: sf.Estimator, third: sf.Estimator, samples: int) -> Any:
    """Coin a leads to b and to c, each of which has a cost of its own."""

    @sf.program
    def model(p: Any) -> Any:
        a = yield sf.sample(sf.Bernoulli(p["a"]), first, num_samples=samples)
        yield sf.cost(3 * a + p["b"][0])
        logit = p["b"][0] + p["b"][1] * a
        b = yield sf.sample(sf.Bernoulli(logit), second, depends_on=[a])
        logit = p["c"][0] + p["c"][1] * a
        c = yield sf.sample(sf.Bernoulli(logit), third, num_samples=samples, depends_on=[a])
        yield sf.cost((b - 0.3 + p["a"]) ** 2, depends_on=[b])
        yield sf.cost(5 * c * p["b"][1], depends_on=[c])
        yield sf.cost(2.5, depends_on=())
        return 0.5 * b * c

    return lambda p, key: model(p)(key)


def tree_expected(p: Any) -> jax.Array:
    total = jnp.zeros(())
    for a, b, c in itertools.product((0.0, 1.0), repeat=3):
        logits = [p["a"], p["b"][0] + p["b"][1] * a, p["c"][0] + p["c"][1] * a]
        cost = 3 * a + p["b"][0] + (b - 0.3 + p["a"]) ** 2 + 5 * c * p["b"][1] + 2.5 + 0.5 * b * c
        for bit, logit in zip((a, b, c), logits, strict=True):
            cost *= jax.nn.sigmoid((2 * bit - 1) * logit)
        total += cost
    return total


def coin(*logits: float, mirrored: bool = False) -> Noise:
    ones = [1 / (1 + np.exp(-float(x))) for x in logits]
    return pieces(*ones, *([1 - p for p in ones] if mirrored else []))


RULES = [coin(0.4), coin(-0.7, -0.2), coin(0.3, -0.3)]
KNOWN = sf.ScoreFunction(sf.MovingAverage(0.9).update(jnp.array([1.0, 2.0])))
TREES: dict[str, tuple[list[Any], int, list[tuple[Noise, int]], int]] = {
    "score": ([NONE, KNOWN, NONE], 1, [(r, 1) for r in RULES], 2),
    "left out": (
        [sf.ScoreFunction(), NONE, sf.ScoreFunction()],
        2,
        [(RULES[0], 2), (RULES[1], 1), (RULES[2], 2)],
        2,
    ),
    "sum": ([NONE, sf.Enumerate(), NONE], 1, [(RULES[0], 1), (pieces(), 2), (RULES[2], 1)], 2),
    "pairs": (
        [NONE, sf.DisARM(), NONE],
        1,
        [(RULES[0], 1), (coin(-0.7, -0.2, mirrored=True), 1), (RULES[2], 1)],
        1,
    ),
}


@x64
@pytest.mark.parametrize("name", TREES)
def test_costs_that_say_what_they_depend_on_are_exact(name: str) -> None:
    estimators, samples, rules, order = TREES[name]
    check(tree(*estimators, samples), tree_expected, COINS, rules, order)


@x64
def test_a_choice_is_credited_with_what_it_can_change_and_nothing_else() -> None:
    @sf.program
    def model(logits: Any) -> Any:
        yield sf.cost(1e6)
        a = yield sf.sample(sf.Bernoulli(logits[0]), NONE)
        yield sf.cost(1e6 + a)
        # A baseline of the sum of the two costs that b can change, one of which a can change too.
        baseline = sf.ScoreFunction(sf.ConstantBaseline(2.5))
        b = yield sf.sample(sf.Bernoulli(logits[1]), baseline, depends_on=())
        yield sf.cost(100 * a, depends_on=[a])
        yield sf.cost(7 + b, depends_on=[b])
        yield sf.cost(3 * a * b)

    logits = jnp.array([0.3, -0.8])

    def values(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The draws, by the same keys, without their estimators.
        draw, rest = jax.random.split(key)
        a = sf.Bernoulli(logits[0]).sample(draw)
        return a, sf.Bernoulli(logits[1]).sample(jax.random.split(rest)[0])

    keys = jax.random.split(KEY, 50)
    gradients = fast(jax.vmap(lambda key: jax.grad(lambda x: model(x)(key))(logits)))(keys)
    a, b = fast(jax.vmap(values))(keys)
    p = jax.nn.sigmoid(logits)
    weights = [1e6 + 101 * a + 3 * a * b, 7 + b + 3 * a * b - 2.5]
    desired = jnp.stack([weights[0] * (a - p[0]), weights[1] * (b - p[1])], axis=1)
    np.testing.assert_allclose(gradients, desired, rtol=1e-12, atol=1e-9)


def test_a_false_claim_of_independence_is_an_error() -> None:
    @sf.program
    def direct(p: Any) -> Any:
        a = yield sf.sample(sf.Bernoulli(p), NONE)
        b = yield sf.sample(sf.Bernoulli(p), NONE, depends_on=())
        yield sf.cost(a + b, depends_on=[b])

    @sf.program
    def by_way(p: Any) -> Any:
        a = yield sf.sample(sf.Bernoulli(p), NONE)
        b = yield sf.sample(sf.Bernoulli(p + a), NONE, depends_on=())
        yield sf.cost(b, depends_on=[b])

    @sf.program
    def of_nothing(p: Any) -> Any:
        a = yield sf.sample(sf.Bernoulli(p), NONE)
        yield sf.cost(a, depends_on=[a + 1])

    with pytest.raises(ValueError, match="The cost 1 of a program depends on draw 1"):
        jax.jit(direct(0.3))(KEY)
    with pytest.raises(ValueError, match="The draw 2 of a program depends on draw 1"):
        jax.jit(by_way(0.3))(KEY)
    with pytest.raises(ValueError, match="must list draws as received"):
        jax.jit(of_nothing(0.3))(KEY)
