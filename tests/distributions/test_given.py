"""Draws made elsewhere: exact means over every tuple of draws, with and without the normalizer."""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.sharding import AxisType, NamedSharding, PartitionSpec
from support.exact import FAST, assert_close
from support.transformations import TRANSFORMATIONS

import scorefn as sf

pytestmark = pytest.mark.usefixtures("x64")

KEY = jax.random.key(0)
STATES = 3
PARAMS = {"slope": np.array(0.7), "wave": np.array(0.4)}
OLD = np.array([0.5, -0.3, 0.2])
once = partial(jax.jit, compiler_options=FAST)


def log_prob(params: Any, x: Any) -> jax.Array:
    """Unnormalized, with a constant that depends on the parameters."""
    energy = jnp.array([0.3, -1.0, 2.0])[x["state"]]
    wave = jnp.sin(params["wave"] * x["state"])
    return params["slope"] * energy + wave + params["slope"] ** 2 * params["wave"]


def cost(params: Any) -> Any:
    def f(x: Any) -> dict[str, jax.Array]:
        first = jnp.array([5.0, 7.5, 2.0])[x["state"]] * params["slope"]
        return {
            "scalar": first,
            "pair": jnp.stack([first**2, jnp.cos(params["wave"] * x["place"])]),
        }

    return f


def draws_of(states: Any) -> dict[str, jax.Array]:
    """A pytree of integers and floats."""
    return {"state": jnp.asarray(states), "place": jnp.asarray(states) / 2.0}


def probabilities(params: Any) -> jax.Array:
    return jax.nn.softmax(jax.vmap(partial(log_prob, params))(draws_of(np.arange(STATES))))


def expected(params: Any) -> Any:
    costs = jax.vmap(cost(params))(draws_of(np.arange(STATES)))
    return jax.tree.map(lambda c: jnp.tensordot(probabilities(params), c, 1), costs)


def tuples(n: int, probs: Any) -> tuple[np.ndarray, jax.Array]:
    """Every tuple of n draws, [S^n, n], and its probability."""
    rows = np.array(list(itertools.product(range(STATES), repeat=n)))
    return rows, jnp.asarray(probs)[rows].prod(1)


def estimate(params: Any, states: Any, estimator: Any = None, **options: Any) -> Any:
    given = sf.Given(draws_of(states), log_prob, params, options.pop("log_prob_old", None))
    estimator = sf.ScoreFunction() if estimator is None else estimator
    options = {"num_samples": len(states)} | options
    return sf.expectation(cost(params), given, KEY, estimator, **options)


def up_to(fn: Any, order: int) -> list[jax.Array]:
    """Value, gradient and Hessian along the flat parameters."""
    flat, unravel = ravel_pytree(PARAMS)
    values = lambda flat: ravel_pytree(fn(unravel(flat)))[0]  # noqa: E731
    each = [values, jax.jacrev(values), jax.jacfwd(jax.jacrev(values))][: order + 1]
    return once(lambda flat: [d(flat) for d in each])(flat)


def mean_of(estimator: Any, n: int, order: int, probs: Any = None, **options: Any) -> Any:
    """The exact means of what is estimated, over every tuple of draws."""
    probs = probabilities(PARAMS) if probs is None else probs
    rows, weights = tuples(n, probs)
    if options.pop("weighted", False):
        options["log_prob_old"] = np.log(probs)[rows] + 1.7

    def mean(params: Any) -> Any:
        each = jax.vmap(lambda states, options: estimate(params, states, estimator, **options))
        return jax.tree.map(lambda v: jnp.tensordot(weights, v, 1), each(rows, options))

    return up_to(mean, order)


# ------------------------------------------------------------------------------------- unbiasedness


@pytest.mark.parametrize(("n", "order"), [(2, 1), (3, 2), (4, 2)])
def test_value_gradient_and_hessian_are_exact(n: int, order: int) -> None:
    assert_close(mean_of(sf.ScoreFunction(), n, order), up_to(expected, order), atol=1e-12)


