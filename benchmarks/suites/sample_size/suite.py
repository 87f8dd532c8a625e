"""Bayesian logistic regression by the number of samples, as in Mohamed et al. (2020), section 9.

The data and the training of the suite `logistic_regression`, with 1 to 100 posterior samples for a
gradient. Variances are measured along ONE run, at the same parameters, on all the data: of one
gradient, summed over its 62 components, in nats^2. Training is done anew for each estimator and
number of samples, several seeds each: the exact ELBO on all the data, in nats. A measure-valued
gradient evaluates f at 93 more points for each sample, so that it is put to fewer samples.
"""

from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks._measuring.measure import measure
from benchmarks._measuring.timing import microseconds
from benchmarks._models import logistic as model
from benchmarks._models import logistic_training as training
from benchmarks._models.logistic_training import Problem, gradient
from benchmarks._suite import Row, Sizes, Step, Suite, step_key

from . import tables
from .claims import claims
from .entries import ENTRIES, cases
from .figures import figures


def _problem(name: str, n: int, stage: int, seed: int, sizes: Sizes) -> Problem:
    # The run along which the suite `logistic_regression` measures its variances.
    states = training.run(training.REFERENCE, seed, sizes["num_steps"], sizes["every"], 50)
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
    tables={"sample_size": tables.samples},
    claims=claims,
    shown=lambda row: row["step"] in (100, 5000),
    default=False,
)
