"""Many samples: the library as it is by default, against the obvious jit of all at once."""

import jax
import jax.numpy as jnp

import scorefn as sf

from .cases import OWN, Case, library, normal, pathwise, score_function

ESTIMATORS = {
    "ScoreFunction": sf.ScoreFunction(sf.LeaveOneOut()),
    "Pathwise": sf.Pathwise(),
}


def quadratic(x: jax.Array) -> jax.Array:
    """The cost."""
    return jnp.sum((x - 1.0) ** 2)


def many(estimator: str, size: int, samples: int) -> Case:
    """One gradient along mean and log-scale of a Gaussian of that size."""
    problem = normal(quadratic, size)
    by_hand = {"ScoreFunction": score_function, "Pathwise": pathwise}[estimator]
    obvious = {"ScoreFunction": f"surrogate, {OWN}", "Pathwise": "noise inside"}[estimator]
    case = by_hand(problem, samples)
    by_default = library(problem, ESTIMATORS[estimator], samples, "auto")
    return Case(by_default, {"obvious": case.hand[obvious]}, None, problem.params, samples)