def test_the_normalizer_makes_no_difference() -> None:
    """The estimate of each tuple, not only its mean, is that of the normalized log_prob."""

    def normalized(params: Any, x: Any) -> jax.Array:
        return jnp.log(probabilities(params))[x["state"]]

    def of(log_prob: Any) -> Any:
        states = np.array([0, 2, 1, 2])

        def fn(params: Any) -> Any:
            given = sf.Given(draws_of(states), log_prob, params)
            return sf.expectation(cost(params), given, KEY, sf.ScoreFunction(), num_samples=4)

        return up_to(fn, 2)

    assert_close(of(normalized), of(log_prob), atol=1e-12)


def test_the_gradient_is_the_covariance_of_leave_one_out() -> None:
    """Against the formula by hand; the mean of all draws, as a baseline, is (n - 1) / n of it."""
    states = np.array([0, 2, 1, 1, 2])
    draws = draws_of(states)

    def naive(params: Any, baseline: Any) -> jax.Array:
        costs = jax.vmap(lambda x: cost(params)(x)["scalar"])(draws)
        log_probs = jax.vmap(partial(log_prob, params))(draws)
        return jnp.mean(sf.attach_score(costs, log_probs, baseline(jax.lax.stop_gradient(costs))))

    def along_wave(fn: Any) -> jax.Array:
        # The cost "scalar" has no derivative of its own along the wave.
        return once(jax.grad(fn))(PARAMS)["wave"]

    ours = along_wave(lambda params: estimate(params, states)["scalar"])
    assert_close(along_wave(partial(naive, baseline=sf.leave_one_out)), ours, atol=1e-12)
    of_all = along_wave(partial(naive, baseline=lambda c: jnp.full(5, jnp.mean(c))))
    assert_close(of_all, ours * 4 / 5, atol=1e-12)
    assert abs(along_wave(partial(naive, baseline=jnp.zeros_like)) / ours - 1) > 1


def test_a_boltzmann_distribution_over_listed_states() -> None:
    """Four spins with couplings and fields: every pair of the 16 states."""
    spins = np.array(list(itertools.product([-1.0, 1.0], repeat=4)))
    params = {"coupling": np.array([0.3, -0.8, 0.5]), "field": np.array([0.1, 0.7, -0.4, 0.2])}

    def minus_energy(params: Any, s: jax.Array) -> jax.Array:
        return jnp.sum(params["coupling"] * s[1:] * s[:-1]) + params["field"] @ s

    f = lambda s: (jnp.sum(s) - 0.3) ** 3  # noqa: E731
    logits = lambda params: jax.vmap(partial(minus_energy, params))(spins)  # noqa: E731
    rows = np.array(list(itertools.product(range(16), repeat=2)))
    weights = jax.nn.softmax(logits(params))[rows].prod(1)

    def mean(params: Any) -> jax.Array:
        def one(draws: jax.Array) -> jax.Array:
            given = sf.Given(draws, minus_energy, params)
            return sf.expectation(f, given, KEY, sf.ScoreFunction(), num_samples=2)

        return weights @ jax.vmap(one)(jnp.asarray(spins)[rows])

    exact = lambda params: jax.nn.softmax(logits(params)) @ jax.vmap(f)(spins)  # noqa: E731
    got, wanted = (once(jax.value_and_grad(fn))(params) for fn in (mean, exact))
    assert_close(got, wanted, atol=1e-12)


# --------------------------------------------------------------------------------------- the chains


def kernel(probs: np.ndarray) -> np.ndarray:
    """A Metropolis chain that proposes any state, in equilibrium with the probabilities."""
    moves = np.minimum(1, probs[None] / probs[:, None]) / STATES
    moves[np.diag_indices(STATES)] = 0
    return moves + np.diag(1 - moves.sum(1))


