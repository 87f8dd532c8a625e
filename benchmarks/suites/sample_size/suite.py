"""Bayesian logistic regression by the number of samples, as in Mohamed et al. (2020), section 9.

The data and the training of the suite `logistic_regression`, with 1 to 100 posterior samples for a
gradient. Variances are measured along ONE run, at the same parameters, on all the data: of one
gradient, summed over its 62 components, in nats^2. Training is done anew for each estimator and
number of samples, several seeds each: the exact ELBO on all the data, in nats. A measure-valued
gradient evaluates f at 93 more points for each sample, so that it is put to fewer samples.
"""

from functools import cache, partial
from typing import Any

import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import scorefn as sf
from benchmarks._measuring.measure import measure
from benchmarks._measuring.timing import microseconds
from benchmarks._models import logistic as model
from benchmarks._models import logistic_training as training
from benchmarks._models.logistic_training import Entry, Problem, State, gradient
from benchmarks._reporting.plots import Look, legend_below, looks, panels
from benchmarks._suite import Results, Row, Sizes, Step, Suite, step_key

# Features and a bias, each with a mean and a scale.
FACTORS = 31
ENTRIES = {name: training.ENTRIES[name] for name in ("MovingAverage", "LeaveOneOut", "Pathwise")}
# Coupled: of each factor two points along the mean, and one more along the scale.
ENTRIES["MeasureValued"] = Entry(
    lambda *_: sf.MeasureValued(), evaluations=1 + 3 * FACTORS, posterior=model.readable
)


def cases(sizes: Sizes) -> list[tuple[str, int]]:
    """Each estimator with each number of samples that it is put to."""
    return [
        (name, n)
        for name, entry in ENTRIES.items()
        for n in sizes["samples"]
        if entry.least <= n and entry.evaluations * n <= sizes["most_evaluations"]
    ]


@cache
def _reference(seed: int, num_steps: int, every: int) -> State:
    """The run of the suite `logistic_regression` along which its variances are measured."""
    key = step_key(seed, "train")
    return training.train(
        training.ENTRIES[training.REFERENCE],
        model.breast_cancer(),
        key,
        num_steps=num_steps,
        every=every,
        num_samples=50,
    )


