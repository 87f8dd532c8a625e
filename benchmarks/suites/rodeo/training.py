"""Training the autoencoder of 200 bits, in one compiled scan."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import scorefn as sf
from benchmarks._measuring.trajectory import trajectory
from benchmarks._models import vae

from . import model

MINIBATCH = 100
LEARNING_RATE = 1e-3
# Draws for each image, with leave-one-out.
NUM_SAMPLES = 3


@partial(jax.jit, static_argnames=("name", "num_steps", "every"))
def train(
    name: str, images: jax.Array, key: jax.Array, *, num_steps: int, every: int
) -> model.Params:
    """The weights before training and after each `every` steps, [num_steps / every + 1, ...]."""
    optimizer = optax.adam(LEARNING_RATE)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, memory = carry
        image_key, key = jax.random.split(key)
        batch = images[jax.random.randint(image_key, (MINIBATCH,), 0, len(images))]
        gradient = jax.grad(_loss)(params, batch, key)
        change, memory = optimizer.update(gradient, memory, params)
        return (optax.apply_updates(params, change), memory), None

    start_key, key = jax.random.split(key)
    weights = model.start(start_key, name)
    first = weights, optimizer.init(weights)
    return trajectory(
        step, first, key, num_steps=num_steps, every=every, kept=lambda carry: carry[0]
    )


@jax.jit
def evaluate(
    states: model.Params, images: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The mean ELBO and divergence from fair bits, in nats, [stages] each."""

    def one(params: model.Params) -> tuple[jax.Array, jax.Array]:
        divergences = jax.vmap(vae.divergence)(model.encode(params, images))
        return -_loss(params, images, key), jnp.mean(divergences)

    return jax.lax.map(one, states)


def _loss(params: model.Params, images: jax.Array, key: jax.Array) -> jax.Array:
    """An estimate of the negative ELBO, a mean over the images. Consumes the key."""

    def one(image: jax.Array, key: jax.Array) -> jax.Array:
        logits = model.encode(params, image)
        f = partial(model.negative_bound, params["decoder"], logits, image)
        leave_one_out = sf.ScoreFunction()
        return sf.expectation(f, sf.Bernoulli(logits), key, leave_one_out, num_samples=NUM_SAMPLES)

    return jnp.mean(jax.vmap(one)(images, jax.random.split(key, len(images))))
