"""Detection, while tracing, of derivatives that a score would silently lose.

The score function has two requirements: the log-density has a derivative along every parameter on
which the draws depend, and the set of possible draws is fixed. Both are checked in one trace of a
draw and its log-density.

- *No score.* An array reaches the draw by value, and not log_prob by derivative. Some libraries
  keep one parameter twice, for sampling and for the density. Such a sampling copy raises unless a
  density copy is differentiated with it: an array that the sampler does not use, and whose score
  depends on the leaf of the draw that the sampling copy reaches. A leaf of the draw that is
  computed without the key has no score.
  A score that is the same for all draws is none: its mean is not 0.
  Where some elements of an array have a score and others have none, the latter get a derivative of
  nan (`_lost_elements`), if the cost depends on a draw of theirs.
- *A moving support.* A comparison of the draw with an array selects minus infinity, or the
  logarithm of 0; or the `support` of a numpyro object contains the array.

An array of either kind is replaced by a copy that raises when it is differentiated.
"""

from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from functools import partial, reduce
from operator import or_
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from scorefn._core.arrays import convert_closure, is_float, stop
from scorefn._core.dependence import Dependence, Value, constant
from scorefn._core.derivatives import zero_with_derivative
from scorefn._core.finite import score_alone
from scorefn._core.refusals import nondifferentiable, without_refusals
from scorefn._core.types import PyTree
from scorefn.distributions._discrete import Categorical, OneHotCategorical
from scorefn.distributions._distribution import Distribution, is_object
from scorefn.distributions._interop.scores import sampling_copies, support_arrays

from ._guard import describe
from ._lost_elements import MOST_ELEMENTS, Lost, with_bits

_ZERO = Value(constant=0.0)


@dataclass(frozen=True)
class _Refused:
    """A refusal to differentiate an array, unless certain others are differentiated with it."""

    reason: str
    unless: list[jax.Array]


def guard_score(
    fn: Callable[[Distribution, jax.Array], Any],
    distribution: Distribution,
    key: jax.Array,
    log_density: Callable[[Distribution, Any], jax.Array] = Distribution.log_density,
    *,
    name: str,
    others: PyTree = (),
) -> tuple[Callable[[jax.Array], Any], Lost | None]:
    """A function of one key that raises when differentiated along an array without a score.

    The second result are elements of arrays without a score, for `without_scores`.

    Args:
        fn: a function of the distribution and one key.
        distribution: the distribution whose score is taken.
        key: an example of the argument, a key or a given draw; nothing is computed with it.
        log_density: the log-density of one draw, as `fn` computes it.
        name: the name of the estimator, for messages.
        others: arrays that the functions of the distribution may close over without a score.
    """
    rebuilt, inside, trace = _traced(distribution, key, log_density)
    refused = trace.refused(partial(_reason, distribution.params))
    known = set(map(id, jax.tree.leaves(others)))
    allowed = {i for i in range(len(inside), len(trace.arrays)) if id(trace.arrays[i]) in known}
    lost = trace.lost({*refused, *allowed})
    refused = {i: r for i, r in refused.items() if i not in allowed}
    if not refused:
        return partial(fn, distribution), lost
    arrays = [
        nondifferentiable(array, _message(name, refused[i].reason), *refused[i].unless)
        if i in refused
        else array
        for i, array in enumerate(trace.arrays)
    ]
    copies = {id(trace.arrays[i]): arrays[i] for i in refused if i >= len(inside)}
    hoisted, outside = convert_closure(lambda key, xs: fn(rebuilt(xs), key), key, inside)
    outside = [copies.pop(id(array), array) for array in outside]

    def guarded(key: jax.Array) -> Any:
        # Arrays of the support alone pass a barrier, so that no transformation drops them.
        result = hoisted(key, arrays[: len(inside)], *outside)
        return jax.lax.optimization_barrier((result, list(copies.values())))[0]

    return guarded, lost


