"""One gradient along the logits of several images, and the learned leaves of its estimator."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import scorefn as sf
from benchmarks._measuring.trajectory import descended
from scorefn._core.pytree import pytree_dataclass, static_field

from . import model
from .entries import ENTRIES, LONG_RUN, Image

TUNING_RATE, TUNING_MINIBATCH = 0.01, 50
LONG = "LocalExpectation"


@pytree_dataclass
class Problem:
    """Everything that one gradient depends on, besides its key.

    Attributes:
        decoder: the weights.
        logits: what is differentiated, [images, 200].
        images: [images, 64].
        learned: of the estimator.
        name: of `ENTRIES`, or `LONG`.
    """

    decoder: model.Layers
    logits: jax.Array
    images: jax.Array
    learned: Any
    name: str = static_field()


def loss(logits: jax.Array, key: jax.Array, learned: Any, problem: Problem) -> jax.Array:
    """An estimate of the negative ELBO, summed over the images."""
    entry = LONG_RUN if problem.name == LONG else ENTRIES[problem.name]

    def one(logits: jax.Array, image: jax.Array, key: jax.Array) -> jax.Array:
        fixed = jax.lax.stop_gradient(logits)
        of = Image(problem.decoder, fixed, image)
        return sf.expectation(
            partial(model.negative_bound, problem.decoder, fixed, image),
            sf.Bernoulli(logits),
            key,
            entry.estimator(learned, of),
            num_samples=entry.num_samples,
        )

    keys = jax.random.split(key, len(problem.images))
    return jnp.sum(jax.vmap(one)(logits, problem.images, keys))


def gradient(problem: Problem, key: jax.Array) -> dict[str, jax.Array]:
    """One estimate of the gradient, [images, 200]."""
    return {"logits": jax.grad(loss)(problem.logits, key, problem.learned, problem)}


def started(params: model.Params, images: np.ndarray, name: str, key: jax.Array) -> Problem:
    """The problem before anything is learned. Consumes the key."""
    start = None if name == LONG else ENTRIES[name].start
    return Problem(
        decoder=params["decoder"],
        logits=model.encode(params, images),
        images=jnp.asarray(images),
        learned=None if start is None else start(key),
        name=name,
    )


@partial(jax.jit, static_argnames=("num_steps",))
def tuned(problem: Problem, key: jax.Array, *, num_steps: int) -> Any:
    """The leaves that Adam on the squared gradient learns, a minibatch a step. Consumes the key."""
    minibatch = min(TUNING_MINIBATCH, len(problem.images))

    def slope(learned: Any, key: jax.Array) -> Any:
        image_key, key = jax.random.split(key)
        chosen = jax.random.choice(image_key, len(problem.images), (minibatch,), replace=False)
        some = replace(problem, logits=problem.logits[chosen], images=problem.images[chosen])
        return jax.grad(sf.squared_gradient, argnums=3)(
            partial(loss, problem=some), some.logits, key, learned
        )

    optimizer = optax.adam(optax.cosine_decay_schedule(TUNING_RATE, num_steps))
    return descended(slope, problem.learned, key, optimizer, num_steps=num_steps)
