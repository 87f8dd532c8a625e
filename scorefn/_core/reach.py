"""The inputs that reach the outputs of a jaxpr: by value, by derivative, through choices.

One walk over the equations answers for all inputs together. A set of inputs is an int, one bit for
each. Random numbers that are drawn on the way are inputs too, so that a choice can be told apart
from a smooth function of the same noise.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from operator import or_
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import jax
import numpy as np
from jax.extend.core import Jaxpr, Literal

# Marks a cut between candidates that are made of different random numbers.
_CANDIDATES = 1

_RANDOM = {"random_bits", "random_gamma", "threefry2x32", "rng_bit_generator", "rng_uniform"}
# Floats from floats, with a derivative of 0.
_FLAT = {"floor", "ceil", "round", "sign", "nextafter"}
_PARTS = {"slice", "split", "unstack"}
_ONE_TO_ONE = {"optimization_barrier", "psum", "psum_invariant", "pmax", "pmin", "pvary", "pcast"}
_KEEPS_ZERO = {
    *{"broadcast_in_dim", "convert_element_type", "reshape", "squeeze", "neg", "copy", "pvary"},
    *{"transpose", "reduce_sum", "slice", "expand_dims"},
}


class Reach(NamedTuple):
    """Sets of inputs that reach one value, and the cuts on the way.

    A cut is an operation without derivative (a comparison, a rounding, an argmax), written as the
    set of all that it reads. A value may be known to be 0, or to be the predicate of a nan.
    """

    value: int = 0
    derivative: int = 0
    cuts: frozenset[int] = frozenset()
    zero: bool = False
    is_nan: bool = False


_NOTHING = Reach()


class Walk:
    """A walk over one jaxpr.

    Attributes:
        outputs: what reaches each output.
        noise: the set of the random numbers.
    """

    def __init__(self, jaxpr: Jaxpr, sources: Sequence[bool], *, stop_is_word: bool) -> None:
        """Walks.

        Args:
            jaxpr: all of whose constants are inputs.
            sources: which inputs to follow.
            stop_is_word: whether stop_gradient says that a value is fixed, so that it does not
                count as one that loses its derivative.
        """
        self._stop_is_word = stop_is_word
        self._next = 2
        self.noise = 0
        self._numbers: dict[Any, int] = {}
        self._kin: dict[int, int] = {}  # from a random number to its parts, or what it is part of
        self._held: list[Any] = []  # ids are keys only while their objects live
        self.sources = [self._bit() if source else 0 for source in sources]
        self.outputs = self._run(jaxpr, [Reach(bit, bit) for bit in self.sources], ())

    def severed(self, source: int) -> list[bool]:
        """Whether each output uses an input and has no derivative along it."""
        return [bool(out.value & ~out.derivative & self.sources[source]) for out in self.outputs]

    def cut(self, source: int) -> bool:
        """Whether a cut before an output reads an input."""
        return any(cut & self.sources[source] for out in self.outputs for cut in out.cuts)

    def cut_together(self, source: int, others: Sequence[int]) -> bool:
        """Whether a cut before an output reads an input and one of the others."""
        bit, rest = self.sources[source], reduce(or_, (self.sources[i] for i in others), 0)
        cuts = frozenset[int]().union(*(out.cuts for out in self.outputs))
        return any(cut & bit and cut & rest for cut in cuts)

    def chosen(self, source: int) -> list[bool]:
        """Whether each output is chosen at random, with odds that move with an input.

        That is: by a cut that reads the input together with random numbers which reach the output
        in no other way; or between candidates that are made of different random numbers.
        """
        bit = self.sources[source]
        return [
            any(
                cut & bit and (cut & _CANDIDATES or self._only_chooses(cut & self.noise, out))
                for cut in out.cuts
            )
            for out in self.outputs
        ]

    def _only_chooses(self, numbers: int, out: Reach) -> bool:
        smooth = out.derivative & self.noise
        for bit in _bits(smooth):
            smooth |= self._kin.get(bit, 0)
        return bool(numbers & ~smooth)

    def _bit(self) -> int:
        self._next *= 2
        return self._next // 2

    def _number(self, *where: Any, part_of: int = 0) -> Reach:
        """The random number that is drawn at one place in the program."""
        if where not in self._numbers:
            bit = self._bit()
            self.noise |= bit
            self._numbers[where] = bit
            for whole in _bits(part_of | self._kin.get(part_of, 0)) if part_of else ():
                self._kin[whole] = self._kin.get(whole, 0) | bit
                self._kin[bit] = self._kin.get(bit, 0) | whole
        bit = self._numbers[where]
        return Reach(bit, bit)

    def _run(self, jaxpr: Any, inputs: Sequence[Reach], path: tuple[int, ...]) -> list[Reach]:
        jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
        reached = dict(zip(jaxpr.invars, inputs, strict=True))

        def read(atom: Any) -> Reach:
            if isinstance(atom, Literal):
                return _ZERO if np.ndim(atom.val) == 0 and atom.val == 0 else _NOTHING
            return reached.get(atom, _NOTHING)

        for eqn in jaxpr.eqns:
            inputs = [read(atom) for atom in eqn.invars]
            outputs = self._equation(jaxpr, eqn, inputs, (*path, id(eqn)))
            reached.update(zip(eqn.outvars, outputs, strict=True))
        self._held.append(jaxpr)
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(
        self, jaxpr: Any, eqn: Any, inputs: list[Reach], path: tuple[int, ...]
    ) -> list[Reach]:
        name, n = eqn.primitive.name, len(eqn.outvars)
        if name == "stop_gradient":
            return [_NOTHING if self._stop_is_word else Reach(inputs[0].value)]
        if name == "scorefn_poison":  # raises on its own, and with the better message
            return [_NOTHING] * n
        if name in _RANDOM:
            number, known = self._number(path), _join(inputs)
            return [_join([number, known])] * n
        if name in ("custom_jvp_call", "custom_vjp_call"):
            return self._custom(jaxpr, eqn, inputs, path)
        if name == "scan":
            return self._scan(eqn, inputs, path)
        if name == "while":
            return self._while(eqn, inputs, path)
        if name == "cond":
            index, *rest = inputs
            branches = [
                self._run(branch, rest, (*path, i))
                for i, branch in enumerate(eqn.params["branches"])
            ]
            return [self._select(index, cases) for cases in zip(*branches, strict=True)]
        body = _body(eqn)
        if body is not None:
            return self._run(body, inputs, path)
        if name == "select_n":
            return [self._select(inputs[0], inputs[1:])]
        if name in _PARTS and self._is_noise(inputs[0]):
            whole = inputs[0].value
            return [self._number(path, i, part_of=whole) for i in range(n)]
        if name == "sort" and n > 1:
            return [self._lossy(eqn, inputs, own.derivative)._replace(zero=False) for own in inputs]
        if name in _ONE_TO_ONE and n == len(inputs):
            return inputs
        if (name in _KEEPS_ZERO and inputs[0].zero) or (
            name in ("mul", "dot_general") and any(x.zero for x in inputs)
        ):
            return [_ZERO] * n
        if name == "ne" and eqn.invars[0] is eqn.invars[1]:
            return [inputs[0]._replace(derivative=0, is_nan=True)]
        data = _DATA.get(name, lambda inputs: inputs)(inputs)
        return [self._lossy(eqn, inputs, self._derivative(eqn, data, var)) for var in eqn.outvars]

    def _is_noise(self, x: Reach) -> bool:
        return x.value == x.derivative and x.value in self._numbers.values()

    def _derivative(self, eqn: Any, data: Sequence[Reach], var: Any) -> int:
        """The inputs that an ordinary operation has a derivative along."""
        joint = _join(data).derivative
        dtype = getattr(var.aval, "dtype", None)
        if dtype is None or eqn.primitive.name in _FLAT:
            return 0
        if jax.numpy.issubdtype(dtype, jax.numpy.inexact):
            return joint
        # Integers carry random bits until these become floats, unless they are counts of something.
        floats = any(jax.numpy.issubdtype(_dtype(v), jax.numpy.inexact) for v in eqn.invars)
        if floats or not jax.numpy.issubdtype(dtype, jax.numpy.integer):
            return 0
        return 0 if eqn.primitive.name in ("argmax", "argmin") else joint & self.noise

    def _lossy(self, eqn: Any, inputs: Sequence[Reach], derivative: int) -> Reach:
        del eqn
        joint = _join(inputs)
        cuts = joint.cuts
        if joint.derivative & ~derivative:
            cuts |= {self._cut(joint)}
        return Reach(joint.value, derivative, cuts)

    def _cut(self, read: Reach) -> int:
        # Random numbers behind an earlier cut were counted there.
        return read.value & ~self.noise | read.derivative & self.noise

    def _select(self, index: Reach, cases: Sequence[Reach]) -> Reach:
        """One of several cases."""
        joint = _join(cases[:1] if index.is_nan else cases)
        cuts = index.cuts
        noise = [case.value & self.noise for case in cases]
        if any(a & ~b and b & ~a for a in noise for b in noise):
            cuts |= self._between_candidates(cuts)
        return Reach(joint.value | index.value, joint.derivative, joint.cuts | cuts)

    def _between_candidates(self, cuts: frozenset[int]) -> frozenset[int]:
        return frozenset(cut | _CANDIDATES for cut in cuts if cut & self.noise)

    def _scan(self, eqn: Any, inputs: list[Reach], path: tuple[int, ...]) -> list[Reach]:
        fixed, carried = _scan_sizes(eqn.params)
        consts, carry = inputs[:fixed], inputs[fixed : fixed + carried]
        while True:
            before = self.noise
            outputs = self._run(
                eqn.params["jaxpr"], [*consts, *carry, *inputs[fixed + carried :]], path
            )
            again = [
                _join([a, self._earlier(b, path)])
                for a, b in zip(carry, outputs[:carried], strict=True)
            ]
            if again == carry and before == self.noise:
                return [
                    *(_join(both) for both in zip(carry, outputs[:carried], strict=True)),
                    *outputs[carried:],
                ]
            carry = again

    def _while(self, eqn: Any, inputs: list[Reach], path: tuple[int, ...]) -> list[Reach]:
        params = eqn.params
        asked, done = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
        carry = inputs[done:]
        body = getattr(params["body_jaxpr"], "jaxpr", params["body_jaxpr"])
        kept = [a is b for a, b in zip(body.invars[done - asked :], body.outvars, strict=True)]
        while True:
            before = self.noise
            (goes_on,) = self._run(params["cond_jaxpr"], [*inputs[:asked], *carry], (*path, 0))
            outputs = self._run(body, [*inputs[asked:done], *carry], (*path, 1))
            control = goes_on._replace(derivative=0, zero=False)
            if any(where[0][: len(path)] == path for where in self._numbers):
                # Each round draws anew: how many there are chooses between candidates.
                control = control._replace(
                    cuts=control.cuts | self._between_candidates(control.cuts)
                )
            again = [
                a if k else _join([a, self._earlier(b, path), control])
                for a, b, k in zip(carry, outputs, kept, strict=True)
            ]
            if again == carry and before == self.noise:
                return carry
            carry = again

    def _earlier(self, x: Reach, path: tuple[int, ...]) -> Reach:
        """The result of an iteration as the next one sees it."""
        ours = {
            bit: self._number(("earlier", *path), bit).value
            for where, bit in list(self._numbers.items())
            if where[0][: len(path)] == path
        }

        def aged(mask: int) -> int:
            return reduce(lambda m, bit: m & ~bit | ours[bit] if m & bit else m, ours, mask)

        cuts = frozenset(aged(cut) for cut in x.cuts)
        return Reach(aged(x.value), aged(x.derivative), cuts, x.zero)

    def _custom(
        self, jaxpr: Any, eqn: Any, inputs: list[Reach], path: tuple[int, ...]
    ) -> list[Reach]:
        """A function with a rule of its own, which is trusted and asked what it differentiates."""
        inside = self._run(eqn.params["call_jaxpr"], inputs, path)
        if not any(x.derivative for x in inputs):
            return inside
        call = getattr(eqn.params["call_jaxpr"], "jaxpr", eqn.params["call_jaxpr"])
        if call not in _rules:
            _rules[call] = _rule(jaxpr, eqn)
        outputs = []
        for out, rule in zip(inside, _rules[call], strict=True):
            along = [x for i, x in enumerate(inputs) if rule >> i & 1]
            derivative = _join(along).derivative | out.derivative & self.noise
            cuts = _join(inputs).cuts
            if _join(inputs).derivative & out.value & ~derivative:
                cuts |= {self._cut(_join(inputs))}
            outputs.append(Reach(out.value, derivative, cuts))
        return outputs


_ZERO = Reach(zero=True)

# What each function with a rule of its own differentiates, by the jaxpr of the function.
_rules: WeakKeyDictionary[Any, list[int]] = WeakKeyDictionary()

# The operands that an indexing operation moves about, without those that say where.
_DATA: dict[str, Callable[[list[Reach]], list[Reach]]] = {
    "gather": lambda inputs: inputs[:1],
    "dynamic_slice": lambda inputs: inputs[:1],
    "dynamic_update_slice": lambda inputs: inputs[:2],
    **dict.fromkeys(
        ("scatter", "scatter-add", "scatter_add", "scatter_mul", "scatter_min", "scatter_max"),
        lambda inputs: [inputs[0], inputs[2]],
    ),
}


def _join(reaches: Sequence[Reach]) -> Reach:
    if len(reaches) == 1:
        return reaches[0]
    value, derivative, cuts = 0, 0, frozenset[int]()
    for reach in reaches:
        value |= reach.value
        derivative |= reach.derivative
        cuts = cuts | reach.cuts if cuts else reach.cuts
    return Reach(value, derivative, cuts, bool(reaches) and all(r.zero for r in reaches))


def _bits(mask: int) -> list[int]:
    return [1 << i for i in range(mask.bit_length()) if mask >> i & 1]


def _dtype(atom: Any) -> Any:
    return getattr(atom.aval, "dtype", np.dtype(bool))


def _body(eqn: Any) -> Any:
    """The jaxpr of a call, as jit or checkpoint make it; None if there is none that fits."""
    found = [p for p in eqn.params.values() if hasattr(getattr(p, "jaxpr", p), "eqns")]
    if len(found) != 1:
        return None
    inner = getattr(found[0], "jaxpr", found[0])
    fits = len(inner.invars) == len(eqn.invars) and len(inner.outvars) == len(eqn.outvars)
    return inner if fits and not inner.constvars else None


def _scan_sizes(params: dict[str, Any]) -> tuple[int, int]:
    """The numbers of inputs of a scan that are constants, and that are carried."""
    if "ft_in" in params:  # from jax 0.12
        consts, carry, _ = params["ft_in"].unpack()
        return len(consts), len(carry)
    return params["num_consts"], params["num_carry"]


def _rule(jaxpr: Any, eqn: Any) -> list[int]:
    """The inputs that a derivative rule differentiates along, for each output."""
    everything = (1 << len(eqn.invars)) - 1
    moving = [
        i
        for i, atom in enumerate(eqn.invars)
        if jax.numpy.issubdtype(_dtype(atom), jax.numpy.inexact) and not isinstance(atom, Literal)
    ]
    names = list(dict.fromkeys(atom for atom in eqn.invars if not isinstance(atom, Literal)))
    outvars = [v for v in eqn.outvars if type(v).__name__ != "DropVar"]
    one = jaxpr.replace(constvars=[], invars=names, outvars=outvars, eqns=[eqn])
    along = list(dict.fromkeys(eqn.invars[i] for i in moving))

    def of(along: list[Any], rest: list[Any], values: list[Any]) -> list[Any]:
        given = {**dict(zip(along, values, strict=True)), **dict(zip(others, rest, strict=True))}
        return jax.core.eval_jaxpr(one, (), *(given[name] for name in names))

    others = [name for name in names if name not in along]

    def forward(rest: Any, values: Any, tangents: Any) -> Any:
        return jax.jvp(lambda values: of(along, rest, values), (values,), (tangents,))[1]

    def backward(rest: Any, values: Any, cotangents: Any) -> Any:
        return jax.vjp(lambda values: of(along, rest, values), values)[1](cotangents)

    def shapes(atoms: list[Any]) -> list[Any]:
        return [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in atoms]

    by_jvp = eqn.primitive.name == "custom_jvp_call"
    sources = along if by_jvp else outvars
    try:
        traced = jax.make_jaxpr(forward if by_jvp else backward)(
            shapes(others), shapes(along), shapes(sources)
        )
    except Exception:  # noqa: BLE001
        # A rule that cannot be traced on its own speaks for itself when it is differentiated.
        return [everything] * len(eqn.outvars)
    walk = Walk(
        traced.jaxpr,
        [i >= len(others) + len(along) for i in range(len(traced.jaxpr.invars))],
        stop_is_word=False,
    )
    bits = walk.sources[len(others) + len(along) :]
    rule = [0] * len(eqn.outvars)
    for i, out in enumerate(walk.outputs):
        for j, bit in enumerate(bits):
            if out.derivative & bit:
                source, target = (along[j], outvars[i]) if by_jvp else (along[i], outvars[j])
                k = eqn.outvars.index(target)
                for m in moving:
                    rule[k] |= (eqn.invars[m] is source) << m
    return rule
