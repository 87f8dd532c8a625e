"""The default size of chunks, against all samples at once and against other sizes."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks._suite import Row, Sizes

from .cases import library, normal
from .many import ESTIMATORS, quadratic
from .row import held, row, timed
from .timing import compiled, interleaved


def _nothing(x: jax.Array) -> jax.Array:
    return x[0]


def _network(size: int, x: jax.Array) -> jax.Array:
    """Two layers of 64 units, with fixed weights."""
    keys = jax.random.split(jax.random.key(1), 3)
    sizes = ((size, 64), (64, 64), (64, 1))
    for key, (rows, columns) in zip(keys, sizes, strict=True):
        x = jnp.tanh(x @ (jax.random.normal(key, (rows, columns)) / rows**0.5))
    return x[0]


def _cost(name: str, size: int) -> Callable[[jax.Array], jax.Array]:
    costs: dict[str, Callable[[jax.Array], jax.Array]] = {
        "nothing": _nothing,
        "quadratic": quadratic,
        "network": partial(_network, size),
    }
    return costs[name]


def cases(sizes: Sizes) -> list[tuple[str, str, int, int]]:
    """Estimator, cost, size and number of samples; `numbers` bounds the product of the last two."""
    pairs = [("ScoreFunction", cost) for cost in ("nothing", "quadratic", "network")]
    return [
        (estimator, cost, size, samples)
        for estimator, cost in [*pairs, ("Pathwise", "quadratic")]
        for size in sizes["chunked_sizes"]
        for samples in sizes["chunked"]
        if size * samples <= sizes["numbers"]
    ]


def rows(
    estimator: str, cost: str, size: int, samples: int, seed: int, sizes: Sizes
) -> dict[str, list[Row]]:
    """The default against the fastest of the others."""
    problem = normal(_cost(cost, size), size)
    chosen: dict[str, Any] = {"default": "auto", "all at once": None}
    chosen |= {f"chunks of {c}": c for c in sizes["chunk_sizes"] if c < samples}
    key = jax.random.key(0)
    programs = {
        name: compiled(library(problem, ESTIMATORS[estimator], samples, c), problem.params, key)
        for name, c in chosen.items()
    }
    runs = {name: program.run for name, program in programs.items()}
    times = interleaved(runs, seed, **sizes["chunk_timing"])
    best = min(list(programs)[1:], key=lambda name: times[name].time_us)
    found = {**timed(times["default"], times[best]), **held(programs["default"], programs[best])}
    note = f"all at once takes {times['all at once'].over(times['default'])['ratio']:.2f}"
    name = f"{estimator}, {cost}, D = {size}"
    return {"rows": [row("chunks", name, samples, best, **found, note=note)]}
