"""One gradient along the parameters of a Gaussian variable, and the estimators."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import distrax
import jax

import scorefn as sf
from scorefn._core.pytree import pytree_dataclass, static_field

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


# Where k moves, sigma is 1; where sigma moves, k is this.
FIXED_K = {"square": 3.0, "exp": 1.0, "cos": 1.0}


@pytree_dataclass
class Problem:
    """Everything that one gradient depends on, besides its key."""

    estimator: sf.Estimator
    cost: str = static_field()
    k: Any
    sigma: Any
    num_samples: int = static_field()


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


def problem(name: str, cost: str, k: float, sigma: float) -> Problem:
    """The gradient of one estimator at one setting."""
    entry = ENTRIES[name]
    return Problem(entry.estimator, cost, k, sigma, entry.num_samples)
