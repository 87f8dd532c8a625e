"""Pathwise refuses samplers that choose between candidates, and takes smooth functions of noise."""

from collections.abc import Callable
from typing import Any

import distrax
import jax
import jax.numpy as jnp
import numpyro.distributions as npd
import pytest
import tensorflow_probability.substrates.jax as tfp
from jax import random

import scorefn as sf

tfd = tfp.distributions

KEY = random.key(0)
POINT = (0.7, 0.4)  # of m and n


def takes(sample: Callable[..., Any], argnum: int, differentiate: Any = jax.grad) -> None:
    """The expectation is differentiated along m or n; nothing is compiled."""

    def loss(m: jax.Array, n: jax.Array) -> jax.Array:
        own = sf.Distribution(
            lambda p, x: -jnp.sum((x - p["m"]) ** 2) * p["n"],
            lambda p, key: sample(key, p["m"], p["n"]),
            {"m": m, "n": n},
        )
        f = lambda x: jnp.sum(x**2)  # noqa: E731
        return sf.expectation(f, own, KEY, sf.Pathwise(), num_samples=3)

    jax.eval_shape(differentiate(loss, argnum), *POINT)


def two(key: jax.Array) -> tuple[jax.Array, jax.Array]:
    one, other = random.split(key)
    return random.normal(one), random.uniform(other)


def with_u(sample: Callable[..., Any]) -> Callable[..., Any]:
    """A sampler made of a normal and a uniform number."""
    return lambda key, m, n: sample(*two(key), m, n)


def retried(key: jax.Array, m: jax.Array, n: jax.Array) -> jax.Array:
    def go(state: Any) -> Any:
        key, x = state
        return random.split(key)[0], m + random.normal(key)

    return n + jax.lax.while_loop(lambda state: state[1] < 0, go, (key, m - 100.0))[1]


def tried_in_a_scan(key: jax.Array, m: jax.Array, n: jax.Array) -> jax.Array:
    def go(x: jax.Array, key: jax.Array) -> Any:
        return jnp.where(x > 0, x, m + random.normal(key)), None

    return n + jax.lax.scan(go, m - 100.0, random.split(key, 5))[0]


def von_mises(key: jax.Array, m: jax.Array, n: jax.Array) -> jax.Array:
    return npd.VonMises(n, m).sample(key)


@jax.custom_vjp
def zero_rule(x: jax.Array) -> jax.Array:
    return 2 * x


zero_rule.defvjp(lambda x: (2 * x, None), lambda _, g: (jnp.zeros_like(g),))

# Wrong along m, right along n.
CHOOSES = {
    "wald": lambda key, m, n: n + random.wald(key, m),
    "von Mises of numpyro": von_mises,
    "von Mises-Fisher": lambda key, m, n: n * tfd.VonMisesFisher(jnp.eye(5)[0], m).sample(seed=key),
    "mixture in one array": lambda key, m, n: (
        n + jnp.stack([m, 2 * m])[random.categorical(key, jnp.stack([m, 1.0]))]
    ),
    "one of two": with_u(lambda e, u, m, n: n + jnp.where(u < m, m + e, -m - e)),
    "cond": with_u(lambda e, u, m, n: n + jax.lax.cond(u < m, lambda: m + e, lambda: -m - e)),
    "switch": with_u(
        lambda e, u, m, n: (
            n + jax.lax.switch(jnp.int32(3 * u * m), [lambda: e, lambda: m * e, lambda: -m * e])
        )
    ),
    "dynamic slice": with_u(
        lambda e, u, m, n: (
            n + jax.lax.dynamic_slice(jnp.stack([e, m * e]), (jnp.int32(u + m),), (1,))[0]
        )
    ),
    "other noise": with_u(lambda e, u, m, n: n + jnp.where(m + e > 0, m + e, m + u)),
    "retried": retried,
    "tried in a scan": tried_in_a_scan,
    "parts of one array": lambda key, m, n: (lambda u: n + jnp.where(u[0] < m, m * u[1], u[1]))(
        random.uniform(key, (2,))
    ),
    "permuted": lambda key, m, n: (
        n
        + jax.lax.sort_key_val(m * jnp.arange(3.0) + random.gumbel(key, (3,)), m * jnp.arange(3.0))[
            1
        ]
    ),
    "straight-through": lambda key, m, n: (
        n
        + jax.nn.one_hot(random.categorical(key, jnp.stack([m, 1.0])), 2)[0]
        + m
        - jax.lax.stop_gradient(m)
    ),
    "rounded": lambda key, m, n: n + m + jnp.round(m + random.normal(key)),
    "times zero": lambda key, m, n: n + 0 * m + jnp.round(m) + random.normal(key),
    "a zero rule": lambda key, m, n: n + zero_rule(m) + random.normal(key),
    "a zero rule of tangents": lambda key, m, n: n + flat(m) + random.normal(key),
    "jit": jax.jit(lambda key, m, n: n + random.wald(key, m)),
    "vmap": lambda key, m, n: n + jax.vmap(lambda k: random.wald(k, m))(random.split(key, 2)),
    "uniforms in integers": lambda key, m, n: (
        n + jnp.where(random.bits(key) < (m * 2.0**31).astype(jnp.uint32), m, 2 * m)
    ),
}


