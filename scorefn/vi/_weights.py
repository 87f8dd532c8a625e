"""Logarithms of importance weights, shared by the bounds."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import as_float, is_number
from scorefn._core.checks import check_pair
from scorefn.distributions._distribution import Distribution, one_number
from scorefn.estimators._cost_guard import guarded_cost

LogDensity = Callable[[Any], jax.Array]


def one_number_each(name: str, log_density: Callable[[Any], Any], *, has_aux: bool = False) -> Any:
    """The log-density, checked to return one real number for one draw (with aux, first)."""
    if not callable(log_density):
        raise TypeError(f"{name} must be a function of one draw z, got {log_density!r}.")

    def pair(z: Any) -> tuple[Any, Any]:
        returned = log_density(z) if has_aux else (log_density(z), None)
        return check_pair(f"{name} with has_aux=True", f"({name}, aux)", returned)

    def checked(z: Any) -> Any:
        # Alone, because a jump of it is not seen beside the density of q.
        value, aux = guarded_cost(pair, z, "vi", log_density, name)
        real = is_number(value) and not jnp.iscomplexobj(value)
        value = one_number(name, as_float(value) if real else value, z)
        return (value, aux) if has_aux else value

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
