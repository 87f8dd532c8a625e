"""Elements that lose their derivative, in arrays of which others have one.

JAX differentiates whole arrays, and an array may contain elements that were stopped before it was
put together. So nothing is raised: the derivative along a lost element is nan, and a stopped
element does not use it. An element counts as lost only if it certainly reaches the cost.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scorefn._core.arrays import is_float
from scorefn._core.dependence import Dependence, Value, constant
from scorefn._core.elements import full
from scorefn._core.refusals import unknown_derivative

# Larger arrays are followed as a whole.
MOST_ELEMENTS = 64


def with_bits(array: Any, first: int) -> Value:
    """An input with bits from `first` on, one for each element of a small array."""
    if not 1 < array.size <= MOST_ELEMENTS:
        return Value(1 << first)
    each = np.array([1 << (first + i) for i in range(array.size)], object)
    return Value(int(each.sum()), each.reshape(array.shape))


@dataclass(frozen=True)
class Lost:
    """Lost elements of some arrays.

    Attributes:
        arrays: the arrays, with the bits of their elements.
        draws: the bits of lost elements that each leaf of a draw certainly depends on, and one
            more that tells a draw from what is not known.
        unless: for bits of elements that are lost only at times, booleans: none of them is true.
    """

    arrays: list[tuple[jax.Array, Value]]
    draws: list[Value] = field(default_factory=list)
    unless: dict[int, list[jax.Array]] = field(default_factory=dict)

    def added_to(self, costs: list[Any], bits: Sequence[int]) -> list[Any]:
        """The costs, each with a derivative of nan along the elements with its bits."""
        marked = []
        for cost, some in zip(costs, bits, strict=True):
            terms = [self._term(*pair, some) for pair in self.arrays if pair[1].bits & some]
            marked.append(sum((term.astype(cost.dtype) for term in terms), start=cost))
        return marked

    def _term(self, array: jax.Array, value: Value, bits: int) -> jax.Array:
        each = full(value.sets, jnp.shape(array))
        where = jnp.array(np.array(each & bits, bool))
        for place, bit in np.ndenumerate(each):
            if bit & bits and bit in self.unless:
                where = where.at[place].set(~jnp.any(jnp.stack(self.unless[bit])))
        return unknown_derivative(array, where)


_lost: ContextVar[tuple[Lost, list[Any]] | None] = ContextVar("scorefn_lost", default=None)


@contextmanager
def without_scores(lost: Lost | None, x: Any) -> Iterator[None]:
    """A context in which costs of the draw x have no derivative along lost elements."""
    token = _lost.set(None if lost is None else (lost, jax.tree.leaves(x)))
    try:
        yield
    finally:
        _lost.reset(token)


def marked(jaxpr: Any, constants: list[Any], costs: list[Any]) -> list[Any]:
    """The costs, which a jaxpr computes from its constants, inside of `without_scores`."""
    current = _lost.get()
    if current is None:
        return costs
    lost, leaves = current
    inputs = [
        next((v for leaf, v in zip(leaves, lost.draws, strict=True) if leaf is x), constant(x))
        for x in constants
    ]
    outputs = Dependence(sure=0).outputs(jaxpr, inputs)
    return lost.added_to(costs, [value.bits for value in outputs[: len(costs)]])


def partly_lost(traced: Any, arrays: dict[int, Any], costs: list[Any]) -> list[Any]:
    """The costs, with lost derivatives along elements of some constants of their jaxpr.

    An element is lost if it reaches a cost by value, and not by an operation with a derivative.
    """
    values: dict[int, Value] = {}
    end = 1
    for i, array in arrays.items():
        values[i] = with_bits(array, end)
        end = values[i].bits.bit_length()
    if not any(value.elements is not None for value in values.values()):
        return costs
    # Other floats are not 0; unlike masks.
    inputs = [
        values.get(i, Value(1) if is_float(x) and isinstance(x, jax.core.Tracer) else constant(x))
        for i, x in enumerate(traced.consts)
    ]
    reached, smooth = (
        pass_.outputs(traced.jaxpr, inputs)[: len(costs)]
        for pass_ in (Dependence(sure=0, stop_is_word=True), Dependence(smooth=True))
    )
    bits = [a.bits & ~b.bits for a, b in zip(reached, smooth, strict=True)]
    return Lost([(arrays[i], value) for i, value in values.items()]).added_to(costs, bits)
