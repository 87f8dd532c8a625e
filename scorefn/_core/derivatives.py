"""Derivative rules of functions of our own, which survive all transformations of JAX."""

from collections.abc import Callable, Sequence
from functools import partial
from math import factorial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import jet
from jax.extend.core import Primitive, jaxprs_in_params
from jax.interpreters import ad, batching, mlir

from .arrays import merged, picked

jet_rules: dict[Primitive, Callable[..., Any]] = jet.jet_rules
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
    moving = tuple(map(_moves, tangents))
    return derivative(moving, primals, picked(tangents, moving))


def _moves(tangent: Any) -> bool:
    # The tangent may be a number of Python's.
    no_derivative = getattr(tangent, "dtype", None) == jax.dtypes.float0
    return not (isinstance(tangent, ad.Zero) or no_derivative)


def _vmap(axis: Any) -> Callable[..., Any]:
    """``jax.vmap`` along an axis that is being batched."""
    return partial(jax.vmap, axis_name=axis.name, axis_size=axis.size)


def _with_jvp_batch(
    axis: Any, arrays: Any, dims: Any, *, fn: Fn, derivative: Derivative, **_: Any
) -> Any:
    if all(dim is None for dim in dims) and not isinstance(axis.name, str):
        outputs = with_jvp(fn, derivative)(*arrays)
        return outputs, [None] * len(outputs)

    def batched(moving: Moving, arrays: Arrays, tangents: Arrays) -> Any:
        along = picked(dims, moving)
        one = lambda arrays, tangents: derivative(moving, arrays, tangents)  # noqa: E731
        return _vmap(axis)(one, (list(dims), along))(list(arrays), tangents)

    outputs = with_jvp(_vmap(axis)(fn, tuple(dims)), batched)(*arrays)
    return outputs, [0] * len(outputs)


def _with_jvp_jet(primals: Any, series: Any, **params: Any) -> Any:
    """The derivatives along a curve, by as many derivatives of derivatives."""

    def along_curve(t: jax.Array) -> list[jax.Array]:
        moved = [
            x
            if not jnp.issubdtype(jnp.result_type(x), jnp.inexact)
            else x + sum(c * t.astype(c.dtype) ** k for k, c in enumerate(terms, 1))
            for x, terms in zip(primals, series, strict=True)
        ]
        return _with_jvp.bind(*moved, **params)

    def slope(fn: Callable[..., Any]) -> Callable[..., Any]:
        return lambda t: jax.jvp(fn, (t,), (jnp.ones_like(t),))[1]

    fn, found, start = along_curve, [], jnp.zeros(())
    # The terms of jet are coefficients of t^k.
    for k in range(1, len(series[0]) + 1):
        fn = slope(fn)
        found.append([y / factorial(k) for y in fn(start)])
    return along_curve(start), [list(terms) for terms in zip(*found, strict=True)]


ad.primitive_jvps[_with_jvp] = _with_jvp_jvp
batching.fancy_primitive_batchers[_with_jvp] = _with_jvp_batch
jet_rules[_with_jvp] = _with_jvp_jet


def linear(
    forward: Callable[[Arrays, Arrays], list[jax.Array]],
    transpose: Callable[[Arrays, Arrays], list[jax.Array]],
    fixed: Arrays,
    tangents: Arrays,
    like: Arrays,
) -> list[jax.Array]:
    """A function that is linear in the tangents, with a transpose of its own.

    Args:
        forward: ``forward(fixed, tangents)``, to the outputs. It runs in forward mode, and for
            derivatives along `fixed`.
        transpose: ``transpose(fixed, cotangents)``, to the cotangents of the tangents. It runs in
            reverse mode, and need not be the transpose of `forward`.
        fixed: arrays. Neither function closes over anything that is traced.
        tangents: arrays.
        like: arrays of the shapes and dtypes of the outputs.
    """
    return _linear.bind(
        *like,
        *fixed,
        *tangents,
        forward=forward,
        transpose=transpose,
        counts=(len(like), len(fixed)),
    )


def _split(arrays: Any, counts: tuple[int, int]) -> tuple[list[Any], list[Any], list[Any]]:
    """The abstract outputs, the fixed arrays, and the tangents."""
    likes, fixed = counts[0], sum(counts)
    return list(arrays[:likes]), list(arrays[likes:fixed]), list(arrays[fixed:])


def _linear_forward(
    *arrays: jax.Array, forward: Any, counts: tuple[int, int], **_: Any
) -> list[jax.Array]:
    return forward(*_split(arrays, counts)[1:])


def _linear_jvp(primals: Any, tangents: Any, *, counts: tuple[int, int], **params: Any) -> Any:
    moving = [i >= counts[0] and _moves(t) for i, t in enumerate(tangents)]
    if not any(moving[: sum(counts)]):
        given = primals[: sum(counts)]
        all_along = [
            ad.instantiate_zeros(t) if isinstance(t, ad.Zero) else t
            for t in tangents[sum(counts) :]
        ]
        primal = _linear.bind(*primals, counts=counts, **params)
        return primal, _linear.bind(*given, *all_along, counts=counts, **params)

    def of_moving(*some: jax.Array) -> list[jax.Array]:
        return _linear_forward(*merged(primals, moving, some), counts=counts, **params)

    some, along = (tuple(picked(xs, moving)) for xs in (primals, tangents))
    return jax.jvp(of_moving, some, along)


