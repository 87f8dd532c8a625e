"""A clock for programs that take turns, so that load affects all alike."""

import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import numpy as np


class Stopwatch:
    """Wall and CPU time of several programs, in rounds.

    A round runs each program once, in random order. A program is called with a number of
    repetitions, and returns when they are done; the number is raised until a call takes
    `least_seconds`, and is 1 if that is 0.
    """

    def __init__(
        self,
        programs: Mapping[str, Callable[[int], object]],
        *,
        seed: int = 0,
        least_seconds: float = 3e-3,
    ) -> None:
        self._programs = programs
        self._order = random.Random(seed)
        self._least_seconds = least_seconds
        self._counts = dict.fromkeys(programs, 1)
        self._rounds: list[dict[str, tuple[float, float]]] = []
        for name in programs:
            # Compiles; and a second call finds out how many repetitions are enough.
            for _ in range(2 if least_seconds else 1):
                self._one(name)
        gc.collect()

    @property
    def rounds(self) -> int:
        """The number of rounds so far."""
        return len(self._rounds)

    def run(self) -> None:
        """Runs another round."""
        found = {}
        with _no_garbage_collection():
            for name in self._order.sample(list(self._programs), len(self._programs)):
                found[name] = self._one(name)
        self._rounds.append(found)

    def _one(self, name: str) -> tuple[float, float]:
        """Seconds for one repetition, of a call that is long enough for a clock."""
        while True:
            count = self._counts[name]
            wall, cpu = time.perf_counter(), time.process_time()
            self._programs[name](count)
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            # A call that was held up once may have looked long enough. Half: times vary.
            if wall >= self._least_seconds / 2:
                return wall / count, cpu / count
            self._counts[name] = max(2 * count, math.ceil(count * self._least_seconds / wall))

    @property
    def wall(self) -> np.ndarray:
        """Seconds by the clock on the wall, [rounds, programs], programs in their order."""
        return self._times()[..., 0]

    @property
    def cpu(self) -> np.ndarray:
        """Seconds of CPU time of this process, likewise."""
        return self._times()[..., 1]

    def _times(self) -> np.ndarray:
        found = [[times[name] for name in self._programs] for times in self._rounds]
        return np.reshape(found, (self.rounds, len(self._programs), 2))


def median_interval(values: np.ndarray, alpha: float) -> tuple[float, float]:
    """An interval that misses the median of the values' distribution with probability alpha.

    From one order statistic to another: right for any distribution. Infinite for too few values.
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
