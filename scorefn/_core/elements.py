"""Elements of small arrays, followed through single operations.

Each element has a set of inputs, an int of one bit for each. A number instead of an array stands
for an array whose elements all have this set.
"""

import math
from collections.abc import Sequence
from functools import reduce
from operator import or_
from typing import Any

import jax
import numpy as np

# Larger arrays are followed as a whole.
MOST = 1024

_EACH = frozenset(
    """
    abs acos acosh add add_any and asin asinh atan atan2 atanh cbrt ceil clamp
    convert_element_type copy cos cosh digamma div eq erf erf_inv erfc exp exp2 expm1 floor ge
    gt integer_pow is_finite le lgamma log log1p logistic lt max min mul ne neg not or pcast pow
    pvary random_gamma rem round rsqrt scorefn_scored select_n sign sin sinh sqrt square
    stop_gradient sub tan tanh xor
    """.split()
)
_REDUCED = frozenset(
    "argmax argmin reduce_and reduce_max reduce_min reduce_or reduce_prod reduce_sum".split()
)
_RESHAPED = {"expand_dims", "reshape", "squeeze"}
_MOVED = {"broadcast_in_dim", "rev", "slice", "tile", "transpose", *_RESHAPED}
_SUMS = {"cumlogsumexp", "cummax", "cummin", "cumprod", "cumsum"}
# Operations that move about the first arguments, as many as given, by the numbers in the others.
_INDEXED = {"dynamic_slice": 1, "dynamic_update_slice": 2, "gather": 1, "pad": 2}

_FOLDED: dict[str, Any] = dict(
    **{"add": np.add, "and": np.bitwise_and, "eq": np.equal, "ge": np.greater_equal},
    **{"gt": np.greater, "le": np.less_equal, "lt": np.less, "max": np.maximum},
    **{"min": np.minimum, "mul": np.multiply, "ne": np.not_equal, "neg": np.negative},
    **{"not": np.bitwise_not, "or": np.bitwise_or, "sub": np.subtract},
)


def full(x: Any, shape: Sequence[int], dtype: Any = object) -> np.ndarray:
    """An array of this shape; a number is repeated."""
    return x if isinstance(x, np.ndarray) and x.shape == shape else np.full(shape, x, dtype)


def moved(name: str, params: dict[str, Any], shape: Sequence[int], x: np.ndarray) -> Any:
    """The array after an operation that only moves elements; None for others."""
    if name == "slice":
        strides = params["strides"] or (None,) * len(params["start_indices"])
        bounds = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
        return x[tuple(slice(*bound) for bound in bounds)]
    if name in _RESHAPED:
        return x.reshape(shape)
    if name == "broadcast_in_dim":
        sizes = dict(zip(params["broadcast_dimensions"], x.shape, strict=True))
        return np.broadcast_to(x.reshape([sizes.get(i, 1) for i in range(len(shape))]), shape)
    if name == "transpose":
        return np.transpose(x, params["permutation"])
    if name == "rev":
        return np.flip(x, params["dimensions"])
    if name == "tile":
        return np.tile(x, params["reps"])
    return x if name in ("convert_element_type", "copy", "pcast", "pvary") else None


def folded(name: str, params: dict[str, Any], shape: Sequence[int], known: list[Any]) -> Any:
    """The result of an operation on known arrays, or None."""
    if name == "iota":
        sizes = [size if i == params["dimension"] else 1 for i, size in enumerate(shape)]
        ramp = np.arange(shape[params["dimension"]]).reshape(sizes)
        return np.broadcast_to(ramp, shape) if math.prod(shape) <= MOST else None
    if math.prod(shape) > MOST or any(x is None for x in known):
        return None
    if name == "convert_element_type":
        with np.errstate(all="ignore"):
            return known[0].astype(params["new_dtype"])
    if name == "select_n":
        return np.choose(known[0].astype(int), known[1:])
    if name in ("concatenate", "stack"):
        return _joined(name, params, known)
    if name in _FOLDED:
        with np.errstate(all="ignore"):
            return _FOLDED[name](*known)
    return moved(name, params, shape, known[0]) if known else None


def merged(eqn: Any, sets: list[Any], known: list[Any], kept: int | None) -> Any:
    """The sets of the elements of the output, or None if unknown.

    Args:
        eqn: an operation with one output.
        sets: the sets of each argument.
        known: the numbers of each argument, an array, or None.
        kept: None if a set may be too large; else the inputs that are kept where it is not known
            whether an argument reaches the output: selected, or multiplied, by unknown numbers.
    """
    name, params, shape = eqn.primitive.name, eqn.params, eqn.outvars[0].aval.shape
    shapes = [getattr(var.aval, "shape", ()) for var in eqn.invars]
    one = all(isinstance(x, int) for x in sets)
    small = max(math.prod(size) for size in [shape, *shapes]) <= MOST
    if name == "select_n" and small and known[0] is not None:
        return np.choose(known[0].astype(int), [full(x, shape) for x in sets[1:]])
    if name == "select_n" and kept is not None and not np.any(sets[0]):
        return None
    if name == "mul" and small and not (one and _certain(sets, known)):
        return _product([full(x, shape) for x in sets], known, kept)
    if name == "dot_general" and small:
        return _dot(params["dimension_numbers"], shape, shapes, sets, known, kept)
    if one and name in _EACH | _REDUCED | _MOVED | _SUMS:
        return _union(sets)
    if not small:
        return None
    if name in _EACH:
        return _union([full(x, shape) for x in sets])
    if name in _REDUCED:
        return np.bitwise_or.reduce(sets[0], axis=tuple(params["axes"])) if sets[0].size else None
    if name in ("concatenate", "stack"):
        return _joined(name, params, [full(x, size) for x, size in zip(sets, shapes, strict=True)])
    if name in _SUMS:
        x = np.flip(sets[0], params["axis"]) if params["reverse"] else sets[0]
        x = np.bitwise_or.accumulate(x, axis=params["axis"])
        return np.flip(x, params["axis"]) if params["reverse"] else x
    if name in _INDEXED or (name == "scatter" and params["update_jaxpr"] is None):
        return _indexed(eqn, shapes, sets, known, kept)
    return moved(name, params, shape, sets[0]) if name in _MOVED else None