def lost_scores(distribution: Distribution, key: jax.Array) -> tuple[list[str], list[bool]]:
    """The refusals for the float leaves of params, and whether each has a score.

    A leaf that the draws do not depend on has none, and is not refused.
    """
    reasons: list[str] = []
    scored: list[bool] = []

    def trace(floats: list[jax.Array]) -> None:
        at = distribution.with_floats(floats)
        _, inside, trace = _traced(at, key, Distribution.log_density)
        refused = trace.refused(partial(_reason, at.params))
        reasons.extend(each.reason for each in refused.values() if not each.unless)
        lost = trace.lost(refused)
        reached = 0 if lost is None else reduce(or_, (value.bits for value in lost.draws))
        for i, value in enumerate(trace.values):
            if value.bits & reached and i not in refused:
                places = _places(value, value.bits & reached)
                reasons.append(_reason(at.params, "unscored", trace.arrays[i], places))
        scored.extend(
            i not in refused and bool(trace.values[i].bits & trace.reached)
            for i in range(len(inside))
        )

    jax.eval_shape(trace, distribution.floats())
    return reasons, scored


def scored_draw(
    distribution: Distribution,
    key: jax.Array,
    log_density: Callable[[Distribution, Any], jax.Array] = Distribution.log_density,
    *,
    name: str,
    score_only: bool = False,
) -> tuple[Any, jax.Array, Lost | None]:
    """One stopped draw and its log-density, guarded; and elements for `without_scores`.

    With `score_only` the log-density is 0, with its derivative, where it is known to be finite.
    """

    def draw_and_log_density(distribution: Distribution, key: jax.Array) -> tuple[Any, jax.Array]:
        x = distribution.stopped_draw(key)
        if not score_only:
            return x, log_density(distribution, x)
        if isinstance(distribution.params, Categorical | OneHotCategorical):
            return x, _of_categories(log_density(distribution, x), distribution.params.plain())
        return x, score_alone(partial(log_density, distribution), x)

    guarded, lost = guard_score(draw_and_log_density, distribution, key, log_density, name=name)
    x, log_prob = guarded(key)
    # Stopped once more: a barrier gives the draw a derivative of 0, which f may refuse to take.
    return stop(x), log_prob, lost


def _of_categories(log_prob: jax.Array, logits: jax.Array) -> jax.Array:
    """0, with the derivative of the log-probability: no category of probability 0 is drawn."""
    broken = jnp.any(jnp.isnan(stop(logits)))
    return zero_with_derivative(log_prob) + jnp.where(broken, jnp.nan, 0).astype(log_prob.dtype)


