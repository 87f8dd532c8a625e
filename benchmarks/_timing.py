"""Time for one gradient, the estimators taking turns so that a busy machine is fair to all."""

import gc
import random
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from ._measure import Gradient, batch


def microseconds(
    gradient: Gradient,
    problems: Mapping[str, Any],
    seed: int,
    *,
    rounds: int,
    size: int,
    at_once: int,
) -> dict[str, float]:
    """Microseconds for one gradient of each problem: the median over rounds.

    Each round runs one batch of each problem, the same program as is measured, in random order;
    batches take milliseconds, so that dispatch does not count.
    """
    keys, order = jax.random.split(jax.random.key(seed), size), random.Random(seed)
    for problem in problems.values():
        jax.block_until_ready(batch(gradient, problem, keys, at_once=at_once))
    times: dict[str, list[float]] = {name: [] for name in problems}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name in order.sample(list(problems), len(problems)):
                start = time.perf_counter()
                jax.block_until_ready(batch(gradient, problems[name], keys, at_once=at_once))
                times[name].append(time.perf_counter() - start)
    finally:
        gc.enable()
    return {name: float(np.median(found)) / size * 1e6 for name, found in times.items()}
