"""Logarithms of importance weights, shared by the bounds."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import as_float, is_number, stop
from scorefn.distributions._distribution import Distribution, one_number
from scorefn.estimators._cost_guard import guarded_cost

LogDensity = Callable[[Any], jax.Array]


def one_number_each(name: str, log_density: LogDensity) -> LogDensity:
    """The log-density, checked to return one real number for one draw."""
    if not callable(log_density):
        raise TypeError(f"{name} must be a function of one draw z, got {log_density!r}.")

    def checked(z: Any) -> jax.Array:
        # Alone, because a jump of it is not seen beside the density of q.
        value = guarded_cost(lambda z: (log_density(z), None), z, "vi", log_density, name)[0]
        real = is_number(value) and not jnp.iscomplexobj(value)
        return one_number(name, as_float(value) if real else value, z)

    return checked


def scalar(name: str, value: Any) -> jax.Array:
    """An argument that must be one real number."""
    if not is_number(value) or jnp.shape(value) != () or jnp.iscomplexobj(value):
        got = f"shape {value.shape}" if jnp.shape(value) else repr(value)
        raise ValueError(f"{name} must be one real number, got {got}. Sum it over the batch axes.")
    return as_float(value)


def log_weight(log_joint: LogDensity, distribution: Distribution, z: Any) -> jax.Array:
    """The logarithm of the importance weight of one draw."""
    return log_joint(z) - distribution.log_density(z)


def log_mean_exp(x: jax.Array) -> jax.Array:
    """The logarithm of the mean of exponentials."""
    return jax.nn.logsumexp(x) - jnp.log(jnp.asarray(len(x), x.dtype))


def log_power_mean(log_w: jax.Array, power: jax.Array) -> jax.Array:
    """``log(mean(w^power)) / power``; at power 0 its limit, the mean of log w."""
    spread = jnp.abs(power) * jnp.max(jnp.abs(log_w - jnp.mean(log_w)))
    # Near power 0 the logarithm is a small difference of large numbers, divided by a small one. Up
    # to a spread of 1 expm1 and log1p keep its digits; below the second bound its expansion in
    # cumulants is exact to rounding, and so are its derivatives along the power.
    near, nearest = stop(spread < 1), stop(spread < float(jnp.finfo(log_w.dtype).eps) ** 0.25)
    safe = jnp.where(near, log_w, 0)
    centre = jnp.mean(safe)
    d = safe - centre
    second, third, fourth = (jnp.mean(d**k) for k in (2, 3, 4))
    fourth -= 3 * second**2
    series = power * (second / 2 + power * (third / 6 + power * fourth / 24))
    divisor = jnp.where(nearest, 1, power)
    excess = jnp.log1p(jnp.mean(jnp.expm1(jnp.where(nearest, 0, divisor * d)))) / divisor
    far = log_mean_exp(divisor * log_w) / divisor
    return jnp.where(near, centre + jnp.where(nearest, series, excess), far)
