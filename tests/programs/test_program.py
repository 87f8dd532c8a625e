"""Programs of several choices: exact over every draw, for value, gradient and Hessian."""

from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import Noise, hermite, pieces
from support.program_draws import COINS, check, coin_noise, coins, every_key, expected_of, fast

import scorefn as sf

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)


CONSTANT = sf.ScoreFunction(sf.ConstantBaseline(0.7))
LEFT_OUT = sf.ScoreFunction()
SMOOTH = sf.RELAX(lambda params, z: params * jax.nn.sigmoid(z), 1.5)


def once(i: int) -> Noise:
    return coin_noise(i)


def mirrored(i: int) -> Noise:
    return coin_noise(i, mirrored=True)


def summed(_: int) -> Noise:
    return pieces()


def smooth(i: int) -> Noise:
    return coin_noise(i, order=16)


def split(i: int) -> Noise:
    return coin_noise(i) * pieces()


# For each choice the estimator, the samples, the branches and their noise; and the highest order.
PROGRAMS: dict[str, tuple[int, list[tuple[Any, int, int, Any]]]] = {
    "one": (3, [(CONSTANT, 3, 3, once)]),
    "score": (2, [(CONSTANT, 1, 1, once)] * 3),
    "leave one out": (2, [(LEFT_OUT, 2, 2, once), (LEFT_OUT, 2, 2, once)]),
    "sum first": (2, [(sf.Enumerate(), 1, 2, summed), (CONSTANT, 1, 1, once)]),
    "sum last": (3, [(CONSTANT, 1, 1, once), (sf.Enumerate(), 1, 2, summed)]),
    "RELAX": (2, [(CONSTANT, 1, 1, once), (SMOOTH, 1, 1, smooth), (LEFT_OUT, 2, 2, once)]),
    "DisARM": (1, [(sf.DisARM(), 1, 1, mirrored), (LEFT_OUT, 2, 2, once)]),
    "DisARM last": (1, [(CONSTANT, 2, 2, once), (sf.DisARM(), 1, 1, mirrored)]),
    "weak": (
        1,
        [(CONSTANT, 1, 1, once), (sf.MeasureValued(), 2, 2, split), (CONSTANT, 1, 1, once)],
    ),
}


@x64
@pytest.mark.parametrize("name", PROGRAMS)
def test_three_coins(name: str) -> None:
    order, choices = PROGRAMS[name]
    estimators, samples, branches, noises = zip(*choices, strict=True)
    loss = coins(len(choices), estimators, samples)
    rules = [(noise(i), n) for i, (noise, n) in enumerate(zip(noises, branches, strict=True))]
    check(loss, expected_of(len(choices)), COINS, rules, order)


# ---------------------------------------------------------------------- discrete and continuous

MIXED = {
    "coin": np.array(0.4),
    "mean": np.array([0.6, -0.3]),
    "log_scale": np.array(-0.2),
    "slope": np.array(0.8),
}


def mixed_costs(p: Any, a: Any, z: Any, y: Any) -> dict[str, jax.Array]:
    return {"one": z * y**2 + p["slope"] * a * z, "two": jnp.stack([y * a - z, p["coin"] * z**2])}


@x64
@pytest.mark.parametrize("second", [sf.Pathwise(), CONSTANT], ids=["path", "score"])
def test_a_coin_and_two_gaussians_and_costs_of_any_structure(second: sf.Estimator) -> None:
    @sf.program
    def model(p: Any) -> Any:
        a = yield sf.sample(sf.Bernoulli(p["coin"]), CONSTANT, num_samples=2)
        centre = p["mean"][0] + p["mean"][1] * a
        z = yield sf.sample(distrax.Normal(centre, jnp.exp(p["log_scale"])), second)
        y = yield sf.sample(distrax.Normal(p["slope"] * z, 1.0), sf.Pathwise())
        return mixed_costs(p, a, z, y)

    def expected(p: Any) -> Any:
        one = jax.nn.sigmoid(p["coin"])
        slope, variance = p["slope"], jnp.exp(2 * p["log_scale"])

        def given(a: float) -> Any:
            m = p["mean"][0] + p["mean"][1] * a
            first = slope**2 * (m**3 + 3 * m * variance) + m + slope * a * m
            return {
                "one": first,
                "two": jnp.stack([slope * m * a - m, p["coin"] * (m**2 + variance)]),
            }

        return jax.tree.map(lambda x, y: one * x + (1 - one) * y, given(1.0), given(0.0))

    noise = pieces(1 / (1 + np.exp(-MIXED["coin"])))
    check(
        lambda p, key: model(p)(key),
        expected,
        MIXED,
        [(noise, 2), (hermite(4), 1), (hermite(3), 1)],
    )


