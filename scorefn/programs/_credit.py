"""Costs of a program: sums, parts, and a baseline of their total."""

from dataclasses import replace
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._baselines import Baseline
from scorefn._core.arrays import as_float
from scorefn._core.pytree import pytree_dataclass
from scorefn._core.types import PyTree
from scorefn.distributions._distribution import Distribution
from scorefn.estimators._base import Estimator


@pytree_dataclass
class Parts:
    """Several costs of one draw, whose sum is the cost for its estimator."""

    costs: list[PyTree]


@pytree_dataclass
class _OfTotal(Baseline):
    """A baseline of the sum of the parts, subtracted from the first part."""

    inside: Baseline

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        """The value of the wrapped baseline."""
        return self.inside.coupled

    @property
    def mean_of_others(self) -> bool:  # type: ignore[override]
        """The value of the wrapped baseline."""
        return self.inside.mean_of_others

    def __call__(self, costs: PyTree, weights: PyTree = None) -> PyTree:
        if not isinstance(costs, Parts):
            return self.inside(costs, weights)
        zeros = jax.tree.map(jnp.zeros_like, costs.costs[1:])
        return Parts([self.inside(_total(costs), weights), *zeros])

    def weight(self, x: Any, distribution: Distribution) -> PyTree:
        return self.inside.weight(x, distribution)

    def train(self, terms: PyTree, costs: PyTree) -> PyTree:
        if not isinstance(costs, Parts):
            return self.inside.train(terms, costs)
        first, *others = terms.costs
        return Parts([self.inside.train(first, _total(costs)), *others])

    def check_samples(self, n: int) -> None:
        self.inside.check_samples(n)


def with_baseline_of_total(estimator: Any) -> Estimator:
    """The estimator, with baselines that accept `Parts`."""
    changed: dict[str, Any] = {}
    if isinstance(getattr(estimator, "baseline", None), Baseline):
        changed["baseline"] = _OfTotal(estimator.baseline)
    if isinstance(getattr(estimator, "estimator", None), Estimator):
        changed["estimator"] = with_baseline_of_total(estimator.estimator)
    return replace(estimator, **changed) if changed else estimator


def _total(parts: Parts) -> PyTree:
    return reduce(add_costs, parts.costs)


def add_costs(one: PyTree, other: PyTree) -> PyTree:
    """The sum of two costs of the same structure and shapes."""

    def add(a: jax.Array, b: jax.Array) -> jax.Array:
        if jnp.shape(a) != jnp.shape(b):
            raise ValueError(
                f"The costs of a program are added up, so they must have equal shapes, got "
                f"{jnp.shape(a)} and {jnp.shape(b)}. Sum each of them. To credit each factor of a "
                f"draw with its own cost, give its estimator factor_ndim and return one pytree of "
                f"all costs, as (one cost for each factor, a scalar)."
            )
        a, b = as_float(a), as_float(b)
        dtype = jnp.promote_types(a.dtype, b.dtype)
        return a.astype(dtype) + b.astype(dtype)

    structures: list[Any] = [jax.tree.structure(cost) for cost in (one, other)]
    if structures[0] != structures[1]:
        raise ValueError(
            f"The costs of a program are added up, so they must have equal structures, got "
            f"{structures[0]} and {structures[1]}."
        )
    return jax.tree.map(add, one, other)
