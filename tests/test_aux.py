"""The aux of an expectation or a program: data, whose gradient is refused and never silently 0."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import scorefn as sf

KEY = jax.random.key(0)
Both = Callable[[jax.Array], tuple[jax.Array, jax.Array]]
ESTIMATORS = {
    "score": sf.ScoreFunction(),
    "enumerate": sf.Enumerate(),
    "first order": sf.DisARM(),
}


def of_coin(estimator: sf.Estimator, scale: Any = 1.0) -> Both:
    f = lambda x: (jnp.sum(scale * x), {"draw": scale * x})  # noqa: E731

    def both(logit: jax.Array) -> tuple[jax.Array, jax.Array]:
        coin = sf.Bernoulli(logit)
        cost, aux = sf.expectation(f, coin, KEY, estimator, num_samples=4, has_aux=True)
        return cost, jnp.mean(aux["draw"])

    return both


def of_normal(logit: jax.Array) -> tuple[jax.Array, jax.Array]:
    normal = sf.Distribution(
        lambda mean, x: -jnp.square(x - mean) / 2,
        lambda mean, key: mean + jax.random.normal(key),
        logit,
    )
    f = lambda x: (x**2, x)  # noqa: E731
    cost, aux = sf.expectation(f, normal, KEY, sf.Pathwise(), num_samples=4, has_aux=True)
    return cost, jnp.mean(aux)


@partial(sf.program, has_aux=True)
def two_coins(logit: jax.Array) -> Any:
    first = yield sf.sample(sf.Bernoulli(logit), sf.ScoreFunction(), num_samples=2)
    second = yield sf.sample(sf.Bernoulli(0.3), sf.Enumerate())
    return first + second, first * second


def of_program(logit: jax.Array) -> tuple[jax.Array, jax.Array]:
    cost, aux = two_coins(logit)(KEY)
    return cost, jnp.mean(aux)


@partial(sf.program, has_aux=True)
def walk(logit: jax.Array) -> Any:
    def step(total: jax.Array, _: Any) -> Any:
        coin = yield sf.sample(sf.Bernoulli(logit), sf.ScoreFunction(sf.ConstantBaseline(0.0)))
        return total + coin, None

    total = yield sf.rollout(step, jnp.zeros(()), length=3)
    return total**2, total


CASES: dict[str, Both] = {
    **{name: of_coin(estimator) for name, estimator in ESTIMATORS.items()},
    "pathwise": of_normal,
    "program": of_program,
    "rollout": lambda logit: walk(logit)(KEY),
}


@pytest.mark.parametrize("name", CASES)
def test_the_gradient_of_aux_raises_and_says_what_to_do(name: str) -> None:
    aux = lambda logit: CASES[name](logit)[1]  # noqa: E731
    for transformed in (jax.grad(aux), jax.grad(jax.checkpoint(aux))):
        with pytest.raises(TypeError, match="aux .* is data.* return it as a part of the cost"):
            jax.eval_shape(transformed, 0.3)
    assert np.isnan(jax.jit(jax.jacfwd(aux))(0.3))


@pytest.mark.parametrize("name", CASES)
def test_aux_that_is_only_returned_changes_no_derivative(name: str) -> None:
    both = CASES[name]
    cost = lambda logit: both(logit)[0]  # noqa: E731

    def with_data(logit: jax.Array) -> jax.Array:
        cost, aux = both(logit)
        return cost + jax.lax.stop_gradient(aux)

    def in_scan(logit: jax.Array) -> jax.Array:
        return jnp.mean(jax.lax.scan(lambda _, __: (None, both(logit)), None, length=2)[1][0])

    @jax.jit
    def gradients(logit: jax.Array) -> Any:
        gradient, aux = jax.grad(both, has_aux=True)(logit)
        return gradient, aux, [jax.grad(loss)(logit) for loss in (cost, with_data, in_scan)]

    gradient, aux, others = gradients(0.3)
    assert np.isfinite(aux)
    assert np.isfinite(gradient)
    np.testing.assert_allclose(others, gradient, rtol=1e-5)


def test_along_what_moves_no_draw_aux_keeps_its_derivative() -> None:
    aux = lambda scale: of_coin(sf.ScoreFunction(), scale)(jnp.array(0.3))[1]  # noqa: E731
    assert aux(1.0) > 0
    assert jax.grad(aux)(2.0) == jax.jacfwd(aux)(2.0) == aux(1.0)
