"""Functions of expectations: exact means of value and derivatives over all draws."""

import math
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.exact import FAST, derivatives, hermite, pieces
from support.noise import noise_keys
from support.transformations import TRANSFORMATIONS

import scorefn as sf

once = partial(jax.jit, compiler_options=FAST)
x64 = pytest.mark.usefixtures("x64")
PARAMS = {"logit": 0.3, "slope": 1.4}
PLAIN = sf.ScoreFunction(sf.ConstantBaseline(0.3))


def estimate(params):
    """An estimate of slope * p - 0.2, by one coin."""

    def of_key(key):
        coin = sf.Bernoulli(params["logit"])
        return sf.expectation(lambda b: params["slope"] * b - 0.2, coin, key, PLAIN)

    return of_key


def mean(params):
    return params["slope"] * jax.nn.sigmoid(params["logit"]) - 0.2


def mean_over(fn: Any, keys: jax.Array, weights: np.ndarray) -> list[jax.Array]:
    """The mean of value, gradient and Hessian of ``fn(params, key)``."""
    params = jax.tree.map(jnp.asarray, PARAMS)

    @once
    def means(keys):
        each = jax.vmap(lambda key: derivatives(lambda p: fn(p, key), params, 2))(keys)
        return [jnp.tensordot(weights, one, 1) for one in each]

    return means(keys)


def check(found: list[jax.Array], exact: Any) -> None:
    desired = derivatives(exact, jax.tree.map(jnp.asarray, PARAMS), 2)
    for a, b in zip(found, desired, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-12)


def coin_keys(n: int) -> tuple[jax.Array, np.ndarray]:
    """One key for each number of ones among n coins; what they are used for has no order."""
    p = 1 / (1 + math.exp(-PARAMS["logit"]))
    ones = np.arange(n + 1)
    points = np.where(np.arange(n)[None] < ones[:, None], p / 2, (1 + p) / 2)
    weights = np.array([math.comb(n, k) * p**k * (1 - p) ** (n - k) for k in ones])
    return noise_keys(points, 1), weights


@x64
@pytest.mark.parametrize(("n", "centre"), [(24, 0.0), (24, 0.5), (30, -0.9)])
def test_exp_is_unbiased_at_every_order_over_all_draws(n: int, centre: float) -> None:
    def fn(params, key):
        return sf.exp_of_expectation(
            estimate(params), key, num_estimates=n, center=centre, radius=2.0
        )

    keys, weights = coin_keys(n)
    check(mean_over(fn, keys, weights), lambda p: jnp.exp(mean(p)))


@x64
def test_exp_of_a_mean_is_biased() -> None:
    """The obvious estimate is off by exp(E x) Var(x) / (2 n)."""

    def fn(params, key):
        keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(24))
        return jnp.exp(jnp.mean(jax.vmap(estimate(params))(keys)))

    keys, weights = coin_keys(24)
    value = mean_over(fn, keys, weights)[0]
    p = 1 / (1 + math.exp(-PARAMS["logit"]))
    exact = math.exp(float(mean({k: jnp.asarray(v) for k, v in PARAMS.items()})))
    variance = PARAMS["slope"] ** 2 * p * (1 - p)
    np.testing.assert_allclose(value - exact, exact * variance / 48, rtol=0.05)


@pytest.mark.parametrize("precision", ["float32", "float64"])
@pytest.mark.parametrize("radius", [0.5, 1.0, 3.0])
def test_what_is_left_of_the_series_is_below_rounding(precision: str, radius: float) -> None:
    with jax.enable_x64(new_val=precision == "float64"):
        eps = float(jnp.finfo(precision).eps)
        for x in (radius, -radius):
            known = lambda _, x=x: jnp.asarray(x, precision)  # noqa: E731
            value = sf.exp_of_expectation(known, jax.random.key(0), num_estimates=64, radius=radius)
            assert value.dtype == precision
            # A sum of terms up to exp(radius) in size, each rounded.
            np.testing.assert_allclose(value, math.exp(x), rtol=0, atol=8 * eps * math.exp(radius))


