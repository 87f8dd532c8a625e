"""Costs and log-densities with one entry for each factor of a draw."""

from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import is_float
from scorefn._core.types import PyTree
from scorefn.distributions._distribution import Distribution, is_object
from scorefn.distributions._interop.classes import unwrapped
from scorefn.distributions._interop.discrete import factor_log_probs


def log_densities(distribution: Distribution, x: Any, ndim: int) -> jax.Array:
    """The log-density of one draw, summed over all axes after the first `ndim`."""
    if ndim == 0:
        return distribution.log_density(x)
    if is_object(distribution):
        log_prob = factor_log_probs(distribution.params, x)
        if log_prob is None:
            log_prob = unwrapped(distribution.params).log_prob(x)
    else:
        log_prob = distribution.log_prob(distribution.params, x)
    if not is_float(log_prob) or jnp.ndim(log_prob) < ndim:
        got = f"shape {log_prob.shape}" if hasattr(log_prob, "shape") else repr(log_prob)
        raise ValueError(
            f"log_prob must return one float for each factor, an array of {ndim} axes or more with "
            f"factor_ndim={ndim}, got {got}."
        )
    return jnp.sum(log_prob, axis=tuple(range(ndim, log_prob.ndim)))


def scores_of_costs(log_probs: jax.Array, costs: PyTree) -> PyTree:
    """The log-probabilities of each leaf: of the factors, or their sum for scalars."""
    joint = jnp.sum(log_probs, axis=tuple(range(1, log_probs.ndim)))
    shape, leaves = log_probs.shape, jax.tree.leaves(costs)
    some_by_factor = any(cost.shape[: len(shape)] == shape for cost in leaves)

    def score_of(cost: jax.Array) -> jax.Array:
        if some_by_factor and cost.ndim == 1:
            return joint
        check_factor_axes(cost, shape)
        return log_probs

    return jax.tree.map(score_of, costs)


def check_factor_axes(costs: jax.Array, shape: tuple[int, ...]) -> None:
    """Raises ``ValueError`` unless `shape`, samples and factors, leads the shape of costs."""
    if costs.shape[: len(shape)] != shape:
        raise ValueError(
            f"With factor_ndim={len(shape) - 1} f must return one cost for each factor, of shape "
            f"{shape[1:]} or with further axes after these, got shape {costs.shape[1:]}."
        )
