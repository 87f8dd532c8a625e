"""CPU time of tracing, lowering and compiling, of programs that take turns."""

import gc
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
from jax.extend.core import jaxprs_in_params

STAGES = ("trace", "lower", "compile")


def interleaved(
    programs: Mapping[str, Callable[..., Any]], arguments: Any, seed: int, rounds: int
) -> dict[str, np.ndarray]:
    """Seconds of CPU time, [rounds, stages] for each program, in random order in each round."""
    order = random.Random(seed)
    found: dict[str, list[list[float]]] = {name: [] for name in programs}
    with _without_persistent_cache():
        for program in programs.values() if rounds > 1 else ():
            # What is imported late, and what libraries keep for themselves.
            _seconds(program, arguments)
        for _ in range(rounds):
            for name in order.sample(list(programs), len(programs)):
                found[name].append(_seconds(programs[name], arguments))
    return {name: np.array(seconds) for name, seconds in found.items()}


def operations(program: Callable[..., Any], arguments: Any) -> int:
    """The number of operations in the jaxpr of a program, those inside of functions included."""
    return _count(jax.make_jaxpr(program)(*arguments).jaxpr)


def _count(jaxpr: Any) -> int:
    inner = [list(jaxprs_in_params(eqn.params)) for eqn in jaxpr.eqns]
    return sum(sum(map(_count, jaxprs)) if jaxprs else 1 for jaxprs in inner)


def _seconds(program: Callable[..., Any], arguments: Any) -> list[float]:
    # Forgets what an earlier round has traced and compiled.
    jax.clear_caches()
    gc.collect()
    times = [time.process_time()]
    traced = jax.jit(program).trace(*arguments)
    times.append(time.process_time())
    lowered = traced.lower()
    times.append(time.process_time())
    lowered.compile()
    return np.diff([*times, time.process_time()]).tolist()


@contextmanager
def _without_persistent_cache() -> Iterator[None]:
    before = getattr(jax.config, "jax_enable_compilation_cache")  # noqa: B009
    jax.config.update("jax_enable_compilation_cache", False)  # noqa: FBT003
    try:
        yield
    finally:
        jax.config.update("jax_enable_compilation_cache", before)
