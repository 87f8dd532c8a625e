"""Time for one gradient, the estimators taking turns so that a busy machine is fair to all."""

import gc
import random
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ._measure import Gradient


def microseconds(
    gradient: Gradient, problems: Mapping[str, Any], seed: int, *, loop: int, rounds: int
) -> dict[str, float]:
    """Microseconds for one gradient of each problem: the median over rounds.

    Each round runs every problem once, in random order, `loop` gradients in one jitted scan, so
    that neither dispatch nor compilation is counted.
    """
    key, order = jax.random.key(seed), random.Random(seed)
    for problem in problems.values():
        jax.block_until_ready(_scan(gradient, problem, key, loop))
    times: dict[str, list[float]] = {name: [] for name in problems}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name in order.sample(list(problems), len(problems)):
                start = time.perf_counter()
                jax.block_until_ready(_scan(gradient, problems[name], key, loop))
                times[name].append(time.perf_counter() - start)
    finally:
        gc.enable()
    return {name: float(np.median(found)) / loop * 1e6 for name, found in times.items()}


@partial(jax.jit, static_argnames=("gradient", "loop"))
def _scan(gradient: Gradient, problem: Any, key: jax.Array, loop: int) -> Any:
    def step(total: Any, i: jax.Array) -> tuple[Any, None]:
        estimate = gradient(problem, jax.random.fold_in(key, i))
        return jax.tree.map(jnp.add, total, estimate), None

    zeros = jax.tree.map(jnp.zeros_like, jax.eval_shape(gradient, problem, key))
    total, _ = jax.lax.scan(step, zeros, jnp.arange(loop))
    return total
