"""Arrays that raise when a derivative is taken that would be wrong."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir


def poisoned(array: jax.Array, message: str) -> jax.Array:
    """The array itself; differentiating with respect to it raises ``TypeError(message)``."""
    return _poison.bind(array, message=message)


def first_order(
    array: jax.Array,
    name: str,
    hint: str = "Use ScoreFunction, or Enumerate if the support is small.",
) -> jax.Array:
    """The array itself, with its derivative; a second derivative raises ``TypeError``.

    An estimator whose first derivative is right and whose second is not routes the parameters of
    its distribution through this. Mixed derivatives, once in the array and once in something else,
    pass.
    """
    message = (
        f"{name} is right to first order only: a second derivative with respect to the parameters "
        f"of its distribution would silently be wrong. {hint}"
    )

    @jax.custom_jvp
    def identity(x: jax.Array) -> jax.Array:
        return x

    @identity.defjvp
    def _(primals: Any, tangents: Any) -> Any:
        # A factor of 1 that depends on x by name: who differentiates the derivative meets it.
        once = poisoned(primals[0], message)
        return primals[0], tangents[0] * jnp.where(jnp.isnan(once), 1, 1).astype(once.dtype)

    return identity(array)


# A primitive of its own and not a `custom_jvp`, because up to jax 0.10 a scan forgets the rule of a
# `custom_jvp` once it has been differentiated: a second derivative would slip through.
_poison = Primitive("scorefn_poison")
_poison.def_impl(lambda x, **_: x)
_poison.def_abstract_eval(lambda aval, **_: aval)
mlir.register_lowering(_poison, lambda _, x, **__: [x])


def _batch(args: Any, dims: Any, *, message: str) -> Any:
    return _poison.bind(*args, message=message), dims[0]


def _differentiate(primals: Any, tangents: Any, *, message: str) -> Any:
    if not isinstance(tangents[0], ad.Zero):
        raise TypeError(message)
    return _poison.bind(*primals, message=message), tangents[0]


batching.primitive_batchers[_poison] = _batch
ad.primitive_jvps[_poison] = _differentiate
