"""Training an autoencoder with any estimator, whose own leaves are learned on the way."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from . import model
from .data import binarized, intensities
from .entries import entry
from .problem import Problem, slopes

# The weights, the learned leaves of the estimator, and the memory of the optimizer of each.
Carry = tuple[Any, Any, Any, Any]

MINIBATCH = 100
WEIGHTS, LEARNED = optax.adam(1e-3), optax.adam(3e-3)


@dataclass(frozen=True)
class State:
    """A place along a run.

    Attributes:
        step: how many steps were made.
        weights: of the encoder and the decoder.
    """

    step: int
    weights: model.Params


def train(
    network: str, name: str, key: jax.Array, *, num_steps: int, every: int
) -> Iterator[State]:
    """The states before training and after each `every` steps. Consumes the key.

    One key is one set of first weights and one order of minibatches, for every estimator.
    """
    start_key, key = jax.random.split(key)
    carry = start(network, name, start_key)
    yield State(0, carry[0])
    for done in range(0, num_steps, every):
        keys = jax.random.split(jax.random.fold_in(key, done), every)
        carry = block(carry, jnp.asarray(intensities()[0]), keys, network, name)
        yield State(done + every, carry[0])


def start(network: str, name: str, key: jax.Array) -> Carry:
    """Everything before the first step. Consumes the key."""
    weights_key, key = jax.random.split(key)
    weights = model.NETWORKS[network].start(weights_key)
    first = entry(network, name).start
    learned: Any = None if first is None else first(key)
    return weights, WEIGHTS.init(weights), learned, LEARNED.init(learned)


@partial(jax.jit, static_argnames=("network", "name"))
def block(carry: Carry, data: jax.Array, keys: jax.Array, network: str, name: str) -> Carry:
    """The state that `start` returns, after one step for each key."""

    def step(carry: Carry, key: jax.Array) -> tuple[Carry, None]:
        weights, memory, learned, learned_memory = carry
        image_key, binary_key, key = jax.random.split(key, 3)
        chosen = jax.random.randint(image_key, (MINIBATCH,), 0, len(data))
        images = binarized(data[chosen], binary_key)
        encode = partial(model.NETWORKS[network].encode, images=images)
        logits, back = jax.vjp(encode, weights["encoder"])
        problem = Problem(weights["decoder"], logits, images, learned, network, name)
        of_learned, (of_logits, of_decoder) = jax.grad(slopes, has_aux=True)(learned, problem, key)
        gradient = {"encoder": back(of_logits)[0], "decoder": of_decoder}
        gradient = jax.tree.map(lambda leaf: leaf / MINIBATCH, gradient)
        change, memory = WEIGHTS.update(gradient, memory)
        learned_change, learned_memory = LEARNED.update(of_learned, learned_memory)
        weights = optax.apply_updates(weights, change)
        learned = optax.apply_updates(learned, learned_change)
        return (weights, memory, learned, learned_memory), None

    return jax.lax.scan(step, carry, keys)[0]


@partial(jax.jit, static_argnames=("network", "num_samples"))
def bounds(
    network: str, weights: model.Params, images: jax.Array, key: jax.Array, num_samples: int
) -> tuple[jax.Array, jax.Array]:
    """The mean bounds of the log-likelihood of images, in nats: ELBO and IWAE. Consumes the key."""
    logits = model.NETWORKS[network].encode(weights["encoder"], images)

    def one(found: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        logits, image, key = found
        codes = jax.vmap(model.posterior(logits).sample)(jax.random.split(key, num_samples))
        cost = partial(model.negative_bound, weights["decoder"], logits, image)
        log_weights = -jax.vmap(cost)(codes)
        iwae = jax.nn.logsumexp(log_weights) - jnp.log(num_samples)
        return jnp.mean(log_weights), iwae

    keys = jax.random.split(key, len(images))
    elbo, iwae = jax.lax.map(one, (logits, jnp.asarray(images), keys), batch_size=100)
    return jnp.mean(elbo), jnp.mean(iwae)
