"""How fast: the library against hand-written code and other packages, and what programs hold.

(a) Estimators against the best of several hand-written spellings with the same key for each
sample, and beside it against one that draws all samples from one key. All samples at once, so that
the two programs can be compared. (b) Many samples: the library as it is by default, in chunks,
against the obvious jit with all of them at once. (c) What one call of a jitted loss takes more than
one written by hand. (d) Other packages, where they are installed. (e) Draws of categories. (f)
Packages on PyTorch. (g) How long programs of many choices take to compile, in CPU time everywhere.
The two programs of a row take turns; `ratio` is the median over the rounds of the library's time by
the other's, `q25` and `q75` its quartiles. Times are CPU time on a CPU, and wall time on an
accelerator. Flops and temporary bytes are those of the compiled program, whatever the machine is
doing.
"""

import itertools
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

import scorefn as sf
from benchmarks._models import logistic
from benchmarks._packages.call import module
from benchmarks._reporting.plots import panels
from benchmarks._suite import Results, Sizes, Step, Suite

from . import cases, compiling, peers, vae
from . import torch as on_torch
from .cases import Case
from .many import ESTIMATORS, many, quadratic
from .memory import growth_bytes
from .row import held, row, timed
from .tables import clock, terminal
from .timing import compiled, interleaved


def _square(bits: jax.Array) -> jax.Array:
    return jnp.sum(bits - 0.45) ** 2


def _codes(bits: int) -> jax.Array:
    return jnp.array(list(itertools.product([0.0, 1.0], repeat=bits)))


def _likelihood(weights: jax.Array) -> jax.Array:
    return logistic.cost(weights, logistic.breast_cancer())


def by_hand(n: int) -> dict[str, Callable[[], Case]]:
    """Estimators and problems of so many samples, by name."""
    normals = {f"Normal, D = {d}": partial(cases.normal, quadratic, d) for d in (1, 10, 100)}
    categories = {
        f"Categorical, 20 x {c}": partial(cases.categories, quadratic, 20, c) for c in (10, 100)
    }
    bits = partial(cases.bits, _square, 20)
    scored = {**normals, "Bernoulli, D = 20": bits, **categories}
    values = lambda: cases.categories(quadratic, 1, 100)  # noqa: E731
    few = partial(cases.normal, _likelihood, 31)
    images = min(n, 100)
    return {
        **{f"ScoreFunction, {at}": _later(cases.score_function, p, n) for at, p in scored.items()},
        **{f"Pathwise, {at}": _later(cases.pathwise, p, n) for at, p in normals.items()},
        "DisARM, Bernoulli, D = 20": _later(cases.disarm, bits, n),
        "REBAR, Bernoulli, D = 20": _later(cases.rebar, bits, n),
        "Enumerate, Bernoulli, D = 10": lambda: cases.enumerated(
            cases.bits(_square, 10), _codes(10)
        ),
        "Enumerate, Categorical, 1 x 100": lambda: cases.enumerated(
            values(), jnp.arange(100)[:, None]
        ),
        "ScoreFunction, logistic regression": _later(cases.score_function, few, min(n, 50)),
        "Pathwise, logistic regression": _later(cases.pathwise, few, min(n, 50)),
        f"ScoreFunction, VAE step, {images} images": partial(vae.leave_one_out, images, 20, 2),
        f"DisARM, VAE step, {images} images": partial(vae.disarm, images, 20),
    }


def _later(way: Callable[[Any, int], Case], problem: Callable[[], Any], n: int) -> Any:
    return lambda: way(problem(), n)


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
    """Of a loss that takes next to no time."""
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
    """What a monitor takes beside the gradient of an autoencoder that it watches."""
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


def others(sizes: Sizes) -> dict[str, tuple[str, str, Callable[[], peers.Peer]]]:
    """By name: what is imported for it, what it is measured against, and both programs."""
    images, (small, large) = sizes["images"], sizes["jacobians"]
    found: dict[str, tuple[str, str, Callable[[], peers.Peer]]] = {
        f"ScoreFunction, VAE step, {images} images": (
            "numpyro",
            "numpyro TraceGraph_ELBO",
            partial(peers.numpyro_vae, images, 20),
        )
    }
    for by_path, estimator in {True: "Pathwise", False: "ScoreFunction"}.items():
        make = partial(peers.tfp, 100, sizes["samples"], by_path=by_path)
        library = "tensorflow_probability.substrates.jax"
        found[f"{estimator}, Normal, D = 100"] = (library, "TFP monte_carlo.expectation", make)
        for size, samples in (small, large):
            make = partial(peers.optax_jacobians, size, samples, by_path=by_path)
            name = f"{estimator}, Normal, D = {size}, as Jacobians"
            found[name] = ("optax.monte_carlo", "optax.monte_carlo", make)
    return found


def draws(sizes: Sizes) -> dict[str, tuple[str, str, Callable[[], peers.Peer]]]:
    """Categories as this library draws them, and as another does; likewise."""
    return {
        f"{what}, Categorical, 20 x {values}": (
            "distrax",
            "distrax.Categorical",
            partial(peers.categories, values, sizes["samples"], gradient=gradient),
        )
        for values in sizes["values"]
        for gradient, what in {False: "draws alone", True: "ScoreFunction"}.items()
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
    """One for each case, whose programs take turns."""
    plan: dict[str, Step] = {}
    for name, make in by_hand(sizes["samples"]).items():
        if name in sizes["cases"] or not sizes["cases"]:
            plan[name] = _made(_hand_rows, name, make, seed, sizes)
    for estimator in ESTIMATORS:
        for samples in sizes["many"]:
            plan[f"{estimator} {samples}"] = partial(_many_rows, estimator, samples, seed, sizes)
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


def figures(results: Results) -> Mapping[str, Figure]:
    """Time and temporary memory by the number of samples."""
    figure, axes = panels(1, 2, size=(3.6, 2.8))
    time, memory = axes[0]
    for estimator, color in zip(ESTIMATORS, ("#0072B2", "#D55E00"), strict=True):
        rows = [
            found
            for found in results["rows"]
            if found["part"] == "many" and found["case"].startswith(estimator)
        ]
        samples = [found["samples"] for found in rows]
        for whose, line in {"": "o-", "other_": "s:"}.items():
            label = f"{estimator}, {'unchunked jit' if whose else 'scorefn'}"
            seconds = np.array([found[f"{whose}time_us"] for found in rows], float) / 1e6
            time.plot(samples, seconds, line, color=color, label=label)
            held = np.array([found[f"{whose}temp_bytes"] for found in rows], float) / 2**20
            memory.plot(samples, held, line, color=color)
    for axis, title in {
        time: f"{clock(results)} of one gradient, s",
        memory: "temporary memory, MiB",
    }.items():
        axis.set(title=title, xlabel="samples", xscale="log", yscale="log")
    figure.legend(loc="outside lower center", ncols=2, title=f"on {results['device']}")
    return {"speed": figure}


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
    shown=lambda found: found["part"] != "alike",
    default=False,
    table=terminal,
)