@x64
def test_a_coin_whose_logit_is_a_reparameterised_draw() -> None:
    # The path goes on through the probabilities of the coin; nodes of one rule on both sides.
    rule = hermite(6)

    def cost(p: Any, z: Any, b: Any) -> jax.Array:
        return (b - p["slope"] * z) ** 2 + jnp.sin(z) * b

    @sf.program
    def model(p: Any) -> Any:
        z = yield sf.sample(distrax.Normal(p["mean"][0], jnp.exp(p["log_scale"])), sf.Pathwise())
        b = yield sf.sample(sf.Bernoulli(p["mean"][1] + z), sf.Enumerate())
        return cost(p, z, b)

    def expected(p: Any) -> jax.Array:
        noise = jax.scipy.special.ndtri(jnp.asarray(rule.points[:, 0]))
        z = p["mean"][0] + jnp.exp(p["log_scale"]) * noise
        one = jax.nn.sigmoid(p["mean"][1] + z)
        return jnp.sum(rule.weights * (one * cost(p, z, 1.0) + (1 - one) * cost(p, z, 0.0)))

    params = {name: MIXED[name] for name in ("mean", "log_scale", "slope")}
    check(lambda p, key: model(p)(key), expected, params, [(rule, 1), (pieces(), 2)], order=3)


@x64
def test_each_branch_has_noise_of_its_own() -> None:
    # Var(mean of 2 branches) is half of that of one; with noise in common it would be all of it.
    @sf.program
    def model(p: Any) -> Any:
        yield sf.sample(sf.Deterministic(p), sf.Pathwise(), num_samples=2)
        z = yield sf.sample(distrax.Normal(p, 1.0), sf.Pathwise())
        return z

    keys, weights = every_key((pieces(), 2), (hermite(3), 1))
    values = jax.vmap(model(jnp.array(0.3)))(keys)
    mean = weights @ values
    np.testing.assert_allclose(mean, 0.3, rtol=0, atol=1e-14)
    np.testing.assert_allclose(weights @ (values - mean) ** 2, 0.5, rtol=0, atol=1e-14)


def test_what_an_estimator_compares_differs_by_the_draw_alone() -> None:
    @sf.program
    def model(logit: Any) -> Any:
        b = yield sf.sample(sf.Bernoulli(logit), sf.BitFlip())
        z = yield sf.sample(distrax.Normal(0.0, 100.0), sf.Pathwise())
        return b + z

    gradient = fast(jax.vmap(jax.grad(lambda x, key: model(x)(key)), (None, 0)))
    found = gradient(0.0, jax.random.split(KEY, 5))
    np.testing.assert_allclose(found, 0.25, rtol=0, atol=1e-4)


# --------------------------------------------------------------------------- programs as Python


def test_loops_branches_and_helpers_are_python() -> None:
    def helper(p: Any, twice: Any) -> Any:
        first = yield sf.sample(sf.Bernoulli(p), sf.Enumerate())
        if not twice:
            return first
        return first + (yield sf.sample(sf.Bernoulli(-p), sf.Enumerate()))

    @sf.program
    def inner(p: Any) -> Any:
        yield sf.cost(10.0)
        return (yield from helper(p, twice=False))

    @sf.program
    def model(p: Any, *, number: int) -> Any:
        total = 0.0
        for i in range(number):
            total += yield from helper(p, twice=i % 2 == 1)
        total += yield from inner(p)
        return total**2

    # Three coins of p and one of -p: a sum of variance 4 p (1 - p) and mean 3 p + 1 - p.
    one = jax.nn.sigmoid(0.3)
    exact = 4 * one * (1 - one) + (1 + 2 * one) ** 2 + 10
    np.testing.assert_allclose(fast(model(0.3, number=2))(KEY), exact, rtol=1e-5, atol=0)


