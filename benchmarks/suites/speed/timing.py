"""Flops and memory of a compiled program, and the times of programs that take turns."""

import re
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from scorefn.diagnostics._compare.timing import Stopwatch

Program = Callable[..., Any]

OPERATION = re.compile(r"= \S+ ([a-z][a-z0-9-]*)\(")
# They compute nothing.
SILENT = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "copy"}


@dataclass(frozen=True)
class Compiled:
    """A program for given arguments, compiled once.

    Attributes:
        run: of no argument.
        flops: as the compiler counts them. It counts the body of a loop once.
        temp_bytes: of temporary memory.
        operations: how many of each there are, inside of fusions too.
    """

    run: Callable[[], Any]
    flops: float
    temp_bytes: int
    operations: Mapping[str, int]


def compiled(program: Program, *arguments: Any) -> Compiled:
    """The jitted program, not yet run."""
    # The jitted function is called, and not what is compiled of it: that takes longer to call.
    jitted = jax.jit(program)
    found = jitted.lower(*arguments).compile()
    costs: Any = found.cost_analysis() or {}
    memory: Any = found.memory_analysis()
    names = OPERATION.findall(found.as_text() or "")
    return Compiled(
        lambda: jitted(*arguments),
        float(costs.get("flops", 0.0)),
        int(memory.temp_size_in_bytes),
        dict(sorted(Counter(name for name in names if name not in SILENT).items())),
    )


def on_cpu() -> bool:
    """Whether programs run on the CPU by default."""
    return jax.default_backend() == "cpu"


@dataclass(frozen=True)
class Times:
    """Seconds for one call, [rounds] each: on the clock of the device, and of the wall.

    That is CPU time on a CPU, and wall time on an accelerator, for which a CPU but waits.
    """

    clock: np.ndarray
    wall: np.ndarray

    @property
    def time_us(self) -> float:
        """The median time of one call on the clock of the device, in microseconds."""
        return float(np.median(self.clock)) * 1e6

    def over(self, other: "Times") -> dict[str, float]:
        """Its times over another's, round by round: medians and quartiles."""
        low, middle, high = np.quantile(self.clock / other.clock, [0.25, 0.5, 0.75])
        wall = np.median(self.wall / other.wall)
        named = {"ratio": middle, "q25": low, "q75": high, "wall_ratio": wall}
        return {name: float(value) for name, value in named.items()}


def interleaved(
    programs: Mapping[str, Callable[[], Any]],
    seed: int,
    *,
    rounds: int,
    least_seconds: float,
    most_seconds: float,
) -> dict[str, Times]:
    """The times of the programs, which take turns in random order within each round.

    Each turn repeats a program until it takes `least_seconds`. After `most_seconds` there are no
    more rounds than 7. CPU time is that of the whole process: what other processes do to the
    machine moves it little, and moves both sides of a ratio alike.
    """
    watch = Stopwatch(
        {name: partial(_repeated, run) for name, run in programs.items()},
        seed=seed,
        least_seconds=least_seconds,
    )
    start = time.perf_counter()
    for done in range(rounds):
        if done >= 7 and time.perf_counter() - start > most_seconds:
            break
        watch.run()
    clock = watch.cpu if on_cpu() else watch.wall
    return {name: Times(clock[:, i], watch.wall[:, i]) for i, name in enumerate(programs)}


def _repeated(run: Callable[[], Any], repeats: int) -> None:
    for _ in range(repeats):
        jax.block_until_ready(run())
