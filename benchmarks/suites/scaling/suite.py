"""One gradient on 1, 2, 4, ... devices: the same samples on more devices, and more samples.

Strong scaling keeps the number of samples, weak scaling that of the samples of a device. It runs on
whatever devices there are. Virtual devices of a CPU share its cores: there the wall time says
nothing about devices, and the CPU time says what their number costs.
"""

import gc
import os
import random
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._measuring.measure import batch, measure
from benchmarks._reporting.plots import legend_below, looks, panels
from benchmarks._suite import Results, Row, Sizes, Step, Suite, step_key

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

KINDS = {"strong": "the same samples", "weak": "samples as devices"}


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
    keys, order = jax.random.split(jax.random.key(seed), size), random.Random(seed)
    times = np.zeros((rounds, len(problems), 2))
    for p in problems:
        jax.block_until_ready(batch(gradient, p, keys, at_once=1))
    gc.collect()
    for turn in times:
        for i in order.sample(range(len(problems)), len(problems)):
            start = time.perf_counter(), time.process_time()
            jax.block_until_ready(batch(gradient, problems[i], keys, at_once=1))
            turn[i] = np.array([time.perf_counter(), time.process_time()]) - start
    wall, cpu = np.median(times, axis=0).T / size * 1e6
    return wall.tolist(), cpu.tolist()


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """For each kind of scaling and estimator, all numbers of devices: they are timed in turns."""
    return {
        f"{kind}, {name}": partial(
            _rows, kind, name, step_key(seed, f"{kind}, {name}"), seed, sizes
        )
        for kind in KINDS
        for name in ESTIMATORS
    }


def figures(results: Results) -> Mapping[str, Figure]:
    """Times of one gradient by the number of devices, and the memory of each."""
    figure, axes = panels(1, 3)
    drawn = looks(f"{name}, {of}" for name in ESTIMATORS for of in ("wall", "CPU"))
    for axis, kind in zip(axes[0], KINDS, strict=False):
        for name in ESTIMATORS:
            curve = results["curves"][f"{kind}, {name}"]
            for of in ("wall", "CPU"):
                look = drawn[f"{name}, {of}"]
                times = np.array(curve[f"{of.lower()}_us"]) / 1e3
                axis.plot(curve["devices"], times, marker=look.marker, color=look.color)
        axis.set(title=f"{kind}: {KINDS[kind]}", ylabel="ms for one gradient")
        _by_devices(axis, curve["devices"])
    for name in ESTIMATORS:
        rows = [r for r in results["rows"] if (r["scaling"], r["estimator"]) == ("strong", name)]
        look, counts = drawn[f"{name}, wall"], [row["devices"] for row in rows]
        for column, line in {"bytes_without": "-", "bytes_in_chunks": ":"}.items():
            memory = [row[column] / 2**20 for row in rows]
            axes[0, 2].plot(counts, memory, line, marker=look.marker, color=look.color)
        _by_devices(axes[0, 2], counts)
    axes[0, 2].set(title="the same samples; dotted: in chunks", ylabel="MiB of a device")
    device, cores = results["device"], curve["cores"]
    legend_below(figure, drawn, f"{device}; the host has {cores} cores", columns=4)
    return {"scaling": figure}


def _by_devices(axis: Axes, counts: Sequence[int]) -> None:
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [str(n) for n in counts])
    axis.set_ylim(0, 1.05 * axis.dataLim.y1)
    axis.set_xlabel("devices")


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
    figures=figures,
    shown=lambda _: True,
    default=False,
)
