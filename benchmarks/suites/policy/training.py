"""Training runs of the bandit policy by any recipe, several seeds in one scan."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks._measuring.trajectory import trajectory

from . import bandit
from .bandit import Data, Params

IMAGES = 64
LEARNING_RATE = 0.01
# Whose run the gradients are measured along.
REFERENCE = "RLOO"


@partial(jax.jit, static_argnames=("name", "group", "batches", "every", "steps"))
def train(
    name: str, data: Data, keys: jax.Array, *, group: int, batches: int, every: int, steps: int
) -> Params:
    """The parameters before training and after each `every` batches, one run for each key.

    Each batch serves so many steps of Adam: from the second on they are off policy. Each leaf is
    [keys, batches / every + 1, ...].
    """
    optimizer = optax.adam(LEARNING_RATE)
    images, labels = jnp.asarray(data.images), jnp.asarray(data.labels)

    def one_batch(carry: Any, key: jax.Array) -> tuple[Any, None]:
        image_key, key = jax.random.split(key)
        chosen = jax.random.randint(image_key, (IMAGES,), 0, len(labels))
        some = Data(images[chosen], labels[chosen])
        actions, batch = bandit.draw(carry[0], some, key, group)

        def loss(params: Params) -> jax.Array:
            # The value learns by its own regression whichever recipe is trained.
            value = some.images @ params["value"]
            fit = jnp.mean(jnp.square(value - jnp.mean(batch.reward, axis=1))) / 2
            return bandit.ENTRIES[name](bandit.log_prob_of(params, some, actions), batch) + fit

        def step(carry: Any, _: None) -> tuple[Any, None]:
            params, memory = carry
            change, memory = optimizer.update(jax.grad(loss)(params), memory, params)
            return (optax.apply_updates(params, change), memory), None

        return jax.lax.scan(step, carry, None, length=steps)[0], None

    def run(key: jax.Array) -> Params:
        first = bandit.start(), optimizer.init(bandit.start())
        return trajectory(
            one_batch, first, key, num_steps=batches, every=every, kept=lambda carry: carry[0]
        )

    return jax.vmap(run)(keys)


@jax.jit
def evaluate(states: Params, data: Data) -> jax.Array:
    """The exact expected reward on the data, of each of the parameters [keys, stages]."""
    return jax.lax.map(partial(jax.lax.map, partial(bandit.expected_reward, data=data)), states)
