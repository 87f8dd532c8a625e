"""Variational inference: what takes noise out of the gradient of the ELBO, and where it does not.

(a) A diagonal Gaussian posterior of a Bayesian logistic regression (breast cancer), whose exact
gradient is a one-dimensional integral for each case; and of the weights of two small neural
networks (diabetes, wine), where a long run stands for the exact gradient. The variance of one
gradient along the mean and along the log of the scale, at three stages of one training run, for
every form of the ELBO and every technique around its estimator that can be put together; all have
equally many draws. ``relative_variance`` is in units of the same form without a technique, and
``effect`` says whether that helps or hurts, beyond 4 standard errors. (b) The same with minibatches
of 32 cases, over minibatches and draws. (c) Training curves, three seeds each. (d) The
signal-to-noise ratio of importance-weighted bounds, by their number of samples.
"""

from functools import partial
from typing import Any

import numpy as np

from benchmarks._suite import Ranking, Sizes, Step, Suite, step_key

from . import bounds, minibatch, tables, training
from . import rows as combinations
from .claims import claims
from .figures import figures
from .stages import Stage, run
from .targets import TARGETS


def _curves(target: str, name: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    training_sizes = sizes["training"]
    num_steps, every, draws, seeds = (
        training_sizes[key] for key in ("num_steps", "every", "draws", "seeds")
    )
    states = run(target, name, seed, seeds, num_steps, every, draws)
    elbo = training.evaluate(target, states, step_key(seed, "evaluate"))
    curve = {
        "step": list(range(0, num_steps + 1, every)),
        "elbo": np.asarray(elbo, np.float64).tolist(),
    }
    return {"curves": {f"{target}: {name}": curve}}


def _stage(target: str, step: int, seed: int, sizes: Sizes) -> Stage:
    training_sizes = sizes["training"]
    return Stage(
        target=target,
        step=step,
        seed=seed,
        num_steps=training_sizes["num_steps"],
        every=training_sizes["every"],
        trained_with=training_sizes["draws"],
        seeds=training_sizes["seeds"],
        draws=sizes[target]["draws"],
        tuning=sizes[target]["tuning"],
        long_run=sizes["long_run"],
    )


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """The times, the rows and the training runs of each target; last, the bounds."""
    plan: dict[str, Step] = {}
    for target in TARGETS:
        stages = [_stage(target, step, seed, sizes) for step in sizes["stages"]]
        own, forms = sizes[target], combinations.forms(target)
        plan[f"{target} timing"] = partial(combinations.times, stages[0], own["timing"])
        for stage in stages:
            for form in forms:
                step = f"{target} at {stage.step} {form}"
                plan[step] = partial(combinations.rows, stage, form, own["repeats"])
        for name in training.runs(target):
            plan[f"{target} train {name}"] = partial(_curves, target, name, seed, sizes)
    stages = [_stage("logistic", step, seed, sizes) for step in sizes["stages"]]
    own = sizes["logistic"]
    plan["minibatches timing"] = partial(minibatch.times, stages[0], own["timing"])
    for stage in stages:
        step = f"minibatches at {stage.step}"
        plan[step] = partial(minibatch.rows, stage, own["repeats"])
    plan["bounds timing"] = partial(bounds.times, seed, sizes["bounds"])
    for num_samples in sizes["bounds"]["num_samples"]:
        for name in bounds.NAMES:
            step = f"bound of {num_samples} {name}"
            key = step_key(seed, step)
            plan[step] = partial(bounds.rows, name, num_samples, seed, key, sizes["bounds"])
    return plan


SUITE = Suite(
    name="vi",
    summary="variational inference: forms of the ELBO, control variates and sampling schemes",
    full={
        "stages": [0, 100, 2000],
        "long_run": 100,
        "logistic": {
            "draws": 64,
            "tuning": 500,
            "repeats": {"batches": 12, "size": 50, "at_once": 1},
            "timing": {"rounds": 5, "size": 50},
        },
        "diabetes": {
            "draws": 32,
            "tuning": 150,
            "repeats": {"batches": 15, "size": 20, "at_once": 1},
            "timing": {"rounds": 3, "size": 20},
        },
        "wine": {
            "draws": 32,
            "tuning": 150,
            "repeats": {"batches": 15, "size": 20, "at_once": 1},
            "timing": {"rounds": 3, "size": 20},
        },
        "training": {"num_steps": 2000, "every": 50, "draws": 8, "seeds": 3},
        "bounds": {
            "num_samples": [1, 2, 4, 8, 16, 32, 64, 128, 256],
            "reference": 400_000,
            "repeats": {"batches": 10, "size": 10_000, "at_once": 1000},
            "timing": {"rounds": 11, "size": 10_000},
        },
    },
    quick={
        "stages": [0, 100],
        "long_run": 20,
        "logistic": {
            "draws": 16,
            "tuning": 50,
            "repeats": {"batches": 10, "size": 20, "at_once": 1},
            "timing": {"rounds": 3, "size": 20},
        },
        "diabetes": {
            "draws": 8,
            "tuning": 50,
            "repeats": {"batches": 5, "size": 20, "at_once": 1},
            "timing": {"rounds": 3, "size": 20},
        },
        "wine": {
            "draws": 8,
            "tuning": 50,
            "repeats": {"batches": 5, "size": 20, "at_once": 1},
            "timing": {"rounds": 3, "size": 20},
        },
        "training": {"num_steps": 100, "every": 50, "draws": 8, "seeds": 2},
        "bounds": {
            "num_samples": [1, 16],
            "reference": 50_000,
            "repeats": {"batches": 2, "size": 10_000, "at_once": 1000},
            "timing": {"rounds": 3, "size": 10_000},
        },
    },
    steps=steps,
    figures=figures,
    rankings=[
        Ranking(
            "techniques, logistic regression (means)",
            {"target": "logistic", "form": "Pathwise", "parameter": "mean", "at": 2000},
            {"Antithetic": 1.0, "QuadraticSurrogate, learned": 1.0, "QuasiMonteCarlo": 1.0},
        ),
        Ranking(
            "techniques, network on diabetes (means)",
            {"target": "diabetes", "form": "Pathwise", "parameter": "mean", "at": 2000},
            {"QuasiMonteCarlo": 1.0},
        ),
        Ranking(
            "techniques, network on wine (means)",
            {"target": "wine", "form": "Pathwise", "parameter": "mean", "at": 2000},
            {"QuasiMonteCarlo": 1.0},
        ),
        # All data are no choice where there are many more than the 569 cases here.
        Ranking(
            "techniques, minibatches of 32 (means)",
            {"target": "minibatches", "form": "Pathwise", "parameter": "mean", "at": 2000},
            {"MinibatchControlVariate": 1.05},
            without=("all data, plain",),
        ),
    ],
    tables={
        "vi_techniques": tables.techniques,
        "vi_forms": tables.forms,
        "vi_networks": tables.networks,
        "vi_minibatches": tables.minibatches,
        "vi_harm": tables.harm,
        "vi_training": tables.training,
        "vi_bounds": tables.bounds,
    },
    claims=claims,
    shown=lambda row: (
        (row["target"], row["form"], row["at"] > 0) == ("logistic", "Pathwise", True)
        and row["parameter"] == "mean"
    ),
    default=False,
)
