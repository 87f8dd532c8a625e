"""What a training run passes through, in one compiled scan."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

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
    """What is kept before training and after each `every` steps, [num_steps / every + 1, ...].

    Args:
        step: the body of a scan, with a key for each step.
        first: its carry before training.
        key: is used up.
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
