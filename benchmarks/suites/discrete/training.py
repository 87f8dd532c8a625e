"""Training the autoencoder with any estimator, several seeds side by side in one compiled scan."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import scorefn as sf
from benchmarks._measuring.trajectory import trajectory
from benchmarks._models import vae as model
from benchmarks._models.vae import Params

MINIBATCH = 64
LEARNING_RATE = 3e-3
EVALUATED_WITH = 8


@dataclass(frozen=True)
class Entry:
    """An estimator of one image's ELBO, and the samples of each.

    Attributes:
        estimator: None for REINFORCE with the moving average of the costs so far as its baseline.
        num_samples: the terms.
    """

    estimator: sf.Estimator | None
    num_samples: int


# In brackets: evaluations of the decoder for each image.
ENTRIES = {
    "MovingAverage (2)": Entry(None, 2),
    "LeaveOneOut (2)": Entry(sf.ScoreFunction(), 2),
    "DisARM (2)": Entry(sf.DisARM(), 1),
    "DoubleCV (2)": Entry(sf.DoubleCV(), 2),
    "LeaveOneOut (4)": Entry(sf.ScoreFunction(), 4),
    "ARMS (4)": Entry(sf.ARMS(), 4),
    "StraightThrough (1)": Entry(sf.StraightThrough(), 1),
    "ReinMax (1)": Entry(sf.ReinMax(), 1),
}
# Whose run the gradients are measured along.
REFERENCE = "LeaveOneOut (4)"


@partial(jax.jit, static_argnames=("name", "bits", "num_steps", "every"))
def train(
    name: str, images: jax.Array, keys: jax.Array, *, bits: int, num_steps: int, every: int
) -> Params:
    """The weights before training and after each `every` steps, one run for each key.

    Each leaf is [keys, num_steps / every + 1, ...].
    """
    entry = ENTRIES[name]
    optimizer = optax.adam(LEARNING_RATE)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, memory, average = carry
        image_key, key = jax.random.split(key)
        batch = images[jax.random.randint(image_key, (MINIBATCH,), 0, len(images))]
        estimator = sf.ScoreFunction(average) if entry.estimator is None else entry.estimator

        def loss(params: Params) -> tuple[jax.Array, jax.Array]:
            losses, costs = model.losses(params, batch, key, estimator, entry.num_samples)
            return jnp.mean(losses), costs

        gradient, costs = jax.grad(loss, has_aux=True)(params)
        change, memory = optimizer.update(gradient, memory, params)
        return (optax.apply_updates(params, change), memory, average.update(costs.ravel())), None

    def run(key: jax.Array) -> Params:
        start_key, key = jax.random.split(key)
        weights = model.start(start_key, bits)
        average = jax.tree.map(jnp.asarray, sf.MovingAverage(0.9))
        first = weights, optimizer.init(weights), average
        return trajectory(
            step, first, key, num_steps=num_steps, every=every, kept=lambda carry: carry[0]
        )

    return jax.vmap(run)(keys)


@jax.jit
def evaluate(states: Params, images: jax.Array, key: jax.Array) -> jax.Array:
    """The mean ELBO over all images, in nats, for all weights [keys, stages]."""

    def elbo(params: Params) -> jax.Array:
        losses, _ = model.losses(params, images, key, sf.ScoreFunction(), EVALUATED_WITH)
        return -jnp.mean(losses)

    return jax.lax.map(partial(jax.lax.map, elbo), states)
