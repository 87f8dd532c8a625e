"""Detection, while tracing, of derivatives that a draw or a log-density would silently lose.

A sampler may use a parameter through an operation without a derivative: a comparison, an argmax, a
cast to integers. `jax.grad` then silently returns 0 for it. The jaxpr tells before anything is
computed (`scorefn._core.reach`): does the output depend on the parameter by *value*, does it
by *derivative*, and is it *chosen* by random numbers at odds that move with the parameter? A
parameter on which the output depends by value and not by derivative is severed. It is replaced by a
copy that raises when it is differentiated, so that parameters which are held fixed never raise.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import convert_closure, is_float
from scorefn._core.reach import Walk
from scorefn._core.refusals import nondifferentiable
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.classes import constructor_arguments


@dataclass(frozen=True)
class Reach:
    """The dependence of output leaves on one array, by value and by derivative."""

    array: Any
    by_value: tuple[bool, ...]
    by_derivative: tuple[bool, ...]
    chosen: tuple[bool, ...]

    @property
    def lost(self) -> tuple[bool, ...]:
        """Whether the pathwise derivative of each leaf misses (a part of) this array."""
        rows = zip(self.by_value, self.by_derivative, self.chosen, strict=True)
        return tuple(chosen or (value and not derivative) for value, derivative, chosen in rows)


def hoist(
    fn: Callable[[Any, jax.Array], Any], tree: Any, key: jax.Array
) -> tuple[Callable[..., Any], list[Reach]]:
    """The function `fn` with every array that may be differentiated turned into an argument.

    Returns:
        ``(hoisted, reaches)`` such that ``hoisted(key, *[r.array for r in reaches])`` is
        ``fn(tree, key)``, and one `Reach` for each such array, in the tree or closed over.
    """
    leaves, structure = jax.tree.flatten(tree)
    traced = [is_float(leaf) and isinstance(leaf, jax.core.Tracer) for leaf in leaves]
    inside = [leaf for leaf, is_traced in zip(leaves, traced, strict=True) if is_traced]

    # The leaves are arguments already here, because JAX's stop_gradient removes the tangent of a
    # jvp tracer before anything is recorded, and because one array in two places counts twice.
    def of_leaves(key: jax.Array, inside: list[jax.Array]) -> Any:
        rest = iter(inside)
        merged = [next(rest) if t else leaf for leaf, t in zip(leaves, traced, strict=True)]
        return fn(jax.tree.unflatten(structure, merged), key)

    converted, outside = convert_closure(of_leaves, key, inside)
    arrays = [*inside, *outside]

    def hoisted(key: jax.Array, *arrays: jax.Array) -> Any:
        return converted(key, list(arrays[: len(inside)]), *arrays[len(inside) :])

    if not arrays:
        return hoisted, []
    return hoisted, _reaches(hoisted, key, arrays)


def guard(
    fn: Callable[[Distribution, jax.Array], Any],
    distribution: Distribution,
    key: jax.Array,
    *,
    severed: Callable[[list[Reach]], list[bool]],
    message: Callable[[str], str],
) -> Callable[[jax.Array], Any]:
    """A function of one key that raises when differentiated along a severed array.

    Args:
        fn: a function of the distribution and one key.
        distribution: the distribution; the names of the arrays are looked up in its params.
        key: an example of the argument; nothing is computed with it.
        severed: a function of the arrays that `fn` uses: which of them lose their derivative.
        message: a function of the name of an array: the text of the ``TypeError``.
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


def describe(array: Any, root: Any) -> str:
    """The name of an array inside an object: ``components.loc (float32[3])``."""
    path = next(_paths(root, array, depth=6), "an array that it closes over")
    return f"{path or 'params'} ({jnp.result_type(array)}{list(jnp.shape(array))})"


def _reaches(fn: Callable[..., Any], key: jax.Array, arrays: list[Any]) -> list[Reach]:
    jaxpr = jax.make_jaxpr(fn)(key, *arrays).jaxpr
    others = len(jaxpr.invars) - len(arrays)
    walk = Walk(jaxpr, [i >= others for i in range(len(jaxpr.invars))], stop_is_word=False)
    return [
        Reach(
            array,
            *(tuple(ask(others + i)) for ask in (walk.by_value, walk.by_derivative, walk.chosen)),
        )
        for i, array in enumerate(arrays)
    ]


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
