"""Refuses, while tracing, the derivative that a draw or a log-density would silently lose.

A sampler may use a parameter through an operation that has no derivative: a comparison, an argmax,
a cast to integers. `jax.grad` then returns 0 for it without a word. Two facts expose this before
anything is computed. By *value*: does the output use the parameter at all? The jaxpr says so. By
*derivative*: does a tangent along that parameter alone reach the output? JAX hands the rule of a
`custom_jvp` a symbolic zero where none does. A parameter with the first and without the second is
severed. It is replaced by a copy that raises once somebody differentiates with respect to it, so
that parameters which are merely held fixed never raise.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero
from jax.interpreters.partial_eval import dce_jaxpr

from scorefn._core.arrays import is_float
from scorefn._core.derivatives import nondifferentiable
from scorefn.distributions._distribution import Distribution


@dataclass(frozen=True)
class Reach:
    """How one array reaches the leaves of an output."""

    array: Any
    by_value: tuple[bool, ...]
    by_derivative: tuple[bool, ...]


def hoist(
    fn: Callable[[Any, jax.Array], Any], tree: Any, key: jax.Array
) -> tuple[Callable[..., Any], list[Reach]]:
    """`fn` of a key alone, with every array that may be differentiated made an argument of its own.

    Returns:
        ``(hoisted, reaches)`` such that ``hoisted(key, *[r.array for r in reaches])`` is
        ``fn(tree, key)``, and one `Reach` for each such array, in the tree or closed over.
    """
    leaves, structure = jax.tree.flatten(tree)
    traced = [is_float(leaf) and isinstance(leaf, jax.core.Tracer) for leaf in leaves]
    inside = [leaf for leaf, is_traced in zip(leaves, traced, strict=True) if is_traced]

    # The leaves are arguments already here, since JAX's stop_gradient takes the tangent off a
    # tracer of jvp before anything is recorded; and so that one array in two places counts twice.
    def of_leaves(key: jax.Array, inside: list[jax.Array]) -> Any:
        rest = iter(inside)
        merged = [next(rest) if t else leaf for leaf, t in zip(leaves, traced, strict=True)]
        return fn(jax.tree.unflatten(structure, merged), key)

    converted, outside = jax.closure_convert(of_leaves, key, inside)
    arrays = [*inside, *outside]

    def hoisted(key: jax.Array, *arrays: jax.Array) -> Any:
        return converted(key, list(arrays[: len(inside)]), *arrays[len(inside) :])

    if not arrays:
        return hoisted, []
    by_value = _by_value(hoisted, key, arrays)
    by_derivative = [_by_derivative(hoisted, key, arrays, i) for i in range(len(arrays))]
    return hoisted, [Reach(*row) for row in zip(arrays, by_value, by_derivative, strict=True)]


def guard(
    fn: Callable[[Distribution, jax.Array], Any],
    distribution: Distribution,
    key: jax.Array,
    *,
    severed: Callable[[list[Reach]], list[bool]],
    message: Callable[[str], str],
) -> Callable[[jax.Array], Any]:
    """`fn` of a key alone, which raises once it is differentiated along an array that is severed.

    Args:
        fn: a function of the distribution and one key.
        distribution: what the arrays belong to; their names are looked up in its params.
        key: an example of the argument; nothing is computed with it.
        severed: from the arrays that `fn` uses to which of them lose their derivative.
        message: from the name of the array to the text of the ``TypeError``.
    """
    hoisted, reaches = hoist(fn, distribution, key)
    refused = severed(reaches)
    if not any(refused):
        return partial(fn, distribution)
    arrays = [
        nondifferentiable(reach.array, message(describe(reach.array, distribution.params)))
        if refuse
        else reach.array
        for reach, refuse in zip(reaches, refused, strict=True)
    ]
    return lambda key: hoisted(key, *arrays)


def reach(fn: Callable[[Any], Any], x: Any, key: jax.Array) -> Reach:
    """How the argument `x`, an array or its shape and dtype, reaches the leaves of ``fn(x)``."""

    def keyed(key: jax.Array, x: Any) -> Any:
        del key
        return fn(x)

    return Reach(x, _by_value(keyed, key, [x])[0], _by_derivative(keyed, key, [x], 0))


def describe(array: Any, root: Any) -> str:
    """Where an array sits inside an object, for people: ``components.loc (float32[3])``."""
    path = next(_paths(root, array, depth=6), "an array that it closes over")
    return f"{path or 'params'} ({jnp.result_type(array)}{list(jnp.shape(array))})"


def _by_value(fn: Callable[..., Any], key: jax.Array, arrays: list[Any]) -> list[tuple[bool, ...]]:
    jaxpr = jax.make_jaxpr(fn)(key, *arrays).jaxpr
    outputs = range(len(jaxpr.outvars))
    # What dead-code elimination keeps for one output alone, inside jit, scan and cond as well.
    kept = [dce_jaxpr(jaxpr, [j == i for j in outputs])[1][-len(arrays) :] for i in outputs]
    return [tuple(used[i] for used in kept) for i in range(len(arrays))]


def _by_derivative(
    fn: Callable[..., Any], key: jax.Array, arrays: list[Any], i: int
) -> tuple[bool, ...]:
    reached: list[bool] = []

    @jax.custom_jvp
    def probe(outputs: list[jax.Array], array: jax.Array) -> jax.Array:
        # The array is an argument so that the rule runs even when no output has a tangent.
        del outputs
        return array

    def rule(primals: Any, tangents: Any) -> Any:
        reached.extend(
            not isinstance(t, SymbolicZero) and t.dtype != jax.dtypes.float0 for t in tangents[0]
        )
        return primals[1], tangents[1]

    probe.defjvp(rule, symbolic_zeros=True)

    def along(array: jax.Array) -> jax.Array:
        outputs = fn(key, *arrays[:i], array, *arrays[i + 1 :])
        return probe(jax.tree.leaves(outputs), array)

    jax.eval_shape(lambda a: jax.jvp(along, (a,), (jnp.ones_like(a),)), arrays[i])
    return tuple(reached)


def _paths(node: Any, target: Any, depth: int) -> Iterator[str]:
    if node is target:
        yield ""
        return
    if depth == 0 or isinstance(node, jax.Array | str | type):
        return
    for name, child in _children(node):
        for rest in _paths(child, target, depth - 1):
            yield f"{name.lstrip('_')}{'.' if rest and not rest.startswith('[') else ''}{rest}"


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(node, dict):
        yield from ((f"[{key!r}]", child) for key, child in node.items())
    elif isinstance(node, list | tuple):
        names = getattr(node, "_fields", None) or [f"[{i}]" for i in range(len(node))]
        yield from zip(names, node, strict=True)
    elif callable(node) and getattr(node, "__closure__", None):
        cells = zip(node.__code__.co_freevars, node.__closure__, strict=True)
        yield from ((name, cell.cell_contents) for name, cell in cells)
    else:
        attributes = getattr(node, "__dict__", {})
        # TFP keeps the arguments of the constructor in a dictionary of its own.
        parameters = attributes.get("_parameters")
        yield from parameters.items() if isinstance(parameters, dict) else ()
        yield from attributes.items()
