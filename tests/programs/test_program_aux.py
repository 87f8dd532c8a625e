"""Aux of programs: the values that a program returns beside its cost."""

from collections.abc import Callable
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST

import scorefn as sf

KEY = jax.random.key(0)
CONSTANT = sf.ScoreFunction(sf.ConstantBaseline(0.7))
with_aux = partial(sf.program, has_aux=True)


def fast(fn: Callable[..., Any]) -> Callable[..., Any]:
    return jax.jit(fn, compiler_options=FAST)


def body(p: Any, chunk_size: Any = None) -> Any:
    z = yield sf.sample(distrax.Normal(p, 1.0), sf.Pathwise(), num_samples=4, chunk_size=chunk_size)
    yield sf.cost(z, depends_on=[z])
    k = yield sf.sample(sf.Categorical(p * jnp.arange(3.0)), CONSTANT)
    b = yield sf.sample(sf.Bernoulli(z + k), sf.ScoreFunction(), num_samples=2)
    cost = (b - z) ** 2 + k
    return cost, {"k": k, "z": z, "b": b, "total": cost + z, "pair": jnp.stack([z, b])}


def cost_of_body(p: Any, chunk_size: Any) -> Any:
    cost, _ = yield from body(p, chunk_size)
    return cost


@pytest.mark.parametrize("chunk_size", [None, 2])
def test_aux_holds_every_branch_and_changes_nothing(chunk_size: Any) -> None:
    @fast
    def run(p: Any) -> Any:
        model, plain = with_aux(body), sf.program(cost_of_body)
        loss = lambda p: model(p, chunk_size)(KEY)  # noqa: E731
        without = jax.value_and_grad(lambda p: plain(p, chunk_size)(KEY))(p)
        return jax.value_and_grad(loss, has_aux=True)(p), without

    ((value, aux), gradient), without = run(0.3)
    assert without == (value, gradient)
    # A choice of one draw adds no axis.
    assert all(aux[name].shape == (4, 2) for name in ("k", "z", "b", "total"))
    assert aux["pair"].shape == (4, 2, 2)
    assert aux["k"].dtype == jnp.int32
    np.testing.assert_array_equal(aux["z"][:, 0], aux["z"][:, 1])
    assert len(np.unique(aux["z"])) == 4
    # Two costs are rounded before they are added.
    np.testing.assert_allclose(value, aux["total"].mean(), rtol=1e-6, atol=0)


def test_the_value_is_the_plain_mean_bit_for_bit() -> None:
    @with_aux
    def model(p: Any) -> Any:
        a = yield sf.sample(sf.Bernoulli(p), sf.ScoreFunction(), num_samples=3)
        z = yield sf.sample(distrax.Normal(p + a, 1e3), sf.ScoreFunction(), num_samples=5)
        k = yield sf.sample(sf.Bernoulli(-p), CONSTANT)
        cost = z * (1 + a) + 1e-3 * k
        return cost, cost

    value, costs = fast(model(0.3))(KEY)
    assert costs.shape == (3, 5)
    assert value == fast(lambda costs: costs.mean(1).mean(0))(costs)


@pytest.mark.parametrize(
    ("estimator", "shape"),
    [(sf.Enumerate(), (2,)), (sf.DisARM(), (2,)), (sf.BitFlip(), ()), (sf.MeasureValued(), ())],
    ids=lambda x: type(x).__name__ if isinstance(x, sf.Estimator) else str(x),
)
def test_aux_is_stacked_as_an_estimator_evaluates(estimator: Any, shape: Any) -> None:
    @with_aux
    def model(p: Any) -> Any:
        z = yield sf.sample(distrax.Normal(p, 1.0), sf.Pathwise(), num_samples=3)
        b = yield sf.sample(sf.Bernoulli(z), estimator)
        carry = yield sf.rollout(step, b, length=2)
        return carry, (z, carry)

    def step(carry: Any, _: Any) -> Any:
        x = yield sf.sample(sf.Bernoulli(carry), CONSTANT)
        return carry + x, None

    _, (z, carry) = jax.eval_shape(model(0.3), KEY)
    assert z.shape == carry.shape == (3, *shape)


def test_a_moving_average_follows_the_costs_of_a_program() -> None:
    @with_aux
    def model(p: Any, baseline: Any) -> Any:
        z = yield sf.sample(distrax.Normal(p, 1.0), sf.Pathwise(), num_samples=4)
        b = yield sf.sample(sf.Bernoulli(z), sf.ScoreFunction(baseline))
        cost = (b - z) ** 2 + 100
        return cost, cost

    def step(baseline: Any, key: jax.Array) -> Any:
        def loss(p: Any) -> Any:
            value, costs = model(p, baseline)(key)
            return value, (costs.mean(), baseline.update(costs))

        gradient, (mean, updated) = jax.grad(loss, has_aux=True)(0.3)
        return updated, (gradient, mean)

    @fast
    def run(keys: jax.Array) -> Any:
        return jax.lax.scan(step, sf.MovingAverage(0.9), keys)

    baseline, (gradients, means) = run(jax.random.split(KEY, 30))
    weights = 0.9 ** np.arange(30)[::-1]
    average = weights @ means / weights.sum()
    np.testing.assert_allclose(baseline(jnp.zeros(1)), average, rtol=1e-5, atol=0)
    # The first gradient knew no costs, and weighs the score by all of them.
    assert abs(gradients[0]) > 3 * np.std(gradients[1:])


def test_a_program_in_another_one_hands_over_its_pair() -> None:
    inner = with_aux(body)

    @with_aux
    def outer(p: Any) -> Any:
        cost, aux = yield from inner(p)
        return 2 * cost, aux["k"]

    value, k = fast(outer(0.3))(KEY)
    assert k.shape == (4, 2)
    assert np.isfinite(value)


def test_a_program_without_a_choice_and_without_a_cost_at_its_end() -> None:
    @with_aux
    def model(p: Any) -> Any:
        yield sf.cost(p)
        return None, {"p": p}

    value, aux = model(0.3)(KEY)
    assert value == np.float32(0.3)
    assert aux == {"p": 0.3}


def test_what_is_no_pair_is_refused() -> None:
    @with_aux
    def model() -> Any:
        b = yield sf.sample(sf.Bernoulli(0.3), CONSTANT)
        return b

    with pytest.raises(
        TypeError, match=r"A program with has_aux=True must return a pair \(cost, aux\)"
    ):
        jax.eval_shape(model(), KEY)
