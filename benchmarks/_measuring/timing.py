"""Time for one gradient, with estimators in turns so that load affects all alike."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np

from scorefn.diagnostics._compare.timing import Stopwatch

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
    watch = batches(gradient, problems, seed, rounds=rounds, size=size, at_once=at_once)
    medians = np.median(watch.wall, axis=0) / size * 1e6
    return dict(zip(problems, medians.tolist(), strict=True))


def batches(
    gradient: Gradient,
    problems: Mapping[Any, Any],
    seed: int,
    *,
    rounds: int,
    size: int,
    at_once: int = 1,
) -> Stopwatch:
    """The times of batches of so many gradients of each problem."""
    keys = jax.random.split(jax.random.key(seed), size)

    def run(problem: Any) -> None:
        jax.block_until_ready(batch(gradient, problem, keys, at_once=at_once))

    return timed({name: partial(run, found) for name, found in problems.items()}, seed, rounds)


def timed(programs: Mapping[Any, Callable[[], Any]], seed: int, rounds: int) -> Stopwatch:
    """The times of programs that return when they are done, after one run of each."""
    once = {name: partial(_once, run) for name, run in programs.items()}
    watch = Stopwatch(once, seed=seed, least_seconds=0.0)
    for _ in range(rounds):
        watch.run()
    return watch


def _once(run: Callable[[], Any], repetitions: int) -> None:
    del repetitions
    run()
