"""Training the posterior of the logistic regression with any estimator, in one compiled scan."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import scorefn as sf
from benchmarks._measuring.trajectory import trajectory
from benchmarks._suite import step_key
from scorefn._core.pytree import pytree_dataclass, static_field

from . import logistic as model
from .logistic import Data

MINIBATCH = 32
LEARNING_RATE = 1e-3
BASELINE_LEARNING_RATE = 1e-2


@pytree_dataclass
class State:
    """The state of a training run.

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
        """The parameters that the optimizer updates."""
        return {"posterior": self.posterior, "baseline": self.baseline}


@dataclass(frozen=True)
class Entry:
    """An estimator, and what it needs.

    Attributes:
        estimator: ``estimator(state, data)``.
        evaluations: of f, for one sample.
        extra_evaluations: of f, for one gradient.
        least: samples for one gradient.
        posterior: ``posterior(params)``, what is drawn from.
    """

    estimator: Callable[[State, Data], sf.Estimator]
    evaluations: int = 1
    extra_evaluations: int = 0
    least: int = 1
    posterior: Callable[[model.Params], Any] = model.posterior

    def loss(
        self,
        params: model.Params,
        state: State,
        data: Data,
        key: jax.Array,
        num_samples: int,
    ) -> tuple[jax.Array, jax.Array]:
        """See `logistic.loss`. Consumes the key."""
        estimator = self.estimator(state, data)
        return model.loss(params, data, key, estimator, num_samples, self.posterior)


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
    "LeaveOneOut": Entry(lambda *_: sf.ScoreFunction(), least=2),
    "OptimalBaseline": Entry(lambda *_: sf.ScoreFunction(sf.OptimalBaseline()), least=2),
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


def optimizer(num_steps: int) -> optax.GradientTransformation:
    """SGD with a quarter of a cosine for the posterior, Adam for the learned baseline."""
    return optax.multi_transform(
        {
            "posterior": optax.sgd(lambda t: LEARNING_RATE * jnp.cos(jnp.pi / 2 * t / num_steps)),
            "baseline": optax.adam(BASELINE_LEARNING_RATE),
        },
        {"posterior": "posterior", "baseline": "baseline"},
    )


@pytree_dataclass
class Problem:
    """Everything that one gradient depends on, besides its key."""

    state: State
    data: Data
    entry: Entry = static_field()
    num_samples: int = static_field()


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate of the gradient of the negative ELBO, [2 d]."""

    def loss(params: model.Params) -> jax.Array:
        return problem.entry.loss(params, problem.state, problem.data, key, problem.num_samples)[0]

    return {"posterior": model.flat(jax.grad(loss)(problem.state.posterior))}


@partial(jax.jit, static_argnames=("entry", "num_steps", "every", "num_samples"))
def train(
    entry: Entry, data: Data, key: jax.Array, *, num_steps: int, every: int, num_samples: int
) -> State:
    """The states before training and after each `every` steps, stacked, [num_steps/every + 1]."""
    update = optimizer(num_steps).update

    def step(carry: tuple[State, Any], key: jax.Array) -> tuple[tuple[State, Any], None]:
        state, memory = carry
        batch_key, key = jax.random.split(key)
        batch = data.minibatch(batch_key, MINIBATCH)

        def loss(params: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
            moved = state.replaced(params, state.average)
            return entry.loss(params["posterior"], moved, batch, key, num_samples)

        gradient, costs = jax.grad(loss, has_aux=True)(state.params)
        change, memory = update(gradient, memory, state.params)
        params = optax.apply_updates(state.params, change)
        return (state.replaced(params, state.average.update(costs)), memory), None

    state = start(data)
    first = state, optimizer(num_steps).init(state.params)
    return trajectory(
        step, first, key, num_steps=num_steps, every=every, kept=lambda carry: carry[0]
    )


@cache
def run(name: str, seed: int, num_steps: int, every: int, num_samples: int) -> State:
    """The states along one training run; runs of all estimators see the same minibatches."""
    sizes = {"num_steps": num_steps, "every": every, "num_samples": num_samples}
    return train(ENTRIES[name], model.breast_cancer(), step_key(seed, "train"), **sizes)


@jax.jit
def evaluate(states: State, data: Data) -> tuple[jax.Array, jax.Array]:
    """The exact ELBO, in nats, and the accuracy of each of the stacked states."""
    return jax.lax.map(
        lambda params: (-model.exact_loss(params, data), model.accuracy(params, data)),
        states.posterior,
    )
