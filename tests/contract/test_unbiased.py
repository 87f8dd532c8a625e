"""Every estimator is unbiased: exactly, in float64, over every draw that there is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import (
    Noise,
    Problem,
    assert_close,
    derivatives,
    exact_derivatives,
    exact_moments,
    folded,
    pieces,
    scale,
)
from support.matrix import Row, rows
from support.registry import ENTRIES, EXACT, KIN, Entry, grid, once, problem

import scorefn as sf

pytestmark = pytest.mark.usefixtures("x64")


def mean_of_terms(p: Problem, estimator: Any, n: int) -> Callable[[Any, jax.Array], Any]:
    """The estimate made from the keys that `expectation` would have handed in."""

    def estimate(params: Any, key: jax.Array) -> Any:
        terms = estimator(p.f(params), p.distribution(params), folded(key, n))
        return jax.tree.map(lambda term: term.mean(0), terms)

    return estimate


def moments_of_derivatives(
    estimate: Callable[[Any, jax.Array], Any], p: Problem, noise: Noise, n: int, order: int
) -> tuple[list[jax.Array], list[jax.Array]]:
    """Mean and variance of value, gradient ... of an estimate."""

    def all_orders(key: jax.Array) -> list[jax.Array]:
        return derivatives(lambda params: estimate(params, key), p.params, order)

    return exact_moments(all_orders, noise, n)


def check_exact(p: Problem, mean: list[jax.Array]) -> None:
    exact = exact_derivatives(p, len(mean) - 1)
    assert_close(mean, exact, atol=1e-12 * scale(exact))


def bias(p: Problem, mean: list[jax.Array]) -> list[float]:
    exact = exact_derivatives(p, len(mean) - 1)
    return [float(jnp.abs(m - e).max()) for m, e in zip(mean, exact, strict=True)]


@pytest.mark.parametrize(
    ("entry", "n"),
    [
        pytest.param(
            entry,
            n,
            id=f"{entry.name}-{n}",
            marks=once(is_kin=entry.name in KIN or n > max(entry.samples[0], 2)),
        )
        for entry in EXACT
        for n in entry.samples
    ],
)
def test_terms_are_unbiased_for_every_number_of_samples(entry: Entry, n: int) -> None:
    p = problem(entry.kinds[0])
    estimator = entry.build(p)
    order = int(min(estimator.order, 2))
    estimate = mean_of_terms(p, estimator, n)
    mean, _ = moments_of_derivatives(estimate, p, entry.noise(p), n, order)
    assert estimator.unbiased
    check_exact(p, mean)


@pytest.mark.parametrize(("entry", "kind"), grid(EXACT))
def test_expectation_is_unbiased_through_its_own_keys(entry: Entry, kind: str) -> None:
    p = problem(kind)
    estimator = entry.build(p)
    order = int(min(estimator.order, 2))
    samples = max(entry.samples[0], 2)
    estimate = p.estimate(estimator, num_samples=samples)
    mean, _ = moments_of_derivatives(estimate, p, entry.noise(p), samples, order)
    check_exact(p, mean)


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(row.values[0], id=row.id, marks=row.marks)
        for row in rows(precisions=("bfloat16", "float32"))
        if row.values[0].entry in EXACT and problem(row.values[0].kind).support is not None
    ],
)
def test_expectation_is_unbiased_in_lower_precisions(row: Row) -> None:
    # Numbers in the middle of the pieces give the same draws in every precision.
    p, entry = problem(row.kind), row.entry
    samples = max(entry.samples[0], 2)
    estimate = row.problem.estimate(row.estimator(), num_samples=samples)
    order = int(min(row.estimator().order, 2))
    mean, _ = moments_of_derivatives(estimate, row.problem, entry.noise(p), samples, order)
    exact = exact_derivatives(p, order)
    assert_close(mean, exact, atol=4 * float(jnp.finfo(row.dtype).eps) * scale(exact))


@pytest.mark.parametrize("chunk_size", [1, 2])
def test_chunks_keep_an_expectation_unbiased(chunk_size: int) -> None:
    p = problem("categorical")
    estimate = p.estimate(sf.ScoreFunction(), num_samples=3, chunk_size=chunk_size)
    check_exact(p, moments_of_derivatives(estimate, p, p.noise, 3, 2)[0])


def test_differentiable_is_unbiased() -> None:
    p = problem("categorical")
    record, f = p.distribution(p.params), p.f(p.params)
    objective = sf.differentiable(
        f, record.log_prob, record.sample, sf.ScoreFunction(), num_samples=2
    )

    def expected(params: Any) -> Any:
        probs, values = jax.nn.softmax(params["logits"]), jax.vmap(f)(jnp.arange(3))
        return jax.tree.map(lambda v: jnp.tensordot(probs, v, 1), values)

    mean, _ = moments_of_derivatives(objective, p, p.noise, 2, 2)
    check_exact(replace(p, expected=expected), mean)


def test_an_expectation_inside_an_expectation_is_unbiased() -> None:
    # E_x E_y (x + 1) * y^2 with y ~ Normal(x * mean, 1): the law of iterated expectation.
    outer, inner = problem("categorical"), problem("gaussian")
    estimator = sf.ScoreFunction(sf.ConstantBaseline(0.3))

    def loss(params: Any, key: jax.Array) -> jax.Array:
        # One uniform number for the outer draw, one for the inner.
        outer_key, inner_key = jax.random.split(jax.random.fold_in(key, 0))

        def f(x: jax.Array) -> jax.Array:
            shifted = params["gaussian"] | {"mean": params["gaussian"]["mean"] * x}
            return sf.expectation(
                lambda y: (x + 1) * y**2, inner.distribution(shifted), inner_key, sf.Pathwise()
            )

        return sf.expectation(f, outer.distribution(params["categorical"]), outer_key, estimator)

    def expected(params: Any) -> jax.Array:
        x = jnp.arange(3)
        gaussian = params["gaussian"]
        second = (gaussian["mean"] * x) ** 2 + jnp.exp(2 * gaussian["log_scale"])
        return jnp.sum(jax.nn.softmax(params["categorical"]["logits"]) * (x + 1) * second)

    both = replace(
        outer,
        params={"categorical": outer.params, "gaussian": inner.params},
        expected=expected,
    )
    check_exact(both, moments_of_derivatives(loss, both, outer.noise * inner.noise, 1, 2)[0])


# ------------------------------------------------------------------ one fixed tuple, closed forms


def score_form(
    baselines: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> Callable[[Problem, jax.Array], np.ndarray]:
    """mean_i[(f_i - b_i) s_i + df_i], written out; baselines from costs [n, O], scores [n, P]."""

    def gradient(p: Problem, keys: jax.Array) -> np.ndarray:
        @jax.jit
        def one(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
            x = p.distribution(p.params).sample(p.params, key)
            f, df = derivatives(lambda params: p.f(params)(x), p.params, 1)
            log_prob = derivatives(lambda q: p.distribution(q).log_prob(q, x), p.params, 1)
            return f, df, log_prob[1][0]

        costs, slopes, scores = map(np.array, zip(*map(one, keys), strict=True))
        advantage = costs - baselines(costs, scores)
        return np.mean(advantage[:, :, None] * scores[:, None, :] + slopes, 0)

    return gradient


def leave_one_out(costs: np.ndarray, scores: np.ndarray, power: int = 0) -> np.ndarray:
    rows = range(len(costs))
    weights = np.sum(scores**2, 1) ** power
    others = [
        np.average(np.delete(costs, i, 0), axis=0, weights=np.delete(weights, i)) for i in rows
    ]
    return np.array(others)


def pathwise_form(p: Problem, keys: jax.Array) -> np.ndarray:
    """mean_i[df/dx dx/dparams + df/dparams], each factor by itself."""

    @jax.jit
    def one(key: jax.Array) -> jax.Array:
        (x,), dx = derivatives(lambda q: p.distribution(q).sample(q, key), p.params, 1)
        df_dx = derivatives(p.f(p.params), x, 1)[1]
        df_dparams = derivatives(lambda q: p.f(q)(x), p.params, 1)[1]
        return df_dx @ dx + df_dparams

    return np.mean([one(key) for key in keys], 0)


def fixed(value: float) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    return lambda costs, _: np.full_like(costs, value)


CLOSED_FORMS = {
    "leave_one_out": score_form(leave_one_out),
    "constant": score_form(fixed(1.7)),
    "moving_average": score_form(fixed(3.0)),
    "learned": score_form(fixed(2.3)),
    "optimal": score_form(partial(leave_one_out, power=1)),
    "pathwise": pathwise_form,
    "enumerate": lambda p, _: np.asarray(exact_derivatives(p, 1)[1]),
}


@pytest.mark.parametrize("n", [3, 4])
@pytest.mark.parametrize("name", CLOSED_FORMS)
def test_the_gradient_of_a_fixed_tuple_is_its_closed_form(name: str, n: int) -> None:
    entry = next(entry for entry in ENTRIES if entry.name == name)
    p = problem(entry.kinds[0])
    key = jax.random.key(n)
    estimate = mean_of_terms(p, entry.build(p), n)
    _, gradient = jax.jit(lambda: derivatives(lambda params: estimate(params, key), p.params, 1))()
    desired = CLOSED_FORMS[name](p, folded(key, n))
    assert_close(gradient, desired, atol=1e-12 * scale(desired))


# --------------------------------------------------------------------------------------- variance


def score_moments(p: Problem) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities, costs and scores over the support of the categorical problem."""
    probs = p.noise.weights
    costs = np.array([p.f(p.params)(jnp.asarray(x))["scalar"] for x in range(3)])
    return probs, costs, np.eye(3) - probs