def _problem(name: str, n: int, stage: int, seed: int, sizes: Sizes) -> Problem:
    states = _reference(seed, sizes["num_steps"], sizes["every"])
    state = jax.tree.map(lambda leaf: leaf[stage // sizes["every"]], states)
    return Problem(state, model.breast_cancer(), ENTRIES[name], n)


def _row(name: str, n: int, stage: int, seed: int, sizes: Sizes) -> dict[str, list[Row]]:
    problem = _problem(name, n, stage, seed, sizes)
    # Few samples are cheap, and their gradients far from normal.
    repeats = dict(sizes["repeats"])
    repeats["batches"] *= max(1, sizes["many"] // n)
    measured = measure(
        gradient,
        problem,
        step_key(seed, f"step {stage} {name}, {n}"),
        {"posterior": model.exact_gradient(problem.state.posterior, problem.data)},
        **repeats,
    )["posterior"]
    row = {
        "step": stage,
        "estimator": name,
        "samples": n,
        "unbiased": True,
        "evaluations": n * ENTRIES[name].evaluations,
        **measured.columns(),
        "timing": f"{name}, {n}",
    }
    return {"rows": [row]}


def _times(seed: int, sizes: Sizes) -> dict[str, dict[str, float]]:
    problems = {f"{name}, {n}": _problem(name, n, 0, seed, sizes) for name, n in cases(sizes)}
    return {"times": microseconds(gradient, problems, seed, **sizes["timing"])}


def _curve(name: str, n: int, seed: int, sizes: Sizes) -> dict[str, Any]:
    # All runs of a seed see the same minibatches.
    keys = jax.random.split(step_key(seed, "runs"), sizes["seeds"])
    run = partial(
        training.train,
        ENTRIES[name],
        model.breast_cancer(),
        num_steps=sizes["num_steps"],
        every=sizes["every"],
        num_samples=n,
    )
    # All seeds side by side.
    elbo, _ = jax.vmap(training.evaluate, (0, None))(jax.vmap(run)(keys), model.breast_cancer())
    at = list(range(0, sizes["num_steps"] + 1, sizes["every"]))
    found = {"step": at, "elbo": np.asarray(elbo, np.float64).tolist()}
    return {"curves": {f"{name}, {n}": found}}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """The rows of each stage of one run, the times, then the training runs."""
    plan: dict[str, Step] = {}
    for stage in sizes["stages"]:
        for name, n in cases(sizes):
            plan[f"step {stage} {name}, {n}"] = partial(_row, name, n, stage, seed, sizes)
    # All of it is compiled by now.
    plan["timing"] = partial(_times, seed, sizes)
    for name, n in cases(sizes):
        plan[f"train {name}, {n}"] = partial(_curve, name, n, seed, sizes)
    return plan


def last_elbo(results: Results, name: str, n: int) -> np.ndarray:
    """At the end of training, [seeds]; nan for a run that went astray."""
    curve = results["curves"][f"{name}, {n}"]
    return np.array([run[-1] for run in curve["elbo"]], float)


def figures(results: Results) -> dict[str, Figure]:
    """The variance and the ELBO by samples, and the ELBO by evaluations of f."""
    figure, axes = panels(1, 3)
    variance, elbo, cost = axes.flat
    last, drawn = results["settings"]["stages"][-1], looks(ENTRIES)
    for name, look in drawn.items():
        rows = [r for r in results["rows"] if r["estimator"] == name and r["step"] == last]
        samples = [row["samples"] for row in rows]
        look.curve(variance, samples, [row["variance"] for row in rows])
        look.points(variance, samples, rows)
        runs = np.array([last_elbo(results, name, n) for n in samples])
        _band(elbo, look, samples, runs)
        _band(cost, look, [row["evaluations"] for row in rows], runs)
    variance.set(title=f"variance at step {last} of one run", xlabel="samples", yscale="log")
    variance.set_ylabel("nats², all data, 62 components")
    end = results["settings"]["num_steps"]
    elbo.set(title=f"ELBO after {end} steps of training", xlabel="samples", ylabel="nats, all data")
    cost.set(title=f"ELBO after {end} steps of training", xlabel="evaluations of f for a step")
    for axis in axes.flat:
        axis.set_xscale("log")
    seeds = results["settings"]["seeds"]
    title = f"± 3 standard errors; ELBO: median and range of {seeds} seeds, where none went astray"
    legend_below(figure, drawn, title, columns=4)
    return {"sample_size": figure}


def _band(axis: Axes, look: Look, x: list[int], runs: np.ndarray) -> None:
    """The median of the seeds, runs [x, seeds], and their range."""
    axis.plot(x, np.median(runs, axis=1), color=look.color, marker=look.marker)
    axis.fill_between(x, runs.min(axis=1), runs.max(axis=1), color=look.color, alpha=0.15)


SUITE = Suite(
    name="sample_size",
    summary="Bayesian logistic regression by the number of samples: variance, and training",
    full={
        "samples": [1, 5, 10, 20, 50, 100],
        "many": 20,
        "most_evaluations": 2000,
        "num_steps": 5000,
        "every": 500,
        "stages": [500, 5000],
        "seeds": 5,
        # Of one size, so that what is measured is compiled once.
        "repeats": {"batches": 20, "size": 25, "at_once": 1},
        "timing": {"rounds": 7, "size": 25},
    },
    quick={
        "samples": [1, 5],
        "many": 5,
        "most_evaluations": 100,
        "num_steps": 100,
        "every": 50,
        "stages": [100],
        "seeds": 2,
        "repeats": {"batches": 5, "size": 20, "at_once": 1},
        "timing": {"rounds": 3, "size": 20},
    },
    steps=steps,
    figures=figures,
    shown=lambda row: row["step"] in (100, 5000),
    default=False,
)