class Twice(sf.Estimator):
    """One that asks for two traces of f, and tells whether these have the same noise."""

    when = needs = ""

    def terms(self, f: Any, distribution: Any, keys: Any, vmap: Any) -> Any:
        def one(key: jax.Array) -> Any:
            x = distribution.stopped_draw(key)
            (first, aux), (second, _) = f(x), f(x.astype(jnp.int32))
            return first + 1000 * (first - second), aux

        return vmap(one)(keys)


def test_a_program_is_replayed_where_it_is_traced_once_more() -> None:
    starts = []

    @sf.program
    def model() -> Any:
        starts.append(None)
        a = yield sf.sample(sf.Bernoulli(jnp.array(50.0)), Twice())
        yield sf.cost(100.0 * a)
        b = yield sf.sample(distrax.Normal(0.0, 1.0), sf.Pathwise())
        c = yield sf.sample(sf.Bernoulli(jnp.array(50.0)), Twice())
        return a + 10.0 * c + b

    value = fast(model())(KEY)
    assert len(starts) > 1
    assert abs(value - 111) < 6
    assert value != 111


def test_chunks_and_jit_do_not_change_a_result() -> None:
    def model(chunk_size: Any) -> Any:
        @sf.program
        def body(p: Any) -> Any:
            z = yield sf.sample(
                distrax.Normal(p, 1.0), sf.Pathwise(), num_samples=6, chunk_size=chunk_size
            )
            b = yield sf.sample(
                sf.Bernoulli(z), sf.ScoreFunction(), num_samples=4, chunk_size=chunk_size
            )
            return (b - z) ** 2

        return lambda p, key: body(p)(key)

    whole, chunked = (fast(jax.value_and_grad(model(c)))(0.3, KEY) for c in (None, 2))
    np.testing.assert_allclose(chunked, whole, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(jax.value_and_grad(model(None))(0.3, KEY), whole, rtol=1e-5, atol=0)


def test_tracing_grows_with_the_choices_and_not_with_their_square() -> None:
    steps: list[int] = []

    def equations(number: int, estimator: sf.Estimator) -> int:
        @sf.program
        def model(p: Any) -> Any:
            total = 0.0
            for i in range(number):
                steps.append(i)
                total += yield sf.sample(sf.Bernoulli(p[i] + total), estimator)
                yield sf.cost(total)

        jaxpr = jax.make_jaxpr(jax.grad(lambda p: model(p)(KEY)))(jnp.zeros(number))
        return count(jaxpr.jaxpr)

    def count(jaxpr: Any) -> int:
        nested = jax.tree.leaves(
            [list(eqn.params.values()) for eqn in jaxpr.eqns], is_leaf=callable
        )
        inner = [getattr(p, "jaxpr", p) for p in nested if hasattr(getattr(p, "jaxpr", p), "eqns")]
        return len(jaxpr.eqns) + sum(count(j) for j in inner)

    # StraightThrough looks at f four times to trace it once: 4^20 would never end.
    for estimator in (CONSTANT, sf.StraightThrough()):
        small, large = equations(5, estimator), equations(20, estimator)
        assert large < 5 * small, (small, large)
    # Every line of the programs ran once.
    assert len(steps) == 2 * (5 + 20)


def test_a_program_that_cannot_be_repeated_is_refused() -> None:
    starts = []

    @sf.program
    def model() -> Any:
        starts.append(None)
        if len(starts) == 1:
            yield sf.sample(sf.Bernoulli(jnp.array(0.3)), CONSTANT)
        b = yield sf.sample(sf.Bernoulli(jnp.array(0.3)), Twice())
        return b

    with pytest.raises(RuntimeError, match="It must be repeatable"):
        jax.eval_shape(model(), KEY)
