"""Detection of derivatives that a cost would silently lose, asked when they are taken.

A cost may use its draw, or a parameter that it closes over, through an operation without a
derivative: a comparison, a rounding, an index. Its expectation moves with them, and `jax.grad` of
the cost is 0. The cost is traced once, followed through its jaxpr (`scorefn._core.reach`), and
evaluated from it. Arrays that are lost raise when they are differentiated. A value that passes
through `jax.lax.stop_gradient` is meant to be fixed. Where some elements of an array are lost and
others are not, the former get a derivative of nan (`_lost_elements`).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import is_float
from scorefn._core.reach import Walk
from scorefn._core.refusals import Question, nondifferentiable, questioned

from ._guard import describe
from ._lost_elements import marked, partly_lost

_control: ContextVar[bool] = ContextVar("scorefn_control_variate", default=False)


@contextmanager
def as_control_variate() -> Iterator[None]:
    """A context in which lost derivatives along the draw are allowed.

    There they only make a control variate: losing them makes it worse, not biased.
    """
    token = _control.set(True)
    try:
        yield
    finally:
        _control.reset(token)


def guarded_cost(
    f: Callable[[Any], tuple[Any, Any]], x: Any, name: str, user: Any, what: str = "f"
) -> Any:
    """``f(x)``, cost and aux, which raises where a derivative of the cost is lost.

    Args:
        f: the cost, with its aux.
        x: the draw.
        name: the name of the estimator, for the message.
        user: the function of the user, in which closed-over arrays are looked up by name.
        what: the name of the cost, for the message.
    """
    try:
        traced, shape = jax.make_jaxpr(lambda: f(x), return_shape=True)()
    except jax.errors.ConcretizationTypeError:
        # Outside of jit, f may use the value of a parameter in Python.
        return f(x)
    except Exception as error:
        if type(error).__name__ != "TraceContextError":
            raise
        raise TypeError(
            "f changes the state of a flax.nnx module (Dropout draws a key, BatchNorm updates its "
            "statistics), which JAX cannot trace from outside. Outside of f take it apart by "
            "graph, state = flax.nnx.split(module), and inside of f build it anew: "
            "flax.nnx.merge(graph, state, copy=True). For new noise in each sample, draw a key."
        ) from error
    arrays, draws = list(traced.consts), jax.tree.leaves(x)
    of_draw = [any(array is draw for draw in draws) for array in arrays]
    asked = [is_float(array) and isinstance(array, jax.core.Tracer) for array in arrays]
    cost = _CostJaxpr(traced.jaxpr, len(jax.tree.leaves(shape[0])), of_draw)
    walk = cost.walk(asked)
    partly = {}
    for i in (i for i, yes in enumerate(asked) if yes):
        if _control.get() and of_draw[i]:
            continue
        if walk.cut(i):
            partly[i] = arrays[i]
        if any(walk.severed(i)[: cost.size]):
            message = _message(name, arrays[i], x, user, what, of_draw=of_draw[i])
            arrays[i] = nondifferentiable(arrays[i], message)
            partly.pop(i, None)
        elif not _control.get():
            # A question must not hold on to tracers, by which it could find other names.
            slope = f"the derivative of {what}"
            message = _message(name, arrays[i], x, None, slope, of_draw=of_draw[i])
            arrays[i] = questioned(arrays[i], _Kinks(cost, i, message))
    out = jax.core.eval_jaxpr(traced.jaxpr, arrays)
    out[: cost.size] = marked(traced.jaxpr, list(traced.consts), out[: cost.size])
    out[: cost.size] = partly_lost(traced, partly, out[: cost.size])
    return jax.tree.unflatten(jax.tree.structure(shape), out)


class _CostJaxpr:
    """The jaxpr of a cost and its aux, all of whose inputs are its constants."""

    def __init__(self, jaxpr: Any, size: int, of_draw: list[bool]) -> None:
        self.jaxpr = jaxpr.replace(constvars=[], invars=jaxpr.constvars)
        self.size = size
        self.of_draw = of_draw

    def walk(self, asked: list[bool]) -> Walk:
        return Walk(self.jaxpr, asked, stop_is_word=True)

    def derivative(self, i: int) -> Walk:
        """The walk over the derivative along one input."""
        shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in self.jaxpr.invars]

        def along(inputs: list[Any], tangent: Any) -> list[Any]:
            def cost(x: Any) -> list[Any]:
                outputs = jax.core.eval_jaxpr(self.jaxpr, (), *inputs[:i], x, *inputs[i + 1 :])
                return list(outputs[: self.size])

            return jax.jvp(cost, (inputs[i],), (tangent,))[1]

        jaxpr: Any = jax.make_jaxpr(along)(shapes, shapes[i]).jaxpr
        floats = [jnp.issubdtype(v.aval.dtype, jnp.floating) for v in jaxpr.invars]
        return Walk(jaxpr, [*floats[:-1], False], stop_is_word=True)


class _Kinks(Question):
    """Whether the derivative of a cost loses its own derivative along one of the inputs."""

    def __init__(self, cost: _CostJaxpr, i: int, message: str) -> None:
        self._cost, self._i, self._message = cost, i, message

    def second(self) -> None:
        walk = self._cost.derivative(self._i)
        draws = [i for i, is_draw in enumerate(self._cost.of_draw) if is_draw]
        # A parameter's own kink (|w|) has a second derivative of 0 in expectation, too.
        if any(walk.severed(self._i)) and walk.cut_together(self._i, draws):
            raise TypeError(self._message)


def _message(name: str, array: Any, x: Any, user: Any, what: str, *, of_draw: bool) -> str:
    return _of_draw(name, array, x, what) if of_draw else _of_parameter(name, array, user, what)


def _of_draw(name: str, array: Any, x: Any, what: str) -> str:
    leaf = describe(array, x).replace("params (", "the draw (")
    f = what.removeprefix("the derivative of ")
    return (
        f"{name} differentiates {f}, but {what} depends on {leaf} only through operations without "
        f"a derivative (a cast to integers, an index, a comparison): the gradient would silently "
        f"be 0. Use ScoreFunction, or DisARM for bits; or write {f} as smooth arithmetic on the "
        f"draw; if no derivative is meant to pass, wrap the draw in jax.lax.stop_gradient."
    )


def _of_parameter(name: str, array: Any, user: Any, what: str) -> str:
    return (
        f"{name} cannot differentiate with respect to {describe(array, user)}: {what} depends on "
        f"it only through operations without a derivative (a comparison, a rounding, an index): "
        f"its gradient would silently be 0. Let the distribution depend on it instead, or make f "
        f"smooth in it; if it is not meant to be learned, wrap it in jax.lax.stop_gradient; return "
        f"what is only reported as aux."
    )
