"""Log-densities that are finite at every draw: only their derivative has to be computed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal, jaxprs_in_params

from .arrays import stop
from .derivatives import zero_with_derivative

# Operations that give infinity or nan if an argument is one, and else by overflow only. A division
# by what does not depend on the draw is one of them; a logarithm, a selection or a maximum is not.
_PLAIN = {"abs", "add", "add_any", "concatenate", "convert_element_type", "copy", "dot_general"}
_PLAIN |= {"broadcast_in_dim", "div", "expand_dims", "integer_pow", "mul", "neg", "reduce_sum"}
_PLAIN |= {"reshape", "square", "squeeze", "stop_gradient", "sub", "transpose"}


def score_alone(log_density: Callable[[Any], jax.Array], x: Any) -> jax.Array:
    """The log-density of a draw; 0 with its derivative if it is always finite.

    It is so if the draw enters by sums and products only, as in a Gaussian, and what is combined
    with the draw is finite; if that is not, the result is nan.
    """
    traced, leaves = jax.make_jaxpr(log_density)(x), jax.tree.leaves(x)
    jaxpr = traced.jaxpr
    found: dict[Any, bool] = {}
    drawn = set(jaxpr.invars)
    if not _plain(jaxpr, drawn, found) or not any(_is_in(v, drawn) for v in jaxpr.outvars):
        return jax.core.eval_jaxpr(jaxpr, traced.consts, *leaves)[0]
    borders = jaxpr.replace(outvars=[*jaxpr.outvars, *found])
    log_prob, *arrays = jax.core.eval_jaxpr(borders, traced.consts, *leaves)
    # By shape, so that the compiler takes one sum for all arrays of a shape.
    zeros: dict[Any, jax.Array] = {}
    for array, divides in zip(stop(arrays), found.values(), strict=True):
        if jnp.issubdtype(array.dtype, jnp.floating):
            nan = jnp.asarray(jnp.nan, array.dtype)
            broken = jnp.where(array == 0, nan, 0 / array) if divides else 0 * array
            broken = broken.astype(log_prob.dtype)
            zeros[array.shape] = zeros.get(array.shape, 0) + broken
    zero = sum(map(jnp.sum, zeros.values()), start=jnp.zeros((), log_prob.dtype))
    return zero_with_derivative(log_prob) + zero


def _plain(jaxpr: Any, drawn: set[Any], found: dict[Any, bool]) -> bool:
    """Whether the outputs depend on what is drawn by plain operations.

    Adds to `drawn` all that depends on it, and to `found` what is combined with it: whether it
    divides.
    """
    used = {var for var in jaxpr.outvars if not isinstance(var, Literal)}
    equations = []
    for eqn in reversed(jaxpr.eqns):
        if used.intersection(eqn.outvars):
            equations.append(eqn)
            used.update(var for var in eqn.invars if not isinstance(var, Literal))
    return all(_plain_step(eqn, drawn, found) for eqn in reversed(equations))


def _plain_step(eqn: Any, drawn: set[Any], found: dict[Any, bool]) -> bool:
    name = eqn.primitive.name
    others = [v for v in eqn.invars if not _is_in(v, drawn)]
    if len(others) == len(eqn.invars):
        return True
    if name in ("jit", "pjit"):
        (inner,) = jaxprs_in_params(eqn.params)
        outer = dict(zip(inner.invars, eqn.invars, strict=True))
        inside = {v for v, w in outer.items() if w not in others}
        own: dict[Any, bool] = {}
        if not _plain(inner, inside, own) or not all(v in outer for v in own):
            return False
        drawn.update(
            w for v, w in zip(inner.outvars, eqn.outvars, strict=True) if _is_in(v, inside)
        )
        return all(_noted(outer[v], divides, found) for v, divides in own.items())
    drawn.update(eqn.outvars)
    kept = name in _PLAIN and not (name == "integer_pow" and eqn.params["y"] < 1)
    if name == "div" and _is_in(eqn.invars[1], drawn):
        return False
    floats = all(jnp.issubdtype(v.aval.dtype, jnp.floating) for v in eqn.outvars)
    return kept and floats and all(_noted(v, name == "div", found) for v in others)


def _is_in(var: Any, found: set[Any]) -> bool:
    """Whether a variable is in a set; a literal, which has no hash, is in none."""
    return not isinstance(var, Literal) and var in found


def _noted(var: Any, divides: bool, found: dict[Any, bool]) -> bool:  # noqa: FBT001
    if isinstance(var, Literal):
        return bool(var.val != 0 and not np.isnan(var.val) if divides else np.isfinite(var.val))
    return found.setdefault(var, divides) == divides
