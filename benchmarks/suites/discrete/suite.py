"""Discrete draws: four toys with exact gradients, and an autoencoder on digits.

(a) 200 separable bits (Titsias and Shi 2022); (b) 3 bits as one categorical variable, without
replacement (Liu et al. 2019, Kool et al. 2020); (c) 8 bits under a quadratic cost; (d) 1000
categories from flat to peaked; (e) a variational autoencoder of 10 bits on scikit-learn's digits,
whose exact gradient in the logits of 40 images is a sum over all codes, at stages of one training
run. Variances are of one gradient, summed over its components; ``relative_variance`` is in units of
leave-one-out with 2 samples, exactly. REBAR, RELAX and RODEO have their leaves learned first. Last,
the training curves of the autoencoder with 32 bits, three seeds for each estimator.
"""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from benchmarks._measuring.measure import measure
from benchmarks._measuring.timing import microseconds
from benchmarks._models import vae
from benchmarks._suite import Ranking, Row, Sizes, Step, Suite, step_key

from . import tables, training
from .claims import claims
from .figures import figures
from .tasks import TOYS, VAE_BITS, VAE_ENTRIES, Task, gradient, toy_task, vae_task


def _row(
    objective: str,
    at: float,
    name: str,
    make: Callable[[str], Task],
    key: jax.Array,
    repeats: Mapping[str, Any],
) -> dict[str, list[Row]]:
    task = make(name)
    unbiased = task.problem.estimator.unbiased
    tuning_key, key = jax.random.split(key)
    measured = measure(
        gradient,
        task.tuned(tuning_key),
        key,
        {"params": task.gradient},
        **repeats,
        biased=not unbiased,
        magnitude=task.magnitude,
        projected=task.projected,
    )["params"]
    row = {
        "objective": objective,
        "at": at,
        "estimator": name,
        "unbiased": unbiased,
        "evaluations": task.entry.evaluations,
        **measured.columns(task.variance),
        "relative_variance": measured.variance / task.pair,
        "relative_bias": None if unbiased else measured.relative_bias(task.gradient),
        "timing": f"{objective} {name}",
    }
    return {"rows": [row]}


def _times(
    objective: str,
    names: Mapping[str, Any],
    make: Callable[[str], Task],
    seed: int,
    timing: Mapping[str, Any],
) -> dict[str, dict[str, float]]:
    problems = {f"{objective} {name}": make(name).problem for name in names}
    return {"times": microseconds(gradient, problems, seed, **timing)}


@cache
def _reference(seed: int, num_steps: int, every: int) -> vae.Params:
    """The weights along one run of the small autoencoder, [stages]."""
    keys = step_key(seed, "reference")[None]
    states = training.train(
        training.REFERENCE,
        vae.digits(),
        keys,
        bits=VAE_BITS,
        num_steps=num_steps,
        every=every,
    )
    return jax.tree.map(lambda leaf: np.asarray(leaf[0]), states)


def _at_stage(stage: int, seed: int, sizes: Sizes, name: str) -> Task:
    every = sizes["every"]
    states = _reference(seed, sizes["num_steps"], every)
    weights = jax.tree.map(lambda leaf: leaf[stage // every], states)
    return vae_task(weights, vae.digits()[: sizes["images"]], name)


def _curves(name: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    keys = jax.random.split(step_key(seed, "train"), sizes["seeds"])
    settings = {"num_steps": sizes["num_steps"], "every": sizes["every"]}
    states = training.train(name, vae.digits(), keys, bits=sizes["bits"], **settings)
    elbo = training.evaluate(states, vae.digits(), step_key(seed, "evaluate"))
    steps = list(range(0, sizes["num_steps"] + 1, sizes["every"]))
    return {"curves": {name: {"step": steps, "elbo": np.asarray(elbo, np.float64).tolist()}}}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """The times and the rows of each objective; last, the training runs."""
    plan: dict[str, Step] = {}

    def add(objective: str, names: Mapping[str, Any], ats: Mapping[float, Any]) -> None:
        first = next(iter(ats.values()))
        timing = sizes["timing"]
        plan[f"{objective} timing"] = partial(_times, objective, names, first, seed, timing)
        for at, make in ats.items():
            for name in names:
                step = f"{objective} at {at} {name}"
                key = step_key(seed, step)
                plan[step] = partial(_row, objective, at, name, make, key, sizes["repeats"])

    for objective, toy in TOYS.items():
        add(objective, toy.entries, {at: partial(toy_task, objective, at) for at in toy.settings})
    stages = {stage: partial(_at_stage, stage, seed, sizes["vae"]) for stage in sizes["stages"]}
    add("vae", VAE_ENTRIES, stages)
    for name in training.ENTRIES:
        plan[f"train {name}"] = partial(_curves, name, seed, sizes["vae"])
    return plan


SUITE = Suite(
    name="discrete",
    summary="discrete draws: four toys with exact gradients, and an autoencoder on digits",
    full={
        "stages": [0, 300, 3000],
        "vae": {"num_steps": 3000, "every": 100, "images": 40, "bits": 32, "seeds": 3},
        "repeats": {"batches": 10, "size": 500, "at_once": 50},
        "timing": {"rounds": 11, "size": 200},
    },
    quick={
        "stages": [0, 100],
        "vae": {"num_steps": 100, "every": 50, "images": 4, "bits": 12, "seeds": 2},
        "repeats": {"batches": 2, "size": 500, "at_once": 50},
        "timing": {"rounds": 3, "size": 100},
    },
    steps=steps,
    figures=figures,
    rankings=[
        # The sum of all 8 values is that of Enumerate.
        Ranking(
            "8 categories, a cheap f",
            {"objective": "without_replacement", "at": 0.0},
            {"SumAndSample (8)": 1.0},
        ),
        Ranking(
            "1000 categories, entropy 6.9 nats",
            {"objective": "thousand", "at": 6.9},
            {"LeaveOneOut (4)": 1.0, "UnorderedSet (4)": 1.05},
        ),
        Ranking(
            "1000 categories, entropy 0.8 nats",
            {"objective": "thousand", "at": 0.8},
            {"UnorderedSet (4)": 1.0, "SumAndSample (4)": 1.0},
        ),
        Ranking(
            "8 bits, a cheap quadratic f",
            {"objective": "quadratic", "at": 1.0},
            {"DisARM (2)": 1.0, "LocalExpectation (9)": 1.0},
        ),
        Ranking(
            "autoencoder, 10 bits, after training",
            {"objective": "vae", "at": 3000},
            {"DisARM (2)": 1.0, "ARMS (4)": 1.0, "LocalExpectation (11)": 1.0},
        ),
    ],
    tables={"bits": tables.bits, "categories": tables.categories},
    claims=claims,
    shown=lambda row: row["objective"] == "vae" and row["at"] in (100, 3000),
    default=False,
)
