"""Draws with random directions, shared by the gradient-free estimators."""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, stop
from scorefn._core.derivatives import zero_along
from scorefn._core.refusals import first_order_only
from scorefn._core.types import Cost, PyTree
from scorefn.distributions._distribution import Distribution
from scorefn.estimators._base import Estimator
from scorefn.estimators._guard import guarded_draw

Direction = Callable[..., jax.Array]


class DirectionalDifference(Estimator):
    """An estimator by two costs at points on both sides of the draw."""

    unbiased: ClassVar[bool] = False
    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "2"
    needs: ClassVar[str] = (
        "parameters, as scorefn.Deterministic, or a differentiable sampler; any f"
    )


def perturbable(
    estimator: Estimator, distribution: Distribution, keys: jax.Array
) -> Callable[[jax.Array, Direction], tuple[PyTree, PyTree]]:
    """A function of a key and a kind of direction: a draw and a direction.

    The draw is right to first order only.
    """
    name = type(estimator).__name__
    shapes = jax.tree.leaves(jax.eval_shape(distribution.draw, abstract_key(keys)))
    if not shapes:
        raise TypeError(f"{name} perturbs a draw, which must hold at least one array of floats.")
    for leaf in shapes:
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"{name} perturbs every array of a draw, so all must be floats, got "
                f"{leaf.dtype}{list(leaf.shape)} from {type(distribution.params).__name__}. Let f "
                f"close over arrays that are not to be learned; ScoreFunction fits discrete draws."
            )

    def draw_and_direction(key: jax.Array, direction: Direction) -> tuple[PyTree, PyTree]:
        draw_key, direction_key = jax.random.split(key)
        x = guarded_draw(distribution, draw_key, partial(_message, name))
        x = jax.tree.map(lambda leaf: first_order_only(leaf, name), x)
        leaves, structure = jax.tree.flatten(x)
        keys = jax.random.split(direction_key, len(leaves))
        v = [direction(k, leaf.shape, leaf.dtype) for k, leaf in zip(keys, leaves, strict=True)]
        return x, jax.tree.unflatten(structure, v)

    return draw_and_direction


def pair_of_costs(
    f: Cost, draw: Callable[..., Any], direction: Direction, step: jax.Array, key: jax.Array
) -> tuple[PyTree, jax.Array, PyTree]:
    """Two costs [2, ...], the slope that multiplies their difference, and two aux."""
    x, v = draw(key, direction)

    def both(x: jax.Array, v: jax.Array) -> jax.Array:
        move = step.astype(x.dtype) * v
        return jnp.stack([stop(x) + move, stop(x) - move])

    costs, aux = jax.vmap(f)(jax.tree.map(both, x, v))
    zero = zero_along_tree(x, v)
    return costs, zero / (2 * step.astype(zero.dtype)), aux


def attached(costs: PyTree, slope: jax.Array, aux: PyTree) -> tuple[PyTree, PyTree]:
    """The mean cost of each pair, whose derivative is the difference times the slope."""

    def attach(cost: jax.Array) -> jax.Array:
        return (cost[0] + cost[1]) / 2 + (cost[0] - cost[1]) * slope.astype(cost.dtype)

    return jax.tree.map(attach, costs), aux


def zero_along_tree(x: PyTree, v: PyTree) -> jax.Array:
    """A scalar 0, whose derivative along x is v."""
    zeros = jax.tree.leaves(jax.tree.map(zero_along, x, v))
    dtype = jnp.result_type(jnp.float32, *zeros)
    return reduce(jnp.add, [zero.astype(dtype) for zero in zeros])


def _message(name: str, leaf: str) -> str:
    return (
        f"{name} cannot differentiate with respect to {leaf}: the draw depends on it through an "
        f"operation without a derivative (a discrete choice, a rejected candidate, rounding, "
        f"stop_gradient), so that its gradient would silently be wrong. Use ScoreFunction; if the "
        f"parameter is not meant to be learned, wrap it in jax.lax.stop_gradient."
    )