def gradient_variance(p: Problem, baseline: sf.Baseline, n: int) -> np.ndarray:
    """The exact variance of the gradient by the logits, of a cost without parameters."""
    cost = p.f(p.params)
    fixed = replace(p, f=lambda params: lambda x: cost(x)["scalar"])  # noqa: ARG005
    estimate = fixed.estimate(sf.ScoreFunction(baseline), num_samples=n)
    _, variance = moments_of_derivatives(estimate, fixed, p.noise, n, 1)
    return np.asarray(variance[1][0, :3])


@pytest.mark.parametrize("n", [2, 3, 4])
def test_leave_one_out_has_the_variance_that_its_docstring_states(n: int) -> None:
    p = problem("categorical")
    probs, f, h = score_moments(p)
    m, g = probs @ f, probs @ (f[:, None] * h)
    perfect = probs @ ((f - m)[:, None] ** 2 * h**2) - g**2
    price = probs @ (f - m) ** 2 * (probs @ h**2) + g**2
    desired = perfect / n + price / (n * (n - 1))
    variance = gradient_variance(p, sf.LeaveOneOut(), n)
    np.testing.assert_allclose(variance, desired, rtol=0, atol=1e-12 * scale(desired))


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("value", [0.0, 4.0])
def test_a_constant_baseline_has_the_variance_of_independent_samples(value: float, n: int) -> None:
    p = problem("categorical")
    probs, f, h = score_moments(p)
    term = (f - value)[:, None] * h
    desired = (probs @ term**2 - (probs @ term) ** 2) / n
    variance = gradient_variance(p, sf.ConstantBaseline(value), n)
    np.testing.assert_allclose(variance, desired, rtol=0, atol=1e-12 * scale(desired))