@jax.custom_jvp
def flat(x: jax.Array) -> jax.Array:
    return 2 * x


flat.defjvp(lambda primals, tangents: (2 * primals[0], 0 * tangents[0]))


@pytest.mark.parametrize("name", list(CHOOSES))
def test_a_choice_between_candidates_raises(name: str) -> None:
    for differentiate in (jax.grad, jax.jacfwd):
        with pytest.raises(TypeError, match=r"Pathwise cannot differentiate .*\['m'\]"):
            takes(CHOOSES[name], 0, differentiate)
    takes(CHOOSES[name], 1, jax.jacfwd)


def newton(key: jax.Array, m: jax.Array, n: jax.Array) -> jax.Array:
    """The quantile of x + m x^3, by Newton's method for as long as it takes."""
    u = random.normal(key)
    step = lambda x: x - (x + m * x**3 - u) / (1 + 3 * m * x**2)  # noqa: E731
    return n + jax.lax.while_loop(lambda x: jnp.abs(x + m * x**3 - u) > 1e-5, step, u)


def reparameterized(m: Any) -> Any:
    return tfd.MixtureSameFamily(
        tfd.Categorical(logits=jnp.stack([m, 0.0])),
        tfd.Normal(jnp.stack([m, 2.0]), jnp.ones(2)),
        reparameterize=True,
    )


def spline(m: Any) -> Any:
    bijector = distrax.RationalQuadraticSpline(m * jnp.arange(10.0), -4.0, 4.0)
    return distrax.Transformed(distrax.Normal(0.0, 1.0), bijector)


SMOOTH = {
    "normal": lambda key, m, n: m + n * random.normal(key),
    "gamma": lambda key, m, n: n * random.gamma(key, m),
    "beta": random.beta,
    "dirichlet": lambda key, m, n: n * random.dirichlet(key, m * jnp.ones(3)),
    "t": lambda key, m, n: n * random.t(key, m),
    "chi-square": lambda key, m, n: n * random.chisquare(key, m),
    "f": random.f,
    "laplace": lambda key, m, n: m + n * random.laplace(key),
    "generalized normal": lambda key, m, n: n * random.generalized_normal(key, m),
    "triangular": lambda key, m, n: n * random.triangular(key, -1.0, m, 1.0),
    "truncated": lambda key, m, n: n * random.truncated_normal(key, -m, m),
    "weibull": random.weibull_min,
    "pareto": lambda key, m, n: n * random.pareto(key, m),
    "clipped": lambda key, m, n: jnp.clip(m + random.normal(key), -n, n),
    "folded": lambda key, m, n: n + jnp.abs(m + random.normal(key)),
    "a safe scale": lambda key, m, n: jnp.where(m > 1e-6, m, 1e-6) * random.normal(key) + n,
    "leaky": lambda key, m, n: n + jax.nn.leaky_relu(m * random.normal(key)),
    "the sign of a fixed coin": lambda key, m, n: n * random.rademacher(key, ()) * (m + 1.0),
    "a fixed mixture": with_u(lambda e, u, m, n: jnp.where(u < 0.3, m + e, n * e)),
    "relaxed": lambda key, m, n: jax.nn.softmax(
        (jnp.stack([m, 1.0]) + random.gumbel(key, (2,))) / n
    ),
    "walk": lambda key, m, n: jax.lax.scan(
        lambda x, key: (n * x + m * random.normal(key), x), 0.0, random.split(key, 3)
    )[1],
    "sorted": lambda key, m, n: jnp.sort(m + n * random.normal(key, (3,))),
    "largest": lambda key, m, n: jnp.max(m + n * random.normal(key, (3,))),
    "von Mises of TFP": lambda key, m, n: tfd.VonMises(m, n).sample(seed=key),
    "von Mises-Fisher in 3-d": lambda key, m, n: (
        n * tfd.VonMisesFisher(jnp.eye(3)[0], m).sample(seed=key)
    ),
    "reparameterized mixture": lambda key, m, n: n * reparameterized(m).sample(seed=key),
    "spline": lambda key, m, n: n * spline(m).sample(seed=key),
    "implicit": lambda key, m, n: (
        n
        + sf.implicit_reparameterization(
            lambda m, x: jax.scipy.stats.norm.cdf(x - m),
            lambda m, x: jax.scipy.stats.norm.logpdf(x - m),
            m,
            retried(key, m, 0.0),
        )
    ),
}


@pytest.mark.parametrize("name", list(SMOOTH))
def test_smooth_functions_of_noise_do_not_raise(name: str) -> None:
    takes(SMOOTH[name], 0)
    takes(SMOOTH[name], 1)


def test_a_root_search_is_differentiated_in_forward_mode() -> None:
    takes(newton, 0, jax.jacfwd)
    takes(newton, 1, jax.jacfwd)


def test_the_wrapper_of_distrax() -> None:
    build = distrax.straight_through_wrapper(distrax.OneHotCategorical)

    def loss(logits: jax.Array) -> jax.Array:
        f = lambda x: jnp.sum(x * jnp.arange(3.0)) ** 2  # noqa: E731
        return sf.expectation(f, build(logits), KEY, sf.Pathwise(), num_samples=3)

    with pytest.raises(TypeError, match="Pathwise cannot differentiate.*logits"):
        jax.grad(loss)(jnp.array([0.1, 0.2, 0.3]))
