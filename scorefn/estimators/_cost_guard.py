"""Detection of derivatives that a cost would silently lose, asked when they are taken.

A cost may use its draw, or a parameter that it closes over, through an operation without a
derivative: a comparison, a rounding, an index. Its expectation moves with them, and `jax.grad` of
the cost is 0. The cost is traced once, evaluated from its jaxpr, and each array that it reads is
followed through the jaxpr (`scorefn._core.reach`) when somebody differentiates along it. What
passes through `jax.lax.stop_gradient` is meant to be fixed.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import is_float
from scorefn._core.derivatives import Question, questioned
from scorefn._core.reach import Walk

from ._guard import describe

_kinks: ContextVar[bool] = ContextVar("scorefn_kinks_are_allowed", default=False)


@contextmanager
def kinks_allowed() -> Iterator[None]:
    """A context in which second derivatives of the cost need not be those of its expectation."""
    token = _kinks.set(True)
    try:
        yield
    finally:
        _kinks.reset(token)


def guarded_cost(f: Callable[[Any], tuple[Any, Any]], x: Any, name: str, user: Any) -> Any:
    """``f(x)``, a pair of cost and aux, which raises where the derivative of the cost is lost.

    Args:
        f: the cost, with its aux.
        x: the draw.
        name: the name of the estimator, for the message.
        user: the function of the user, in which closed-over arrays are looked up by name.
    """
    try:
        traced, shape = jax.make_jaxpr(lambda: f(x), return_shape=True)()
    except jax.errors.ConcretizationTypeError:
        # Outside of jit, f may use the value of a parameter in Python.
        return f(x)
    draws = jax.tree.leaves(x)
    costs = len(jax.tree.leaves(shape[0]))
    arrays = list(traced.consts)
    of_draw = [any(array is draw for draw in draws) for array in arrays]
    jaxpr = _Jaxpr(traced.jaxpr, costs, of_draw, kinks=_kinks.get())
    for i, array in enumerate(arrays):
        if is_float(array) and isinstance(array, jax.core.Tracer):
            if of_draw[i]:
                message = partial(_of_draw, name, array, x)
            else:
                message = partial(_of_parameter, name, array, user)
            arrays[i] = questioned(array, _OfCost(jaxpr, i, message))
    out = jax.core.eval_jaxpr(traced.jaxpr, arrays)
    return jax.tree.unflatten(jax.tree.structure(shape), out)


class _Jaxpr:
    """The jaxpr of a cost, all of whose inputs are its constants."""

    def __init__(self, jaxpr: Any, costs: int, of_draw: list[bool], *, kinks: bool) -> None:
        self.jaxpr = jaxpr.replace(constvars=[], invars=jaxpr.constvars)
        self.costs = costs
        self.of_draw = of_draw
        self.kinks = kinks

    @cached_property
    def walk(self) -> Walk:
        floats = [jnp.issubdtype(v.aval.dtype, jnp.floating) for v in self.jaxpr.invars]
        return Walk(self.jaxpr, floats, stop_is_word=True)

    def derivative(self, i: int) -> Walk:
        """The walk over the derivative along one input."""
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in self.jaxpr.invars]

        def along(inputs: list[Any], tangent: Any) -> list[Any]:
            def cost(x: Any) -> list[Any]:
                return jax.core.eval_jaxpr(self.jaxpr, (), *inputs[:i], x, *inputs[i + 1 :])

            return jax.jvp(cost, (inputs[i],), (tangent,))[1][: self.costs]

        jaxpr = jax.make_jaxpr(along)(shapes, shapes[i]).jaxpr
        floats = [jnp.issubdtype(v.aval.dtype, jnp.floating) for v in jaxpr.invars]
        return Walk(jaxpr, [*floats[:-1], False], stop_is_word=True)


class _OfCost(Question):
    """Whether a cost loses its derivative along one of its inputs."""

    def __init__(self, jaxpr: _Jaxpr, i: int, message: Callable[[str], str]) -> None:
        self._jaxpr, self._i, self._message = jaxpr, i, message

    def first(self) -> None:
        if any(self._jaxpr.walk.severed(self._i)[: self._jaxpr.costs]):
            raise TypeError(self._message("f"))

    def second(self) -> None:
        if self._jaxpr.kinks:
            return
        walk = self._jaxpr.derivative(self._i)
        draws = [i for i, is_draw in enumerate(self._jaxpr.of_draw) if is_draw]
        # A parameter's own kink (|w|) has a second derivative of 0 in expectation, too.
        if any(walk.severed(self._i)) and walk.cut_together(self._i, draws):
            raise TypeError(self._message("the derivative of f"))


def _of_draw(name: str, array: Any, x: Any, what: str) -> str:
    leaf = describe(array, x).replace("params (", "the draw (")
    return (
        f"{name} differentiates f, but {what} depends on {leaf} only through operations without a "
        f"derivative (a cast to integers, an index, a comparison): the gradient would silently be "
        f"0. Use ScoreFunction, or DisARM for bits; or write f as smooth arithmetic on the draw; "
        f"if no derivative is meant to pass, wrap the draw in jax.lax.stop_gradient."
    )


def _of_parameter(name: str, array: Any, user: Any, what: str) -> str:
    return (
        f"{name} cannot differentiate with respect to {describe(array, user)}: {what} depends on "
        f"it only through operations without a derivative (a comparison, a rounding, an index): "
        f"its gradient would silently be 0. Let the distribution depend on it instead, or make f "
        f"smooth in it; if it is not meant to be learned, wrap it in jax.lax.stop_gradient; return "
        f"what is only reported as aux."
    )
