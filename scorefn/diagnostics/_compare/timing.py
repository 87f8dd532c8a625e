"""Time for one gradient, the estimators taking turns so that a busy machine is fair to all."""

import gc
import math
import random
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import jax
import numpy as np

from .programs import Programs

LEAST_SECONDS = 3e-3


class Stopwatch:
    """The seconds that one gradient of each estimator took in each round.

    One round times each of them once, in random order, on a call of so many gradients that it takes
    some milliseconds.
    """

    def __init__(self, programs: Mapping[str, Programs], key: jax.Array) -> None:
        self._programs = programs
        self._key = key
        self._order = random.Random(0)
        self._counts = dict.fromkeys(programs, 1)
        self._rounds: list[dict[str, float]] = []
        for name in programs:  # The first calls find out how long is long enough.
            self._one(name)
            self._one(name)

    @property
    def rounds(self) -> int:
        """How many rounds there were."""
        return len(self._rounds)

    def run(self) -> None:
        """One more round."""
        found = {}
        with _no_garbage_collection():
            for name in self._order.sample(list(self._programs), len(self._programs)):
                found[name] = self._one(name)
        self._rounds.append(found)

    def _one(self, name: str) -> float:
        """Seconds for one gradient, of a call that is long enough for a clock."""
        while True:
            count = self._counts[name]
            start = time.perf_counter()
            self._programs[name].steps(self._key, count)
            seconds = time.perf_counter() - start
            # A call that was held up once may have looked long enough. Half: times vary.
            if seconds >= LEAST_SECONDS / 2:
                return seconds / count
            self._counts[name] = max(2 * count, math.ceil(count * LEAST_SECONDS / seconds))

    def log_seconds(self) -> np.ndarray:
        """[rounds, estimators], the estimators in the order of the mapping."""
        rows = [[found[name] for name in self._programs] for found in self._rounds]
        return np.log(np.array(rows).reshape(self.rounds, len(self._programs)))


def median_interval(values: np.ndarray, alpha: float) -> tuple[float, float]:
    """An interval that holds the median of what values are drawn from, but for alpha.

    From one order statistic to another: right for values of any distribution. Infinite where there
    are too few of them.
    """
    n, below = len(values), 0.0
    rank = -1
    while rank + 1 < n / 2:
        # The chance that at most rank + 1 of n values lie below the median.
        below += math.comb(n, rank + 1) * 0.5**n
        if 2 * below > alpha:
            break
        rank += 1
    if rank < 0:
        return -math.inf, math.inf
    ordered = np.sort(values)
    return float(ordered[rank]), float(ordered[n - 1 - rank])


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