def _traced(
    distribution: Distribution,
    key: jax.Array,
    log_density: Callable[[Distribution, Any], jax.Array],
) -> tuple[Callable[[list[jax.Array]], Distribution], list[jax.Array], "_Trace"]:
    """A function that builds the distribution from its traced leaves, the leaves, and a trace."""
    leaves, structure = jax.tree.flatten(distribution)
    at = [i for i, leaf in enumerate(leaves) if _is_traced_float(leaf)]

    # Leaves are arguments, so that one array in two leaves counts twice. Objects of libraries keep
    # one parameter in several places: there it counts once.
    first = {id(leaves[i]): i for i in reversed(at)} if is_object(distribution) else {}
    same = {i: first.get(id(leaves[i]), i) for i in at}
    at = [i for i in at if same[i] == i]

    def rebuilt(arrays: list[jax.Array]) -> Distribution:
        given = dict(zip(at, arrays, strict=True))
        merged = [given[same[i]] if i in same else leaf for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(structure, merged)

    def draw_and_score(key: jax.Array, inside: list[jax.Array]) -> Any:
        distribution = rebuilt(inside)
        # The barrier makes the draw a separate array, even if it is one of the parameters.
        x = jax.lax.optimization_barrier(jax.tree.map(jnp.asarray, distribution.stopped_draw(key)))
        log_prob, root = jnp.sum(log_density(distribution, x)), distribution.params
        if not is_object(distribution):
            return x, log_prob, [], []
        ends = [jnp.asarray(leaf) for leaf in support_arrays(root) if _is_traced_float(leaf)]
        return x, log_prob, ends, jax.tree.map(jnp.asarray, sampling_copies(root))

    inside = [leaves[i] for i in at]
    return rebuilt, inside, _Trace(draw_and_score, key, inside)


class _Trace:
    """One trace of a draw, its log-density and its support, with their dependence.

    Attributes:
        arrays: all arrays that may be differentiated: those in the distribution, then those that
            its functions close over.
        reached: the bits that the draw depends on, once `refused` was called.
    """

    def __init__(self, fn: Callable[..., Any], key: jax.Array, inside: list[jax.Array]) -> None:
        traced, shapes = jax.make_jaxpr(fn, return_shape=True)(key, inside)
        constants, keys = list(traced.consts), jax.tree.leaves(key)
        # Asked along all arrays together: what log_prob refuses along one of them must not raise.
        self.jaxpr = without_refusals(traced.jaxpr)
        self.arguments = [*constants, *keys, *inside]
        self.constants, self.leaves = len(constants), len(jax.tree.leaves(shapes[0]))
        self.keys = range(len(constants), len(constants) + len(keys))
        self.ends = len(shapes[2])
        outside = [i for i, constant in enumerate(constants) if _is_traced_float(constant)]
        self.places = [*range(self.keys.stop, len(self.arguments)), *outside]
        self.arrays = [self.arguments[place] for place in self.places]
        # One bit for each leaf of the draw, one for the key, then those of the arrays.
        self.draws, self.random = (1 << self.leaves) - 1, 1 << self.leaves
        self.drawn = {i: Value(1 << i, form=(0, 0)) for i in range(self.leaves)}
        self.reached = 0
        self.values: list[Value] = []
        self._end = self.leaves + 1
        for array in self.arrays:
            self.values.append(with_bits(array, self._end))
            self._end = self.values[-1].bits.bit_length()
        # Elements without a score, and the masks without which others have none.
        self._lost = 0
        self._hidden: dict[int, list[jax.Array]] = {}

    def refused(self, reason: Callable[[str, jax.Array, list[Any]], str]) -> dict[int, _Refused]:
        """The refusals, keyed by the indices of the arrays."""
        if not self.arrays:
            return {}
        pass_ = Dependence(self.draws)
        outputs = [out.bits for out in pass_.outputs(self.jaxpr, self._inputs(), self.drawn)]
        leaves, moving = outputs[: self.leaves], pass_.support
        facts = outputs[self.leaves + 1 :]
        for bits in facts[: self.ends]:
            moving |= bits
        pairs = list(zip(facts[self.ends :: 2], facts[self.ends + 1 :: 2], strict=True))
        unkeyed = 0
        for bits in leaves:
            self.reached |= bits
            unkeyed |= 0 if bits & self.random else bits
        scores = self._change(range(len(self.arrays)))
        unscored = self.reached & ~self._scored(scores)
        found = {}
        for i, value in enumerate(self.values):
            array, lost = self.arrays[i], value.bits & (unscored | unkeyed)
            kind = "unscored"
            if not value.bits & (unscored | unkeyed | moving) and self._is_constant(scores, i):
                kind, lost = "constant", value.bits & self.reached
            places = _places(value, lost)
            if value.bits & unkeyed and not places:
                found[i] = _Refused(reason("unkeyed", array, []), [])
            elif value.bits & moving:
                places = _places(value, value.bits & moving)
                found[i] = _Refused(reason("moving", array, places), [])
            elif lost:
                # The leaf that an array enters directly depends on the fewest arrays.
                into = min(
                    (bits.bit_count(), leaf) for leaf, bits in enumerate(leaves) if bits & lost
                )[1]
                copied = [bits for copy, bits in pairs if copy & lost]
                copies = [
                    self.arrays[j]
                    for j, other in enumerate(self.values)
                    if any(other.bits & bits for bits in copied)
                    or (not other.bits & self.reached and self._score([j]) >> into & 1)
                ]
                if kind == "constant" or not places:
                    found[i] = _Refused(reason(kind, array, places), copies)
                elif not copies:
                    self._lost |= lost
        return found

    def lost(self, refused: Container[int]) -> Lost | None:
        """The elements without a score that reach the draw, in arrays that are not refused."""
        bits = self._lost | sum(self._hidden)
        arrays = [
            (self.arrays[i], value)
            for i, value in enumerate(self.values)
            if value.bits & bits and i not in refused
        ]
        if not arrays:
            return None
        pass_ = Dependence(self.draws, sure=self.random)
        draws = pass_.outputs(self.jaxpr, self._inputs(), self.drawn)[: self.leaves]
        if not any(value.bits & bits for value in draws):
            return None
        # A bit of no array marks each draw.
        draws = [
            Value(v.bits & bits | 1, None if v.elements is None else v.elements & bits | 1)
            for v in draws
        ]
        return Lost(arrays, draws, self._hidden)

    def _inputs(self) -> list[Value]:
        inputs = dict.fromkeys(range(len(self.arguments)), Value())
        inputs |= dict.fromkeys(self.keys, Value(self.random))
        inputs |= dict(zip(self.places, self.values, strict=True))
        return list(inputs.values())

    def _scored(self, change: Any) -> int:
        """The bits with a score; those that traced masks may hide are noted."""
        labels: dict[int, Any] = {}
        booleans: list[tuple[jax.Array, tuple[int, ...]]] = []
        for mask in filter(_is_mask, self.arguments):
            labels[id(mask)] = np.arange(mask.size).reshape(mask.shape) + len(booleans)
            booleans += [(mask, place) for place in np.ndindex(mask.shape)]
        pass_ = Dependence(spare=self._end if booleans else 0)
        constants = [replace(constant(x), labels=labels.get(id(x))) for x in change.consts]
        scored = pass_.outputs(change, [*constants, *self.values], self.drawn)[-1].bits
        for (bit, label), hidden in pass_.masked.items():
            if hidden & scored and not bit & scored:
                mask, place = booleans[label]
                self._hidden.setdefault(bit, []).append(mask[place])
        return scored | sum(self._hidden)

    def _score(self, moved: Sequence[int]) -> int:
        """The bits on which the derivative of log_prob along some arrays together depends."""
        return self._score_bits(self._change(moved), [self.values[i] for i in moved])

    def _is_constant(self, change: Any, i: int) -> bool:
        """Whether the score along one array does not depend on the draw: its mean is not 0."""
        alone = [value if i == j else _ZERO for j, value in enumerate(self.values)]
        return not self._score_bits(change, alone) & self.draws

    def _score_bits(self, change: Any, tangents: list[Value]) -> int:
        return Dependence().outputs(change, tangents, self.drawn)[-1].bits

    def _change(self, moved: Sequence[int]) -> Any:
        """The jaxpr of the draw and the derivative of log_prob, of tangents of some arrays."""
        some = [self.arrays[i] for i in moved]

        def log_prob(some: list[jax.Array]) -> Any:
            arguments = list(self.arguments)
            for i, array in zip(moved, some, strict=True):
                arguments[self.places[i]] = array
            n = self.constants
            outs = jax.core.eval_jaxpr(self.jaxpr, arguments[:n], *arguments[n:])
            return outs[self.leaves], outs[: self.leaves]

        def change(tangents: list[jax.Array]) -> Any:
            _, tangent, x = jax.jvp(log_prob, (some,), (tangents,), has_aux=True)
            return x, tangent

        return jax.make_jaxpr(change)(some)


def _is_traced_float(x: Any) -> bool:
    # An empty array has no derivative to lose.
    return isinstance(x, jax.core.Tracer) and is_float(x) and x.size > 0


def _is_mask(x: Any) -> bool:
    """Whether x is a traced boolean array that is small enough to be followed."""
    traced = isinstance(x, jax.core.Tracer) and x.dtype == jnp.bool_
    return traced and x.size <= MOST_ELEMENTS


def _places(value: Value, bits: int) -> list[Any]:
    """The indices of the elements with these bits; empty if all elements have them."""
    if value.elements is None or not value.bits & ~bits:
        return []
    return [index for index, bit in np.ndenumerate(value.elements) if bit & bits]


def _reason(root: Any, kind: str, array: jax.Array, places: list[Any]) -> str:
    what = describe(array, root)
    if places:
        what += f", element {', '.join(map(_index, places))}"
    why = {
        "unscored": (
            "the sampler depends on it and log_prob does not, so that its gradient would silently "
            "be 0. Let log_prob be the density of the draws of the sampler"
        ),
        "constant": (
            "the derivative of log_prob along it is the same for all draws, which no normalized "
            "density on a fixed support has, so that its gradient would silently be wrong. Let "
            "log_prob be the density of the draws of the sampler; if the support moves, draw on a "
            "fixed support and shift or scale the draw in f, or use Pathwise"
        ),
        "unkeyed": (
            "a part of the draw is computed from it without the random key, and has no score, so "
            "that the gradient along that part would silently be 0. Remove that part from the draw "
            "and compute it in f"
        ),
        "moving": (
            "the support of the distribution depends on it, which the score ignores, so that its "
            "gradient would silently be wrong. Draw on a fixed support and shift or scale the draw "
            "in f, or use Pathwise"
        ),
    }[kind]
    return f"{what}: {why}"


def _message(name: str, reason: str) -> str:
    return (
        f"{name} cannot differentiate with respect to {reason}; if the parameter is not meant to "
        f"be learned, wrap it in jax.lax.stop_gradient."
    )


def _index(place: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, place))}]"
