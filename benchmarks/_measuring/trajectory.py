"""Training runs in one compiled scan: the end, and the states along the way."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

PyTree = Any


def trajectory(
    step: Callable[[PyTree, jax.Array], tuple[PyTree, None]],
    first: PyTree,
    key: jax.Array,
    *,
    num_steps: int,
    every: int,
    kept: Callable[[PyTree], PyTree],
) -> PyTree:
    """The states before training and after each `every` steps, [num_steps / every + 1, ...].

    Args:
        step: the body of a scan, with a key for each step.
        first: its carry before training.
        key: a random key. It is consumed.
        num_steps: of the whole run, a multiple of `every`.
        every: the steps between two that are kept.
        kept: which part of the carry.
    """

    def block(carry: PyTree, keys: jax.Array) -> tuple[PyTree, PyTree]:
        return jax.lax.scan(step, carry, keys)[0], kept(carry)

    keys = jax.random.split(key, (num_steps // every, every))
    last, states = jax.lax.scan(block, first, keys)
    return jax.tree.map(
        lambda xs, x: jnp.append(xs, jnp.asarray(x)[None], axis=0), states, kept(last)
    )


def descended(
    slope: Callable[[PyTree, jax.Array], PyTree],
    first: PyTree,
    key: jax.Array,
    optimizer: optax.GradientTransformation,
    *,
    num_steps: int,
) -> PyTree:
    """The parameters after a descent along ``slope(params, key)``. Consumes the key."""

    def step(carry: PyTree, key: jax.Array) -> tuple[PyTree, None]:
        params, memory = carry
        change, memory = optimizer.update(slope(params, key), memory, params)
        return (optax.apply_updates(params, change), memory), None

    keys = jax.random.split(key, num_steps)
    return jax.lax.scan(step, (first, optimizer.init(first)), keys)[0][0]
