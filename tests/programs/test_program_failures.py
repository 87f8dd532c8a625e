"""Several choices that went wrong in other libraries: here they are right, or raise."""

from collections.abc import Callable
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST
from support.program_draws import COINS, check, coin_noise, cost_of, expected_of, logits_of

import scorefn as sf

x64 = pytest.mark.usefixtures("x64")
KEY = jax.random.key(0)
CONSTANT = sf.ScoreFunction(sf.ConstantBaseline(0.7))
stop = jax.lax.stop_gradient


def fast(fn: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(fn, compiler_options=FAST)


# ------------------------------------------------------------- baselines: stopped, and trained

VALUE = COINS | {"value": np.array([0.4, -1.1])}


@sf.program
def with_values(p: Any) -> Any:
    """Three coins; the baseline of each knows those before, and has parameters of its own."""
    bits: list[Any] = []
    for _ in range(3):
        value = p["value"][0] * sum(bits, start=p["a"]) + p["value"][1]
        coin = sf.Bernoulli(logits_of(p, *bits))
        bits.append((yield sf.sample(coin, sf.ScoreFunction(sf.ConstantBaseline(value)))))
    return cost_of(p, bits)


@x64
def test_a_baseline_of_the_draws_before_changes_no_mean() -> None:
    rules = [(coin_noise(i), 1) for i in range(3)]
    check(lambda p, key: with_values(p)(key), expected_of(3), VALUE, rules)


@x64
def test_no_derivative_of_any_order_passes_through_a_baseline() -> None:
    def losses(p: Any, key: jax.Array) -> jax.Array:
        def step(bit: jax.Array, _: Any) -> Any:
            value = sf.ConstantBaseline(p["value"][0] * bit + p["value"][1])
            coin = sf.Bernoulli(p["a"] * (1 + bit))
            bit = yield sf.sample(coin, sf.ScoreFunction(value))
            return bit, bit * p["a"]

        return with_values(p)(key) + sf.rollout(step, jnp.ones(()), length=3)(key)[1].sum()

    @fast
    def run(p: Any) -> Any:
        return jax.grad(losses)(p, KEY), jax.jacrev(jax.grad(losses))(p, KEY)

    gradient, hessian = run(jax.tree.map(jnp.asarray, VALUE))
    assert np.abs(gradient["a"]) > 1e-3
    assert np.abs(hessian["a"]["a"]) > 1e-3
    for leaf in (gradient["value"], *jax.tree.leaves(hessian["value"])):
        np.testing.assert_array_equal(leaf, 0)
    for row in hessian.values():
        np.testing.assert_array_equal(row["value"], 0)


@x64
def test_a_learned_baseline_is_trained_on_all_that_its_choice_can_change() -> None:
    def learned(weights: Any, bit: Any) -> jax.Array:
        return weights[0] + weights[1] * bit

    def costs(p: Any, a: Any, b: Any, c: Any) -> list[Any]:
        return [3 * a * p["a"], 5 * b - p["b"][1], b * c + 2 * c * a]

    @sf.program
    def model(p: Any) -> Any:
        a = yield sf.sample(sf.Bernoulli(logits_of(p)), CONSTANT)
        baseline = sf.LearnedBaseline(learned, p["value"], a)
        # By itself, so that its two costs do not go together.
        coin = sf.Bernoulli(p["b"][0])
        b = yield sf.sample(coin, sf.ScoreFunction(baseline), depends_on=())
        c = yield sf.sample(sf.Bernoulli(logits_of(p, a, b)), CONSTANT)
        first, second, third = costs(p, a, b, c)
        yield sf.cost(first, depends_on=[a])
        yield sf.cost(second, depends_on=[b])
        return third

    def expected(p: Any) -> jax.Array:
        total = jnp.zeros(())
        for a in (0.0, 1.0):
            mean, first = jnp.zeros(()), costs(p, a, 0.0, 0.0)[0]
            for b in (0.0, 1.0):
                for c in (0.0, 1.0):
                    logits = jnp.stack([p["b"][0], logits_of(p, a, b)])
                    signs = 2 * jnp.array([b, c]) - 1
                    # Its second and its third cost.
                    mean += jnp.prod(jax.nn.sigmoid(signs * logits)) * sum(costs(p, a, b, c)[1:])
            loss = (stop(mean) - learned(p["value"], a)) ** 2 / 2
            trained = stop(jax.nn.sigmoid((2 * a - 1) * p["a"])) * (loss - stop(loss))
            total += jax.nn.sigmoid((2 * a - 1) * p["a"]) * (first + mean) + trained
        return total

    rules = [(coin_noise(i), 1) for i in range(3)]
    check(lambda p, key: model(p)(key), expected, VALUE, rules, order=1)


# ------------------------------------------------------------------------ random keys of every kind


@pytest.mark.parametrize("kind", ["rbg", "unsafe_rbg"])
def test_all_draws_of_a_program_differ_whatever_the_kind_of_key(kind: str) -> None:
    # Where fold_in commutes, numbers that stand for a place do not tell the places apart.
    @partial(sf.program, has_aux=True)
    def model() -> Any:
        normal = distrax.Normal(0.0, 1.0)
        a = yield sf.sample(normal, sf.Antithetic(sf.Pathwise(), lambda _, x: x), num_samples=3)
        b = yield sf.sample(normal, CONSTANT, num_samples=2)
        carry = yield sf.rollout(step, jnp.zeros(3), length=3)
        c = yield sf.sample(normal, sf.Pathwise(), num_samples=2, chunk_size=1)
        return a + b + c, (a[None], b[None], c[None], carry)

    def step(carry: Any, _: Any) -> Any:
        x = yield sf.sample(distrax.Normal(0.0, 1.0), CONSTANT)
        return jnp.append(carry[1:], x), None

    _, (a, b, c, carry) = fast(model())(jax.random.key(1, impl=kind))
    assert a.shape == c.shape == (3, 2, 2, 1)
    assert carry.shape == (3, 2, 2, 3)
    for draws, number in ((a, 3), (b, 6), (c, 12), (carry, 18)):
        assert len(np.unique(draws)) == number
    assert len(np.unique(jnp.concatenate([x.ravel() for x in (a, b, c, carry)]))) == 39


# ------------------------------------------------------------------------------- broken densities


def impossible(logit: jax.Array) -> sf.Distribution:
    """Draws that its density excludes."""
    return sf.Distribution(
        lambda x, _: jnp.where(x < 99, -jnp.inf, x), lambda x, _: jnp.ones_like(x), logit
    )


@x64
def test_an_impossible_draw_in_the_middle_keeps_the_scores_of_the_others() -> None:
    @sf.program
    def model(p: Any, *, middle: Any) -> Any:
        a = yield sf.sample(sf.Bernoulli(p), CONSTANT)
        x = (yield sf.sample(impossible(p), CONSTANT)) if middle else 1.0
        b = yield sf.sample(sf.Deterministic(p), sf.Pathwise())
        return a * x + b

    def gradient(*, middle: bool) -> Any:
        return fast(jax.value_and_grad(lambda p: model(p, middle=middle)(KEY)))(0.3)

    np.testing.assert_allclose(gradient(middle=True), gradient(middle=False), rtol=1e-12)


def test_an_infinite_cost_looks_like_no_small_step() -> None:
    def step(p: Any, _: Any) -> Any:
        b = yield sf.sample(sf.Bernoulli(p), CONSTANT)
        return p, jnp.where(b < 2, jnp.inf, b)

    @sf.program
    def model(p: Any) -> Any:
        a = yield sf.sample(sf.Bernoulli(p), CONSTANT)
        z = yield sf.sample(distrax.Normal(p + a, 1.0), sf.Pathwise())
        b = yield sf.sample(sf.Bernoulli(p), sf.Enumerate())
        return jnp.where(z < 99, jnp.inf, z) + b

    def rolled(p: Any) -> jax.Array:
        return sf.rollout(step, p, length=2)(KEY)[1].sum()

    for loss in (lambda p: model(p)(KEY), rolled):
        value, gradient = fast(jax.value_and_grad(loss))(0.3)
        assert value == np.inf
        assert not np.isfinite(gradient)


# ---------------------------------------------------------- derivatives that others lose in a loop


@sf.program
def pairs(p: Any) -> Any:
    """Right to first order; in chunks, so that there is a loop inside."""
    a = yield sf.sample(sf.Bernoulli(p), CONSTANT)
    b = yield sf.sample(sf.Bernoulli(p + a), sf.DisARM(), num_samples=2, chunk_size=1)
    return (a + 2 * b) * p


def once(p: Any, key: jax.Array) -> jax.Array:
    return pairs(p)(key)


def scanned(p: Any, key: jax.Array) -> jax.Array:
    return jax.lax.map(partial(once, p), jax.random.split(key, 2)).sum()


def branched(p: Any, key: jax.Array) -> jax.Array:
    return jax.lax.cond(p < 9, once, lambda p, _: p, p, key)


@pytest.mark.parametrize("form", [once, scanned, branched, jax.checkpoint(once)])
def test_a_second_derivative_of_first_order_raises_in_every_loop(form: Any) -> None:
    jax.eval_shape(jax.grad(form), 0.3, KEY)
    for second in (
        jax.hessian,
        lambda f: jax.jacrev(jax.grad(f)),
        lambda f: jax.jacfwd(jax.jacfwd(f)),
    ):
        with pytest.raises(TypeError, match="DisARM is right to first order only"):
            jax.eval_shape(second(form), 0.3, KEY)


def without_density(p: Any) -> sf.Distribution:
    return sf.Distribution(lambda _, x: 0.0 * x, lambda p, key: sf.Bernoulli(p).sample(key), p)


@pytest.mark.parametrize("chunk_size", [None, 2])
@pytest.mark.parametrize(
    ("distribution", "estimator", "message"),
    [
        (sf.Bernoulli, sf.Pathwise(), "Pathwise cannot differentiate with respect to logits"),
        (without_density, CONSTANT, "ScoreFunction cannot differentiate with respect to"),
    ],
    ids=["path", "score"],
)
def test_a_lost_derivative_raises_inside_a_rollout(
    distribution: Any, estimator: Any, message: str, chunk_size: Any
) -> None:
    def total(p: Any, fixed: Any) -> jax.Array:
        def step(state: Any, _: Any) -> Any:
            x = yield sf.sample(distribution(fixed), estimator)
            return state + x * p, x * p

        return sf.rollout(step, 0.0, length=4, chunk_size=chunk_size)(KEY)[1].sum()

    # What is merely held fixed does no harm.
    jax.eval_shape(jax.hessian(total), 0.3, 0.5)
    for derivative in (jax.grad(total, 1), jax.jacfwd(total, 1), jax.grad(jax.grad(total), 1)):
        with pytest.raises(TypeError, match=message):
            jax.eval_shape(derivative, 0.3, 0.5)


def test_a_draw_cannot_be_asked_for_by_python() -> None:
    # A comparison takes one side for all draws, and no derivative sees it.
    @sf.program
    def model() -> Any:
        b = yield sf.sample(sf.Bernoulli(0.3), CONSTANT)
        return 1.0 if b > 0 else 2.0

    def step(state: Any, _: Any) -> Any:
        b = yield sf.sample(sf.Bernoulli(0.3), CONSTANT)
        return (state, 1.0) if b > 0 else (state, 2.0)

    for run in (model(), sf.rollout(step, 0.0, length=2)):
        with pytest.raises(jax.errors.TracerBoolConversionError):
            run(KEY)


def test_a_carry_of_integers_has_the_hessian_of_one_of_floats() -> None:
    def total(p: Any, dtype: Any) -> jax.Array:
        def step(count: Any, _: Any) -> Any:
            die = sf.Categorical(p * jnp.arange(3.0), dtype=dtype)
            count += yield sf.sample(die, CONSTANT)
            return count, count.astype(jnp.float32) ** 2 * p

        return sf.rollout(step, jnp.zeros((), dtype), length=4)(KEY)[1].sum()

    whole, floats = (
        fast(jax.hessian(partial(total, dtype=dtype)))(0.3) for dtype in (jnp.int32, jnp.float32)
    )
    assert abs(floats) > 1
    assert whole == floats


# -------------------------------------------------------------------------------- compiling


def test_a_rollout_is_one_step_to_the_compiler_however_long() -> None:
    steps = []

    def size(length: int) -> tuple[int, int]:
        def step(state: Any, _: Any) -> Any:
            steps.append(None)
            x = yield sf.sample(distrax.Normal(state, 1.0), CONSTANT)
            return x, x**2

        steps.clear()
        total = lambda p: sf.rollout(step, p, length=length)(KEY)[1].sum()  # noqa: E731
        lowered = jax.jit(jax.grad(total)).lower(0.3)
        return len(lowered.as_text().splitlines()), len(steps)

    assert size(10) == size(1000)


def test_a_joint_draw_keeps_its_leaves_apart() -> None:
    # The bit has no derivative along its fixed logit, and the path goes along the mean alone.
    def sample(params: Any, key: jax.Array) -> Any:
        one, other = jax.random.split(key)
        bit = sf.Bernoulli(params["logit"]).sample(one)
        return {"bit": bit, "z": params["mean"] + jax.random.normal(other)}

    @sf.program
    def model(mean: Any, logit: Any) -> Any:
        params = {"mean": mean, "logit": logit}
        joint = sf.Distribution(lambda p, x: -((x["z"] - p["mean"]) ** 2), sample, params)
        x = yield sf.sample(joint, sf.Pathwise())
        return 3.0 * x["z"] + x["bit"]

    loss = lambda mean, logit: model(mean, logit)(KEY)  # noqa: E731
    assert fast(jax.grad(loss))(0.3, 0.5) == 3
    with pytest.raises(TypeError, match="Pathwise cannot differentiate with respect to"):
        jax.eval_shape(jax.grad(loss, 1), 0.3, 0.5)


def test_the_compiler_does_not_compute_each_step_in_all_later_ones() -> None:
    def flops(number: int) -> float:
        @sf.program
        def walk(p: Any) -> Any:
            x = 0.0
            for i in range(number):
                x = yield sf.sample(distrax.Normal(x + p[i], 1.0), CONSTANT)
                yield sf.cost(x**2)

        gradient = jax.jit(jax.grad(lambda p: walk(p)(KEY)))
        compiled = gradient.lower(jnp.zeros(number)).compile(compiler_options=FAST)
        return compiled.cost_analysis()["flops"]

    # 3.2 times as much; 6.5 if draws are not kept, 12 with an axis of one around each score.
    assert flops(12) < 4 * flops(4)


# ------------------------------------------------------------------------ mistakes, and what to do


@pytest.mark.parametrize(
    "use", [lambda x: x + 1, lambda x: 2 * x, lambda x: x[0], lambda x: x > 0, float]
)
def test_a_choice_that_is_not_yielded(use: Callable[..., Any]) -> None:
    @sf.program
    def model() -> Any:
        x = sf.sample(distrax.Normal(0.0, 1.0), sf.Pathwise())
        yield sf.cost(use(x))

    with pytest.raises(TypeError, match=r"not the draw: write x = yield scorefn\.sample"):
        model()(KEY)


def test_costs_of_different_shapes_name_factor_ndim() -> None:
    @sf.program
    def model() -> Any:
        x = yield sf.sample(sf.Bernoulli(jnp.zeros(3)), CONSTANT)
        yield sf.cost(1.0 * x)
        return jnp.sum(x)

    with pytest.raises(ValueError, match=r"equal shapes, got \(3,\) and \(\).*factor_ndim"):
        model()(KEY)


@pytest.mark.parametrize("xs", [3.0, jnp.array(3.0), {"a": jnp.ones(2), "b": 1}])
def test_scalars_cannot_be_scanned_over(xs: Any) -> None:
    def step(carry: Any, x: Any) -> Any:
        del x
        y = yield sf.sample(distrax.Normal(carry, 1.0), sf.Pathwise())
        return y, y

    with pytest.raises(ValueError, match=r"xs .* leading axis of steps.*length="):
        sf.rollout(step, jnp.zeros(()), xs)
