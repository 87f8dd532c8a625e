"""An autoencoder of 200 bits on digits: RODEO and others, 2 and 3 evaluations (Shi et al. 2022).

The networks of the paper, one linear layer or two hidden layers of 200 leaky units, on 1797 images
of 64 pixels; Adam, minibatches of 100, the divergence sampled. Variances are measured along ONE run
of each network, at the same weights and images: of the gradient in the logits of the first images,
summed over its components, and relative to leave-one-out with 2 samples. What an estimator has to
learn is learned anew at each stage, on all images. The exact gradient, for the bias, is the mean of
a long run of sums over one bit at a time.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import numpy as np

from benchmarks._measuring.effect import compared
from benchmarks._measuring.measure import Measurement, measure
from benchmarks._measuring.timing import microseconds
from benchmarks._models import vae
from benchmarks._suite import Ranking, Row, Sizes, Step, Suite, step_key

from . import tables, training
from .claims import claims
from .entries import ENTRIES, UNIT
from .figures import figures
from .problem import gradient
from .stages import Stage, run

# Of the costs that are subtracted from each other, in nats.
MAGNITUDE = 100.0


def _stage(network: str, step: int, seed: int, sizes: Sizes) -> Stage:
    names = ("num_steps", "every", "images", "tuning", "long_run")
    return Stage(network, step, seed, **{name: sizes[name] for name in names})


@cache
def _measured(stage: Stage, name: str, batches: int, size: int, at_once: int) -> Measurement:
    return measure(
        gradient,
        stage.problem(name),
        stage.key(f"measure {name}"),
        {"logits": stage.long},
        batches=batches,
        size=size,
        at_once=at_once,
        magnitude=MAGNITUDE,
        projected=True,
        long_run=True,
    )["logits"]


def _row(stage: Stage, name: str, sizes: Sizes) -> dict[str, list[Row]]:
    measured, unit = (_measured(stage, n, **sizes["repeats"]) for n in (name, UNIT))
    columns = measured.columns()
    row = {
        "network": stage.network,
        "step": stage.step,
        "estimator": name,
        "unbiased": True,
        "evaluations": ENTRIES[name].evaluations,
        **columns,
        **compared(columns, unit.columns()),
        "timing": f"{stage.network} {name}",
    }
    return {"rows": [row]}


def _times(stage: Stage, names: Sequence[str], sizes: Sizes) -> dict[str, dict[str, float]]:
    problems = {f"{stage.network} {name}": stage.problem(name) for name in names}
    return {"times": microseconds(gradient, problems, stage.seed, **sizes["timing"])}


def _curve(network: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    states = run(network, seed, sizes["num_steps"], sizes["every"])
    found = training.evaluate(states, vae.digits(), step_key(seed, "evaluate"))
    elbo, divergence = (np.asarray(x, np.float64).tolist() for x in found)
    steps = list(range(0, sizes["num_steps"] + 1, sizes["every"]))
    return {"curves": {network: {"step": steps, "elbo": elbo, "divergence": divergence}}}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """The run of each network, the rows of its stages, then the times."""
    plan: dict[str, Step] = {}
    names = sizes.get("estimators", list(ENTRIES))
    for network in sizes["networks"]:
        plan[f"{network} train"] = partial(_curve, network, seed, sizes)
        stages = [_stage(network, step, seed, sizes) for step in sizes["stages"]]
        for stage in stages:
            for name in names:
                plan[f"{network} at {stage.step} {name}"] = partial(_row, stage, name, sizes)
        # All of it is compiled by now, and learned.
        plan[f"{network} timing"] = partial(_times, stages[0], names, sizes)
    return plan


SUITE = Suite(
    name="rodeo",
    summary="an autoencoder of 200 bits on digits: RODEO and others, 2 and 3 evaluations",
    full={
        "networks": ["linear", "nonlinear"],
        "num_steps": 5000,
        "every": 500,
        "stages": [0, 1000, 5000],
        "images": 50,
        "tuning": 500,
        "long_run": 200,
        # Of one size, so that what is measured is compiled once.
        "repeats": {"batches": 10, "size": 50, "at_once": 1},
        "timing": {"rounds": 7, "size": 50},
    },
    quick={
        "networks": ["nonlinear"],
        "estimators": ["LeaveOneOut (2)", "DoubleCV (2)", "RODEO (2)", "RELAX (3)"],
        "num_steps": 100,
        "every": 100,
        "stages": [0, 100],
        "images": 4,
        "tuning": 20,
        "long_run": 20,
        "repeats": {"batches": 5, "size": 20, "at_once": 1},
        "timing": {"rounds": 3, "size": 20},
    },
    steps=steps,
    figures=figures,
    rankings=[
        Ranking(
            "autoencoder, 200 bits, before training",
            {"network": "nonlinear", "step": 0},
            {"DoubleCV (2)": 1.0, "DoubleCV (3)": 1.0},
        ),
        Ranking(
            "autoencoder, 200 bits, after training",
            {"network": "nonlinear", "step": 5000},
            {"DisARM (2)": 1.0, "ARMS (3)": 1.0, "RELAX (3)": 1.0},
        ),
    ],
    tables={"rodeo": tables.variances},
    claims=claims,
    shown=lambda row: row["step"] in (100, 5000),
    default=False,
)
