"""Derivative rules that survive all transformations, and arrays that refuse derivatives."""

from collections.abc import Callable, Sequence
from functools import partial
from math import factorial
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import jet
from jax.extend.core import Primitive, jaxprs_in_params
from jax.interpreters import ad, batching, mlir

_jet_rules: dict[Primitive, Callable[..., Any]] = jet.jet_rules
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
    return derivative(moving, primals, [t for t, m in zip(tangents, moving, strict=True) if m])


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
        along = [dim for dim, m in zip(dims, moving, strict=True) if m]
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
_jet_rules[_with_jvp] = _with_jvp_jet


def linear_by_mode(
    forward: Callable[[Arrays, Arrays], list[jax.Array]],
    transpose: Callable[[Arrays, Arrays], list[jax.Array]],
    fixed: Arrays,
    tangents: Arrays,
    like: Arrays,
) -> list[jax.Array]:
    """A function that is linear in the tangents, with a transpose of its own.

    Args:
        forward: ``forward(fixed, tangents)``, to the outputs. It runs in forward mode only.
        transpose: ``transpose(fixed, cotangents)``, to the cotangents of the tangents. It runs in
            reverse mode only, and need not be the transpose of `forward`.
        fixed: arrays.
        tangents: arrays.
        like: arrays of the shapes and dtypes of the outputs.
    """
    return _by_mode.bind(
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


def _by_mode_forward(
    *arrays: jax.Array, forward: Any, counts: tuple[int, int], **_: Any
) -> list[jax.Array]:
    return forward(*_split(arrays, counts)[1:])


def _by_mode_jvp(primals: Any, tangents: Any, *, counts: tuple[int, int], **params: Any) -> Any:
    moving = [i >= counts[0] and _moves(t) for i, t in enumerate(tangents)]
    if not any(moving[: sum(counts)]):
        given = primals[: sum(counts)]
        all_along = [
            ad.instantiate_zeros(t) if isinstance(t, ad.Zero) else t
            for t in tangents[sum(counts) :]
        ]
        primal = _by_mode.bind(*primals, counts=counts, **params)
        return primal, _by_mode.bind(*given, *all_along, counts=counts, **params)

    def of_moving(*some: jax.Array) -> list[jax.Array]:
        rest = iter(some)
        merged = [next(rest) if m else x for x, m in zip(primals, moving, strict=True)]
        return _by_mode_forward(*merged, counts=counts, **params)

    some, along = (
        tuple(x for x, m in zip(xs, moving, strict=True) if m) for xs in (primals, tangents)
    )
    return jax.jvp(of_moving, some, along)


def _by_mode_transpose(
    cotangents: Any, *arrays: Any, transpose: Any, counts: tuple[int, int], **_: Any
) -> Any:
    given = [ad.instantiate_zeros(c) if isinstance(c, ad.Zero) else c for c in cotangents]
    return [None] * sum(counts) + transpose(_split(arrays, counts)[1], given)


def _by_mode_batch(
    axis: Any, arrays: Any, dims: Any, *, forward: Any, transpose: Any, counts: tuple[int, int]
) -> Any:
    def stacked(x: Any, dim: int | None) -> jax.Array:
        if dim is None:
            return jnp.broadcast_to(x, (axis.size, *jnp.shape(x)))
        return jnp.moveaxis(x, dim, 0)

    like, fixed, tangents = _split(arrays, counts)
    like_dims, fixed_dims, tangent_dims = _split(dims, counts)
    outputs = linear_by_mode(
        _vmap(axis)(forward, (fixed_dims, 0)),
        _vmap(axis)(transpose, (fixed_dims, 0)),
        fixed,
        list(map(stacked, tangents, tangent_dims)),
        list(map(stacked, like, like_dims)),
    )
    return outputs, [0] * len(outputs)


_by_mode = Primitive("scorefn_linear_by_mode")
_by_mode.multiple_results = True
_by_mode.def_impl(_by_mode_forward)
_by_mode.def_abstract_eval(lambda *avals, counts, **__: list(avals[: counts[0]]))
mlir.register_lowering(_by_mode, mlir.lower_fun(_by_mode_forward, multiple_results=True))
ad.primitive_jvps[_by_mode] = _by_mode_jvp
ad.primitive_transposes[_by_mode] = _by_mode_transpose
batching.fancy_primitive_batchers[_by_mode] = _by_mode_batch


def recomputed(fn: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """``jax.checkpoint(fn)``, but a function with effects, such as callbacks, runs only once."""

    def run(x: Any) -> Any:
        # As what it closes over, arrays keep the axes of devices over which they vary.
        jaxpr, shape = jax.make_jaxpr(lambda: fn(x), return_shape=True)()

        def evaluate(arrays: list[Any]) -> list[jax.Array]:
            return jax.core.eval_jaxpr(jaxpr.jaxpr, arrays)

        outputs = (evaluate if jaxpr.effects else jax.checkpoint(evaluate))(jaxpr.consts)
        return jax.tree.unflatten(jax.tree.structure(shape), outputs)

    return run


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
        f"of its distribution would silently be wrong. {hint} In a loop of gradient steps whose "
        f"gradients are held fixed, stop the parameters before the inner gradient, and not its "
        f"result: jax.grad(loss)(jax.lax.stop_gradient(params))."
    )

    def once(moving: Moving, arrays: Arrays, tangents: Arrays) -> Any:
        del moving
        # A factor of 1 that formally depends on x, so that differentiating the derivative raises.
        x = nondifferentiable(arrays[0], message)
        return list(arrays), [tangents[0] * jnp.where(jnp.isnan(x), 1, 1).astype(x.dtype)]

    return _itself(array, once)


def _itself(array: jax.Array, derivative: Derivative) -> jax.Array:
    array = jnp.asarray(array)
    outputs = (jax.typeof(array),)
    return _with_jvp.bind(array, fn=lambda x: [x], derivative=derivative, outputs=outputs)[0]


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


def _refuse_jet(primals: Any, series: Any, *, message: str) -> Any:
    if len(primals) == 1:
        raise TypeError(message)
    return primals[0], series[0]  # which series are zero is not known here


batching.primitive_batchers[_nondifferentiable] = _batch_refused
ad.primitive_jvps[_nondifferentiable] = _refuse
_jet_rules[_nondifferentiable] = _refuse_jet


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
    return zeros, linear_by_mode(_no_forward, _by_size, [], tangents, [zeros])[0]


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
_jet_rules[_minimized] = _no_forward


def minimizes(jaxpr: Any) -> bool:
    """Whether a jaxpr holds a `minimized` loss, at any depth."""
    return any(
        eqn.primitive is _minimized or any(map(minimizes, jaxprs_in_params(eqn.params)))
        for eqn in jaxpr.eqns
    )


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


class Question:
    """A check that runs when an array is differentiated twice."""

    def second(self) -> None:
        """Raises ``TypeError``, or not."""


def questioned(array: jax.Array, question: Question) -> jax.Array:
    """The array itself, with its derivative; a second derivative runs the check."""
    return _questioned.bind(array, question=question)


_questioned = Primitive("scorefn_questioned")
_questioned.def_impl(lambda x, **_: x)
_questioned.def_abstract_eval(lambda aval, **_: aval)
mlir.register_lowering(_questioned, lambda _, x, **__: [x])

# The tangent, as a function of the array too: a derivative along the array is a second one.
_tangent = Primitive("scorefn_questioned_tangent")
_tangent.def_impl(lambda tangent, _, **__: tangent)
_tangent.def_abstract_eval(lambda tangent, _, **__: tangent)
mlir.register_lowering(_tangent, lambda _, tangent, __, **___: [tangent])


def _questioned_batch(args: Any, dims: Any, *, question: Question) -> Any:
    return _questioned.bind(*args, question=question), dims[0]


def _questioned_jvp(primals: Any, tangents: Any, *, question: Question) -> Any:
    out = _questioned.bind(*primals, question=question)
    if isinstance(tangents[0], ad.Zero):
        return out, tangents[0]
    return out, _tangent.bind(tangents[0], *primals, question=question)


def _tangent_batch(args: Any, dims: Any, *, question: Question) -> Any:
    return _tangent.bind(*args, question=question), dims[0]


def _tangent_jvp(primals: Any, tangents: Any, *, question: Question) -> Any:
    if not isinstance(tangents[1], ad.Zero):
        question.second()
    out = _tangent.bind(*primals, question=question)
    if isinstance(tangents[0], ad.Zero):
        return out, tangents[0]
    return out, _tangent.bind(tangents[0], primals[1], question=question)


def _tangent_transpose(cotangent: Any, _: Any, x: Any, *, question: Question) -> Any:
    if isinstance(cotangent, ad.Zero):
        return [None, None]
    return [_tangent.bind(cotangent, x, question=question), None]


def _questioned_jet(primals: Any, series: Any, *, question: Question) -> Any:
    (terms,) = series
    if len(terms) > 1 and any(isinstance(term, jax.Array) for term in terms):
        question.second()
    return _questioned.bind(*primals, question=question), terms


_jet_rules[_questioned] = _questioned_jet
batching.primitive_batchers[_questioned] = _questioned_batch
ad.primitive_jvps[_questioned] = _questioned_jvp
batching.primitive_batchers[_tangent] = _tangent_batch
ad.primitive_jvps[_tangent] = _tangent_jvp
ad.primitive_transposes[_tangent] = _tangent_transpose
