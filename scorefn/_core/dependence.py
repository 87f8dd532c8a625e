"""Dependence of traced outputs, and of the support of draws, on the inputs.

A forward pass over a jaxpr. Inputs carry bits; every intermediate array carries the bits of the
inputs from which it is computed, small arrays element by element.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .arrays import is_number

# Lower numbers are treated as minus infinity, as in masks.
_IMPOSSIBLE = -1e9

_SHAPES = {"broadcast_in_dim", "copy", "convert_element_type", "expand_dims", "pcast", "pvary"}
_SHAPES |= {"reshape", "slice", "squeeze", "stop_gradient", "transpose"}
_EACH = {"abs", "convert_element_type", "copy", "exp", "expm1", "integer_pow", "log", "log1p"}
_EACH |= {"logistic", "neg", "sqrt", "square", "stop_gradient", "tanh"}
# Operations that do not change which draws are on the border, are in the set, or give 0.
_SAME_FORM = _SHAPES | {"abs", "neg", "reduce_max", "reduce_min", "reduce_sum", "square"}
_SAME_BORDER = _SHAPES | {"and", "not", "or", "reduce_and", "reduce_or"}
_SAME_BORDER |= {"argmax", "concatenate", "stack"}  # of jnp.select
_SAME_ZERO = _SHAPES | {"mul", "reduce_min", "reduce_prod"}
# Operations that give 0 if any argument is 0, if the first is, and if all are (that are chosen).
_ZERO_BY_ANY = {"dot_general", "mul"}
_ZERO_BY_FIRST = {"cumsum", "div", "dynamic_slice", "gather", "neg", "reduce_sum"}
_ZERO_BY_ALL = {"add_any", "concatenate", "pad", "select_n"}


@dataclass(frozen=True)
class Value:
    """Facts about one array of a jaxpr.

    Attributes:
        bits: the bits of the inputs from which it is computed.
        elements: the bits of each element, an object array, or None.
        constant: the number that all elements equal, or None.
        form: for ``scale * (g(x) - shift)`` of a draw x, the bits of shift and of scale; or None.
        border: for a boolean, the bits on which the set of draws where it is true depends.
        zero: the bits on which the set of draws where it is exactly 0 depends.
    """

    bits: int = 0
    elements: Any = None
    constant: float | None = None
    form: tuple[int, int] | None = None
    border: int = 0
    zero: int = 0


class Dependence:
    """A forward pass over jaxprs.

    Attributes:
        draws: the bits of draws.
        support: the bits on which the support of the draws depends, collected during the pass: a
            draw is compared with them, and the result selects minus infinity or the logarithm of 0.
    """

    def __init__(self, draws: int = 0) -> None:
        self.draws = draws
        self.support = 0

    def outputs(
        self, jaxpr: Any, inputs: Sequence[Value], cuts: dict[int, Value] | None = None
    ) -> list[Value]:
        """The values of the outputs.

        Args:
            jaxpr: a jaxpr of any of JAX's types.
            inputs: one for each argument, after one for each constant if constants are traced.
            cuts: replacements for the values of some outputs, by index, in later operations.
        """
        constants = [Value(constant=_constant(c)) for c in getattr(jaxpr, "consts", ())]
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        arguments = [*jaxpr.constvars, *jaxpr.invars]
        if len(inputs) < len(arguments):
            inputs = [*constants, *inputs]
        env: dict[Any, Value] = dict(zip(arguments, inputs, strict=True))
        handed_on = {jaxpr.outvars[i]: value for i, value in (cuts or {}).items()}
        found: dict[Any, Value] = {}

        def read(var: Any) -> Value:
            return Value(constant=_constant(var.val)) if hasattr(var, "val") else env[var]

        for eqn in jaxpr.eqns:
            values = self._equation(eqn, [read(var) for var in eqn.invars])
            found |= dict(zip(eqn.outvars, values, strict=True))
            env |= {var: handed_on.get(var, found[var]) for var in eqn.outvars}
        return [read(v) if hasattr(v, "val") or v not in found else found[v] for v in jaxpr.outvars]

    def _equation(self, eqn: Any, ins: list[Value]) -> list[Value]:
        name, params, n = eqn.primitive.name, eqn.params, len(eqn.outvars)
        if name == "scan":
            return self._scan(eqn, ins)
        if name == "cond":
            branches = [self.outputs(branch, ins[1:]) for branch in params["branches"]]
            return [self._selected(ins[0], list(values)) for values in zip(*branches, strict=True)]
        inner = next((params[k] for k in ("jaxpr", "call_jaxpr") if k in params), None)
        if inner is not None and len(getattr(inner, "jaxpr", inner).invars) == len(ins):
            return self.outputs(inner, ins)
        if name == "split":
            at = np.cumsum(params["sizes"])[:-1]
            parts = np.split(_elements(ins[0], eqn.invars[0]), at, params["axis"])
            return [Value(_union(part.flat), part) for part in parts]
        if name == "optimization_barrier":
            return ins
        if n != 1 or not ins:
            return [Value(_union(value.bits for value in ins))] * n
        return [self._one(name, eqn, ins)]

    def _scan(self, eqn: Any, ins: list[Value]) -> list[Value]:
        body = eqn.params["jaxpr"]
        inside = getattr(body, "jaxpr", body)
        # Scanned and stacked arrays have one more axis outside.
        carried = sum(
            inner.aval.ndim == outer.aval.ndim
            for inner, outer in zip(inside.outvars, eqn.outvars, strict=True)
        )
        scanned = sum(
            inner.aval.ndim < outer.aval.ndim
            for inner, outer in zip(inside.invars, eqn.invars, strict=True)
        )
        first = len(ins) - scanned - carried
        ins = [*ins[:first], *(Value(value.bits) for value in ins[first:])]
        while True:
            outs = self.outputs(body, ins)
            carry = [
                Value(old.bits | new.bits)
                for old, new in zip(ins[first : first + carried], outs[:carried], strict=True)
            ]
            if carry == ins[first : first + carried]:
                return [*carry, *(Value(value.bits) for value in outs[carried:])]
            ins[first : first + carried] = carry

    def _one(self, name: str, eqn: Any, ins: list[Value]) -> Value:
        """The value of the only output of an operation without functions inside."""
        first, last = ins[0], ins[-1]
        if _is_zero(name, [value.constant == 0 for value in ins]):
            return Value(constant=0.0)
        bits = _union(value.bits for value in ins)
        of_draws = bits & self.draws and not bits & ~self.draws
        value = Value(bits, form=(0, 0) if of_draws else None)
        if name in _EACH or name in ("slice", "squeeze", "reshape"):
            elements = _moved(name, eqn, first)
            bits = bits if elements is None else _union(elements.flat)
            value = replace(value, bits=bits, elements=elements)
        if name in _SHAPES:
            value = replace(value, constant=first.constant)
        if name in _SAME_FORM:
            value = replace(value, form=self._form(first))
        if name in _SAME_BORDER:
            value = replace(value, border=_union(value.border for value in ins))
        if name in _SAME_ZERO:
            value = replace(value, zero=_union(value.zero for value in ins))
        if name == "convert_element_type":
            value = replace(value, zero=first.zero | first.border)
        elif name in ("lt", "le", "gt", "ge"):
            form = self._difference(first, last)
            endless = any(value.constant in (np.inf, -np.inf) for value in ins)
            value = replace(value, border=form[0] if form and not endless else 0)
        elif name in ("add", "sub"):
            value = replace(value, form=self._difference(first, last), constant=_sum(name, ins))
        elif name == "mul" or (name == "div" and not last.bits & self.draws):
            value = replace(value, form=self._scaled(first, last), zero=value.zero | first.zero)
        elif name == "select_n":
            value = replace(self._selected(first, ins[1:]), form=value.form)
        elif name == "log":
            self.support |= first.zero
        return value

    def _selected(self, by: Value, values: list[Value]) -> Value:
        constants = [value.constant for value in values if value.constant is not None]
        if any(constant <= _IMPOSSIBLE for constant in constants):
            self.support |= by.border
        zero = by.border if 0.0 in constants else 0
        return Value(
            _union(value.bits for value in [by, *values]),
            zero=zero | _union(value.zero for value in values),
        )

    def _form(self, value: Value) -> tuple[int, int] | None:
        return value.form if value.bits & self.draws else None

    def _difference(self, left: Value, right: Value) -> tuple[int, int] | None:
        """The form of ``left - right`` or of their sum."""
        drawn = [value for value in (left, right) if value.bits & self.draws]
        if not drawn or any(value.form is None for value in drawn):
            return None
        shift = _union(value.form[0] for value in drawn if value.form)
        scale = _union(value.form[1] for value in drawn if value.form)
        for value in (left, right):
            if not value.bits & self.draws and (value.bits or value.constant):
                shift |= value.bits | scale
        return shift, scale

    def _scaled(self, left: Value, right: Value) -> tuple[int, int] | None:
        """The form of a product with an array that depends on no draw."""
        drawn = [value for value in (left, right) if value.bits & self.draws]
        if len(drawn) != 1 or drawn[0].form is None:
            return None
        others = _union(value.bits for value in (left, right) if value is not drawn[0])
        return drawn[0].form[0], drawn[0].form[1] | others


def _is_zero(name: str, zero: list[bool]) -> bool:
    """Whether an operation gives 0, from which of its arguments are 0."""
    if name in _ZERO_BY_ANY:
        return any(zero)
    if name in _ZERO_BY_FIRST:
        return zero[0]
    return all(zero[1:] if name == "select_n" else zero) and name in _ZERO_BY_ALL


def _union(bits: Any) -> int:
    return reduce(int.__or__, bits, 0)


def _sum(name: str, values: list[Value]) -> float | None:
    left, right = (value.constant for value in values)
    if left is None or right is None:
        return None
    return left + right if name == "add" else left - right


def _constant(x: Any) -> float | None:
    """The number that all elements of an untraced array equal."""
    if isinstance(x, jax.core.Tracer) or not is_number(x) or jnp.iscomplexobj(x):
        return None
    if jnp.issubdtype(jnp.result_type(x), jax.dtypes.extended):
        return None
    x = np.asarray(x)
    return float(x.flat[0]) if x.size and np.all(x == x.flat[0]) else None


def _elements(value: Value, var: Any) -> Any:
    if value.elements is not None:
        return value.elements
    return np.full(var.aval.shape, value.bits, object)


def _moved(name: str, eqn: Any, value: Value) -> Any:
    if value.elements is None:
        return None
    params = eqn.params
    if name == "slice":
        strides = params["strides"] or (None,) * len(params["start_indices"])
        bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        return value.elements[tuple(slice(*bound) for bound in bounds)]
    if name in ("reshape", "squeeze"):
        return np.reshape(value.elements, eqn.outvars[0].aval.shape)
    return value.elements
