"""The default number of samples evaluated at a time."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Literal, jaxprs_in_params

# Smaller chunks are dominated by dispatch time.
LEAST = 256
# The compiler fuses operations: about a third of the arrays of a chunk are in memory at one time.
# Larger chunks are a little faster on a CPU, and on an accelerator, where each start takes time.
_CPU_BYTES, _ACCELERATOR_BYTES = 40 * 2**20, 2**32
# Up to this size of all samples, chunks are slower on a CPU than one batch, and far beyond it one
# batch is slower: what needs more than 32 MiB is given new pages by the system in each call.
_ALL_BYTES = 108 * 2**20
# Their results are stored, whatever is fused.
_STORED = {"conv_general_dilated", "dot_general", "random_bits"}


def fitting(num_samples: int, jaxpr: Any) -> int:
    """The largest chunk of samples of this jaxpr that fits the budget, at most all."""
    budget = _CPU_BYTES if jax.default_backend() == "cpu" else _ACCELERATOR_BYTES
    (key, *_), drawn = jaxpr.jaxpr.invars, set(jaxpr.jaxpr.invars)
    each = 3 * _size(key) + _bytes(jaxpr.jaxpr, drawn)
    most = max(LEAST, budget // each)
    if num_samples * each <= _ALL_BYTES:
        most = num_samples
    if any(map(is_narrow, [*jaxpr.consts, *jaxpr.out_avals])):
        # 16-bit numbers are summed in 32 bits only between chunks.
        most = LEAST
    if most >= num_samples:
        return num_samples
    # A divisor, if there is one that is not much smaller, so that no samples are left over; at best
    # a multiple of 4, which is faster.
    divisors = [c for c in range(most, most // 2, -1) if num_samples % c == 0]
    return max(divisors, key=lambda c: (c % 4 == 0, c), default=most)


def is_narrow(x: Any) -> bool:
    """Whether the array holds floats of fewer than 32 bits."""
    return jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4


def _bytes(jaxpr: Any, drawn: set[Any]) -> int:
    """The size of the arrays that depend on what is drawn, thrice that of those that are stored.

    All others are computed once for all samples.
    """
    total = 0
    for eqn in jaxpr.eqns:
        if drawn.isdisjoint(v for v in eqn.invars if not isinstance(v, Literal)):
            continue
        drawn.update(eqn.outvars)
        inner = list(jaxprs_in_params(eqn.params))
        for each in inner:
            pairs = zip(reversed(each.invars), reversed(eqn.invars), strict=False)
            inside = {v for v, w in pairs if not isinstance(w, Literal) and w in drawn}
            total += _bytes(each, inside)
        if not inner:
            factor = 3 if eqn.primitive.name in _STORED else 1
            total += factor * sum(map(_size, eqn.outvars))
    return total


def _size(var: Any) -> int:
    return var.aval.size * var.aval.dtype.itemsize
