"""A function with a derivative of its own, which no transformation forgets."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Arrays = Sequence[jax.Array]
Fn = Callable[..., list[jax.Array]]
Moving = tuple[bool, ...]
# From which of the arguments move, all arguments, and the tangents of those that do.
Derivative = Callable[[Moving, Arrays, Arrays], tuple[list[jax.Array], list[jax.Array]]]


def own_derivative(fn: Fn, derivative: Derivative) -> Fn:
    """`fn` of arrays to a list of arrays, differentiated by a rule.

    ``jax.custom_jvp`` will not do: up to jax 0.10 a scan that is differentiated in reverse keeps
    the function and forgets the rule, so that a second derivative is that of the function's code.

    Args:
        fn: the function; it closes over nothing that is traced.
        derivative: ``derivative(moving, arrays, tangents)``, to the outputs and their tangents.
            Arguments that do not move have no tangent, and are not differentiated.
    """

    def bound(*arrays: jax.Array) -> list[jax.Array]:
        # As what it closes over, arrays keep the axes of devices over which they vary.
        outputs = jax.make_jaxpr(lambda: fn(*arrays))().out_avals
        return _primitive.bind(*arrays, fn=fn, derivative=derivative, outputs=tuple(outputs))

    return bound


_primitive = Primitive("scorefn_own_derivative")
_primitive.multiple_results = True
_primitive.def_impl(lambda *arrays, fn, **_: fn(*arrays))
_primitive.def_abstract_eval(lambda *_, outputs, **__: list(outputs))
mlir.register_lowering(
    _primitive,
    lambda ctx, *arrays, fn, **_: mlir.lower_fun(fn, multiple_results=True)(ctx, *arrays),
)


def _differentiate(primals: Any, tangents: Any, *, derivative: Derivative, **_: Any) -> Any:
    moving = tuple(not (isinstance(t, ad.Zero) or t.dtype == jax.dtypes.float0) for t in tangents)
    return derivative(moving, primals, [t for t, m in zip(tangents, moving, strict=True) if m])


def _batch(axis: Any, arrays: Any, dims: Any, *, fn: Fn, derivative: Derivative, **_: Any) -> Any:
    if all(dim is None for dim in dims) and not isinstance(axis.name, str):
        outputs = own_derivative(fn, derivative)(*arrays)
        return outputs, [None] * len(outputs)

    def vmap(fn: Callable[..., Any], in_axes: Any) -> Callable[..., Any]:
        return jax.vmap(fn, in_axes, axis_name=axis.name, axis_size=axis.size)

    def batched(moving: Moving, arrays: Arrays, tangents: Arrays) -> Any:
        along = [dim for dim, m in zip(dims, moving, strict=True) if m]
        one = lambda arrays, tangents: derivative(moving, arrays, tangents)  # noqa: E731
        return vmap(one, (list(dims), along))(list(arrays), tangents)

    outputs = own_derivative(vmap(fn, tuple(dims)), batched)(*arrays)
    return outputs, [0] * len(outputs)


ad.primitive_jvps[_primitive] = _differentiate
batching.fancy_primitive_batchers[_primitive] = _batch
