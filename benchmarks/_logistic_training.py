"""Training the posterior of the logistic regression with any estimator, in one compiled scan."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import scorefn as sf

from . import _logistic_model as model
from ._logistic_model import Data

MINIBATCH = 32
LEARNING_RATE = 1e-3
BASELINE_LEARNING_RATE = 1e-2


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["posterior", "baseline", "average"],
    meta_fields=[],
)
@dataclass(frozen=True)
class State:
    """What a run has learned.

    Attributes:
        posterior: mean and log_scale, [d] each.
        baseline: offset and slope of the learned baseline.
        average: of the costs so far.
    """

    posterior: model.Params
    baseline: dict[str, Any]
    average: sf.MovingAverage

    def replaced(self, params: Any, average: Any) -> "State":
        """The state after a step."""
        return State(params["posterior"], params["baseline"], average)

    @property
    def params(self) -> dict[str, Any]:
        """What the optimiser owns."""
        return {"posterior": self.posterior, "baseline": self.baseline}


@dataclass(frozen=True)
class Entry:
    """An estimator, and the evaluations of f beyond one for each sample.

    Attributes:
        estimator: ``estimator(state, data)``.
        extra_evaluations: of f, for one gradient.
    """

    estimator: Callable[[State, Data], sf.Estimator]
    extra_evaluations: int = 0


def _learned(state: State, data: Data) -> sf.Estimator:
    # The cost at the posterior mean depends on the minibatch but on no draw. It is stopped: the
    # loss of the baseline must not train the posterior.
    at_mean = jax.lax.stop_gradient(model.cost(state.posterior["mean"], data))
    return sf.ScoreFunction(sf.LearnedBaseline(_affine, state.baseline, at_mean))


def _affine(params: dict[str, jax.Array], at_mean: jax.Array) -> jax.Array:
    # In units of 100 nats, so that one learning rate fits both parameters.
    return 100 * params["offset"] + params["slope"] * at_mean


ENTRIES: dict[str, Entry] = {
    "REINFORCE, no baseline": Entry(lambda *_: sf.ScoreFunction(sf.ConstantBaseline(0.0))),
    "MovingAverage": Entry(lambda state, _: sf.ScoreFunction(state.average)),
    "LearnedBaseline": Entry(_learned, extra_evaluations=1),
    "LeaveOneOut": Entry(lambda *_: sf.ScoreFunction()),
    "OptimalBaseline": Entry(lambda *_: sf.ScoreFunction(sf.OptimalBaseline())),
    "Pathwise": Entry(lambda *_: sf.Pathwise()),
}
# Its run trains the posterior, the learned baseline and the average alike, so that its states
# serve every estimator.
REFERENCE = "LearnedBaseline"


def start(data: Data) -> State:
    """The state before training: the prior, and a baseline of 0."""
    zeros = jnp.zeros(data.features.shape[1])
    return State(
        posterior={"mean": zeros, "log_scale": zeros},
        baseline={"offset": jnp.zeros(()), "slope": jnp.zeros(())},
        average=sf.MovingAverage(0.9),
    )


def optimiser(num_steps: int) -> optax.GradientTransformation:
    """SGD with a quarter of a cosine for the posterior, Adam for the learned baseline."""
    return optax.multi_transform(
        {
            "posterior": optax.sgd(lambda t: LEARNING_RATE * jnp.cos(jnp.pi / 2 * t / num_steps)),
            "baseline": optax.adam(BASELINE_LEARNING_RATE),
        },
        {"posterior": "posterior", "baseline": "baseline"},
    )


@partial(jax.jit, static_argnames=("name", "num_steps", "every", "num_samples"))
def train(
    name: str, data: Data, key: jax.Array, *, num_steps: int, every: int, num_samples: int
) -> State:
    """The states before training and after each `every` steps, stacked, [num_steps/every + 1]."""
    update = optimiser(num_steps).update

    def step(carry: tuple[State, Any], key: jax.Array) -> tuple[tuple[State, Any], None]:
        state, memory = carry
        batch_key, key = jax.random.split(key)
        batch = data.minibatch(batch_key, MINIBATCH)

        def loss(params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
            estimator = ENTRIES[name].estimator(state.replaced(params, state.average), batch)
            return model.loss(params["posterior"], batch, key, estimator, num_samples)

        gradient, costs = jax.grad(loss, has_aux=True)(state.params)
        change, memory = update(gradient, memory, state.params)
        params = optax.apply_updates(state.params, change)
        return (state.replaced(params, state.average.update(costs)), memory), None

    def block(carry: tuple[State, Any], keys: jax.Array) -> tuple[tuple[State, Any], State]:
        return jax.lax.scan(step, carry, keys)[0], carry[0]

    first = start(data)
    keys = jax.random.split(key, (num_steps // every, every))
    (last, _), states = jax.lax.scan(block, (first, optimiser(num_steps).init(first.params)), keys)
    return jax.tree.map(lambda xs, x: jnp.append(xs, jnp.asarray(x)[None], axis=0), states, last)


@jax.jit
def evaluate(states: State, data: Data) -> tuple[jax.Array, jax.Array]:
    """The exact ELBO, in nats, and the accuracy of each of the stacked states, on the data."""
    return jax.lax.map(
        lambda params: (-model.exact_loss(params, data), model.accuracy(params, data)),
        states.posterior,
    )
