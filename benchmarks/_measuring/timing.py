"""Time for one gradient, the estimators taking turns so that a busy machine is fair to all."""

import gc
import random
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from .measure import Gradient, batch


def microseconds(
    gradient: Gradient,
    problems: Mapping[str, Any],
    seed: int,
    *,
    rounds: int,
    size: int,
    at_once: int = 1,
) -> dict[str, float]:
    """Microseconds for one gradient of each problem: the median over rounds.

    Each round runs one batch of each problem, in random order; batches take milliseconds, so that
    dispatch does not count. One at a time, each gradient is computed whole; in one vmap they share
    what does not depend on the key.
    """
    keys = jax.random.split(jax.random.key(seed), size)
    batches = {
        name: partial(_run, gradient, problem, keys, at_once) for name, problem in problems.items()
    }
    found = seconds(batches, seed, rounds=rounds)
    return {name: took / size * 1e6 for name, took in found.items()}


def _run(gradient: Gradient, problem: Any, keys: jax.Array, at_once: int) -> None:
    jax.block_until_ready(batch(gradient, problem, keys, at_once=at_once))


def seconds(
    programs: Mapping[str, Callable[[], Any]], seed: int, *, rounds: int
) -> dict[str, float]:
    """Of each program, which returns when it is done: the median, after one run that is not timed.

    Each round runs every program once, in random order.
    """
    order = random.Random(seed)
    for run in programs.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in programs}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name in order.sample(list(programs), len(programs)):
                start = time.perf_counter()
                programs[name]()
                times[name].append(time.perf_counter() - start)
    finally:
        gc.enable()
    return {name: float(np.median(found)) for name, found in times.items()}