def test_independent_chains_in_equilibrium_are_unbiased_and_one_chain_is_not() -> None:
    probs = np.asarray(probabilities(PARAMS))
    paths = np.array(list(itertools.product(range(STATES), repeat=2)))
    weights = (probs[:, None] * kernel(probs))[tuple(paths.T)]

    def steps(fn: Any) -> Any:
        return lambda params, x: jax.vmap(partial(fn, params))(x)

    def of_chains(params: Any) -> Any:
        """Two chains of two steps: the baseline of a step is that of the other chain."""

        def one(a: jax.Array, b: jax.Array) -> Any:
            draws = draws_of(jnp.stack([paths_[a], paths_[b]]))
            given = sf.Given(draws, steps(log_prob), params)
            f = partial(steps(lambda params, x: cost(params)(x)["scalar"]), params)
            estimator = sf.ScoreFunction(factor_ndim=1)
            return sf.expectation(f, given, KEY, estimator, num_samples=2).mean()

        pairs = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
        return weights @ pairs(jnp.arange(9), jnp.arange(9)) @ weights

    def of_one_chain(params: Any) -> Any:
        return weights @ jax.vmap(lambda path: estimate(params, path)["scalar"])(paths)

    paths_ = jnp.asarray(paths)
    wanted = up_to(lambda params: expected(params)["scalar"], 1)
    assert_close(up_to(of_chains, 1), wanted, atol=1e-12)
    value, gradient = up_to(of_one_chain, 1)
    assert_close(value, wanted[0], atol=1e-12)
    assert np.abs(gradient - wanted[1]).max() > 0.1


# ------------------------------------------------------------------------- draws of an older policy


@pytest.mark.parametrize(
    "baseline", [sf.LeaveOneOut(), sf.OptimalBaseline(), sf.ConstantBaseline(1.0)]
)
def test_importance_weights_of_normalized_densities_are_unbiased(baseline: Any) -> None:
    probs = np.exp(OLD) / np.exp(OLD).sum()
    rows, weights = tuples(2, probs)

    def normalized(params: Any, x: Any) -> jax.Array:
        return jnp.log(probabilities(params))[x["state"]]

    def mean(params: Any) -> Any:
        def one(states: jax.Array, old: jax.Array) -> Any:
            given = sf.Given(draws_of(states), normalized, params, old)
            estimator = sf.ImportanceWeighted(baseline=baseline)
            f = lambda x: cost(params)(x)["scalar"]  # noqa: E731
            return sf.expectation(f, given, KEY, estimator, num_samples=2)

        return weights @ jax.vmap(one)(rows, np.log(probs)[rows])

    wanted = up_to(lambda params: expected(params)["scalar"], 2)
    assert_close(up_to(mean, 2), wanted, atol=1e-12)


def test_self_normalized_weights_are_those_of_the_draws() -> None:
    """Against the ratio of sums, at every order, for constants in both densities."""
    states, old = np.array([0, 2, 1, 1]), OLD[[0, 2, 1, 1]] + 3.0

    def by_hand(params: Any) -> Any:
        draws = draws_of(states)
        weights = jnp.exp(jax.vmap(partial(log_prob, params))(draws) - old)
        costs = jax.vmap(cost(params))(draws)
        return jax.tree.map(lambda c: jnp.tensordot(weights, c, 1) / weights.sum(), costs)

    got = up_to(lambda p: estimate(p, states, sf.SelfNormalized(), log_prob_old=old), 2)
    assert_close(got, up_to(by_hand, 2), atol=1e-12)


def test_the_bias_of_self_normalized_weights_vanishes() -> None:
    probs = np.exp(OLD) / np.exp(OLD).sum()
    wanted = np.concatenate([np.ravel(x) for x in up_to(expected, 1)])

    def bias(n: int) -> float:
        got = mean_of(sf.SelfNormalized(), n, 1, probs, weighted=True)
        return float(np.abs(np.concatenate([np.ravel(x) for x in got]) - wanted).max())

    first, second = bias(3), bias(6)
    assert 0.01 < second < 0.65 * first


def test_log_weights_give_the_effective_sample_size() -> None:
    states = np.array([0, 2, 1, 1])
    given = sf.Given(draws_of(states), log_prob, PARAMS, OLD[states])
    weights = np.exp(
        np.asarray(jax.vmap(partial(log_prob, PARAMS))(draws_of(states))) - OLD[states]
    )
    size = sf.policy.effective_sample_size(given.log_weights())
    assert_close(size, weights.sum() ** 2 / (weights**2).sum(), atol=1e-12)
    on_policy = sf.Given(draws_of(states), log_prob, PARAMS).log_weights()
    assert sf.policy.effective_sample_size(on_policy) == 4


