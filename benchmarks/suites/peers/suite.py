"""The same five toys by this library and by others: variance, time, and bias beside the exact one.

Each package is called as its users call it, with the same number of samples. Not all of these
calls are made for such a gradient: where one returns something else, the table shows what. A call
that raises has a row that says so; a package that is not installed is skipped with a line.
"""

import sys
import zlib
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._measuring.measure import Measurement, measure, measurement
from benchmarks._measuring.timing import microseconds, timed
from benchmarks._packages.call import missing, version
from benchmarks._packages.toys import TOYS
from benchmarks._suite import Row, Sizes, Step, Suite, step_key
from scorefn._core.pytree import pytree_dataclass, static_field

from . import tables
from .calls import CALLS
from .figures import figures


@pytree_dataclass
class Problem:
    """A call, and where the gradient is taken."""

    name: str = static_field()
    params: Any


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """An estimate of the gradient by the call of that name."""
    return {"all": CALLS[problem.name].make()(problem.params, key)}


def _rows(name: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    call = CALLS[name]
    toy, note = TOYS[call.toy], missing(call)
    row: Row = {
        "toy": call.toy,
        "package": call.package,
        "version": None if note else version(call),
        "call": call.call,
        "unbiased": call.unbiased,
        "samples": call.samples,
        "exact_gradient": list(toy.exact),
    }
    if note:
        sys.stderr.write(f"{name}: {note}\n")
        return {"rows": [row | _nothing(note)]}
    # What is wrong with a call of another world is its own affair, and the row says it.
    refused = Exception if call.torch else TypeError
    try:
        found, times = (_of_torch if call.torch else _of_jax)(name, seed, sizes)
    except refused as error:
        # One clause says what is refused.
        return {"rows": [row | _nothing(f"{type(error).__name__}: {str(error).split(':')[0]}")]}
    exact = np.array(toy.exact)
    row |= {"mean": found.mean.tolist(), "relative_bias": found.relative_bias(exact)}
    row |= {**found.columns(), "repeats": found.repeats, "note": None, "timing": name}
    return {"rows": [row], "times": times}


def _of_jax(name: str, seed: int, sizes: Sizes) -> tuple[Measurement, dict[str, float]]:
    """Gradients that are vectorized by jax.vmap, and compiled together."""
    call = CALLS[name]
    toy = TOYS[call.toy]
    problem = Problem(name, jnp.array(toy.params))
    options: dict[str, Any] = {"magnitude": toy.size, "biased": not call.unbiased}
    exact = {"all": np.array(toy.exact)}
    key = step_key(seed, name)
    found = measure(gradient, problem, key, exact, **options, **sizes["repeats"])
    return found["all"], microseconds(gradient, {name: problem}, seed, **sizes["timing"])


def _of_torch(name: str, seed: int, sizes: Sizes) -> tuple[Measurement, dict[str, float]]:
    """Gradients that are vectorized by the call itself, as many at once."""
    call = CALLS[name]
    toy, batch = TOYS[call.toy], call.make()
    batches = max(1, round(call.repeats * sizes["repeats"]["batches"]))
    rounds = max(1, round(min(call.repeats, 1) * sizes["timing"]["rounds"]))
    size = sizes["repeats"]["size"]
    seeds = [zlib.crc32(f"{seed} {i} {name}".encode()) for i in range(batches)]
    estimates = np.concatenate([batch(size, one) for one in seeds])
    exact = np.array(toy.exact)
    expected = exact if call.unbiased else None
    found = measurement(estimates, exact, expected, magnitude=toy.size)
    size = sizes["timing"]["size"]
    watch = timed({name: partial(batch, size, seed)}, seed, rounds)
    return found, {name: float(np.median(watch.wall)) / size * 1e6}


def _nothing(note: str) -> Row:
    """The columns of a gradient that was not computed."""
    names = ("mean", "relative_bias", "variance", "variance_se", "exact_variance", "variance_z")
    return dict.fromkeys((*names, "bias_z", "repeats")) | {
        "note": note,
        "time_us": None,
        "variance_x_time": None,
    }


def steps(sizes: Sizes, seed: int) -> Mapping[str, Step]:
    """A step for each call."""
    return {
        name: partial(_rows, name, seed, sizes)
        for name, call in CALLS.items()
        if call.toy in sizes["toys"]
    }


SUITE = Suite(
    name="peers",
    summary="the same gradients by other packages: variance, time and bias",
    full={
        "toys": list(TOYS),
        "repeats": {"batches": 20, "size": 2000, "at_once": 2000},
        "timing": {"rounds": 21, "size": 2000, "at_once": 2000},
    },
    quick={
        "toys": ["mixture"],
        "repeats": {"batches": 2, "size": 2000, "at_once": 2000},
        "timing": {"rounds": 3, "size": 2000, "at_once": 2000},
    },
    steps=steps,
    figures=figures,
    tables={"peers": tables.calls},
    shown=lambda _: True,
    default=False,
    terminal=tables.terminal,
)
