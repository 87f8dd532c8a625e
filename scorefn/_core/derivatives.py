"""Derivative rules that survive all transformations, and arrays that refuse derivatives."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

Arrays = Sequence[jax.Array]
Fn = Callable[..., list[jax.Array]]
Moving = tuple[bool, ...]
# A function of: which arguments are differentiated, all arguments, and the tangents of those.
Derivative = Callable[[Moving, Arrays, Arrays], tuple[list[jax.Array], list[jax.Array]]]


def with_jvp(fn: Fn, derivative: Derivative) -> Fn:
    """The function `fn`, of arrays to a list of arrays, with a custom derivative rule.

    ``jax.custom_jvp`` does not work here: up to jax 0.10 reverse-mode differentiation of a scan
    drops the rule, so a second derivative is that of the code of the function.

    Args:
        fn: the function; it closes over nothing that is traced.
        derivative: ``derivative(moving, arrays, tangents)``, returning the outputs and their
            tangents. Arguments that are not marked as moving have no tangent, and are not
            differentiated.
    """

    def bound(*arrays: jax.Array) -> list[jax.Array]:
        # Closed-over arrays keep the device axes over which they vary.
        outputs = jax.make_jaxpr(lambda: fn(*arrays))().out_avals
        return _with_jvp.bind(*arrays, fn=fn, derivative=derivative, outputs=tuple(outputs))

    return bound


_with_jvp = Primitive("scorefn_own_derivative")
_with_jvp.multiple_results = True
_with_jvp.def_impl(lambda *arrays, fn, **_: fn(*arrays))
_with_jvp.def_abstract_eval(lambda *_, outputs, **__: list(outputs))
mlir.register_lowering(
    _with_jvp,
    lambda ctx, *arrays, fn, **_: mlir.lower_fun(fn, multiple_results=True)(ctx, *arrays),
)


def _with_jvp_jvp(primals: Any, tangents: Any, *, derivative: Derivative, **_: Any) -> Any:
    moving = tuple(not (isinstance(t, ad.Zero) or t.dtype == jax.dtypes.float0) for t in tangents)
    return derivative(moving, primals, [t for t, m in zip(tangents, moving, strict=True) if m])


def _with_jvp_batch(
    axis: Any, arrays: Any, dims: Any, *, fn: Fn, derivative: Derivative, **_: Any
) -> Any:
    if all(dim is None for dim in dims) and not isinstance(axis.name, str):
        outputs = with_jvp(fn, derivative)(*arrays)
        return outputs, [None] * len(outputs)

    def vmap(fn: Callable[..., Any], in_axes: Any) -> Callable[..., Any]:
        return jax.vmap(fn, in_axes, axis_name=axis.name, axis_size=axis.size)

    def batched(moving: Moving, arrays: Arrays, tangents: Arrays) -> Any:
        along = [dim for dim, m in zip(dims, moving, strict=True) if m]
        one = lambda arrays, tangents: derivative(moving, arrays, tangents)  # noqa: E731
        return vmap(one, (list(dims), along))(list(arrays), tangents)

    outputs = with_jvp(vmap(fn, tuple(dims)), batched)(*arrays)
    return outputs, [0] * len(outputs)


ad.primitive_jvps[_with_jvp] = _with_jvp_jvp
batching.fancy_primitive_batchers[_with_jvp] = _with_jvp_batch


def nondifferentiable(array: jax.Array, message: str, *unless: jax.Array) -> jax.Array:
    """The array, unchanged; differentiating with respect to it raises ``TypeError(message)``.

    It does not raise where one of the arrays `unless` is differentiated at the same time.
    """
    return _nondifferentiable.bind(array, *unless, message=message)


def first_order_only(
    array: jax.Array,
    name: str,
    hint: str = "Use ScoreFunction, or Enumerate if the support is small.",
) -> jax.Array:
    """The array with its first derivative; a second derivative raises ``TypeError``.

    For the parameters of a distribution, in estimators that are right to first order only. Mixed
    derivatives, once in the array and once in something else, are allowed.
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
        # A factor of 1 that formally depends on x, so that differentiating the derivative raises.
        once = nondifferentiable(primals[0], message)
        return primals[0], tangents[0] * jnp.where(jnp.isnan(once), 1, 1).astype(once.dtype)

    return identity(array)


