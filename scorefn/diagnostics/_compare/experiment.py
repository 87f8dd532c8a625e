"""An experiment: estimators are compiled, then measured in turns until a ranking or a limit."""

import math
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from typing import Any, Protocol

import jax
import numpy as np

from scorefn._core.checks import check_count, check_number
from scorefn._core.types import PyTree

from .evaluations import evaluations
from .gradients import Batch, Components, Gradients, Loss
from .interrupt import first_interrupt_kept
from .moments import Moments
from .ranking import open_pairs, spent
from .timing import Stopwatch

# Repeats in a batch, and numbers in a chunk of gradients: 16 MiB of float32.
BATCH, CHUNK_NUMBERS = 256, 2**22
# Rounds of timing before the first look, more before each look, at most, and in any case.
FIRST_ROUNDS, MORE_ROUNDS, MOST_ROUNDS, LEAST_ROUNDS = 25, 5, 100, 5


class Bar(Protocol):
    """A progress bar, as tqdm makes it."""

    def update(self, repeats: int) -> object:
        """Moves it by so many repeats."""

    def set_description(self, text: str) -> object:
        """Shows what is going on."""


class _Silent:
    def update(self, repeats: int) -> None: ...

    def set_description(self, text: str) -> None: ...


@contextmanager
def progress_bar(total: int, *, shown: bool) -> Iterator[Bar]:
    """A bar over the repeats; nothing without tqdm, and where stderr is no terminal."""
    tqdm = None
    if shown:
        with suppress(ImportError), warnings.catch_warnings(action="ignore"):
            tqdm = import_module("tqdm.auto").tqdm
    if tqdm is None:
        yield _Silent()
        return
    with tqdm(total=total, unit="gradient", disable=None, leave=False) as bar:
        yield bar


