"""One operation for a cost with a score, which computes nothing until differentiated."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import jet
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from .arrays import wide
from .derivatives import jet_rules


def scored(cost: jax.Array, log_prob: jax.Array, baseline: jax.Array) -> jax.Array:
    """The cost, with its score at every order.

    Its derivative is ``d cost + (cost - baseline) d log_prob``, of which each factor has a score.
    Where log_prob is infinite there is no score. No derivative passes through the baseline.

    Args:
        cost: any shape, float.
        log_prob: of the axes of the cost, each equal or of length 1.
        baseline: likewise.
    """
    if not all(jax.typeof(x).sharding.mesh.empty for x in (cost, log_prob, baseline)):
        cost = _spread(cost, log_prob, baseline)
    return _scored.bind(cost, log_prob, baseline)


def _spread(cost: jax.Array, log_prob: jax.Array, baseline: jax.Array) -> jax.Array:
    """The cost, of the size, sharding and device axes of all three."""
    zero = ((jnp.isnan(log_prob) | jnp.isnan(baseline)) & False).astype(cost.dtype)
    return cost - zero  # A sum would turn -0.0 into 0.0.


def _value(cost: jax.Array, log_prob: jax.Array, _: jax.Array) -> jax.Array:
    return jnp.where(jnp.isnan(log_prob), jnp.asarray(jnp.nan, cost.dtype), cost)


def _formula(cost: jax.Array, log_prob: jax.Array, baseline: jax.Array) -> jax.Array:
    stop = jax.lax.stop_gradient
    log_prob = jnp.where(jnp.isinf(log_prob), 0, log_prob)
    factor = jnp.expm1(log_prob - stop(log_prob))
    return cost + (factor * (cost.astype(factor.dtype) - stop(baseline))).astype(cost.dtype)


def _jet(primals: Any, series: Any) -> Any:
    _, terms = jet.jet(_formula, tuple(primals), tuple(series), factorial_scaled=False)
    return _scored.bind(*primals), terms  # The formula has no value where the cost is infinite.


def _jvp(primals: Any, tangents: Any) -> Any:
    cost, log_prob, baseline = primals
    along_cost, along_log_prob, _ = tangents
    found = _scored.bind(*primals)
    none = jnp.zeros_like(baseline)
    # Each factor carries the score as well, for higher orders.
    terms = []
    if not isinstance(along_cost, ad.Zero):
        terms.append(_scored.bind(along_cost, log_prob, none))
    if not isinstance(along_log_prob, ad.Zero):
        weight = cost.astype(wide(cost.dtype)) - jax.lax.stop_gradient(baseline)
        slope = jnp.where(jnp.isinf(log_prob), 0, along_log_prob)
        terms.append((_scored.bind(weight, log_prob, none) * slope).astype(cost.dtype))
    return found, sum(terms[1:], start=terms[0]) if terms else jnp.zeros_like(cost)


def _transpose(cotangent: Any, _: Any, log_prob: jax.Array, baseline: jax.Array) -> Any:
    if isinstance(cotangent, ad.Zero):
        return [cotangent, None, None]
    return [_scored.bind(cotangent, log_prob, baseline), None, None]


def _batch(arrays: Any, dims: Any) -> Any:
    cost, *others = (
        jnp.expand_dims(x, 0) if d is None else jnp.moveaxis(x, d, 0)
        for x, d in zip(arrays, dims, strict=True)
    )
    return _scored.bind(_spread(cost, *others) if dims[0] is None else cost, *others), 0


_scored = Primitive("scorefn_scored")
_scored.def_impl(_value)
_scored.def_abstract_eval(lambda cost, *_: cost)
mlir.register_lowering(_scored, mlir.lower_fun(_value, multiple_results=False))
ad.primitive_jvps[_scored] = _jvp
ad.primitive_transposes[_scored] = _transpose
batching.primitive_batchers[_scored] = _batch
jet_rules[_scored] = _jet