def parts(name: str, params: dict[str, Any], x: np.ndarray) -> list[np.ndarray]:
    """The outputs of ``split`` or ``unstack``."""
    if name == "unstack":
        return [np.take(x, i, params["axis"]) for i in range(x.shape[params["axis"]])]
    return np.split(x, np.cumsum(params["sizes"])[:-1], params["axis"])


def _joined(name: str, params: dict[str, Any], each: list[Any]) -> np.ndarray:
    if name == "stack":
        return np.stack(each, params["axis"])
    return np.concatenate(each, params["dimension"])


def _union(sets: Any) -> Any:
    return reduce(or_, sets)


def _certain(sets: list[Any], known: list[Any]) -> bool:
    """Whether no factor is 0, or unknown."""
    return all(x if k is None else np.all(k != 0) for x, k in zip(sets, known, strict=True))


def _product(sets: list[Any], known: list[Any], kept: int | None) -> Any:
    """The sets of an elementwise product: an element times 0 does not reach it."""
    found = []
    for i in (0, 1):
        other, numbers = sets[1 - i], known[1 - i]
        if numbers is not None:
            found.append(np.where(np.broadcast_to(numbers, sets[i].shape) == 0, 0, sets[i]))
        elif kept is None:
            found.append(sets[i])
        else:
            found.append(np.where(other == 0, sets[i] & kept, sets[i]))
    return found[0] | found[1]


def _dot(dims: Any, shape: Any, shapes: Any, sets: Any, known: Any, kept: int | None) -> Any:
    contracted, batched = dims
    free = [
        [i for i in range(len(size)) if i not in (*contracted[side], *batched[side])]
        for side, size in enumerate(shapes)
    ]
    sizes = [
        [math.prod(shapes[side][i] for i in axes) for axes in (batched[side], free[side])]
        for side in (0, 1)
    ]
    terms = math.prod(shapes[0][i] for i in contracted[0])
    full_shape = (sizes[0][0], sizes[0][1], sizes[1][1], terms)
    if math.prod(full_shape) > 8 * MOST or not math.prod(full_shape):
        return None

    def arranged(x: np.ndarray, side: int) -> np.ndarray:
        x = np.transpose(x, (*batched[side], *free[side], *contracted[side]))
        one = (sizes[0][0], sizes[0][1], 1, terms) if side == 0 else (sizes[0][0], 1, -1, terms)
        return np.broadcast_to(x.reshape(one), full_shape)

    each = [arranged(full(x, shapes[side]), side) for side, x in enumerate(sets)]
    if kept and known[0] is known[1] is None and any(np.any(x & kept) for x in each):
        # An element of a matrix that meets noise may be 0 by definition, as in a triangle.
        return None
    numbers = [None if x is None else arranged(x, side) for side, x in enumerate(known)]
    return np.bitwise_or.reduce(_product(each, numbers, kept), axis=-1).reshape(shape)


def _indexed(eqn: Any, shapes: Any, sets: list[Any], known: list[Any], kept: int | None) -> Any:
    """The sets after an operation that moves elements by known indices."""
    name = eqn.primitive.name
    data = (0, 2) if name == "scatter" else range(_INDEXED[name])
    indices = [i for i in range(len(sets)) if i not in data]
    if any(known[i] is None for i in indices):
        by = {bits for i in indices for bits in np.ravel(np.array(sets[i], object))}
        return by.pop() if len(by) == 1 and kept is not None and any(by) else None
    each = [np.array([0], object)]
    arguments, start = list(known), 1
    for i in data:
        size = math.prod(shapes[i])
        arguments[i] = np.arange(start, start + size, dtype=np.int32).reshape(shapes[i])
        each.append(full(sets[i], shapes[i]).ravel())
        start += size
    # The operation itself moves numbers of the elements; 0 is none.
    params = {**eqn.params, **({"fill_value": 0} if "fill_value" in eqn.params else {})}
    with jax.ensure_compile_time_eval():
        numbers = eqn.primitive.bind(*map(jax.numpy.asarray, arguments), **params)
    if isinstance(numbers, jax.core.Tracer):
        return None  # Under jet nothing is computed while tracing.
    return np.concatenate(each)[np.asarray(numbers)]