@dataclass(frozen=True)
class Plan:
    """The limits of a comparison, and the sizes of its batches.

    Attributes:
        num_repeats: at most so many gradients of each estimator.
        max_seconds: for the whole comparison, from `begin` on.
        chunk_size: gradients under one vmap, at most.
        stop_early: whether it stops when the ranking is settled.
        alpha: see `compare`.
        tolerance: see `compare`.
        begin: the time at which the comparison began.
    """

    num_repeats: int
    max_seconds: float
    chunk_size: int
    stop_early: bool
    alpha: float
    tolerance: float
    begin: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        check_number("max_seconds", self.max_seconds, above=0)
        check_count("chunk_size", self.chunk_size)
        if not 0 < self.alpha < 1:
            raise ValueError(f"alpha must lie between 0 and 1, got {self.alpha}.")
        check_number("tolerance", self.tolerance, least=0)

    @property
    def seconds_left(self) -> float:
        """The seconds until the time is up."""
        return self.begin + self.max_seconds - time.perf_counter()

    @property
    def halfway(self) -> float:
        """The time when half of the seconds left are over."""
        return time.perf_counter() + self.seconds_left / 2

    def sizes(self, most: int = BATCH) -> dict[str, int]:
        """The repeats in a batch and in a chunk."""
        size = max(2, min(BATCH, self.num_repeats, most))
        chunks = math.ceil(size / self.chunk_size)
        return {"size": size // chunks * chunks, "chunk_size": size // chunks}


@dataclass(frozen=True)
class Found:
    """Everything that was measured.

    Attributes:
        evaluations: of f for one gradient, by estimator; None if they could not be counted.
        moments: of the gradients.
        log_seconds: of one gradient, [rounds, estimators].
        looks: at the ranking.
        open_pairs: those that are not settled at the last look.
        stopped: as in `Comparison`.
    """

    evaluations: Mapping[str, int | None]
    moments: Moments
    log_seconds: np.ndarray
    looks: int
    open_pairs: list[tuple[int, int]]
    stopped: str


class Experiment:
    """The estimators of a comparison that could be compiled.

    Attributes:
        gradients: the programs of those that run, by name.
        errors: what the others raised, by name; a TimeoutError where time was up.
    """

    def __init__(
        self, loss: Loss, estimators: Mapping[str, Any], params: PyTree, plan: Plan, bar: Bar
    ) -> None:
        self.gradients: dict[str, Gradients] = {}
        self.errors: dict[str, Exception] = {}
        self._loss, self._estimators, self._params = loss, estimators, params
        self._plan, self._bar = plan, bar
        self._sizes = plan.sizes()
        self._components = Components(params)
        self._evaluations: dict[str, int | None] = {}
        self._is_interrupted: Callable[[], bool] = lambda: False

    def compile(self, key: jax.Array, *, first: str | None) -> None:
        """Compiles all programs, those of the estimator `first` before the others.

        One gradient of each estimator is timed before the larger programs are compiled: their
        batches are smaller if 256 gradients of each would take more than half of the time left.
        """
        names = sorted(self._estimators, key=lambda name: name != first)
        compiling: dict[str, float] = {}
        one: dict[str, float] = {}
        for name in names:
            self._bar.set_description(f"compiling {3 * len(names)} programs: {name}")
            try:
                if compiling:  # Two programs of this one, and one more of each of the others.
                    self._check_time(sum(compiling.values()) + 2 * max(compiling.values()))
                begin = time.perf_counter()
                program = Gradients(
                    self._loss, self._estimators[name], self._params, self._components
                )
                program.steps(key, 1)
                compiling[name] = time.perf_counter() - begin
                program.steps(key, 1)
                one[name] = time.perf_counter() - begin - compiling[name]
                self.gradients[name] = program
            except Exception as error:  # What it raises is what the row says.
                self.errors[name] = error
        left = self._plan.seconds_left - sum(compiling.values())
        if math.isfinite(left) and one:
            # One batch here, and two for the first moments.
            self._sizes = self._plan.sizes(int(left / 6 / sum(one.values())))
        nowhere = np.zeros(self._components.size)
        for name in one:
            try:
                self._check_time(compiling[name])
                self.gradients[name].batch(key, nowhere, **self._sizes)
            except Exception as error:
                self.errors[name] = error
        self.gradients = {
            name: self.gradients[name] for name in self._estimators if name not in self.errors
        }
        for name in self.gradients:
            # As long as there is time for it.
            is_counted = compiling[name] <= self._plan.seconds_left
            given = self._loss, self._params, key, self._estimators[name]
            self._evaluations[name] = evaluations(*given) if is_counted else None

    def _check_time(self, seconds: float) -> None:
        left = self._plan.seconds_left
        if seconds > left:
            raise TimeoutError(
                f"not compiled: of max_seconds={self._plan.max_seconds:g} there are {left:.2g} s "
                f"left, and {seconds:.2g} s are needed"
            )

    @contextmanager
    def interruptible(self) -> Iterator[None]:
        """Lets the first Ctrl-C end the measurements of the block, which keep what they have."""
        with first_interrupt_kept() as is_interrupted:
            self._is_interrupted = is_interrupted
            yield

    def measure(self, key: jax.Array) -> Found:
        """Measures all of them, until the ranking is settled or a limit is reached."""
        plan = self._plan
        draw_key, time_key = jax.random.split(key)
        steps = {name: partial(p.steps, time_key) for name, p in self.gradients.items()}
        stopwatch = Stopwatch(steps)
        moments = Moments(self._components, list(self.gradients))
        looks, next_look = 0, 0.0
        self._bar.set_description("measuring")
        while True:
            took = self._add(moments, draw_key)
            self._bar.update(self._sizes["size"])
            is_full = moments.count + self._sizes["size"] > plan.num_repeats
            is_last = is_full or took > plan.seconds_left or self._is_interrupted()
            if not is_last and moments.count < next_look:
                continue
            looks, next_look = looks + 1, 1.5 * moments.count
            self._time(stopwatch)
            log_seconds = np.log(stopwatch.wall)
            finite = np.flatnonzero(np.isfinite(moments.variance)).tolist()
            alpha = spent(plan.alpha, looks)
            pairs = open_pairs(moments, log_seconds, finite, alpha=alpha, tolerance=plan.tolerance)
            is_settled = plan.stop_early and len(finite) > 1 and not pairs
            if is_last or is_settled or took > plan.seconds_left or self._is_interrupted():
                limit = "num_repeats" if is_full else "max_seconds"
                limit = "interrupted" if self._is_interrupted() else limit
                stopped = "settled" if is_settled else limit
                return Found(self._evaluations, moments, log_seconds, looks, pairs, stopped)

    def long_run(self, name: str, key: jax.Array, repeats: int) -> Moments:
        """The moments of one estimator, within half of the time left."""
        self._bar.set_description(f"reference {name}")
        alone, halfway = Moments(self._components, [name]), self._plan.halfway
        while True:
            took = self._add(alone, key)
            is_full = alone.count + self._sizes["size"] > repeats
            is_late = time.perf_counter() + took > halfway
            if is_full or is_late or self._is_interrupted():
                return alone

    def _add(self, moments: Moments, key: jax.Array) -> float:
        """Adds a batch, which depends on the key and on the count so far; returns the seconds."""
        begin = time.perf_counter()
        key = jax.random.fold_in(key, moments.count)
        moments.add([self._batch(moments, i, key) for i in range(len(moments.names))])
        return time.perf_counter() - begin

    def _batch(self, moments: Moments, i: int, key: jax.Array) -> Batch:
        program, center = self.gradients[moments.names[i]], moments.mean[i]
        if not moments.count:
            # Of the first batch the mean is needed before the distances: it is run twice.
            center = program.batch(key, center, **self._sizes).mean
        return program.batch(key, center, **self._sizes)

    def _time(self, stopwatch: Stopwatch) -> None:
        """More rounds of timing, within half of the time left."""
        wanted = min(max(FIRST_ROUNDS, stopwatch.rounds + MORE_ROUNDS), MOST_ROUNDS)
        halfway, took = self._plan.halfway, 0.0
        while stopwatch.rounds < wanted:
            begin = time.perf_counter()
            is_late = begin + took > halfway or self._is_interrupted()
            if stopwatch.rounds >= LEAST_ROUNDS and is_late:
                return
            stopwatch.run()
            took = time.perf_counter() - begin
