"""One Gaussian variable, three costs: the study of Mohamed et al. (2020), sections 4 to 6.

x ~ N(mu, sigma^2) with the costs (x - k)^2, exp(-k x^2) and cos(k x): the variance of the gradients
with respect to mu and sigma, over k at sigma = 1 and over sigma at one k. One term for each
gradient, as in the paper; leave-one-out needs two, and the four evaluations of the measure-valued
term serve the value and both parameters.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import distrax
import jax
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

import scorefn as sf
from benchmarks._measuring.measure import measure
from benchmarks._measuring.timing import microseconds
from benchmarks._reporting.plots import CAPTION, legend_below, looks, panels
from benchmarks._suite import Results, Row, Sizes, Step, Suite, step_key

from . import exact
from .exact import COSTS


@dataclass(frozen=True)
class Entry:
    """An estimator, the terms and evaluations of f of one gradient, and its exact variance."""

    estimator: sf.Estimator
    num_samples: int
    evaluations: int
    variance: Callable[[exact.Problem, int], float]


# In brackets: evaluations of f for one gradient.
ENTRIES: Mapping[str, Entry] = {
    "REINFORCE (1)": Entry(sf.ScoreFunction(sf.ConstantBaseline(0.0)), 1, 1, exact.score_function),
    "LeaveOneOut (2)": Entry(sf.ScoreFunction(), 2, 2, exact.leave_one_out),
    "Pathwise (1)": Entry(sf.Pathwise(), 1, 1, exact.pathwise),
    "MeasureValued (4)": Entry(sf.MeasureValued(), 1, 4, exact.measure_valued),
}
MU = 1.0
PARAMETERS = ("mu", "sigma")
SYMBOLS = {"k": "k", "mu": "μ", "sigma": "σ"}
# Where k moves, sigma is 1; where sigma moves, k is this.
FIXED_K = {"square": 3.0, "exp": 1.0, "cos": 1.0}


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["estimator", "k", "sigma"],
    meta_fields=["cost", "num_samples"],
)
@dataclass(frozen=True)
class Problem:
    """What one gradient is made of."""

    estimator: sf.Estimator
    cost: str
    k: Any
    sigma: Any
    num_samples: int


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate of the derivatives of E f(x) with respect to mu and sigma."""

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        return sf.expectation(
            lambda x: COSTS[problem.cost].value(x, problem.k),
            distrax.Normal(params["mu"], params["sigma"]),
            key,
            problem.estimator,
            num_samples=problem.num_samples,
        )

    return jax.grad(loss)({"mu": MU, "sigma": problem.sigma})


def _problem(name: str, cost: str, k: float, sigma: float) -> Problem:
    entry = ENTRIES[name]
    return Problem(entry.estimator, cost, k, sigma, entry.num_samples)


def _rows(
    study: str, cost: str, k: float, sigma: float, name: str, key: jax.Array, sizes: Sizes
) -> dict[str, list[Row]]:
    entry = ENTRIES[name]
    known = {p: exact.Problem(COSTS[cost], k, MU, sigma, p) for p in PARAMETERS}
    measured = measure(
        gradient,
        _problem(name, cost, k, sigma),
        key,
        {parameter: problem.gradient for parameter, problem in known.items()},
        **sizes["repeats"],
        magnitude=max(problem.size for problem in known.values()),
    )
    return {
        "rows": [
            {
                "over": study,
                "cost": cost,
                "k": k,
                "sigma": sigma,
                "parameter": parameter,
                "estimator": name,
                "unbiased": entry.estimator.unbiased,
                "evaluations": entry.evaluations,
                "exact_gradient": problem.gradient,
                "mean": float(measured[parameter].mean),
                **measured[parameter].columns(entry.variance(problem, entry.num_samples)),
                "timing": name,
            }
            for parameter, problem in known.items()
        ]
    }


def _times(seed: int, sizes: Sizes) -> dict[str, dict[str, float]]:
    # All three costs take about as long; cos stands for them.
    problems = {name: _problem(name, "cos", 1.0, 1.0) for name in ENTRIES}
    return {"times": microseconds(gradient, problems, seed, **sizes["timing"])}


