"""An autoencoder of 200 bits on digits: RODEO and others, 2 and 3 evaluations (Shi et al. 2022).

The networks of the paper, one linear layer or two hidden layers of 200 leaky units, on 1797 images
of 64 pixels; Adam, minibatches of 100, the divergence sampled. Variances are measured along ONE run
of each network, at the same weights and images: of the gradient in the logits of the first images,
summed over its components, and relative to leave-one-out with 2 samples. What an estimator has to
learn is learned anew at each stage, on all images. The exact gradient, for the bias, is the mean of
a long run of sums over one bit at a time.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks._measuring.effect import compared
from benchmarks._measuring.measure import Measurement, measure
from benchmarks._measuring.timing import microseconds
from benchmarks._models import vae
from benchmarks._reporting.plots import Look, legend_below, looks, panels
from benchmarks._suite import Results, Row, Sizes, Step, Suite, step_key

from . import training
from .entries import ENTRIES, UNIT
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
    """For each network its run, the rows of each stage, then the times."""
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


def figures(results: Results) -> dict[str, Figure]:
    """The variances of both networks, one estimator a line."""
    networks = results["settings"]["networks"]
    figure, axes = panels(1, len(networks), size=(4.6, 3.3), sharex=True, sharey=True)
    drawn = looks(map(str, results["settings"]["stages"]))
    for axis, network in zip(axes.flat, networks, strict=True):
        _dots(axis, [row for row in results["rows"] if row["network"] == network], drawn)
        layers = "one layer" if network == "linear" else "three layers"
        axis.set(title=f"{network}, {layers}", xlabel=f"variance / that of {UNIT}", xscale="log")
    title = "training step; ± 3 standard errors; in brackets: evaluations of the decoder"
    stages = {step: replace(look, linestyle="none") for step, look in drawn.items()}
    legend_below(figure, stages, title, columns=len(stages))
    return {"rodeo": figure}


def _dots(axis: Axes, rows: Sequence[Row], drawn: dict[str, Look]) -> None:
    """One line for each estimator, one marker for each stage."""
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    axis.axvline(1, color="#888888", linewidth=0.8)
    for i, (step, look) in enumerate(drawn.items()):
        found = [row for row in rows if str(row["step"]) == step]
        # Beside one another, that none hides another one.
        shift = 0.25 * (i - (len(drawn) - 1) / 2)
        axis.errorbar(
            [row["relative_variance"] for row in found],
            [names.index(row["estimator"]) + shift for row in found],
            xerr=[3 * row["relative_variance_se"] for row in found],
            color=look.color,
            marker=look.marker,
            linestyle="none",
        )
    axis.set_yticks(range(len(names)), names)
    axis.set_ylim(len(names) - 0.5, -0.5)


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
    shown=lambda row: row["step"] in (100, 5000),
    default=False,
)
