"""Dependence of traced outputs, and of the support of draws, on the inputs.

A forward pass over a jaxpr. Inputs carry bits; every intermediate array carries the bits of the
inputs from which it is computed, small arrays element by element (`scorefn._core.elements`).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from .arrays import is_number
from .elements import MOST, folded, full, merged, moved, parts

# Lower numbers are treated as minus infinity, as in masks.
_IMPOSSIBLE = -1e9

_SHAPES = {"broadcast_in_dim", "copy", "convert_element_type", "expand_dims", "pcast", "pvary"}
_SHAPES |= {"reshape", "slice", "squeeze", "stop_gradient", "transpose"}
# Floats from floats, with a derivative of 0.
_STEPS = {"ceil", "floor", "round", "sign"}
# Operations that do not change which draws are on the border, are in the set, or give 0.
_SAME_FORM = _SHAPES | {"abs", "neg", "reduce_max", "reduce_min", "reduce_sum", "square"}
_SAME_BORDER = _SHAPES | {"and", "not", "or", "reduce_and", "reduce_or"}
_SAME_BORDER |= {"argmax", "concatenate", "stack"}  # of jnp.select
_SAME_ZERO = _SHAPES | {"mul", "reduce_min", "reduce_prod"}
# Operations that make a step of steps, of which the last may be 0 where none of its arguments is.
_OF_STEPS = {"div", "eq", "ge", "gt", "integer_pow", "le", "lt", "mul", "ne", "neg", "square"}
_MAY_BE_ZERO = {"add", "clamp", "max", "min", "select_n", "sub", *_STEPS}
# Operations that give 0 if any argument is 0, if the first is, and if all are (that are chosen).
_ZERO_BY_ANY = {"dot_general", "mul"}
_ZERO_BY_FIRST = {"cumsum", "div", "dynamic_slice", "gather", "neg", "reduce_sum"}
_ZERO_BY_ALL = {"add_any", "concatenate", "pad", "select_n"}


@dataclass(frozen=True)
class Value:
    """Facts about one array of a jaxpr.

    Attributes:
        bits: the bits of the inputs from which it is computed.
        elements: the bits of each element, an object array, or None: all have the same.
        constant: the number that all elements equal, or None.
        known: the numbers of a small array, or None.
        labels: for booleans of the arguments, the number of each element; or None.
        form: for ``scale * (g(x) - shift)`` of a draw x, the bits of shift and of scale; or None.
        border: for steps, the bits on which the set of draws where they jump depends, and those of
            these draws.
        zero: the bits on which the set of draws where it is exactly 0 depends.
    """

    bits: int = 0
    elements: Any = None
    constant: float | None = None
    known: Any = None
    labels: Any = None
    form: tuple[int, int] | None = None
    border: int = 0
    zero: int = 0

    @property
    def sets(self) -> Any:
        """The bits of each element, or of all elements."""
        return self.bits if self.elements is None else self.elements


class Dependence:
    """A forward pass over jaxprs.

    By default an output has the bits of all inputs that may reach it.

    Attributes:
        support: the bits on which the support of the draws depends, collected during the pass: a
            draw is compared with them, and the result selects minus infinity or the logarithm of 0.
        masked: new bits for a bit that is multiplied, or selected instead of 0, by a boolean of the
            arguments; by this bit and the label of the boolean.
    """

    def __init__(
        self,
        draws: int = 0,
        *,
        sure: int | None = None,
        smooth: bool = False,
        stop_is_word: bool = False,
        spare: int = 0,
    ) -> None:
        """A pass.

        Args:
            draws: the bits of draws.
            sure: if it is given, an output has the bits of inputs that certainly reach it by
                value, and these bits where they may.
            smooth: whether only ways with a derivative count.
            stop_is_word: whether stop_gradient ends a way.
            spare: the first of the bits that `masked` may use; 0 if booleans are not followed.
        """
        self.draws, self.sure, self.smooth = draws, sure, smooth
        self.stop_is_word = stop_is_word
        self.support = 0
        self.masked: dict[tuple[int, int], int] = {}
        self._spare = self._first_spare = spare

    def outputs(
        self, jaxpr: Any, inputs: Sequence[Value], cuts: dict[int, Value] | None = None
    ) -> list[Value]:
        """The values of the outputs.

        Args:
            jaxpr: a jaxpr of any of JAX's types.
            inputs: one for each argument, after one for each constant if constants are traced.
            cuts: replacements for the values of some outputs, by index, in later operations.
        """
        constants = [constant(c) for c in getattr(jaxpr, "consts", ())]
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        arguments = [*jaxpr.constvars, *jaxpr.invars]
        if len(inputs) < len(arguments):
            inputs = [*constants, *inputs]
        env: dict[Any, Value] = dict(zip(arguments, inputs, strict=True))
        handed_on = {jaxpr.outvars[i]: value for i, value in (cuts or {}).items()}
        found: dict[Any, Value] = {}

        def read(var: Any) -> Value:
            return constant(var.val) if hasattr(var, "val") else env[var]

        for eqn in jaxpr.eqns:
            values = self._equation(eqn, [read(var) for var in eqn.invars])
            found |= dict(zip(eqn.outvars, values, strict=True))
            env |= {var: handed_on.get(var, found[var]) for var in eqn.outvars}
        return [read(v) if hasattr(v, "val") or v not in found else found[v] for v in jaxpr.outvars]

    def _equation(self, eqn: Any, ins: list[Value]) -> list[Value]:
        name, params, n = eqn.primitive.name, eqn.params, len(eqn.outvars)
        if name == "scan":
            return self._scan(eqn, ins) if self.sure is None else [Value(self._blurred(ins))] * n
        if name == "cond":
            branches = [self.outputs(branch, ins[1:]) for branch in params["branches"]]
            return [self._branch(ins[0], list(values)) for values in zip(*branches, strict=True)]
        # A rule of its own may have a derivative where the function has none.
        inner = next((params[k] for k in ("jaxpr", "call_jaxpr") if k in params), None)
        if self.smooth and name.startswith("custom_"):
            inner = None
        if inner is not None and len(getattr(inner, "jaxpr", inner).invars) == len(ins):
            return self.outputs(inner, ins)
        if name in ("split", "unstack") and math.prod(eqn.invars[0].aval.shape) <= MOST:
            x = full(ins[0].sets, eqn.invars[0].aval.shape)
            return [_of_elements(part) for part in parts(name, params, x)]
        if name == "optimization_barrier":
            return ins
        if n != 1:
            return [Value(self._blurred(ins))] * n
        return [self._one(name, eqn, ins)]

    def _blurred(self, ins: list[Value]) -> int:
        """The bits after an operation whose elements are not followed."""
        bits = _union(value.bits for value in ins)
        return bits if self.sure is None else bits & self.sure

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
        if name == "iota":
            return Value(known=folded(name, eqn.params, eqn.outvars[0].aval.shape, []))
        if not ins:
            return Value()
        first, last = ins[0], ins[-1]
        if _is_zero(name, [value.constant == 0 for value in ins]):
            return Value(constant=0.0)
        value = self._followed(name, eqn, ins)
        bits = value.bits
        if bits & self.draws and not bits & ~self.draws:
            value = replace(value, form=(0, 0))
        if name in _SHAPES and value.constant is None:
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
            border = form[0] if form and not endless else 0
            value = replace(value, border=border | bits & self.draws)
        elif name in ("add", "sub"):
            value = replace(value, form=self._difference(first, last))
        elif name == "mul" or (name == "div" and not last.bits & self.draws):
            value = replace(value, form=self._scaled(first, last), zero=value.zero | first.zero)
        elif name == "select_n":
            value = replace(value, zero=self._chosen(first, ins[1:]))
        elif name == "gather":
            value = replace(value, zero=self._chosen(last, [first]))
        elif name in ("log", "log1p"):
            self.support |= first.zero if name == "log" else first.border
        return self._step(name, ins, value)

    def _step(self, name: str, ins: list[Value], value: Value) -> Value:
        """The value with the borders of steps: floats and integers that jump there."""
        border = 0
        if name in _STEPS and ins[0].form:
            shift, scale = ins[0].form
            border = (shift if name == "sign" else shift | scale) | value.bits & self.draws
        drawn = [value for value in ins if value.bits & self.draws]
        if name in _OF_STEPS | _MAY_BE_ZERO and all(value.border for value in drawn):
            border |= _union(value.border for value in ins)
            if any(abs(value.constant or 0) >= -_IMPOSSIBLE for value in ins):
                self.support |= border
        if not border:
            return value
        zero = border if name in _MAY_BE_ZERO else 0
        return replace(value, border=value.border | border, zero=value.zero | zero)

    def _followed(self, name: str, eqn: Any, ins: list[Value]) -> Value:
        """The bits and the numbers of the only output of an operation."""
        var, shape = eqn.outvars[0], getattr(eqn.outvars[0].aval, "shape", ())
        if not any(value.bits for value in ins):
            known = folded(name, eqn.params, shape, _numbers(eqn, ins))
            labels = ins[0].labels
            if labels is not None:
                labels = moved(name, eqn.params, shape, labels)
            return Value(constant=_repeated(known), known=known, labels=labels)
        if name == "stop_gradient" and (self.stop_is_word or self.smooth):
            return Value()
        flat = name in _STEPS or not jnp.issubdtype(var.aval.dtype, jnp.inexact)
        if self.smooth and flat:
            return Value()
        if name == "ne" and eqn.invars[0] is eqn.invars[1] and self.sure is not None:
            return Value()  # is it nan?
        sets = self._unmasked(name, eqn, ins)
        found = merged(eqn, sets, _numbers(eqn, ins), self.sure)
        return Value(self._blurred(ins)) if found is None else _of_elements(found)

    def _unmasked(self, name: str, eqn: Any, ins: list[Value]) -> list[Any]:
        """The bits of the arguments; new ones where booleans of the arguments may hide them."""
        sets = [value.sets for value in ins]
        if not self._spare or name not in ("mul", "select_n"):
            return sets
        at = [i for i, value in enumerate(ins) if value.labels is not None]
        hidden = [i for i in range(len(ins)) if i not in at and ins[i].bits]
        zeros = [value.constant == 0 for value in ins]
        if (
            len(at) != 1
            or len(hidden) != 1
            or (name == "select_n" and not (at == [0] and zeros[1]))
        ):
            return sets
        (i,), (j,) = hidden, at
        shape = eqn.outvars[0].aval.shape
        pairs = np.broadcast(full(sets[i], shape), np.broadcast_to(ins[j].labels, shape))
        masked = [self._mask(bits, label) for bits, label in pairs]
        sets[i] = np.array([*masked, None], object)[:-1].reshape(shape)
        return sets

    def _mask(self, bits: int, label: int) -> int:
        found = 0
        for bit in (1 << i for i in range(bits.bit_length()) if bits >> i & 1):
            if bit >> self._first_spare:  # hidden before
                found |= bit
                continue
            if (bit, label) not in self.masked:
                self.masked[bit, label] = 1 << self._spare
                self._spare += 1
            found |= self.masked[bit, label]
        return found

    def _branch(self, by: Value, values: list[Value]) -> Value:
        """One output of a conditional."""
        sets = [value.sets for value in values]
        if self.sure is not None and not by.bits:
            sets = [each & self.sure for each in sets]
        return replace(_of_elements(reduce(or_, sets, by.bits)), zero=self._chosen(by, values))

    def _chosen(self, by: Value, values: list[Value]) -> int:
        """The bits on which the zeros of a selection depend."""
        numbers: list[float] = []
        for value in values:
            numbers += [value.constant] if value.constant is not None else []
            numbers += [] if value.known is None else value.known.ravel().tolist()
        if any(abs(number) >= -_IMPOSSIBLE for number in numbers):
            self.support |= by.border
        zero = by.border if 0.0 in numbers else 0
        return zero | _union(value.zero for value in values)

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


def constant(x: Any) -> Value:
    """A literal or an array that is closed over; nothing is known of a tracer."""
    if isinstance(x, jax.core.Tracer) or not is_number(x) or jnp.iscomplexobj(x):
        return Value()
    if jnp.issubdtype(jnp.result_type(x), jax.dtypes.extended):
        return Value()
    x = np.asarray(x)
    known = x if 1 < x.size <= MOST else None
    return Value(known=known, constant=_repeated(x))


def _repeated(x: Any) -> float | None:
    """The number that all elements of an array equal."""
    if x is None or not x.size or np.iscomplexobj(x) or not np.all(x == x.flat[0]):
        return None
    return float(x.flat[0])


def _of_elements(sets: Any) -> Value:
    if isinstance(sets, int):
        return Value(sets)
    return Value(_union(sets.flat), sets)


def _numbers(eqn: Any, ins: list[Value]) -> list[Any]:
    """The numbers of each argument, or None."""

    def one(aval: Any, value: Value) -> Any:
        if value.known is not None or value.constant is None or math.prod(aval.shape) > MOST:
            return value.known
        with np.errstate(all="ignore"):  # inf, as an integer
            return np.full(aval.shape, value.constant).astype(aval.dtype)

    return [one(var.aval, value) for var, value in zip(eqn.invars, ins, strict=True)]
