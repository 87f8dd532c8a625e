"""Detection, while tracing, of derivatives that a draw or a log-density would silently lose.

A sampler may use a parameter through an operation without a derivative: a comparison, an argmax, a
cast to integers. `jax.grad` then silently returns 0 for it. The jaxpr tells before anything is
computed (`scorefn._core.reach`): does the output depend on the parameter by *value*, does it
by *derivative*, and is it *chosen* by random numbers at odds that move with the parameter? A
parameter on which the output depends by value and not by derivative is severed. It is replaced by a
copy that raises when it is differentiated, so that parameters which are held fixed never raise.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import convert_closure, is_float, merged, picked
from scorefn._core.reach import Walk
from scorefn._core.refusals import nondifferentiable
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.classes import constructor_arguments


def guarded_draw(distribution: Distribution, key: jax.Array, message: Callable[[str], str]) -> Any:
    """One draw, which raises when it is differentiated along a severed array.

    Args:
        distribution: the distribution; the names of the arrays are looked up in its params.
        key: one random key. It is consumed.
        message: a function of the name of an array: the text of the ``TypeError``.
    """
    leaves, structure = jax.tree.flatten(distribution)
    traced = [is_float(leaf) and isinstance(leaf, jax.core.Tracer) for leaf in leaves]
    inside = picked(leaves, traced)

    # The leaves are arguments already here, because JAX's stop_gradient removes the tangent of a
    # jvp tracer before anything is recorded, and because one array in two places counts twice.
    def of_leaves(key: jax.Array, inside: list[jax.Array]) -> Any:
        return jax.tree.unflatten(structure, merged(leaves, traced, inside)).draw(key)

    converted, outside = convert_closure(of_leaves, key, inside)
    arrays, n = [*inside, *outside], len(inside)

    def draw(key: jax.Array, arrays: list[jax.Array]) -> Any:
        return converted(key, arrays[:n], *arrays[n:])

    if arrays:
        jaxpr = jax.make_jaxpr(draw)(key, arrays).jaxpr
        places = range(len(jaxpr.invars) - len(arrays), len(jaxpr.invars))
        walk = Walk(jaxpr, [i in places for i in range(len(jaxpr.invars))], stop_is_word=False)
        # By leaf of the draw: in a joint one may carry the derivative that another one loses.
        lost = [any(walk.severed(i)) or any(walk.chosen(i)) for i in places]
        if any(lost):
            for i in (i for i, is_lost in enumerate(lost) if is_lost):
                name = describe(arrays[i], distribution.params)
                arrays[i] = nondifferentiable(arrays[i], message(name))
            return draw(key, arrays)
    return distribution.draw(key)


def describe(array: Any, root: Any) -> str:
    """The name of an array inside an object: ``components.loc (float32[3])``."""
    path = next(_paths(root, array, depth=6), "an array that it closes over")
    return f"{path or 'params'} ({jnp.result_type(array)}{list(jnp.shape(array))})"


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
        yield from constructor_arguments(node).items()
        yield from getattr(node, "__dict__", {}).items()
