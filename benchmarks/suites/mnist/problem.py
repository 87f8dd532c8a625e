"""One gradient along the logits of several images, and the learned leaves of its estimator."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

import scorefn as sf
from benchmarks._measuring.trajectory import descended
from scorefn._core.pytree import pytree_dataclass, static_field

from . import model
from .entries import Image, entry

TUNING_RATE, TUNING_MINIBATCH = 0.01, 50


@pytree_dataclass
class Problem:
    """Everything that one gradient depends on, besides its key.

    Attributes:
        decoder: the weights.
        logits: what is differentiated, [images, *code].
        images: [images, 784].
        learned: of the estimator.
        network: of `NETWORKS`.
        name: of the estimator.
    """

    decoder: model.Layers
    logits: jax.Array
    images: jax.Array
    learned: Any
    network: str = static_field()
    name: str = static_field()


def loss(
    logits: jax.Array, decoder: model.Layers, learned: Any, problem: Problem, key: jax.Array
) -> jax.Array:
    """An estimate of the negative ELBO, summed over the images of the problem.

    The logits, the decoder and the learned leaves are given apart, to be differentiated.
    """
    found = entry(problem.network, problem.name)

    def one(logits: jax.Array, image: jax.Array, key: jax.Array) -> jax.Array:
        fixed = jax.lax.stop_gradient((decoder, logits))
        return sf.expectation(
            partial(model.negative_bound, decoder, logits, image),
            model.posterior(logits),
            key,
            found.estimator(learned, Image(*fixed, image)),
            num_samples=found.num_samples,
        )

    keys = jax.random.split(key, len(problem.images))
    return jnp.sum(jax.vmap(one)(logits, problem.images, keys))


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate of the gradient, [images, *code]."""
    return {
        "logits": jax.grad(loss)(problem.logits, problem.decoder, problem.learned, problem, key)
    }


def slopes(
    learned: Any, problem: Problem, key: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, model.Layers]]:
    """The squared gradient along the logits, which learning lowers; the gradients beside it."""
    found = jax.grad(loss, argnums=(0, 1))(problem.logits, problem.decoder, learned, problem, key)
    return jnp.sum(found[0] ** 2), found


@partial(jax.jit, static_argnames=("num_steps",))
def tuned(problem: Problem, key: jax.Array, *, num_steps: int) -> Any:
    """The leaves that Adam on the squared gradient learns, a minibatch a step. Consumes the key."""
    minibatch = min(TUNING_MINIBATCH, len(problem.images))

    def slope(learned: Any, key: jax.Array) -> Any:
        image_key, key = jax.random.split(key)
        chosen = jax.random.choice(image_key, len(problem.images), (minibatch,), replace=False)
        some = replace(problem, logits=problem.logits[chosen], images=problem.images[chosen])
        return jax.grad(slopes, has_aux=True)(learned, some, key)[0]

    optimizer = optax.adam(optax.cosine_decay_schedule(TUNING_RATE, num_steps))
    return descended(slope, problem.learned, key, optimizer, num_steps=num_steps)
