"""One gradient on the coin."""

from typing import Any

import jax

import scorefn as sf
from scorefn._core.pytree import pytree_dataclass, static_field

from .entries import Entry
from .exact import Coin

TARGETS = (0.45, 0.49, 0.499)


@pytree_dataclass
class Problem:
    """Everything that one gradient depends on, besides its key."""

    estimator: sf.Estimator
    logit: Any
    t: Any
    num_samples: int = static_field()


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


def problem(entry: Entry, coin: Coin) -> Problem:
    """The gradient of one estimator on one coin."""
    return Problem(entry.estimator(coin), coin.logit, coin.t, entry.num_samples)
