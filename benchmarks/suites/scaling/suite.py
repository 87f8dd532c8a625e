"""One gradient on 1, 2, 4, ... devices: the same samples on more devices, and more samples.

Strong scaling keeps the number of samples, weak scaling that of the samples of a device. It runs on
whatever devices there are. Virtual devices of a CPU share its cores: there the wall time says
nothing about devices, and the CPU time says what their number costs.
"""

import os
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks._measuring.measure import measure
from benchmarks._measuring.timing import batches
from benchmarks._suite import Row, Sizes, Step, Suite, step_key

from . import tables
from .problem import (
    ESTIMATORS,
    MEAN,
    Problem,
    exact_gradient,
    exact_variance,
    gradient,
    problem,
    program,
)


def device_counts(available: int, *, doublings: bool) -> list[int]:
    """1, 2, 4, ... and all of them; or 1 and all."""
    powers = [2**i for i in range(available.bit_length())] if doublings else [1]
    return sorted({*powers, available})


def _problems(kind: str, name: str, sizes: Sizes) -> list[Problem]:
    counts = device_counts(len(jax.devices()), doublings=sizes["doublings"])
    samples = {
        # A multiple of the number of devices, whatever that is.
        "strong": lambda n: sizes["samples"]["strong"] // n * n,
        "weak": lambda n: sizes["samples"]["weak"] * n,
    }[kind]
    return [problem(name, sizes["size"], samples(n), sizes["chunk_size"], n) for n in counts]


def _rows(kind: str, name: str, key: jax.Array, seed: int, sizes: Sizes) -> dict[str, Any]:
    problems = _problems(kind, name, sizes)
    wall, cpu = _microseconds(problems, seed, **sizes["timing"])
    keys = jax.random.split(key, len(problems))
    return {
        "rows": [_row(kind, p, k, sizes) for p, k in zip(problems, keys, strict=True)],
        "times": {_timing(kind, p): t for p, t in zip(problems, wall, strict=True)},
        "curves": {
            f"{kind}, {name}": {
                "devices": [p.devices for p in problems],
                "wall_us": wall,
                "cpu_us": cpu,
                "cores": getattr(os, "process_cpu_count", os.cpu_count)(),
            }
        },
    }


def _row(kind: str, problem: Problem, key: jax.Array, sizes: Sizes) -> Row:
    size, n = sizes["size"], problem.num_samples
    # The squares are what is cancelled.
    magnitude = size * (1 + MEAN**2)
    exact = {"mean": exact_gradient(size)}
    options = {**sizes["repeats"], "at_once": 1, "magnitude": magnitude}
    measured = measure(gradient, problem, key, exact, **options)["mean"]
    return {
        "scaling": kind,
        "estimator": problem.name,
        "devices": problem.devices,
        "evaluations": n,
        "unbiased": ESTIMATORS[problem.name].unbiased,
        **program(problem),
        **measured.columns(exact_variance(problem.name, size, n)),
        "timing": _timing(kind, problem),
    }


def _timing(kind: str, problem: Problem) -> str:
    return f"{kind}, {problem.name}, {problem.devices}"


def _microseconds(
    problems: Sequence[Problem], seed: int, *, rounds: int, size: int
) -> tuple[list[float], list[float]]:
    """Wall and CPU time of one gradient of each problem, in turns: the medians over rounds."""
    watch = batches(gradient, dict(enumerate(problems)), seed, rounds=rounds, size=size)
    wall, cpu = (np.median(times, axis=0) / size * 1e6 for times in (watch.wall, watch.cpu))
    return wall.tolist(), cpu.tolist()


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """A step for each kind of scaling and estimator: all numbers of devices are timed in turns."""
    return {
        f"{kind}, {name}": partial(
            _rows, kind, name, step_key(seed, f"{kind}, {name}"), seed, sizes
        )
        for kind in ("strong", "weak")
        for name in ESTIMATORS
    }


SUITE = Suite(
    name="scaling",
    summary="one gradient on 1, 2, 4, ... devices: strong and weak scaling on what there is",
    full={
        "size": 256,
        "samples": {"strong": 8192, "weak": 1024},
        "chunk_size": 256,
        "doublings": True,
        "repeats": {"batches": 10, "size": 20},
        "timing": {"rounds": 41, "size": 5},
    },
    quick={
        "size": 16,
        "samples": {"strong": 256, "weak": 32},
        "chunk_size": 16,
        "doublings": False,
        "repeats": {"batches": 5, "size": 200},
        "timing": {"rounds": 3, "size": 5},
    },
    steps=steps,
    tables={"scaling": tables.scaling},
    shown=lambda _: True,
    default=False,
)
