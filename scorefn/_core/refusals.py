"""Arrays that refuse derivatives, by a ``TypeError`` while tracing."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.extend.core.primitives import copy_p
from jax.interpreters import ad, batching, mlir

from .arrays import is_float
from .derivatives import Arrays, Moving, jet_rules, linear, with_jvp
from .types import PyTree


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
    return up_to_order(
        1,
        array,
        f"{name} is right to first order only: a second derivative with respect to the parameters "
        f"of its distribution would silently be wrong. {hint} In a loop of gradient steps whose "
        f"gradients are held fixed, stop the parameters before the inner gradient, and not its "
        f"result: jax.grad(loss)(jax.lax.stop_gradient(params)).",
    )


def up_to_order(order: int, array: jax.Array, message: str) -> jax.Array:
    """The array with its derivatives up to an order; a higher one raises ``TypeError(message)``."""
    if order == 0:
        return nondifferentiable(array, message)

    def derivative(moving: Moving, arrays: Arrays, tangents: Arrays) -> Any:
        del moving
        # A factor of 1 that formally depends on x, so that a derivative of too high an order
        # reaches what raises.
        x = up_to_order(order - 1, arrays[0], message)
        return list(arrays), [tangents[0] * jnp.where(jnp.isnan(x) | True, 1, x).astype(x.dtype)]

    return with_jvp(lambda x: [x], derivative)(jnp.asarray(array))[0]


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
jet_rules[_nondifferentiable] = _refuse_jet


def without_refusals(jaxpr: Any) -> Any:
    """The jaxpr, whose own arrays that refuse derivatives are plain copies."""

    def plain(equation: Any) -> Any:
        if equation.primitive is not _nondifferentiable:
            return equation
        return equation.replace(primitive=copy_p, params={}, invars=equation.invars[:1])

    return jaxpr.replace(eqns=list(map(plain, jaxpr.eqns)))


AUX = (
    "The aux of an expectation or a program is data: it lacks the score of the draws, so its "
    "gradient would silently be wrong. To differentiate its mean, return it as a part of the cost, "
    "which may be a pytree; to use it as data, wrap it in jax.lax.stop_gradient."
)


def without_gradient(tree: PyTree, message: str, *score: Any) -> PyTree:
    """The tree with float arrays that refuse a derivative along the score.

    Reverse mode along `score` raises ``TypeError(message)`` where something uses the arrays.
    Arrays that are returned and not used, as by `has_aux`, raise nothing. Forward mode cannot tell:
    there the derivative is nan.
    """

    def itself(array: jax.Array, *score: jax.Array) -> list[jax.Array]:
        del score
        return [array]

    def derivative(moving: Moving, arrays: Arrays, tangents: Arrays) -> Any:
        same = with_jvp(itself, derivative)(*arrays)
        if not any(moving[1:]):
            return same, list(tangents)
        return same, linear(unknown, refuse, same, tangents, same)

    def unknown(fixed: Arrays, tangents: Arrays) -> list[jax.Array]:
        del tangents
        return [jnp.nan * jnp.exp(fixed[0])]  # nan at higher orders, too

    def refuse(fixed: Arrays, cotangents: Arrays) -> list[jax.Array]:
        del fixed, cotangents
        raise TypeError(message)

    def one(leaf: Any) -> Any:
        # An integer has no derivative to refuse.
        return with_jvp(itself, derivative)(leaf, *score)[0] if is_float(leaf) else leaf

    return jax.tree.map(one, tree)


def unknown_derivative(array: jax.Array, where: jax.Array) -> jax.Array:
    """A zero whose derivative along marked elements of an array is nan.

    So are higher derivatives. An element with a tangent of 0 in forward mode has a derivative of 0.
    """

    def zero(array: jax.Array, where: jax.Array) -> list[jax.Array]:
        del where
        return [jnp.zeros((), array.dtype)]

    def derivative(moving: Moving, arrays: Arrays, tangents: Arrays) -> Any:
        same = with_jvp(zero, derivative)(*arrays)
        if not moving[0]:
            return same, [jnp.zeros_like(same[0])]
        return same, linear(forward, backward, arrays, tangents[:1], same)

    def backward(fixed: Arrays, directions: Arrays) -> list[jax.Array]:
        array, where = fixed
        nan = jnp.nan * jnp.exp(array)  # depends on the array, for higher orders
        return [jnp.where(where & (directions[0] != 0), nan, 0)]

    def forward(fixed: Arrays, directions: Arrays) -> list[jax.Array]:
        return [jnp.sum(backward(fixed, directions)[0])]

    return with_jvp(zero, derivative)(array, where)[0]


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


jet_rules[_questioned] = _questioned_jet
batching.primitive_batchers[_questioned] = _questioned_batch
ad.primitive_jvps[_questioned] = _questioned_jvp
batching.primitive_batchers[_tangent] = _tangent_batch
ad.primitive_jvps[_tangent] = _tangent_jvp
ad.primitive_transposes[_tangent] = _tangent_transpose
