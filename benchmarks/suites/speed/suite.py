"""Speed and memory of the library, relative to hand-written code and other packages.

(a) Estimators against the best of several hand-written spellings with the same key for each
sample, and beside it against one that draws all samples from one key. All samples at once, so that
the two programs can be compared. (b) Many samples: the library as it is by default, in chunks,
against the obvious jit with all of them at once; and the default size of chunks against others. (c)
What one call of a jitted loss takes more than one written by hand. (d) Other packages, where they
are installed. (e) Draws of categories. (f) Packages on PyTorch. (g) How long programs of many
choices take to compile, in CPU time everywhere. The two programs of a row take turns; `ratio` is
the median over the rounds of the library's time by the other's, `q25` and `q75` its quartiles.
Times are CPU time on a CPU, and wall time on an accelerator. Flops and temporary bytes are those of
the compiled program, whatever the machine is doing.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax

import scorefn as sf
from benchmarks._packages.call import module
from benchmarks._suite import Sizes, Step, Suite

from . import cases, chunks, compiling, tables, vae
from . import torch as on_torch
from .cases import Case
from .figures import figures
from .hand import by_hand
from .many import ESTIMATORS, many, quadratic
from .memory import growth_bytes
from .peers import draws, others
from .row import held, row, timed
from .timing import compiled, interleaved


def _hand_rows(name: str, case: Case, seed: int, sizes: Sizes) -> dict[str, Any]:
    """Against the hand-written spelling that takes the least time, the first one, and in bulk."""
    first = next(iter(case.hand))
    programs = {"library": case.library, **case.hand}
    if case.bulk is not None:
        programs["bulk"] = case.bulk
    found = {at: compiled(program, *case.arguments) for at, program in programs.items()}
    times = interleaved({at: p.run for at, p in found.items()}, seed, **sizes["timing"])
    best = min(case.hand, key=lambda at: times[at].time_us)
    rows = [
        row(
            part,
            name,
            case.samples,
            at,
            **timed(times["library"], times[at]),
            **held(found["library"], found[at]),
        )
        for part, at in {"hand": best, "alike": first, "bulk": "bulk"}.items()
        if at in found
    ]
    operations = {at: found[at].operations for at in ("library", first)}
    return {"rows": rows, "curves": {name: operations}}


def _many_rows(estimator: str, samples: int, seed: int, sizes: Sizes) -> dict[str, Any]:
    size, most = sizes["size"], sizes["most_bytes"]
    case = many(estimator, size, samples)
    ours, theirs = (
        compiled(program, *case.arguments) for program in (case.library, case.hand["obvious"])
    )
    name = f"{estimator}, Normal, D = {size}"
    # Of loops the compiler counts one round.
    temp = {n: value for n, value in held(ours, theirs).items() if n.endswith("temp_bytes")}
    if theirs.temp_bytes > most:
        note = f"not run: unchunked needs more than {most / 2**30:g} GiB"
        return {"rows": [row("many", name, samples, "unchunked jit", **temp, note=note)]}
    programs = {"ours": ours.run, "theirs": theirs.run}
    times = interleaved(programs, seed, **sizes["timing"])
    grown = {
        f"{whose}growth_bytes": growth_bytes(estimator, size, samples, way)
        for whose, way in {"": "library", "other_": "hand"}.items()
        if samples in sizes["grown"]
    }
    found = {**timed(times["ours"], times["theirs"]), **temp, **grown}
    return {"rows": [row("many", name, samples, "unchunked jit", **found)]}


def _call_rows(seed: int, sizes: Sizes) -> dict[str, Any]:
    """The time of one call of a loss that computes next to nothing."""
    problem = cases.normal(quadratic, 1)
    estimator = sf.ScoreFunction(sf.LeaveOneOut())
    case = cases.score_function(problem, 2)
    params, key = case.arguments
    handed = jax.jit(
        lambda params, key, estimator: cases.library(problem, estimator, 2)(params, key)
    )
    ours, theirs = jax.jit(case.library), jax.jit(next(iter(case.hand.values())))
    programs = {
        "estimator closed over": lambda: ours(params, key),
        "estimator as an argument": lambda: handed(params, key, estimator),
        "hand": lambda: theirs(params, key),
    }
    times = interleaved(programs, seed, **sizes["timing"])
    return {
        "rows": [
            row("call", name, 2, "jit by hand", **timed(times[name], times["hand"]))
            for name in list(programs)[:2]
        ]
    }


def _monitor_rows(seed: int, sizes: Sizes) -> dict[str, Any]:
    """The time of a monitor, relative to the gradient of the autoencoder that it watches."""
    case = vae.leave_one_out(sizes["images"], 20, 2)
    alone = compiled(case.library, *case.arguments)
    watched = {"head": lambda gradient: gradient["encoder"][-1], "all weights": lambda g: g}

    def step(part: Callable[[Any], Any]) -> Callable[..., Any]:
        def run(monitor: sf.GradientSNR, params: Any, key: jax.Array) -> Any:
            gradient = case.library(params, key)
            return gradient, monitor.update(part(gradient))

        return run

    both = {
        name: compiled(step(part), sf.GradientSNR.like(part(case.params)), *case.arguments)
        for name, part in watched.items()
    }
    programs = {"alone": alone.run, **{name: program.run for name, program in both.items()}}
    times = interleaved(programs, seed, **sizes["timing"])
    return {
        "rows": [
            row(
                "monitor",
                f"VAE step with GradientSNR, {name}",
                2,
                "the step alone",
                **timed(times[name], times["alone"]),
                **held(program, alone),
            )
            for name, program in both.items()
        ]
    }


def _peer_rows(part: str, name: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    imported, against, make = {"peers": others, "draws": draws}[part](sizes)[name]
    if module(imported) is None:
        note = f"skipped: there is no {imported} here"
        return {"rows": [row(part, name, 0, against, note=note)]}
    peer = make()
    ours, theirs = (compiled(program, *peer.arguments) for program in (peer.ours, peer.theirs))
    times = interleaved({"ours": ours.run, "theirs": theirs.run}, seed, **sizes["timing"])
    found = {**timed(times["ours"], times["theirs"]), **held(ours, theirs)}
    return {"rows": [row(part, name, peer.samples, against, **found)]}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """A step for each case, whose programs take turns."""
    plan: dict[str, Step] = {}
    for name, make in by_hand(sizes["samples"]).items():
        if name in sizes["cases"] or not sizes["cases"]:
            plan[name] = _made(_hand_rows, name, make, seed, sizes)
    for estimator in ESTIMATORS:
        for samples in sizes["many"]:
            plan[f"{estimator} {samples}"] = partial(_many_rows, estimator, samples, seed, sizes)
    for case in chunks.cases(sizes):
        plan[f"chunks {' '.join(map(str, case))}"] = partial(chunks.rows, *case, seed, sizes)
    plan["call"] = partial(_call_rows, seed, sizes)
    plan["monitor"] = partial(_monitor_rows, seed, sizes)
    for part, found in {"peers": others, "draws": draws}.items():
        for name in found(sizes):
            plan[f"{part} {name}"] = partial(_peer_rows, part, name, seed, sizes)
    for name in on_torch.cases(sizes):
        plan[f"torch {name}"] = partial(on_torch.rows, name, seed, sizes)
    for name in compiling.PROGRAMS:
        plan[f"compile {name}"] = partial(compiling.rows, name, *sizes["compile"])
    return plan


def _made(
    rows: Callable[..., dict[str, Any]], name: str, make: Callable[[], Case], *rest: Any
) -> Step:
    return lambda: rows(name, make(), *rest)


SUITE = Suite(
    name="speed",
    summary="against hand-written code and other packages: time, flops and memory",
    full={
        "samples": 1000,
        "cases": [],
        "size": 100,
        "many": [100, 10_000, 30_000, 1_000_000, 10_000_000],
        "grown": [1_000_000],
        "most_bytes": 4 * 2**30,
        "chunked": [100, 1000, 3000, 10_000, 30_000, 100_000, 1_000_000],
        "chunked_sizes": [1, 10, 100, 1000],
        "chunk_sizes": [1000, 5000],
        "numbers": 30_000_000,
        "chunk_timing": {"rounds": 21, "least_seconds": 3e-3, "most_seconds": 1.0},
        "images": 100,
        "jacobians": [[100, 1000], [1000, 100]],
        "values": [10, 100, 1000],
        "steps": 200,
        "autoencoders": [[100, 64, 64, 20], [128, 1024, 512, 200]],
        "compile": [20, 3],
        "timing": {"rounds": 41, "least_seconds": 3e-3, "most_seconds": 10.0},
    },
    quick={
        "samples": 64,
        "cases": ["Pathwise, Normal, D = 10", "DisARM, Bernoulli, D = 20"],
        "size": 10,
        "many": [100, 200_000],
        "grown": [200_000],
        "most_bytes": 2**20,
        "chunked": [400],
        "chunked_sizes": [2],
        "chunk_sizes": [200],
        "numbers": 1000,
        "chunk_timing": {"rounds": 1, "least_seconds": 1e-4, "most_seconds": 0.1},
        "images": 4,
        "jacobians": [[4, 8], [8, 4]],
        "values": [4],
        "steps": 3,
        "autoencoders": [[4, 64, 8, 4]],
        "compile": [2, 1],
        "timing": {"rounds": 3, "least_seconds": 1e-4, "most_seconds": 1.0},
    },
    steps=steps,
    figures=figures,
    tables={
        "speed_pay": tables.pay,
        "speed_hand": tables.hand,
        "speed_many": tables.many,
        "speed_chunks": tables.chunks,
        "speed_beside": tables.beside,
        "speed_torch": tables.on_torch,
        "speed_draws": tables.draws,
        "speed_compile": tables.compiling,
    },
    # The rest runs on the host, or needs packages that were not installed there.
    accelerator_tables=("speed_hand", "speed_many", "speed_beside", "speed_draws"),
    shown=lambda found: found["part"] != "alike",
    default=False,
    terminal=tables.terminal,
)
