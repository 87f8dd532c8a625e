"""The default number of samples evaluated at a time."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import jaxprs_in_params

# Smaller chunks are dominated by dispatch time.
LEAST = 256
# About a third of the arrays of a chunk are in use at one time. On a CPU they should fit into the
# caches; on an accelerator they should be large, so that the start of a chunk takes no time.
_CPU_BYTES, _ACCELERATOR_BYTES = 12 * 2**20, 2**32
# Up to this size of all samples, chunks are slower on a CPU than one batch.
_ALL_BYTES = 2**26


def fitting(num_samples: int, jaxpr: Any) -> int:
    """The largest chunk of samples of this jaxpr that fits the budget, at most all."""
    budget = _CPU_BYTES if jax.default_backend() == "cpu" else _ACCELERATOR_BYTES
    each = max(_bytes(jaxpr.jaxpr), 1)
    most = max(LEAST, budget // each)
    if num_samples * each <= _ALL_BYTES:
        most = num_samples
    if any(map(is_narrow, [*jaxpr.consts, *jaxpr.out_avals])):
        # 16-bit numbers are summed in 32 bits only between chunks.
        most = LEAST
    if most >= num_samples:
        return num_samples
    # A divisor, if there is one that is not much smaller, so that no samples are left over.
    return next((c for c in range(most, most // 2, -1) if num_samples % c == 0), most)


def is_narrow(x: Any) -> bool:
    """Whether the array holds floats of fewer than 32 bits."""
    return jnp.issubdtype(x.dtype, jnp.floating) and x.dtype.itemsize < 4


def _bytes(jaxpr: Any) -> int:
    """The size of all computed arrays, an upper bound on the memory."""
    total = 0
    for equation in jaxpr.eqns:
        inner = list(jaxprs_in_params(equation.params))
        total += sum(map(_bytes, inner)) if inner else 0
        total += sum(v.aval.size * v.aval.dtype.itemsize for v in equation.outvars if not inner)
    return total