def test_leave_one_out_beats_every_smaller_choice_here() -> None:
    p = problem("categorical")
    plain, loo = (
        gradient_variance(p, b, 4).sum() for b in (sf.ConstantBaseline(), sf.LeaveOneOut())
    )
    assert loo < plain / 4


def test_the_optimal_constant_leaves_one_coin_no_variance() -> None:
    logit, cost = 0.4, lambda x: (x - 0.45) ** 2
    p = problem("bernoulli")
    prob = float(jax.nn.sigmoid(logit))
    optimal = prob * cost(0.0) + (1 - prob) * cost(1.0)

    def gradient(key: jax.Array, value: float) -> jax.Array:
        def loss(logit: jax.Array) -> jax.Array:
            def f(x: jax.Array) -> jax.Array:
                return cost(x[0].astype(float))

            one_coin = p.distribution({"logits": logit[None]})
            estimator = sf.ScoreFunction(sf.ConstantBaseline(value))
            return sf.expectation(f, one_coin, key, estimator)

        return jax.grad(loss)(jnp.asarray(logit))

    exact = prob * (1 - prob) * (cost(1.0) - cost(0.0))
    coin = pieces(prob)
    mean, variance = exact_moments(partial(gradient, value=optimal), coin, 1)
    _, plain = exact_moments(partial(gradient, value=0.0), coin, 1)
    np.testing.assert_allclose(mean, exact, rtol=0, atol=1e-15)
    np.testing.assert_allclose(variance, 0, rtol=0, atol=1e-30)
    assert plain > 1e-3


