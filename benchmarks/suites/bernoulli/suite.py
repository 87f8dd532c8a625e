"""One Bernoulli variable, cost (b - t)^2: every estimator beside its exact variance.

The toy of Tucker et al. (2017) with t = 0.45, 0.49, 0.499, over the whole range of theta; gradients
with respect to the logit. Because f hardly changes between 0 and 1, an estimator is good here if it
removes the large constant part of f. The straight-through and Gumbel-softmax families are biased,
and their ``bias_z`` says so; ReinMax is right here because the cost is quadratic.
"""

from functools import partial

import jax

from benchmarks._measuring.measure import measure
from benchmarks._measuring.timing import microseconds
from benchmarks._suite import Row, Sizes, Step, Suite, step_key

from .claims import claims
from .entries import ENTRIES
from .exact import Coin
from .figures import figures
from .problem import TARGETS, gradient, problem


def _row(name: str, coin: Coin, key: jax.Array, sizes: Sizes) -> dict[str, list[Row]]:
    entry = ENTRIES[name]
    made = problem(entry, coin)
    measured = measure(
        gradient,
        made,
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
        "unbiased": made.estimator.unbiased,
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
    problems = {name: problem(entry, coin) for name, entry in ENTRIES.items()}
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
    claims=claims,
    shown=lambda row: row["t"] == 0.49 and row["theta"] in (0.1, 0.5),
)