@x64
def test_the_centre_changes_the_number_of_terms_and_nothing_else() -> None:
    def fn(key, center, radius):
        options = {"num_estimates": 64, "center": center, "radius": radius}
        return sf.exp_of_expectation(lambda key: 3 + jax.random.normal(key), key, **options)

    keys = jax.random.split(jax.random.key(0), 5)
    far, near = (once(jax.vmap(partial(fn, center=c, radius=r)))(keys) for c, r in ((0, 8), (3, 1)))
    np.testing.assert_allclose(far, near, rtol=1e-10)


@x64
@pytest.mark.parametrize("power", [1, 2, 3])
def test_a_power_is_unbiased_at_every_order_over_all_draws(power: int) -> None:
    p = 1 / (1 + math.exp(-PARAMS["logit"]))
    rule = pieces(p) ** power

    def fn(params, key):
        return sf.product_of_expectations([estimate(params)] * power, key)

    check(mean_over(fn, noise_keys(rule.points), rule.weights), lambda p: mean(p) ** power)


@x64
def test_a_product_of_different_estimates_is_unbiased() -> None:
    p = 1 / (1 + math.exp(-PARAMS["logit"]))
    rule = pieces(p) * hermite(4)

    def fn(params, key):
        def other(key):
            normal = distrax.Normal(params["logit"], params["slope"])
            f = lambda x: jnp.stack([x**2, x])  # noqa: E731
            return sf.expectation(f, normal, key, sf.Pathwise())

        return jnp.sum(sf.product_of_expectations([estimate(params), other], key))

    def exact(p):
        return mean(p) * (p["logit"] ** 2 + p["slope"] ** 2 + p["logit"])

    check(mean_over(fn, noise_keys(rule.points), rule.weights), exact)


# ---------------------------------------------------------------------------------- transformations


def _exp(flat, key, **options):
    known = estimate(dict(zip(PARAMS, flat, strict=True)))
    return sf.exp_of_expectation(known, key, num_estimates=24, **options)


def _product(flat, key):
    return sf.product_of_expectations([estimate(dict(zip(PARAMS, flat, strict=True)))] * 2, key)


@x64
@pytest.mark.parametrize("loss", [_exp, _product])
def test_every_transformation_gives_the_same_gradient(loss: Any) -> None:
    flat, key = jnp.array(list(PARAMS.values())), jax.random.key(2)

    @once
    def all_of_them(flat, key):
        gradients = {by: transform(loss)(flat, key) for by, transform in TRANSFORMATIONS.items()}
        return jax.grad(loss)(flat, key), gradients

    desired, gradients = all_of_them(flat, key)
    assert np.ptp(desired) > 1e-3
    for by, gradient in gradients.items():
        np.testing.assert_allclose(gradient, desired, rtol=0, atol=1e-12, err_msg=by)


@x64
def test_chunks_give_the_same_exp() -> None:
    flat, key = jnp.array(list(PARAMS.values())), jax.random.key(2)
    whole, parts = (jax.grad(partial(_exp, chunk_size=c))(flat, key) for c in (None, 7))
    np.testing.assert_allclose(parts, whole, rtol=1e-12)


# -------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda key: sf.product_of_expectations([], key), ValueError, "at least one function"),
        (lambda key: sf.product_of_expectations([1.0], key), TypeError, "functions of one key"),
        (
            lambda key: sf.exp_of_expectation(2.0, key, num_estimates=9),
            TypeError,
            "functions of one key",
        ),
        (
            lambda key: sf.exp_of_expectation(jax.random.normal, key, num_estimates=9),
            ValueError,
            "num_estimates must be at least 11 for radius=1.0 in float32, got 9",
        ),
        (
            lambda key: sf.exp_of_expectation(jax.random.normal, key, num_estimates=9, radius=0.0),
            ValueError,
            "radius must be a number above 0",
        ),
        (
            lambda key: sf.exp_of_expectation(
                lambda key: jax.random.normal(key, (2,)), key, num_estimates=20
            ),
            TypeError,
            r"one real float for one key, got float32 of shape \(2,\)",
        ),
        (
            lambda key: sf.exp_of_expectation(jax.random.normal, key, num_estimates=2.0),
            TypeError,
            "num_estimates must be a static Python int",
        ),
    ],
)
def test_what_does_not_fit_raises(call: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        call(jax.random.key(0))
