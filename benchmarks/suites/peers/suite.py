"""The same five toys by this library and by others: variance, time, and bias beside the exact one.

Each package is called as its users call it, with the same number of samples. Not all of these
calls are made for such a gradient: where one returns something else, the table shows what. A call
that raises has a row that says so; a package that is not installed is skipped with a line.
"""

import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

from benchmarks._measuring.measure import Measurement, measure, moments
from benchmarks._measuring.timing import microseconds, seconds
from benchmarks._packages.call import SAMPLES, missing, version
from benchmarks._packages.toys import TOYS
from benchmarks._reporting.markdown import markdown, short
from benchmarks._reporting.plots import PALETTE, panels
from benchmarks._suite import Results, Row, Sizes, Step, Suite, step_key

from .calls import CALLS

HEADER = ("call", "exact", "mean found", "rel bias", "bias z", "variance", "µs")
LEAST = 0.1


@partial(jax.tree_util.register_dataclass, data_fields=["params"], meta_fields=["name"])
@dataclass(frozen=True)
class Problem:
    """A call, and where the gradient is taken."""

    name: str
    params: Any


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate by the call of that name."""
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
    """Gradients that are vectorised by jax.vmap, and compiled together."""
    call = CALLS[name]
    toy = TOYS[call.toy]
    problem = Problem(name, jnp.array(toy.params))
    options: dict[str, Any] = {"magnitude": toy.size, "biased": not call.unbiased}
    exact = {"all": np.array(toy.exact)}
    key = step_key(seed, name)
    found = measure(gradient, problem, key, exact, **options, **sizes["repeats"])
    return found["all"], microseconds(gradient, {name: problem}, seed, **sizes["timing"])


def _of_torch(name: str, seed: int, sizes: Sizes) -> tuple[Measurement, dict[str, float]]:
    """Gradients that are vectorised by the call itself, as many at once."""
    call = CALLS[name]
    toy, batch = TOYS[call.toy], call.make()
    batches = max(1, round(call.repeats * sizes["repeats"]["batches"]))
    rounds = max(1, round(min(call.repeats, 1) * sizes["timing"]["rounds"]))
    size = sizes["repeats"]["size"]
    seeds = [zlib.crc32(f"{seed} {i} {name}".encode()) for i in range(batches)]
    estimates = np.concatenate([batch(size, one) for one in seeds])
    exact = np.array(toy.exact)
    expected = exact if call.unbiased else None
    found = moments(estimates, exact, expected, magnitude=toy.size)
    size = sizes["timing"]["size"]
    took = seconds({name: partial(batch, size, seed)}, seed, rounds=rounds)
    return found, {name: took[name] / size * 1e6}


def _nothing(note: str) -> Row:
    """What a row holds of a gradient that was not computed."""
    names = ("mean", "relative_bias", "variance", "variance_se", "exact_variance", "variance_z")
    return dict.fromkeys((*names, "bias_z", "repeats")) | {
        "note": note,
        "time_us": None,
        "variance_x_time": None,
    }


def steps(sizes: Sizes, seed: int) -> Mapping[str, Step]:
    """One for each call."""
    return {
        name: partial(_rows, name, seed, sizes)
        for name, call in CALLS.items()
        if call.toy in sizes["toys"]
    }


def table(results: Results) -> str:
    """The same gradients by this library and by others, 10 samples each."""
    lines = [("toy", "package", *HEADER), ["---"] * 5 + ["---:"] * 4]
    for row in results["rows"]:
        package = f"{row['package']} {row['version'] or ''}".strip()
        lines.append((row["toy"], package, row["call"], *_cells(row)))
    return markdown(lines)


def _cells(row: Row) -> list[str]:
    exact = _numbers(row["exact_gradient"])
    if row["note"] is not None:
        return [exact, row["note"], "", "", "", ""]
    cells = [exact, _numbers(row["mean"]), format(row["relative_bias"], ".0%"), _z(row["bias_z"])]
    return [*cells, short(row["variance"]), short(row["time_us"])]


def _z(z: float) -> str:
    return format(z, ".1f") if abs(z) < 1000 else "> 1000" if z > 0 else "< -1000"


def _numbers(values: list[float]) -> str:
    # Rounded first: what rounds to 0 has no sign.
    return ", ".join(format(round(value, 4) + 0.0, ".3g") for value in values)


def terminal(results: Results) -> Table:
    """All rows, narrow enough for 80 columns; the exact gradient stands in the head of each toy."""
    found = Table(title=f"peers, {SAMPLES} samples each", box=box.SIMPLE_HEAD, show_edge=False)
    found.add_column("package and call", max_width=32)
    found.add_column("mean found", max_width=24)
    for name in HEADER[3:]:
        found.add_column(name, justify="right", no_wrap=True)
    toy = ""
    for row in results["rows"]:
        if toy != row["toy"]:
            toy = row["toy"]
            exact = f"exact: {_numbers(row['exact_gradient'])}"
            found.add_row(f"{toy}: {TOYS[toy].about}", exact, style="bold")
        found.add_row(f"{row['package']} {row['call']}", *_cells(row)[1:])
    return found


def figures(results: Results) -> Mapping[str, Figure]:
    """The error of one gradient relative to the exact one, bias and noise together."""
    rows = [row for row in results["rows"] if row["note"] is None]
    figure, axes = panels(1, 1, size=(6.5, 0.19 * len(rows) + 0.6))
    axis = axes[0, 0]
    for i, row in enumerate(rows):
        norm = np.sum(np.square(row["exact_gradient"]))
        error = np.sqrt(row["relative_bias"] ** 2 + row["variance"] / norm)
        # What is exact stands at the edge.
        error = max(error, LEAST)
        color = PALETTE[list(TOYS).index(row["toy"]) % len(PALETTE)]
        wrong = abs(row["bias_z"]) > 6
        axis.plot(error, i, "X" if wrong else "o", color=color, ms=8 if wrong else 4)
    labels = [f"{row['toy']}: {row['package']} {row['call']}" for row in rows]
    axis.set_yticks(range(len(rows)), labels)
    axis.set_ylim(len(rows) - 0.4, -0.6)
    axis.set(xscale="log", xlim=(LEAST, 3))
    axis.set_xticks([0.1, 0.2, 0.5, 1, 2], ["0.1", "0.2", "0.5", "1", "2"])
    axis.set_xticks([], minor=True)
    figure.supxlabel("root mean squared error / norm of the gradient; crosses: biased", size=9)
    return {"peers": figure}


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
    shown=lambda _: True,
    default=False,
    table=terminal,
)
