"""How many samples are taken at a time where the user does not say."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

# Chunks of fewer samples spend their time on dispatch.
LEAST = 256
# Of all that a chunk computes, about a third is in use at one time: on a CPU as much as caches
# hold; an accelerator wants to be filled, so that starting a chunk does not count.
_CPU_BYTES, _ACCELERATOR_BYTES = 12 * 2**20, 2**32
# Up to so much for all samples, a CPU takes longer for chunks than for all of them at once.
_ALL_BYTES = 2**26


def fitting(num_samples: int, jaxpr: Any) -> int:
    """The largest chunk that fits, of samples that compute this; all samples, if they do."""
    budget = _CPU_BYTES if jax.default_backend() == "cpu" else _ACCELERATOR_BYTES
    each = max(_bytes(jaxpr.jaxpr), 1)
    most = max(LEAST, budget // each)
    if num_samples * each <= _ALL_BYTES:
        most = num_samples
    if any(map(is_narrow, [*jaxpr.consts, *jaxpr.out_avals])):
        # Only between chunks is it known that numbers of 16 bits are added up in 32.
        most = LEAST
    if most >= num_samples:
        return num_samples
    # No rest, if there is a divisor that is not much smaller.
    return next((c for c in range(most, most // 2, -1) if num_samples % c == 0), most)


def is_narrow(x: Any) -> bool:
    """Whether it holds floats of fewer than 32 bits."""
    return jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4


def _bytes(jaxpr: Any) -> int:
    """Of all that is computed, fused or not: an upper bound."""
    total = 0
    for equation in jaxpr.eqns:
        inner = list(jaxprs_in_params(equation.params))
        total += sum(map(_bytes, inner)) if inner else 0
        total += sum(v.aval.size * v.aval.dtype.itemsize for v in equation.outvars if not inner)
    return total
