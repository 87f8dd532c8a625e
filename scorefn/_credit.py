"""Credit: a cost earns the scores of those choices only that can change it."""

from dataclasses import replace
from functools import reduce
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from ._arguments import as_float, wide
from ._baselines import Baseline
from ._distribution import Distribution
from ._record import record
from ._score import attach_score
from .estimators import Estimator

PyTree = Any


def surrogate(
    costs: ArrayLike, log_probs: ArrayLike, influence: ArrayLike, baselines: ArrayLike = 0.0
) -> jax.Array:
    r"""`attach_score` in matrix form: each cost with the scores of the choices that can change it.

    .. code-block:: text

        value       costs
        derivative  of their sum: d costs + sum_n (sum_{c: influence[c, n]} costs_c - baseline_n)
                    d log_probs_n

    and so on at every order. Unbiased, if each choice n was drawn from its ``log_probs_n`` given
    the choices before it, and ``influence[c, n]`` is true wherever choice n can change cost c,
    directly or through later choices. Leaving the others out is what lowers the variance. No
    evaluation of anything: one matrix product, and a second one for baselines.

    Args:
        costs: [C], real.
        log_probs: [N], of each choice given those before it, in the order in which they were made.
        influence: [C, N], boolean.
        baselines: one for each choice, [N], or one for all: what is expected of the sum of the
            costs that it influences. It may depend on all that came before that choice, as a value
            function does, not on the choice itself. No derivative passes through it.

    Returns:
        The costs, [C], bit for bit; sum them. What the baseline of a choice adds to the derivative
        goes with the first cost that it influences.

    Raises:
        ValueError: the shapes do not line up.
        TypeError: influence is not boolean.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits):
        ...     log_probs = jax.nn.log_sigmoid(logits)  # of two coins that both came up
        ...     costs = jnp.array([3.0, 5.0])  # each coin has one of its own
        ...     return sf.surrogate(costs, log_probs, jnp.eye(2, dtype=bool)).sum()
        >>> print(jax.grad(loss)(jnp.zeros(2)))
        [1.5 2.5]

    References:
        Schulman et al., Gradient estimation using stochastic computation graphs (2015), equation 5;
        Mao et al., A baseline for any order gradient estimation in stochastic computation graphs
        (2019), equation 7.
    """
    costs = as_float(costs)
    dtype = wide(costs.dtype)
    log_probs, influence = jnp.asarray(log_probs, dtype), jnp.asarray(influence)
    baselines = jnp.asarray(baselines, dtype)
    if costs.ndim != 1 or log_probs.ndim != 1 or influence.shape != costs.shape + log_probs.shape:
        raise ValueError(
            f"costs must be [C], log_probs [N] and influence [C, N], got shapes {costs.shape}, "
            f"{log_probs.shape} and {influence.shape}; for a batch of samples use jax.vmap."
        )
    if influence.dtype != jnp.bool_:
        raise TypeError(f"influence must be boolean, got {influence.dtype}.")
    if baselines.shape not in ((), log_probs.shape):
        raise ValueError(
            f"baselines must be one number or one for each choice, {log_probs.shape}, got shape "
            f"{baselines.shape}."
        )
    # One impossible choice must not take the scores of the others along.
    log_probs = jnp.where(jnp.isinf(log_probs), 0, log_probs)
    scored = attach_score(costs, influence.astype(dtype) @ log_probs)
    if costs.size == 0 or log_probs.size == 0:
        return scored
    # At choice n the baseline b adds b (e^before - e^(before + log_prob)), of value 0, and of mean
    # 0 whichever earlier choices count as before; those whose costs include all of n's are the
    # ones that a cost of n is scored with as well.
    shared = influence.T.astype(dtype) @ influence.astype(dtype)
    earlier = jnp.tri(log_probs.size, k=-1, dtype=bool)
    before = jnp.where(earlier & (shared == jnp.diagonal(shared)[:, None]), 1, 0).astype(dtype)
    shift = baselines_zero(before @ log_probs, log_probs, baselines)
    first = jnp.argmax(influence, axis=0)
    return scored.at[first].add(jnp.where(influence.any(0), shift, 0).astype(costs.dtype))


def baselines_zero(before: jax.Array, log_prob: jax.Array, baseline: ArrayLike) -> jax.Array:
    """A 0 that subtracts the baseline from what the score of a choice is weighed by.

    Args:
        before: the log-probability of earlier choices, any shape.
        log_prob: of the choice given these.
        baseline: may depend on earlier choices.
    """
    dtype = wide(jnp.asarray(log_prob).dtype)
    before, baseline = jnp.asarray(before, dtype), jnp.asarray(baseline, dtype)
    zeros = jnp.zeros_like(before)
    baseline = jnp.broadcast_to(baseline, zeros.shape)
    return attach_score(zeros, before + log_prob, baseline) - attach_score(zeros, before, baseline)


@record()
class Parts:
    """Several costs of one draw whose sum is what its estimator is about."""

    costs: list[PyTree]


@record()
class _OfTotal(Baseline):
    """A baseline of the sum of the parts, all of it subtracted from the first of them."""

    inside: Baseline

    @property
    def coupled(self) -> bool:  # type: ignore[override]
        """As the baseline inside."""
        return self.inside.coupled

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
    """The estimator, whose baseline knows `Parts`."""
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
                f"The costs of a program are added up, so they need the same shape, got "
                f"{jnp.shape(a)} and {jnp.shape(b)}."
            )
        a, b = as_float(a), as_float(b)
        dtype = jnp.promote_types(a.dtype, b.dtype)
        return a.astype(dtype) + b.astype(dtype)

    structures: list[Any] = [jax.tree.structure(cost) for cost in (one, other)]
    if structures[0] != structures[1]:
        raise ValueError(
            f"The costs of a program are added up, so they need the same structure, got "
            f"{structures[0]} and {structures[1]}."
        )
    return jax.tree.map(add, one, other)