def steps(sizes: Sizes, seed: int) -> dict[str, Step]:
    """The times, then the rows of mu and sigma for each cost, setting and estimator."""
    plan: dict[str, Step] = {"timing": partial(_times, seed, sizes)}
    for cost in COSTS:
        settings = [("k", k, 1.0) for k in sizes["ks"][cost]]
        settings += [("sigma", FIXED_K[cost], sigma) for sigma in sizes["sigmas"]]
        for over, k, sigma in settings:
            for name in ENTRIES:
                step = f"{cost} over {over}, k={k} sigma={sigma} {name}"
                key = step_key(seed, step)
                plan[step] = partial(_rows, over, cost, k, sigma, name, key, sizes)
    return plan


def figures(results: Results) -> dict[str, Figure]:
    """Exact variances as lines, measured ones as points, over k and over sigma."""
    return {"gaussian": _figure(results, "k"), "gaussian_sigma": _figure(results, "sigma")}


def _figure(results: Results, over: str) -> Figure:
    figure, axes = panels(len(PARAMETERS), len(COSTS))
    for i, parameter in enumerate(PARAMETERS):
        for j, cost in enumerate(COSTS):
            rows = [
                row
                for row in results["rows"]
                if (row["over"], row["cost"], row["parameter"]) == (over, cost, parameter)
            ]
            _panel(axes[i, j], rows, cost, parameter, over)
        axes[i, 0].set_ylabel(f"variance of one gradient\n(d cost / d {SYMBOLS[parameter]})²")
    legend_below(figure, looks(ENTRIES), CAPTION, columns=4)
    return figure


def _panel(axis: Axes, rows: list[Row], cost: str, parameter: str, over: str) -> None:
    values = [row[over] for row in rows]
    grid = np.linspace(min(values), max(values), 121)
    fixed = exact.Problem(COSTS[cost], FIXED_K[cost], MU, 1.0, parameter)
    for name, look in looks(ENTRIES).items():
        entry = ENTRIES[name]
        curve = [entry.variance(replace(fixed, **{over: x}), entry.num_samples) for x in grid]
        look.curve(axis, grid, curve)
        mine = [row for row in rows if row["estimator"] == name]
        look.points(axis, [row[over] for row in mine], mine)
    setting = "σ = 1" if over == "k" else f"k = {FIXED_K[cost]:g}"
    axis.set(title=f"{COSTS[cost].formula}, μ = {MU:g}, {setting}", xlabel=SYMBOLS[over])
    axis.set_yscale("log")
    # The measure-valued derivative of the square along mu has no variance at k = mu.
    low, high = axis.get_ylim()
    axis.set_ylim(max(low, 1e-5 * high), high)


SUITE = Suite(
    name="gaussian",
    summary="one Gaussian variable, costs (x - k)^2, exp(-k x^2), cos(k x): over k and sigma",
    full={
        "ks": {
            "square": [-3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0],
            "exp": [0.1, 0.5, 1.0, 2.0, 5.0, 10.0],
            "cos": [0.5, 1.0, 2.0, 3.0, 4.0, 5.0],
        },
        "sigmas": [0.25, 0.5, 1.0, 1.5, 2.0, 3.0],
        "repeats": {"batches": 100, "size": 4000, "at_once": 4000},
        "timing": {"rounds": 41, "size": 4000},
    },
    quick={
        "ks": {"square": [1.0, 3.0], "exp": [1.0, 10.0], "cos": [1.0, 5.0]},
        "sigmas": [0.5, 1.0],
        "repeats": {"batches": 5, "size": 4000, "at_once": 4000},
        "timing": {"rounds": 5, "size": 4000},
    },
    steps=steps,
    figures=figures,
    shown=lambda row: (
        row["over"] == "k"
        and (row["cost"], row["k"]) in {("square", 3.0), ("exp", 10.0), ("cos", 5.0)}
    ),
)
