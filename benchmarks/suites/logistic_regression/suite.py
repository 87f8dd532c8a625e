"""Bayesian logistic regression on the breast-cancer data: the experiment of Mohamed et al. (2020).

Settings of the paper, section 9.2: N(0, I) prior, diagonal Gaussian posterior that starts as the
prior, closed-form KL, minibatches of 32, 50 posterior samples, SGD with the step
1e-3 cos(pi/2 t/5000) for 5000 steps. Each estimator trains a posterior of its own: these are the
curves, ELBO (exact, in nats) and accuracy on all the data. The variances are all measured along
ONE run, at the same parameters, on all the data: what is left is the noise of the estimator. They
are of the gradient with 50 samples, summed over its 62 components, in nats^2. The exact gradient,
for the bias, is a one-dimensional integral for each case.
"""

from functools import partial
from typing import Any

import jax
import numpy as np

from benchmarks._measuring.measure import measure
from benchmarks._measuring.timing import microseconds
from benchmarks._models import logistic as model
from benchmarks._models.logistic_training import (
    ENTRIES,
    REFERENCE,
    Problem,
    State,
    evaluate,
    gradient,
    run,
)
from benchmarks._suite import Ranking, Row, Sizes, Step, Suite, step_key

from . import tables
from .claims import claims
from .figures import figures


def _run(name: str, seed: int, sizes: Sizes) -> State:
    return run(name, seed, sizes["num_steps"], sizes["every"], sizes["num_samples"])


def _problem(name: str, stage: int, seed: int, sizes: Sizes) -> Problem:
    """The gradient of one estimator where the reference run is after so many steps."""
    states = _run(REFERENCE, seed, sizes)
    state = jax.tree.map(lambda leaf: leaf[stage // sizes["every"]], states)
    return Problem(state, model.breast_cancer(), ENTRIES[name], sizes["num_samples"])


def _curves(name: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    values = evaluate(_run(name, seed, sizes), model.breast_cancer())
    elbo, accuracy = (np.asarray(value, np.float64).tolist() for value in values)
    steps = [i * sizes["every"] for i in range(len(elbo))]
    return {"curves": {name: {"step": steps, "elbo": elbo, "accuracy": accuracy}}}


def _row(name: str, stage: int, seed: int, key: jax.Array, sizes: Sizes) -> dict[str, list[Row]]:
    problem = _problem(name, stage, seed, sizes)
    measured = measure(
        gradient,
        problem,
        key,
        {"posterior": model.exact_gradient(problem.state.posterior, problem.data)},
        **sizes["repeats"],
    )["posterior"]
    row = {
        "step": stage,
        "estimator": name,
        "unbiased": problem.entry.estimator(problem.state, problem.data).unbiased,
        "evaluations": sizes["num_samples"] + problem.entry.extra_evaluations,
        **measured.columns(),
        "timing": name,
    }
    return {"rows": [row]}


def _times(seed: int, sizes: Sizes) -> dict[str, dict[str, float]]:
    problems = {name: _problem(name, 0, seed, sizes) for name in ENTRIES}
    return {"times": microseconds(gradient, problems, seed, **sizes["timing"])}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """The times, a training run per estimator, and the rows of each stage."""
    plan: dict[str, Step] = {"timing": partial(_times, seed, sizes)}
    for name in ENTRIES:
        plan[f"train {name}"] = partial(_curves, name, seed, sizes)
    for stage in sizes["stages"]:
        for name in ENTRIES:
            step = f"step {stage} {name}"
            plan[step] = partial(_row, name, stage, seed, step_key(seed, step), sizes)
    return plan


SUITE = Suite(
    name="logistic_regression",
    summary="Bayesian logistic regression, UCI breast cancer: training, and variance at its stages",
    full={
        "num_steps": 5000,
        "every": 50,
        "stages": [0, 500, 5000],
        "num_samples": 50,
        "repeats": {"batches": 50, "size": 20, "at_once": 1},
        "timing": {"rounds": 41, "size": 20},
    },
    quick={
        "num_steps": 100,
        "every": 50,
        "stages": [0, 100],
        "num_samples": 50,
        "repeats": {"batches": 10, "size": 20, "at_once": 1},
        "timing": {"rounds": 5, "size": 20},
    },
    steps=steps,
    figures=figures,
    rankings=[
        Ranking("logistic regression, 50 draws", {"step": 5000}, {"Pathwise": 1.0}),
        Ranking(
            "the same, without the derivative of f",
            {"step": 5000},
            {"LeaveOneOut": 1.0, "MovingAverage": 1.0},
            without=("Pathwise",),
        ),
    ],
    tables={"logistic_regression": tables.variances},
    claims=claims,
    shown=lambda _: True,
)