# ------------------------------------------------------------------- what the checks must notice


@partial(jax.tree_util.register_dataclass, data_fields=[], meta_fields=[])
@dataclass(frozen=True)
class OwnMean(sf.Baseline):
    """The mean of all samples, its own included: biased."""

    def __call__(self, costs: Any, weights: Any = None) -> Any:
        del weights
        return jax.tree.map(lambda cost: jnp.broadcast_to(cost.mean(0), cost.shape), costs)


def same_key_for_all(f: Any, distribution: Any, keys: jax.Array) -> Any:
    return sf.ScoreFunction()(f, distribution, jnp.broadcast_to(keys[0], keys.shape))


def one_key_twice(f: Any, distribution: Any, keys: jax.Array) -> Any:
    return sf.ScoreFunction()(f, distribution, jnp.concatenate([keys[:-1], keys[:1]]))


def own_mean(f: Any, distribution: Any, keys: jax.Array) -> Any:
    return sf.ScoreFunction(OwnMean())(f, distribution, keys)


def score_by_hand(f: Any, distribution: Any, keys: jax.Array, sample: Any) -> Any:
    def term(key: jax.Array) -> Any:
        x = sample(distribution, key)
        log_prob = distribution.log_prob(distribution.params, x)
        return jax.tree.map(lambda cost: sf.attach_score(cost, log_prob), f(x))

    return jax.vmap(term)(keys)


def stopped(f: Any, distribution: Any, keys: jax.Array) -> Any:
    return score_by_hand(f, distribution, keys, sf.Distribution.stopped_draw)


def not_stopped(f: Any, distribution: Any, keys: jax.Array) -> Any:
    return score_by_hand(f, distribution, keys, sf.Distribution.draw)


def first_order_only(f: Any, distribution: Any, keys: jax.Array) -> Any:
    def term(key: jax.Array) -> Any:
        x = distribution.stopped_draw(key)
        log_prob = distribution.log_prob(distribution.params, x)
        zero = log_prob - jax.lax.stop_gradient(log_prob)
        return jax.tree.map(lambda cost: cost + zero * jax.lax.stop_gradient(cost), f(x))

    return jax.vmap(term)(keys)


def summed(f: Any, distribution: Any, keys: jax.Array) -> Any:
    return jax.tree.map(lambda t: t * len(keys), stopped(f, distribution, keys))


CONTROLS = [
    # estimator, problem, n, the lowest order that is biased (None: unbiased)
    (stopped, "categorical", 3, None),
    (stopped, "gaussian", 3, None),
    (same_key_for_all, "categorical", 3, 1),
    (one_key_twice, "categorical", 3, 1),
    (own_mean, "categorical", 3, 1),
    (not_stopped, "gaussian", 3, 1),
    (first_order_only, "categorical", 3, 2),
    (summed, "categorical", 3, 0),
]


@pytest.mark.parametrize(
    ("estimator", "kind", "n", "order"),
    [pytest.param(*row, id=f"{row[0].__name__}-{row[1]}") for row in CONTROLS],
)
def test_the_helper_sees_a_wrong_estimator(
    estimator: Any, kind: str, n: int, order: int | None
) -> None:
    p = problem(kind)
    mean, _ = moments_of_derivatives(mean_of_terms(p, estimator, n), p, p.noise, n, 2)
    wrong = [b > 1e-2 for b in bias(p, mean)]
    assert wrong == [order is not None and i >= order for i in range(3)]


def test_every_tuple_of_draws_occurs_once() -> None:
    p = problem("categorical")

    def outcome(key: jax.Array) -> jax.Array:
        _, x = sf.expectation(
            lambda x: (0.0, x),
            p.distribution(p.params),
            key,
            sf.ScoreFunction(),
            num_samples=3,
            has_aux=True,
        )
        return jax.nn.one_hot(x[0] + 3 * x[1] + 9 * x[2], 27)

    mean, _ = exact_moments(outcome, p.noise, 3)
    probs = p.noise.weights
    desired = np.einsum("i,j,k->kji", probs, probs, probs).ravel()
    np.testing.assert_allclose(mean, desired, rtol=0, atol=1e-15)
