"""Batch by batch, with rounds of timing in between, until the ranking is settled or time is up."""

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from scorefn._core.checks import check_count, check_number
from scorefn._core.types import PyTree

from .moments import Moments
from .programs import Loss, Programs, zeros
from .progress import Bar
from .ranking import open_pairs, spent
from .timing import Stopwatch

# Repeats in a batch, and numbers in a chunk of gradients: 16 MiB of float32.
BATCH, CHUNK_NUMBERS = 256, 2**22
# Rounds of timing before the first look, more before each look, and at most.
FIRST_ROUNDS, MORE_ROUNDS, MOST_ROUNDS = 25, 5, 100
LEAST_ROUNDS = 5


@dataclass(frozen=True)
class Plan:
    """When to stop, and how much at a time.

    Attributes:
        num_repeats: at most so many, rounded up to batches.
        max_seconds: of measuring, after which no batch begins.
        size: repeats in a batch.
        chunk_size: of these, under one vmap.
        stop_early: whether it stops when the ranking is settled.
        alpha: see `compare`.
        tolerance: see `compare`.
    """

    num_repeats: int
    max_seconds: float
    size: int
    chunk_size: int
    stop_early: bool
    alpha: float
    tolerance: float


@dataclass(frozen=True)
class Found:
    """What was measured.

    Attributes:
        moments: of the gradients.
        log_seconds: of one gradient, [rounds, estimators].
        looks: at the ranking.
        open_pairs: those that are not settled at the last look.
        stopped: as in `Comparison`.
    """

    moments: Moments
    log_seconds: np.ndarray
    looks: int
    open_pairs: list[tuple[int, int]]
    stopped: str


def planned(
    params: PyTree,
    num_repeats: int,
    chunk_size: int | None,
    *,
    max_seconds: float | None,
    stop_early: bool,
    alpha: float,
    tolerance: float,
) -> Plan:
    """The plan, of checked arguments."""
    check_count("num_repeats", num_repeats, at_least=2)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must lie between 0 and 1, got {alpha}.")
    check_number("tolerance", tolerance, least=0)
    limit = math.inf if max_seconds is None else max_seconds
    batch = min(BATCH, num_repeats)
    if chunk_size is None:
        components = sum(leaf.size for leaf in jax.tree.leaves(params))
        chunk_size = min(batch, max(1, CHUNK_NUMBERS // max(components, 1)))
    check_count("chunk_size", chunk_size)
    chunk_size = min(chunk_size, num_repeats)
    size = max(2, chunk_size * math.ceil(batch / chunk_size))
    return Plan(num_repeats, limit, size, chunk_size, stop_early, alpha, tolerance)


def compiled(
    loss: Loss,
    estimators: Mapping[str, Any],
    params: PyTree,
    signs: PyTree,
    key: jax.Array,
    plan: Plan,
    bar: Bar,
) -> tuple[dict[str, Programs], dict[str, Exception]]:
    """The programs of those estimators that run, and what the others raised."""
    programs, errors = {}, {}
    for name, estimator in estimators.items():
        bar.set_description(f"compiling {name}")
        program = Programs(loss, estimator, params)
        try:
            program.batch(key, zeros(params), signs, size=plan.size, chunk_size=plan.chunk_size)
            program.steps(key, 1)
        except Exception as error:  # What it raises is what the row says.
            errors[name] = error
        else:
            programs[name] = program
    return programs, errors


def measured(
    programs: Mapping[str, Programs],
    params: PyTree,
    signs: PyTree,
    key: jax.Array,
    plan: Plan,
    bar: Bar,
) -> Found:
    """All that is measured of the programs."""
    deadline = time.monotonic() + plan.max_seconds
    draw_key, time_key = jax.random.split(key)
    moments, stopwatch = Moments(params, signs, list(programs)), Stopwatch(programs, time_key)
    looks, next_look = 0, 0.0
    bar.set_description("measuring")
    while True:
        moments.add(programs, draw_key, plan.size, plan.chunk_size)
        bar.update(plan.size)
        is_full = moments.count >= plan.num_repeats
        is_last = is_full or time.monotonic() >= deadline
        if not is_last and moments.count < next_look:
            continue
        looks, next_look = looks + 1, 1.5 * moments.count
        _time(stopwatch, deadline)
        finite = np.flatnonzero(np.isfinite(moments.variance))
        pairs = open_pairs(
            moments,
            stopwatch.log_seconds(),
            finite.tolist(),
            alpha=spent(plan.alpha, looks),
            tolerance=plan.tolerance,
        )
        is_settled = plan.stop_early and len(finite) > 1 and not pairs
        if is_last or is_settled:
            limit = "num_repeats" if is_full else "max_seconds"
            stopped = "settled" if is_settled else limit
            return Found(moments, stopwatch.log_seconds(), looks, pairs, stopped)


def long_run(
    programs: Mapping[str, Programs],
    params: PyTree,
    signs: PyTree,
    key: jax.Array,
    plan: Plan,
    repeats: int,
) -> Moments:
    """The moments over so many repeats, rounded up to batches, however long that takes."""
    moments = Moments(params, signs, list(programs))
    while moments.count < repeats:
        moments.add(programs, key, plan.size, plan.chunk_size)
    return moments


def _time(stopwatch: Stopwatch, deadline: float) -> None:
    wanted = min(max(FIRST_ROUNDS, stopwatch.rounds + MORE_ROUNDS), MOST_ROUNDS)
    while stopwatch.rounds < wanted:
        if stopwatch.rounds >= LEAST_ROUNDS and time.monotonic() >= deadline:
            return
        stopwatch.run()
