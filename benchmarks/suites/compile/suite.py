"""CPU time to trace, lower and compile a gradient, relative to hand-written code.

The two programs of a row take turns in one process. All caches of JAX are cleared before each turn,
and the persistent compilation cache is off. `ratio` is the median over the rounds of the library's
total time divided by that of the hand-written code, `q25` and `q75` its quartiles. The
hand-written code draws with a key for each sample, as the library does.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks._packages.call import module
from benchmarks._suite import Sizes, Step, Suite

from .cases import Case, cases
from .measuring import STAGES, interleaved, operations
from .tables import table, terminal


def _rows(name: str, make: Callable[[], Case], seed: int, sizes: Sizes) -> dict[str, Any]:
    networks = name.rsplit(", ", 1)[-1]
    row: dict[str, Any] = {"case": name, "note": None}
    if networks in ("flax", "equinox") and module(networks) is None:
        return {"rows": [row | {"note": f"skipped: there is no {networks} here"}]}
    case = make()
    programs = {"": jax.grad(case.library), "hand_": jax.grad(case.hand)}
    arguments = case.params, jax.random.key(0)
    # Programs of many choices take minutes.
    rounds = 1 if name in sizes["once"] else sizes["rounds"]
    seconds = interleaved(programs, arguments, seed, rounds)
    for whose, times in seconds.items():
        for stage, median in zip(STAGES, np.median(times, axis=0), strict=True):
            row[f"{whose}{stage}_ms"] = 1e3 * float(median)
        row[f"{whose}operations"] = operations(programs[whose], arguments)
    total, by_hand = (times.sum(axis=1) for times in seconds.values())
    low, middle, high = np.quantile(total / by_hand, [0.25, 0.5, 0.75])
    row |= {"ratio": float(middle), "q25": float(low), "q75": float(high), "rounds": rounds}
    return {"rows": [row]}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """A step for each case."""
    return {name: partial(_rows, name, make, seed, sizes) for name, make in cases(sizes).items()}


SUITE = Suite(
    name="compile",
    summary="time to trace and compile a gradient, against hand-written code",
    full={
        "bits": 200,
        "choices": [20, 100],
        "steps": 1000,
        "rounds": 5,
        "once": ["program of 100 bits, ScoreFunction", "program of 100 Gaussians, Pathwise"],
    },
    quick={"bits": 4, "choices": [2], "steps": 3, "rounds": 1, "once": []},
    steps=steps,
    shown=lambda _: True,
    default=False,
    tables={"compile": table},
    terminal=terminal,
)