# ---------------------------------------------------------------------------------- transformations

FIVE = np.array([0, 2, 1, 1, 2])


def total(flat: jax.Array, key: jax.Array, **options: Any) -> jax.Array:
    params = ravel_pytree(PARAMS)[1](flat)
    given = sf.Given(draws_of(FIVE), log_prob, params)
    options = {"num_samples": 5} | options
    value = sf.expectation(cost(params), given, key, sf.ScoreFunction(), **options)
    return value["scalar"] + value["pair"].sum()


def test_every_transformation_and_chunks_give_the_same_gradient() -> None:
    flat = ravel_pytree(PARAMS)[0]
    losses = {"": total, " in chunks": partial(total, chunk_size=2)}
    wanted = once(jax.grad(total))(flat, KEY)

    def all_of_them(flat: jax.Array, key: jax.Array) -> Any:
        found = {
            name + chunks: by(loss)(flat, key)
            for name, by in TRANSFORMATIONS.items()
            for chunks, loss in losses.items()
        }
        hessians = [
            d(loss)(flat, key)
            for loss in losses.values()
            for d in (jax.hessian, lambda f: jax.jacrev(jax.jacrev(f)))
        ]
        return found, hessians

    found, hessians = once(all_of_them)(flat, KEY)
    assert_close(found, dict.fromkeys(found, wanted), atol=1e-11)
    assert_close(hessians[1:], [hessians[0]] * 3, atol=1e-10)


def test_draws_on_eight_devices() -> None:
    mesh = jax.make_mesh((8,), ("devices",), axis_types=(AxisType.Auto,))
    sharding = NamedSharding(mesh, PartitionSpec("devices"))
    states = np.arange(16) % STATES

    def of(**options: Any) -> Any:
        return up_to(lambda params: estimate(params, states, **options), 1)

    whole = of()
    assert_close(of(sharding=sharding), whole, atol=1e-12)
    assert_close(of(sharding=sharding, chunk_size=1), whole, atol=1e-12)


def test_a_program_continues_after_given_draws() -> None:
    """The rest of the program draws a coin whose bias the given draw decides."""

    def by_program(params: Any) -> jax.Array:
        @sf.program
        def body() -> Any:
            given = sf.Given(draws_of(FIVE), log_prob, params)
            x = yield sf.sample(given, sf.ScoreFunction(), num_samples=5)
            coin = yield sf.sample(sf.Bernoulli(params["wave"] * x["state"]), sf.Enumerate())
            other = yield sf.sample(sf.Bernoulli(params["slope"]), sf.Enumerate(), depends_on=())
            return coin * cost(params)(x)["scalar"] + other

        return body()(KEY)

    def by_hand(params: Any) -> jax.Array:
        def f(x: Any) -> jax.Array:
            coin = jax.nn.sigmoid(params["wave"] * x["state"]) * cost(params)(x)["scalar"]
            return coin + jax.nn.sigmoid(params["slope"])

        given = sf.Given(draws_of(FIVE), log_prob, params)
        return sf.expectation(f, given, KEY, sf.ScoreFunction(), num_samples=5)

    assert_close(up_to(by_program, 2), up_to(by_hand, 2), atol=1e-11)


def test_a_control_variate_with_a_known_mean() -> None:
    """The mean of the state is known exactly here: unbiased at both orders."""
    estimator = sf.ControlVariate(
        sf.ScoreFunction(),
        lambda x: x["place"],
        lambda params: probabilities(params) @ (jnp.arange(STATES) / 2.0),
        coefficient=0.7,
    )
    rows, weights = tuples(3, probabilities(PARAMS))

    def mean(params: Any) -> Any:
        def one(states: jax.Array) -> Any:
            given = sf.Given(draws_of(states), log_prob, params)
            f = lambda x: cost(params)(x)["scalar"]  # noqa: E731
            return sf.expectation(f, given, KEY, estimator, num_samples=3)

        return weights @ jax.vmap(one)(rows)

    assert_close(up_to(mean, 2), up_to(lambda p: expected(p)["scalar"], 2), atol=1e-12)