# A primitive instead of a `custom_jvp`, because up to jax 0.10 a differentiated scan drops the rule
# of a `custom_jvp`: a second derivative would not raise.
_nondifferentiable = Primitive("scorefn_poison")
_nondifferentiable.def_impl(lambda x, *_, **__: x)
_nondifferentiable.def_abstract_eval(lambda aval, *_, **__: aval)
mlir.register_lowering(_nondifferentiable, lambda _, x, *__, **___: [x])


def _batch_refused(args: Any, dims: Any, *, message: str) -> Any:
    return _nondifferentiable.bind(*args, message=message), dims[0]


def _refuse(primals: Any, tangents: Any, *, message: str) -> Any:
    if not isinstance(tangents[0], ad.Zero) and all(isinstance(t, ad.Zero) for t in tangents[1:]):
        raise TypeError(message)
    return _nondifferentiable.bind(*primals, message=message), tangents[0]


batching.primitive_batchers[_nondifferentiable] = _batch_refused
ad.primitive_jvps[_nondifferentiable] = _refuse


Linear = Callable[[Any, jax.Array], jax.Array]


def linear_call(fn: Linear, transpose: Linear, known: Any, x: jax.Array) -> jax.Array:
    """``fn(known, x)``, linear in x, with a transpose of its own: for rules of derivatives.

    ``jax.custom_derivatives.linear_call`` with a rule for vmap.

    Args:
        fn: ``fn(known, x)``; closes over nothing that is traced.
        transpose: ``transpose(known, cotangent)``, shaped like x.
        known: a pytree of arrays, which are not differentiated.
        x: an array.
    """
    leaves, structure = jax.tree.flatten(known)

    def flat(fn: Linear) -> Fn:
        return lambda *arrays: [fn(jax.tree.unflatten(structure, arrays[:-1]), arrays[-1])]

    return _linear_call(flat(fn), flat(transpose), *leaves, x)[0]


def _linear_call(fn: Fn, transpose: Fn, *arrays: jax.Array) -> list[jax.Array]:
    outputs = jax.make_jaxpr(lambda: fn(*arrays))().out_avals
    return _linear.bind(*arrays, fn=fn, transpose=transpose, outputs=tuple(outputs))


_linear = Primitive("scorefn_linear_call")
_linear.multiple_results = True
_linear.def_impl(lambda *arrays, fn, **_: fn(*arrays))
_linear.def_abstract_eval(lambda *_, outputs, **__: list(outputs))
mlir.register_lowering(
    _linear,
    lambda ctx, *arrays, fn, **_: mlir.lower_fun(fn, multiple_results=True)(ctx, *arrays),
)


def _linear_jvp(primals: Any, tangents: Any, *, fn: Fn, transpose: Fn, **_: Any) -> Any:
    *known, x = tangents
    if not all(isinstance(t, ad.Zero) or t.dtype == jax.dtypes.float0 for t in known):
        raise TypeError("What this derivative is made of cannot be differentiated once more.")
    if isinstance(x, ad.Zero):
        x = jnp.zeros_like(primals[-1])
    outputs = _linear_call(fn, transpose, *primals)
    return outputs, _linear_call(fn, transpose, *primals[:-1], x)


def _linear_transpose(cotangents: Any, *arrays: Any, fn: Fn, transpose: Fn, **_: Any) -> Any:
    *known, x = arrays
    (cotangent,) = cotangents
    if isinstance(cotangent, ad.Zero):
        return [None] * len(known) + [ad.Zero(x.aval)]
    return [None] * len(known) + _linear_call(transpose, fn, *known, cotangent)


def _linear_batch(axis: Any, arrays: Any, dims: Any, *, fn: Fn, transpose: Fn, **_: Any) -> Any:
    *known_dims, dim = dims

    def batched(fn: Fn) -> Fn:
        options = {"axis_name": axis.name, "axis_size": axis.size}
        return jax.vmap(fn, (*known_dims, 0), **options)

    *known, x = arrays
    x = jnp.broadcast_to(x, (axis.size, *x.shape)) if dim is None else jnp.moveaxis(x, dim, 0)
    return _linear_call(batched(fn), batched(transpose), *known, x), [0]


ad.primitive_jvps[_linear] = _linear_jvp
ad.primitive_transposes[_linear] = _linear_transpose
batching.fancy_primitive_batchers[_linear] = _linear_batch
