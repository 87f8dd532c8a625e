"""Derivatives computed from costs in which one factor of a draw is replaced."""

from collections.abc import Callable
from functools import reduce
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, convert_closure, finite_product, stop, wide
from scorefn._core.checks import check_count
from scorefn._core.derivatives import Arrays, Moving, with_jvp
from scorefn._core.refusals import first_order_only, nondifferentiable
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.families import Family, read_family
from scorefn.estimators._base import Estimator

from .weak_derivatives import Rule


class CoordinateSwap(Estimator):
    """Terms f(x) whose derivative along a factor uses f with this factor replaced.

    Attributes:
        chunk_size: the number of evaluations of f at a time; None means all of one sample.
        rules: the points of one factor and their weights, for each family.
        otherwise: a sentence on what to use for other distributions.
    """

    chunk_size: int | None
    rules: ClassVar[dict[str, Rule]]
    otherwise: ClassVar[str]
    order: ClassVar[float] = 1

    def __post_init__(self) -> None:
        if self.chunk_size is not None:
            check_count("chunk_size", self.chunk_size)

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        name = type(self).__name__
        family = read_family(distribution, abstract_key(keys))
        if family is None or family.name not in self.rules:
            raise TypeError(
                f"{name} needs independent factors of {', '.join(self.rules)}, as an object of a "
                f"library (plain, batched, or inside Independent) or a record of scorefn, got "
                f"{type(distribution.params).__name__}. {self.otherwise}"
            )
        rule = self.rules[family.name]
        family = _guarded(family, name)

        def one(key: jax.Array) -> tuple[PyTree, PyTree]:
            key_draw, key_points = jax.random.split(key)
            x = distribution.stopped_draw(key_draw)
            cost, aux = f(x)
            # No derivative passes through the replaced costs, which saves time and memory. The
            # arrays that f closes over become arguments, so that a mixed derivative can be refused.
            costs, closed_over = convert_closure(lambda x: f(x)[0], x)
            fixed = stop(closed_over)
            mixed = _no_mixed_derivative(list(family.params.values()), closed_over, name)
            code = family.encode(x)
            points, zeros = rule(family, code, key_points)
            replaced = _replace_each(
                lambda code: costs(family.cast(code), *fixed), code, points, self.chunk_size
            )

            def attach(cost: jax.Array, replaced: jax.Array) -> jax.Array:
                return cost + _signed_sum(replaced - stop(cost), zeros) + mixed.astype(cost.dtype)

            return jax.tree.map(attach, cost, replaced), aux

        return vmap(one)(keys)


def _guarded(family: Family, name: str) -> Family:
    """The family with parameters that raise when a derivative would be wrong."""
    family = family.map_params(lambda array: first_order_only(array, name))
    count = family.params.get("total_count")
    if count is not None:
        family.params["total_count"] = nondifferentiable(
            count,
            f"{name} cannot differentiate with respect to total_count: a number of trials has no "
            f"derivative. If it is not meant to be learned, wrap it in jax.lax.stop_gradient; for "
            f"the total_count of a NegativeBinomial, use ScoreFunction.",
        )
    return family


def _replace_each(
    f: Callable[[jax.Array], PyTree], x: jax.Array, points: jax.Array, chunk_size: int | None
) -> PyTree:
    """Costs with factor i replaced by point [k, i], stacked over (k, i)."""
    flat = x.reshape(-1)
    total = points.size

    def evaluate(at: tuple[jax.Array, jax.Array]) -> PyTree:
        i, point = at
        return f(jnp.where(jnp.arange(flat.size) == i, point, flat).reshape(x.shape))

    factors = jnp.tile(jnp.arange(flat.size), len(points))
    each = (factors, points.reshape(-1))
    if chunk_size is None or chunk_size >= total:
        return jax.vmap(evaluate)(each)
    return jax.lax.map(evaluate, each, batch_size=chunk_size)


def _signed_sum(change: jax.Array, zeros: jax.Array) -> jax.Array:
    """sum_k zeros_k change_k: the value 0, and a non-finite derivative where a change is so."""
    dtype = wide(change.dtype)
    zeros = zeros.astype(dtype).reshape(-1, *(1,) * (change.ndim - 1))
    return jnp.sum(finite_product(zeros, change.astype(dtype)), axis=0).astype(change.dtype)


def _no_mixed_derivative(
    params: list[jax.Array], closed_over: list[jax.Array], name: str
) -> jax.Array:
    """A scalar 0; differentiating once in params and once in closed_over raises ``TypeError``."""
    message = (
        f"{name} is right to first order only: a mixed derivative, in the parameters of its "
        f"distribution and in what f closes over, would silently be 0. Use ScoreFunction, or "
        f"Enumerate if the support is small."
    )

    count = len(params)

    def zero(*arrays: jax.Array) -> list[jax.Array]:
        return [_nothing_of(list(arrays))]

    def rule(moving: Moving, arrays: Arrays, tangents: Arrays) -> Any:
        # Each tangent times a 0 that formally depends on the arrays of the other list.
        rest = iter(tangents)
        along = [[next(rest) for moves in moves_of if moves] for moves_of in _halves(moving, count)]
        others = reversed(_halves(arrays, count))
        changes = [
            _sum_of(mine) * _nothing_of([nondifferentiable(other, message) for other in theirs])
            for mine, theirs in zip(along, others, strict=True)
            if mine
        ]
        return with_jvp(zero, rule)(*arrays), [reduce(jnp.add, changes, jnp.zeros(()))]

    return with_jvp(zero, rule)(*params, *closed_over)[0]


def _halves(items: Any, count: int) -> list[Any]:
    return [items[:count], items[count:]]


def _sum_of(arrays: list[jax.Array]) -> jax.Array:
    wide = jnp.result_type(float)
    sums = [jnp.sum(array).real.astype(wide) for array in arrays]
    return reduce(jnp.add, sums, jnp.zeros((), wide))


def _nothing_of(arrays: list[jax.Array]) -> jax.Array:
    # A `where` instead of a product with 0, because parameters may be infinite.
    return jnp.where(jnp.isnan(_sum_of(arrays)), 0, 0).astype(jnp.result_type(float))