def test_check_unbiased_takes_draws_of_another_sampler() -> None:
    """A statistical test with a fixed key: a false alarm in 1e-9 of the keys."""

    def loss(params: Any, key: jax.Array) -> jax.Array:
        logits = jnp.log(probabilities(jax.lax.stop_gradient(params)))
        states = jax.random.categorical(key, logits, shape=(4,))
        return estimate(params, states)["scalar"]

    exact = jax.grad(lambda params: expected(params)["scalar"])(PARAMS)
    params = jax.tree.map(jnp.asarray, PARAMS)
    report = sf.check_unbiased(loss, params, KEY, exact=exact, num_repeats=4000, alpha=1e-9)
    assert report.passed, report


# -------------------------------------------------------------------------------------- what raises


def test_draws_are_fixed() -> None:
    """Draws computed from the parameters have no derivative."""

    def moved(params: Any) -> jax.Array:
        draws = {"state": jnp.asarray(FIVE), "place": params["wave"] * FIVE}
        f = lambda x: x["place"] ** 2  # noqa: E731
        given = sf.Given(draws, log_prob, params)
        return sf.expectation(f, given, KEY, sf.ScoreFunction(), num_samples=5)

    def fixed(params: Any) -> jax.Array:
        draws = {"state": jnp.asarray(FIVE), "place": PARAMS["wave"] * FIVE}
        f = lambda x: x["place"] ** 2  # noqa: E731
        given = sf.Given(draws, log_prob, params)
        return sf.expectation(f, given, KEY, sf.ScoreFunction(), num_samples=5)

    assert_close(up_to(moved, 2), up_to(fixed, 2), atol=1e-12)


@pytest.mark.parametrize(("n", "order"), [(2, 2), (3, 3)])
@pytest.mark.parametrize("outer", [jax.jacfwd, jax.jacrev])
def test_a_derivative_of_too_high_an_order_raises(n: int, order: int, outer: Any) -> None:
    fn = lambda flat: total_of(flat, n)  # noqa: E731
    for _ in range(order - 1):
        fn = jax.jit(jax.jacfwd(fn))
    with pytest.raises(TypeError, match="right to (first order with 2|second order)"):
        outer(fn)(ravel_pytree(PARAMS)[0])


def total_of(flat: jax.Array, n: int) -> jax.Array:
    params = ravel_pytree(PARAMS)[1](flat)
    return estimate(params, np.arange(n))["scalar"]


BASELINES = {
    "none": sf.ConstantBaseline(0.0),
    "constant": sf.ConstantBaseline(2.0),
    "running": sf.MovingAverage(0.9),
    "shrunk": sf.ShrunkLeaveOneOut(0.9),
    "weighted": sf.OptimalBaseline(),
}


@pytest.mark.parametrize("name", BASELINES)
def test_other_baselines_raise(name: str) -> None:
    with pytest.raises(TypeError, match="needs the baseline LeaveOneOut"):
        estimate(PARAMS, FIVE, sf.ScoreFunction(BASELINES[name]))


@pytest.mark.parametrize("name", ["weighted", "shrunk", "constant"])
def test_other_baselines_are_wrong(name: str) -> None:
    """They raise for a reason: with an unnormalized log_prob the mean gradient is another one."""
    rows, weights = tuples(3, probabilities(PARAMS))
    baseline = BASELINES[name]
    if name == "shrunk":
        baseline = baseline.update(jnp.array([1.0, 5.0, -2.0]))

    def mean(params: Any) -> Any:
        def one(states: jax.Array) -> jax.Array:
            draws = draws_of(states)
            costs = jax.vmap(lambda x: cost(params)(x)["scalar"])(draws)
            log_probs = jax.vmap(partial(log_prob, params))(draws)
            distribution = sf.Distribution(log_prob, jax.random.normal, params)
            norms = jax.vmap(lambda x: baseline.weight(x, distribution))(draws)
            stopped = jax.lax.stop_gradient((costs, norms))
            return jnp.mean(sf.attach_score(costs, log_probs, baseline(*stopped)))

        return weights @ jax.vmap(one)(rows)

    error = up_to(mean, 1)[1] - up_to(lambda p: expected(p)["scalar"], 1)[1]
    assert np.abs(error).max() > 0.1


