"""Derivatives of common distributions as signed weights on a few points.

A rule takes the factors, one draw x of them (stopped) and a key, and returns points y_k and zeros
w_k, [K, ...] for factors [...]. The zeros have the value 0, and derivatives such that, for each
factor and any f,

    d E[f(X)] = E[sum_k (f(y_k) - f(x)) dw_k].

The weights of a derivative add up to 0, because probabilities add up to 1, so x itself has minus
the sum of the other weights. If x can be one of the points, this saves an evaluation.
"""

from collections.abc import Callable
from dataclasses import replace

import jax
import jax.numpy as jnp
from jax.scipy.special import digamma, gammaln

from scorefn.distributions._interop.families import Family

Rule = Callable[[Family, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _zero(x: jax.Array) -> jax.Array:
    """Zero, with the derivative of x."""
    return x - jax.lax.stop_gradient(x)


def _stopped(family: Family, parameter: str) -> jax.Array:
    return jax.lax.stop_gradient(family.params[parameter])


def _undecided(family: Family) -> jax.Array:
    """Whether each bit, or each trial, can have either value."""
    logits = _stopped(family, "logits")
    return (jax.nn.sigmoid(logits) > 0) & (jax.nn.sigmoid(-logits) > 0)


# ------------------------------------------------------------------------------ weak derivatives


def _bernoulli(family: Family, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    del key
    zero = _zero(jax.nn.sigmoid(family.params["logits"]))
    other = jnp.where(_undecided(family), 1 - x, x)
    return other[None], jnp.where(x == 0, zero, -zero)[None]


def _categorical(family: Family, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    # All other categories: sum_c f(c) dp_c is the exact derivative.
    del key
    categories = family.params["logits"].shape[-1]
    others = (x[..., None] + jnp.arange(1, categories, dtype=x.dtype)) % categories
    zeros = _zero(jax.nn.softmax(family.params["logits"]))
    picked = jnp.take_along_axis(zeros, others, axis=-1)
    probs = jax.nn.softmax(_stopped(family, "logits"))
    possible = jnp.take_along_axis(probs, others, axis=-1) > 0
    others = jnp.where(possible, others, x[..., None])
    return jnp.moveaxis(others, -1, 0), jnp.moveaxis(picked, -1, 0)


def _normal(family: Family, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    # With density phi of z = (x - loc) / scale, d/dloc is -phi'(z) / scale: half a Rayleigh (the
    # Weibull of shape 2) on each side, of total mass 1 / sqrt(2 pi) each. d/dscale is
    # (z^2 - 1) phi / scale: a double-sided Maxwell minus a Normal. For z Normal and r^2 / 2
    # exponential, (z, r) is a vector of three Normals in polar form: its signed length is Maxwell
    # and its first part Normal, so that the draw itself is the coupled negative part.
    loc, scale = _stopped(family, "loc"), _stopped(family, "scale")
    twice = 2 * jax.random.exponential(key, family.shape, loc.dtype)
    safe = jnp.where(scale > 0, scale, 1)
    z = (x.astype(loc.dtype) - loc) / safe
    radius = jnp.sqrt(twice)
    maxwell = jnp.sqrt(z**2 + twice) * jnp.where(z < 0, -1, 1).astype(loc.dtype)
    points = loc + scale * jnp.stack([radius, -radius, maxwell])
    mean = _zero(family.params["loc"]) / (safe * jnp.sqrt(2 * jnp.pi).astype(loc.dtype))
    return points.astype(x.dtype), jnp.stack([mean, -mean, _zero(family.params["scale"]) / safe])


def _poisson(family: Family, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    del key
    return (x + 1)[None], _zero(family.params["rate"])[None]


def _exponential(family: Family, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    # d/drate of rate exp(-rate x) is (Exponential - Gamma(2)) / rate; Gamma(2) is a sum of two.
    rate = _stopped(family, "rate")
    more = jax.random.exponential(key, family.shape, rate.dtype) / rate
    return (x + more.astype(x.dtype))[None], (-_zero(family.params["rate"]) / rate)[None]


def _gamma(family: Family, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    # The rate as for the Exponential: concentration / rate * (Gamma(a) - Gamma(a + 1)).
    key_rate, key_concentration = jax.random.split(key)
    concentration, rate = _stopped(family, "concentration"), _stopped(family, "rate")
    more = jax.random.exponential(key_rate, family.shape, rate.dtype) / rate
    uniform = jax.random.uniform(key_concentration, family.shape, rate.dtype)
    apart, mass = _gamma_apart(concentration, uniform)
    points = jnp.concatenate([(x + more.astype(x.dtype))[None], (apart / rate).astype(x.dtype)])
    along_rate = -concentration * _zero(family.params["rate"]) / rate
    along = mass * _zero(family.params["concentration"])
    return points, jnp.stack([along_rate, along, -along])


def _gamma_apart(concentration: jax.Array, uniform: jax.Array) -> tuple[jax.Array, jax.Array]:
    # d/da of the density p is (log x - digamma(a)) p: negative below c = exp(digamma(a)), positive
    # above. Hence g(x) = -dF/da rises from 0 to its maximum at c, the mass of either part, and
    # falls back to 0. The two points at the level g = u g(c) are draws of the two parts, found by
    # bisection of log x.
    center = digamma(concentration)

    def level(log_x: jax.Array) -> jax.Array:
        # Far below 1 the incomplete gamma function is a power law, and x may underflow.
        low = log_x < -20
        power = jnp.exp(concentration * log_x - gammaln(concentration + 1))
        series = power * (digamma(concentration + 1) - log_x)
        x = jnp.exp(jnp.where(low, 0, log_x))
        return jnp.where(low, series, -jax.lax.igamma_grad_a(concentration, x))

    mass = level(center)
    target = uniform * mass
    high = jnp.log(concentration + 15 * jnp.sqrt(concentration) + 100)
    ends = jnp.stack([high, center - 60 - 60 / concentration])

    def halve(_: int, bracket: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        inside, outside = bracket
        middle = (inside + outside) / 2
        above = jax.vmap(level)(middle) > target
        return jnp.where(above, middle, inside), jnp.where(above, outside, middle)

    steps = jnp.finfo(uniform.dtype).nmant + 10
    start = (jnp.broadcast_to(center, ends.shape), ends)
    log_x, _ = jax.lax.fori_loop(0, steps, halve, start)
    return jnp.maximum(jnp.exp(log_x), jnp.finfo(uniform.dtype).tiny), mass


def _binomial(family: Family, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    # d/dp is n E[f(Y + 1) - f(Y)] with Y of n - 1 trials: remove one of the n trials at random. It
    # was a success with probability x / n, and then x is Y + 1; else x is Y.
    count, probs = _stopped(family, "total_count"), jax.nn.sigmoid(family.params["logits"])
    uniform = jax.random.uniform(key, family.shape, count.dtype)
    success = uniform * count < x.astype(count.dtype)
    zero = count * _zero(probs)
    moved = jnp.where(success, x - 1, x + 1)
    moved = jnp.where(_undecided(family), moved, x)
    return moved[None], jnp.where(success, -zero, zero)[None]


def _negative_binomial(family: Family, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    # x successes of logits l before `count` failures; with q the probability of a failure,
    # -d/dlog q is count (NegativeBinomial(count + 1) + 1 - NegativeBinomial(count)), and one more
    # failure adds a Geometric to a NegativeBinomial.
    logits = family.params["logits"]
    count = _stopped(family, "total_count")
    more = jax.random.exponential(key, family.shape, logits.dtype)
    decay = -jax.nn.log_sigmoid(jax.lax.stop_gradient(logits))
    more = jnp.floor(more / jnp.maximum(decay, jnp.finfo(decay.dtype).tiny)) + 1
    zero = -count * _zero(jax.nn.log_sigmoid(-logits))
    return (x + more.astype(x.dtype))[None], zero[None]


def _as_negative_binomial(rule: Rule) -> Rule:
    """A rule for the Geometric: failures before the first success."""

    def geometric(family: Family, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        logits = -family.params["logits"]
        params = {"total_count": jnp.ones_like(logits), "logits": logits}
        return rule(replace(family, params=params), x, key)

    return geometric


# -------------------------------------------------- general and one-sample (GO) gradients: one step

# y = x + 1 with the weight -dF(x) / p(x), F the distribution function and p the probability of x:
# summation by parts of sum_x f(x) dp(x).


def _go_bernoulli(family: Family, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    del key
    logits = family.params["logits"]
    zero = jax.nn.sigmoid(jax.lax.stop_gradient(logits)) * _zero(logits)
    one = jnp.where(_undecided(family), jnp.ones_like(x), x)
    return one[None], jnp.where(x == 0, zero, 0)[None]


def _go_categorical(family: Family, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    del key
    probs = jax.nn.softmax(family.params["logits"])
    index = x[..., None]
    # The step up is to the next category that can be drawn: f need not exist at any other.
    size = probs.shape[-1]
    possible = jnp.where(probs > 0, jnp.arange(size, dtype=x.dtype), size)
    after = jax.lax.cummin(possible, axis=possible.ndim - 1, reverse=True)[..., 1:]
    after = jnp.concatenate([after, jnp.full_like(possible[..., :1], size)], axis=-1)
    above = jnp.take_along_axis(after, index, axis=-1)[..., 0]
    below = jnp.take_along_axis(jnp.cumsum(_zero(probs), axis=-1), index, axis=-1)[..., 0]
    at = jnp.take_along_axis(jax.lax.stop_gradient(probs), index, axis=-1)[..., 0]
    at = jnp.maximum(at, jnp.finfo(at.dtype).tiny)
    return jnp.where(above < size, above, x)[None], jnp.where(above < size, -below / at, 0)[None]


def _go_binomial(family: Family, x: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    del key
    logits, count = family.params["logits"], _stopped(family, "total_count")
    left = count - x.astype(count.dtype)
    zero = left * jax.nn.sigmoid(jax.lax.stop_gradient(logits)) * _zero(logits)
    return jnp.where((left > 0) & _undecided(family), x + 1, x)[None], zero[None]


def _go_negative_binomial(
    family: Family, x: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    del key
    count = _stopped(family, "total_count")
    zero = -(x.astype(count.dtype) + count) * _zero(jax.nn.log_sigmoid(-family.params["logits"]))
    return (x + 1)[None], zero[None]


WEAK: dict[str, Rule] = {
    "Bernoulli": _bernoulli,
    "Categorical": _categorical,
    "Normal": _normal,
    "Poisson": _poisson,
    "Exponential": _exponential,
    "Gamma": _gamma,
    "Binomial": _binomial,
    "Geometric": _as_negative_binomial(_negative_binomial),
    "NegativeBinomial": _negative_binomial,
}

ONE_STEP: dict[str, Rule] = {
    "Bernoulli": _go_bernoulli,
    "Categorical": _go_categorical,
    "Poisson": _poisson,
    "Binomial": _go_binomial,
    "Geometric": _as_negative_binomial(_go_negative_binomial),
    "NegativeBinomial": _go_negative_binomial,
}