def _linear_transpose(
    cotangents: Any, *arrays: Any, transpose: Any, counts: tuple[int, int], **_: Any
) -> Any:
    given = [ad.instantiate_zeros(c) if isinstance(c, ad.Zero) else c for c in cotangents]
    return [None] * sum(counts) + transpose(_split(arrays, counts)[1], given)


def _linear_batch(
    axis: Any, arrays: Any, dims: Any, *, forward: Any, transpose: Any, counts: tuple[int, int]
) -> Any:
    if all(dim is None for dim in dims) and not isinstance(axis.name, str):
        # As jacfwd requires of values that do not depend on the mapped axis.
        outputs = linear(forward, transpose, *_split(arrays, counts)[1:], arrays[: counts[0]])
        return outputs, [None] * len(outputs)

    def stacked(x: Any, dim: int | None) -> jax.Array:
        if dim is None:
            return jnp.broadcast_to(x, (axis.size, *jnp.shape(x)))
        return jnp.moveaxis(x, dim, 0)

    like, fixed, tangents = _split(arrays, counts)
    like_dims, fixed_dims, tangent_dims = _split(dims, counts)
    outputs = linear(
        _vmap(axis)(forward, (fixed_dims, 0)),
        _vmap(axis)(transpose, (fixed_dims, 0)),
        fixed,
        list(map(stacked, tangents, tangent_dims)),
        list(map(stacked, like, like_dims)),
    )
    return outputs, [0] * len(outputs)


_linear = Primitive("scorefn_linear")
_linear.multiple_results = True
_linear.def_impl(_linear_forward)
_linear.def_abstract_eval(lambda *avals, counts, **__: list(avals[: counts[0]]))
mlir.register_lowering(_linear, mlir.lower_fun(_linear_forward, multiple_results=True))
ad.primitive_jvps[_linear] = _linear_jvp
ad.primitive_transposes[_linear] = _linear_transpose
batching.fancy_primitive_batchers[_linear] = _linear_batch


def recomputed(fn: Callable[..., Any]) -> Callable[..., Any]:
    """``jax.checkpoint(fn)``, but a function with effects, such as callbacks, runs only once."""

    def run(*arguments: Any) -> Any:
        # As what it closes over, arrays keep the axes of devices over which they vary.
        jaxpr, shape = jax.make_jaxpr(lambda: fn(*arguments), return_shape=True)()

        def evaluate(arrays: list[Any]) -> list[jax.Array]:
            return jax.core.eval_jaxpr(jaxpr.jaxpr, arrays)

        outputs = (evaluate if jaxpr.effects else jax.checkpoint(evaluate))(jaxpr.consts)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return run


def minimized(loss: jax.Array) -> jax.Array:
    """Zeros shaped like the losses, with a gradient that always minimizes the losses.

    If a factor multiplies the result, its absolute value multiplies the gradient. Forward mode does
    not know the factor and raises ``TypeError``.
    """
    return _minimized.bind(loss)


_FORWARD = (
    "the training term of a LearnedBaseline has a derivative in reverse mode only: it is minimized "
    "whatever sign stands before the expectation, and forward mode does not know the sign. Use "
    "jax.grad or jax.vjp, or wrap the parameters of the baseline in jax.lax.stop_gradient."
)


def _minimized_jvp(primals: Any, tangents: Any) -> Any:
    zeros = _minimized.bind(*primals)
    if not _moves(tangents[0]):
        return zeros, tangents[0]
    return zeros, linear(_no_forward, _by_size, [], tangents, [zeros])[0]


def _no_forward(fixed: Arrays, tangents: Arrays) -> list[jax.Array]:
    del fixed, tangents
    raise TypeError(_FORWARD)


def _by_size(fixed: Arrays, cotangents: Arrays) -> list[jax.Array]:
    del fixed
    return [jnp.abs(cotangents[0])]


_minimized = Primitive("scorefn_minimized")
_minimized.def_impl(jnp.zeros_like)
_minimized.def_abstract_eval(lambda aval: aval)
mlir.register_lowering(_minimized, mlir.lower_fun(jnp.zeros_like, multiple_results=False))
ad.primitive_jvps[_minimized] = _minimized_jvp
batching.primitive_batchers[_minimized] = lambda xs, dims: (_minimized.bind(*xs), dims[0])
jet_rules[_minimized] = _no_forward


def zero_with_derivative(x: jax.Array) -> jax.Array:
    """Zeros with every derivative of x, whose value need not be computed."""
    return _zero.bind(x)


_zero = Primitive("scorefn_zero")
_zero.def_impl(jnp.zeros_like)
_zero.def_abstract_eval(lambda aval: aval)
mlir.register_lowering(_zero, mlir.lower_fun(jnp.zeros_like, multiple_results=False))
ad.primitive_jvps[_zero] = lambda primals, tangents: (_zero.bind(*primals), tangents[0])
batching.primitive_batchers[_zero] = lambda xs, dims: (_zero.bind(*xs), dims[0])
jet_rules[_zero] = lambda primals, series: (_zero.bind(*primals), series[0])


def zero_along(x: jax.Array, weight: jax.Array) -> jax.Array:
    """A scalar 0 whose derivative along x is the weight."""
    return zero_with_derivative(jnp.sum(weight * (x - jax.lax.stop_gradient(x))))


def minimizes(jaxpr: Any) -> bool:
    """Whether a jaxpr holds a `minimized` loss, at any depth."""
    return any(
        eqn.primitive is _minimized or any(map(minimizes, jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )
