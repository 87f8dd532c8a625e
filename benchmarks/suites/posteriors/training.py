"""Training runs of an approximate posterior, several seeds in one scan, and how far they land."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks._measuring.trajectory import trajectory

from .families import FAMILIES, Params
from .forms import FORMS
from .targets import target

AT_ONCE = 50


@partial(jax.jit, static_argnames=("name", "family", "form", "num_steps", "every", "rate"))
def train(
    name: str, family: str, form: str, keys: jax.Array, *, num_steps: int, every: int, rate: float
) -> Params:
    """The parameters before training and after each `every` steps, one run for each key.

    Each leaf is [keys, num_steps / every + 1, ...].
    """
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, num_steps))
    log_joint, objective = target(name).log_joint, FORMS[form]

    def loss(params: Params, key: jax.Array) -> jax.Array:
        q = FAMILIES[family].posterior(params)
        return -objective.bound(log_joint, q, key, num_samples=objective.num_samples)

    def step(carry: Any, key: jax.Array) -> tuple[Any, None]:
        params, memory = carry
        change, memory = optimizer.update(jax.grad(loss)(params, key), memory)
        return (optax.apply_updates(params, change), memory), None

    def run(key: jax.Array) -> Params:
        first = FAMILIES[family].start(target(name).size)
        return trajectory(
            step,
            (first, optimizer.init(first)),
            key,
            num_steps=num_steps,
            every=every,
            kept=lambda carry: carry[0],
        )

    return jax.vmap(run)(keys)


@partial(jax.jit, static_argnames=("name", "family", "num_samples"))
def evaluate(
    name: str, family: str, params: Params, key: jax.Array, num_samples: int
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The ELBO and the importance-weighted bound of fresh draws, and their moments.

    Consumes the key.
    """
    posterior, q = target(name), FAMILIES[family].posterior(params)

    def one(key: jax.Array) -> tuple[jax.Array, jax.Array]:
        z = q.draw(key)
        return posterior.log_joint(z) - q.log_density(z), posterior.quantities(z)

    keys = jax.random.split(key, num_samples)
    log_weights, quantities = jax.lax.map(one, keys, batch_size=AT_ONCE)
    bound = jax.nn.logsumexp(log_weights) - jnp.log(num_samples)
    return jnp.mean(log_weights), bound, jnp.mean(quantities, 0), jnp.std(quantities, 0, ddof=1)


@partial(jax.jit, static_argnames=("name", "family", "num_samples"))
def elbos(name: str, family: str, states: Params, key: jax.Array, num_samples: int) -> jax.Array:
    """The ELBO at each state of each run, [runs, states], all with the same draws.

    Consumes the key.
    """

    def elbo(params: Params) -> jax.Array:
        return evaluate(name, family, params, key, num_samples)[0]

    return jax.lax.map(partial(jax.lax.map, elbo), states)


def distances(name: str, mean: np.ndarray, deviation: np.ndarray) -> dict[str, float]:
    """The distance of moments [k] from the true ones, in true standard deviations."""
    posterior = target(name)
    errors = (np.asarray(mean, np.float64) - posterior.mean) / posterior.deviation
    ratios = np.asarray(deviation, np.float64) / posterior.deviation
    return {
        "mean_error": float(np.sqrt(np.mean(errors**2))),
        "mean_error_worst": float(np.max(np.abs(errors))),
        "deviation_ratio": float(np.exp(np.mean(np.log(ratios)))),
        "deviation_ratio_least": float(np.min(ratios)),
    }