OTHERS = {
    "pathwise": sf.Pathwise(),
    "antithetic": sf.Antithetic(sf.ScoreFunction(), lambda _, x: x),
    "proposal": sf.ImportanceWeighted(sf.Categorical(jnp.zeros(3))),
    "DisARM": sf.DisARM(),
    "self-normalized": sf.SelfNormalized(),
    "importance": sf.ImportanceWeighted(),
    "statistic": sf.SampleStatistic(sf.ScoreFunction(), jnp.mean),
    "enumerate": sf.Enumerate(draws_of(range(STATES))),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_estimators_raise(name: str) -> None:
    match = "nothing can draw|needs draws of another|independent bits|with its normalizer"
    with pytest.raises((TypeError, ValueError), match=match):
        estimate(PARAMS, FIVE, OTHERS[name])


def test_sizes_and_old_densities_are_checked() -> None:
    with pytest.raises(ValueError, match="num_samples must be 5, the number of draws in Given"):
        estimate(PARAMS, FIVE, num_samples=4)
    with pytest.raises(ValueError, match="num_samples must be at least 2"):
        estimate(PARAMS, FIVE[:1])
    with pytest.raises(ValueError, match=r"log_prob_old must hold one number for each of the 5"):
        estimate(PARAMS, FIVE, sf.SelfNormalized(), log_prob_old=jnp.zeros((5, 1)))
    with pytest.raises(TypeError, match="log_prob_old says"):
        estimate(PARAMS, FIVE, log_prob_old=jnp.zeros(5))
    with pytest.raises(TypeError, match="without a proposal.*a distribution with a sampler"):
        sf.expectation(jnp.sum, sf.Bernoulli(0.0), KEY, sf.SelfNormalized(), num_samples=2)
    for draws in ([], 1.0, {"a": jnp.zeros(5), "b": jnp.zeros(4)}):
        given = sf.Given(draws, log_prob, PARAMS)
        with pytest.raises(ValueError, match="draws must be an array with a leading axis"):
            sf.expectation(cost(PARAMS), given, KEY, sf.ScoreFunction(), num_samples=5)


def test_a_bound_needs_a_normalized_density_and_takes_a_known_entropy() -> None:
    """log q without its normalizer would shift the bound, and its gradient."""
    given = sf.Given(draws_of(FIVE), log_prob, PARAMS)
    log_joint = lambda x: cost(PARAMS)(x)["scalar"]  # noqa: E731
    options: dict[str, Any] = {"num_samples": 5}
    with pytest.raises(TypeError, match="with its normalizer"):
        sf.vi.elbo(log_joint, given, KEY, sf.ScoreFunction(), **options)
    with pytest.raises(TypeError, match="nothing can draw"):
        sf.vi.vimco(log_joint, given, KEY, **options)
    bound = sf.vi.elbo(log_joint, given, KEY, sf.ScoreFunction(), entropy=0.5, **options)
    assert_close(bound, estimate(PARAMS, FIVE)["scalar"] + 0.5, atol=1e-12)


def test_a_support_that_moves_raises() -> None:
    def uniform(end: Any, x: jax.Array) -> jax.Array:
        return jnp.where(x < end, -jnp.log(end), -jnp.inf)

    def loss(end: Any) -> jax.Array:
        given = sf.Given(jnp.array([0.2, 0.5]), uniform, end)
        return sf.expectation(jnp.square, given, KEY, sf.ScoreFunction(), num_samples=2)

    with pytest.raises(TypeError, match="support of the distribution depends on it"):
        jax.grad(loss)(2.0)


def test_a_broken_cost_is_not_a_small_step() -> None:
    def loss(slope: Any) -> jax.Array:
        given = sf.Given(jnp.array([0.2, 0.5, 1.0]), lambda s, x: -s * x, slope)
        f = lambda x: jnp.where(x < 0.3, jnp.inf, x)  # noqa: E731
        return sf.expectation(f, given, KEY, sf.ScoreFunction(), num_samples=3)

    value, slope = jax.value_and_grad(loss)(1.0)
    assert value == jnp.inf
    assert not jnp.isfinite(slope)
