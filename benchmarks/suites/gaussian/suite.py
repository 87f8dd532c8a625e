"""One Gaussian variable, three costs: the study of Mohamed et al. (2020), sections 4 to 6.

x ~ N(mu, sigma^2) with the costs (x - k)^2, exp(-k x^2) and cos(k x): the variance of the gradients
with respect to mu and sigma, over k at sigma = 1 and over sigma at one k. One term for each
gradient, as in the paper; leave-one-out needs two, and the four evaluations of the measure-valued
term serve the value and both parameters.
"""

from functools import partial

import jax

from benchmarks._measuring.measure import measure
from benchmarks._measuring.timing import microseconds
from benchmarks._suite import Ranking, Row, Sizes, Step, Suite, step_key

from . import exact
from .claims import claims
from .exact import COSTS
from .figures import figures
from .problem import ENTRIES, FIXED_K, MU, PARAMETERS, gradient, problem


def _rows(
    study: str, cost: str, k: float, sigma: float, name: str, key: jax.Array, sizes: Sizes
) -> dict[str, list[Row]]:
    entry = ENTRIES[name]
    known = {p: exact.Problem(COSTS[cost], k, MU, sigma, p) for p in PARAMETERS}
    measured = measure(
        gradient,
        problem(name, cost, k, sigma),
        key,
        {parameter: values.gradient for parameter, values in known.items()},
        **sizes["repeats"],
        magnitude=max(values.size for values in known.values()),
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
                "exact_gradient": values.gradient,
                "mean": float(measured[parameter].mean),
                **measured[parameter].columns(entry.variance(values, entry.num_samples)),
                "timing": name,
            }
            for parameter, values in known.items()
        ]
    }


def _times(seed: int, sizes: Sizes) -> dict[str, dict[str, float]]:
    # All three costs take about as long; cos stands for them.
    problems = {name: problem(name, "cos", 1.0, 1.0) for name in ENTRIES}
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
    rankings=[
        Ranking(
            "a rough f: cos(5 x), x ~ N(1, 1)",
            {"over": "k", "cost": "cos", "k": 5.0, "parameter": "mu"},
            {"LeaveOneOut (2)": 1.05},
        ),
    ],
    claims=claims,
    shown=lambda row: (
        row["over"] == "k"
        and (row["cost"], row["k"]) in {("square", 3.0), ("exp", 10.0), ("cos", 5.0)}
    ),
)
