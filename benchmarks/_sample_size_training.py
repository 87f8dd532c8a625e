"""Training the logistic regression with few or many samples a step, several seeds side by side."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import distrax
import jax
import jax.numpy as jnp

import scorefn as sf

from . import _logistic_model as model
from ._logistic_model import Data
from ._logistic_training import LEARNING_RATE, MINIBATCH

# Features and a bias, each with a mean and a scale.
FACTORS = 31


@dataclass(frozen=True)
class Entry:
    """An estimator.

    Attributes:
        estimator: ``estimator(average)``, with the moving average of the costs so far.
        evaluations: of f for one sample.
        least: samples that it needs.
    """

    estimator: Callable[[sf.MovingAverage], sf.Estimator]
    evaluations: int = 1
    least: int = 1


ENTRIES: Mapping[str, Entry] = {
    "MovingAverage": Entry(sf.ScoreFunction),
    "LeaveOneOut": Entry(lambda _: sf.ScoreFunction(), least=2),
    "Pathwise": Entry(lambda _: sf.Pathwise()),
    # Coupled: of each factor two points along the mean, and one more along the scale.
    "MeasureValued": Entry(lambda _: sf.MeasureValued(), evaluations=1 + 3 * FACTORS),
}


def loss(
    params: model.Params, data: Data, key: jax.Array, estimator: sf.Estimator, num_samples: int
) -> tuple[jax.Array, jax.Array]:
    """An estimate of the negative ELBO, in nats, and the cost of each sample. Uses up the key."""
    # An object of a library, whose factors MeasureValued can read.
    posterior = distrax.MultivariateNormalDiag(params["mean"], jnp.exp(params["log_scale"]))

    def f(weights: jax.Array) -> tuple[jax.Array, jax.Array]:
        value = model.cost(weights, data)
        return value, value

    mean, costs = sf.expectation(
        f, posterior, key, estimator, num_samples=num_samples, has_aux=True
    )
    return mean + model.divergence(params), costs


@partial(jax.jit, static_argnames=("name", "num_steps", "every", "num_samples"))
def train(
    name: str, data: Data, keys: jax.Array, *, num_steps: int, every: int, num_samples: int
) -> model.Params:
    """The posteriors after each `every` steps, one run for each key, [keys, num_steps / every].

    SGD with a quarter of a cosine, as in the suite `logistic_regression`.
    """

    def step(carry: Any, at: tuple[jax.Array, jax.Array]) -> tuple[Any, None]:
        params, average = carry
        t, key = at
        batch_key, key = jax.random.split(key)
        batch = data.minibatch(batch_key, MINIBATCH)
        estimator = ENTRIES[name].estimator(average)
        slope, costs = jax.grad(loss, has_aux=True)(params, batch, key, estimator, num_samples)
        rate = LEARNING_RATE * jnp.cos(jnp.pi / 2 * t / num_steps)
        params = jax.tree.map(lambda p, g: p - rate * g, params, slope)
        return (params, average.update(costs)), None

    def block(carry: Any, at: tuple[jax.Array, jax.Array]) -> tuple[Any, model.Params]:
        carry, _ = jax.lax.scan(step, carry, at)
        return carry, carry[0]

    def run(key: jax.Array) -> model.Params:
        keys = jax.random.split(key, (num_steps // every, every))
        zeros = jnp.zeros(data.features.shape[1])
        average = jax.tree.map(jnp.asarray, sf.MovingAverage(0.9))
        first = {"mean": zeros, "log_scale": zeros}
        times = jnp.arange(num_steps).reshape(keys.shape)
        return jax.lax.scan(block, (first, average), (times, keys))[1]

    return jax.vmap(run)(keys)


@jax.jit
def elbo(states: model.Params, data: Data) -> jax.Array:
    """The exact ELBO, in nats, of each of the stacked posteriors, [keys, stages], on the data."""
    exact = jax.vmap(lambda params: -model.exact_loss(params, data))
    return jax.lax.map(exact, states)
