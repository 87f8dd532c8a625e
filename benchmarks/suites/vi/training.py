"""Training runs of a posterior with any form and technique, several seeds in one scan."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import optax

from benchmarks._measuring.trajectory import trajectory
from benchmarks._models.logistic import Params

from .problem import gradient, loss, slope, started, taylor
from .targets import TARGETS
from .techniques import PLAIN, TECHNIQUES

LEARNING_RATES = {"logistic": 0.05, "diabetes": 0.02, "wine": 0.02}
LEAVES_RATE = 0.02
EVALUATED_WITH = 512

# By name in figures: the form and the technique.
RUNS: Mapping[str, tuple[str, str]] = {
    "LeaveOneOut": ("LeaveOneOut", PLAIN),
    "Pathwise": ("Pathwise", PLAIN),
    "sticking the landing": ("sticking the landing", PLAIN),
    "Antithetic": ("Pathwise", "Antithetic"),
    "QuasiMonteCarlo": ("Pathwise", "QuasiMonteCarlo"),
    "DeltaMethod, c = 1": ("Pathwise", "DeltaMethod, c = 1"),
    "DeltaMethod, c learned": ("Pathwise", "DeltaMethod, c learned"),
    "FittedControlVariate": ("Pathwise", "FittedControlVariate"),
}
# Whose run the gradients are measured along.
REFERENCE = "Pathwise"
# With second derivatives along all weights at every step, a network takes minutes.
_DEAR = ("FittedControlVariate", "DeltaMethod, c = 1", "DeltaMethod, c learned")


def runs(target: str) -> list[str]:
    """The runs of a target, by name."""
    return [name for name in RUNS if target == "logistic" or name not in _DEAR]


@partial(jax.jit, static_argnames=("target", "name", "num_steps", "every", "draws"))
def train(
    target: str, name: str, keys: jax.Array, *, num_steps: int, every: int, draws: int
) -> Params:
    """The posteriors before training and after each `every` steps, one run for each key.

    Each leaf is [keys, num_steps / every + 1, d]. What a technique has to learn is learned along
    the way.
    """
    form, technique = RUNS[name]
    optimizer, tuner = optax.adam(LEARNING_RATES[target]), optax.adam(LEAVES_RATE, b2=0.99)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        problem, memory, leaves_memory = carry
        if TECHNIQUES[technique].expands:
            problem = replace(problem, taylor=taylor(target, problem.params["mean"]))
        # The key may serve both: the step taken with it does not depend on the leaves that follow.
        change, memory = optimizer.update(gradient(problem, key), memory)
        learned = problem.learned
        if learned:
            tilt = slope(problem.params, key, learned, problem)
            leaves_change, leaves_memory = tuner.update(tilt, leaves_memory)
            learned = optax.apply_updates(learned, leaves_change)
        params = optax.apply_updates(problem.params, change)
        return (replace(problem, params=params, learned=learned), memory, leaves_memory), None

    def run(key: jax.Array) -> Params:
        start_key, key = jax.random.split(key)
        first = started(target, form, technique, TARGETS[target].start(start_key), draws)
        carry = first, optimizer.init(first.params), tuner.init(first.learned)
        return trajectory(
            step, carry, key, num_steps=num_steps, every=every, kept=lambda carry: carry[0].params
        )

    return jax.vmap(run)(keys)


@partial(jax.jit, static_argnames="target")
def evaluate(target: str, states: Params, key: jax.Array) -> jax.Array:
    """The ELBO in nats of each of the posteriors: exact, or a mean over the same many draws."""
    data, exact = TARGETS[target].data(), TARGETS[target].exact_loss

    def elbo(params: Params) -> jax.Array:
        if exact is not None:
            return -exact(params, data)
        problem = started(target, REFERENCE, "QuasiMonteCarlo", params, EVALUATED_WITH)
        return -loss(params, key, {}, problem)

    return jax.lax.map(partial(jax.lax.map, elbo), states)
