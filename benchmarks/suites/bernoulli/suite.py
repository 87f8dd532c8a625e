"""One Bernoulli variable, cost (b - t)^2: every estimator beside its exact variance.

The toy of Tucker et al. (2017) with t = 0.45, 0.49, 0.499, over the whole range of theta; gradients
with respect to the logit. Because f hardly changes between 0 and 1, an estimator is good here if it
removes the large constant part of f. The straight-through and Gumbel-softmax families are biased,
and their ``bias_z`` says so; ReinMax is right here because the cost is quadratic.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from matplotlib.figure import Figure

import scorefn as sf
from benchmarks._measuring.measure import measure
from benchmarks._measuring.timing import microseconds
from benchmarks._reporting.plots import CAPTION, legend_below, looks, panels
from benchmarks._suite import Results, Row, Sizes, Step, Suite, step_key

from .entries import ENTRIES, Entry
from .exact import Coin

ALWAYS_ZERO = ("best constant (2)", "BitFlip (2)", "LocalExpectation (2)", "MeasureValued (2)")
TARGETS = (0.45, 0.49, 0.499)


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["estimator", "logit", "t"],
    meta_fields=["num_samples"],
)
@dataclass(frozen=True)
class Problem:
    """What one gradient is made of."""

    estimator: sf.Estimator
    logit: Any
    t: Any
    num_samples: int


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate of the derivative of E (b - t)^2 with respect to the logit."""

    def loss(logit: jax.Array) -> jax.Array:
        return sf.expectation(
            lambda b: (b - problem.t) ** 2,
            sf.Bernoulli(logit),
            key,
            problem.estimator,
            num_samples=problem.num_samples,
        )

    return {"logit": jax.grad(loss)(problem.logit)}


def _problem(entry: Entry, coin: Coin) -> Problem:
    return Problem(entry.estimator(coin), coin.logit, coin.t, entry.num_samples)


def _row(name: str, coin: Coin, key: jax.Array, sizes: Sizes) -> dict[str, list[Row]]:
    entry = ENTRIES[name]
    problem = _problem(entry, coin)
    measured = measure(
        gradient,
        problem,
        key,
        {"logit": coin.gradient},
        **sizes["repeats"],
        expected={"logit": entry.mean(coin)},
        magnitude=max(coin.costs),
    )["logit"]
    row = {
        "t": coin.t,
        "theta": coin.theta,
        "estimator": name,
        "unbiased": problem.estimator.unbiased,
        "evaluations": entry.evaluations,
        "exact_gradient": coin.gradient,
        "exact_mean": entry.mean(coin),
        "mean": float(measured.mean),
        **measured.columns(entry.variance(coin)),
        "timing": name,
    }
    return {"rows": [row]}


def _times(seed: int, sizes: Sizes) -> dict[str, dict[str, float]]:
    coin = Coin(0.3, TARGETS[0])
    problems = {name: _problem(entry, coin) for name, entry in ENTRIES.items()}
    return {"times": microseconds(gradient, problems, seed, **sizes["timing"])}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """The times, then one row for each target, probability and estimator."""
    plan: dict[str, Step] = {"timing": partial(_times, seed, sizes)}
    for t in TARGETS:
        for theta in sizes["thetas"]:
            for name in ENTRIES:
                step = f"t={t} theta={theta} {name}"
                plan[step] = partial(_row, name, Coin(theta, t), step_key(seed, step), sizes)
    return plan


def figures(results: Results) -> dict[str, Figure]:
    """Exact variances as lines, measured ones as points, over theta."""
    figure, axes = panels(1, len(TARGETS), size=(3.1, 3.4))
    # A variance of 0 has no place on a logarithmic axis.
    drawn = looks(name for name in ENTRIES if name not in ALWAYS_ZERO)
    grid = np.linspace(0.01, 0.99, 197)
    for axis, t in zip(axes.flat, TARGETS, strict=True):
        for name, look in drawn.items():
            look.curve(axis, grid, [ENTRIES[name].variance(Coin(theta, t)) for theta in grid])
            rows = [r for r in results["rows"] if (r["t"], r["estimator"]) == (t, name)]
            look.points(axis, [row["theta"] for row in rows], rows)
        lowest = Coin(0.5, t).step ** 2 / 2000
        axis.set(title=f"t = {t}", xlabel="θ, probability of 1", yscale="log", ylim=(lowest, 0.5))
    axes.flat[0].set_ylabel("variance of one gradient\n(d cost / d logit)²")
    zero = f"not shown, 0 everywhere: {', '.join(ALWAYS_ZERO)}"
    legend_below(figure, drawn, f"{CAPTION}\n{zero}", columns=5)
    return {"bernoulli": figure}


SUITE = Suite(
    name="bernoulli",
    summary="one Bernoulli variable, cost (b - t)^2: exact and measured variances over theta",
    full={
        "thetas": [0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95],
        "repeats": {"batches": 50, "size": 4000, "at_once": 4000},
        "timing": {"rounds": 41, "size": 4000},
    },
    quick={
        "thetas": [0.1, 0.5, 0.8],
        "repeats": {"batches": 5, "size": 4000, "at_once": 4000},
        "timing": {"rounds": 5, "size": 4000},
    },
    steps=steps,
    figures=figures,
    shown=lambda row: row["t"] == 0.49 and row["theta"] in (0.1, 0.5),
)
