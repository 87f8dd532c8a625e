"""The time to compile programs of many choices in a row."""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import scorefn as sf
from benchmarks._suite import Row

from .row import row

SCORED = sf.ScoreFunction(sf.ConstantBaseline(0.7))
Loss = Callable[[jax.Array, jax.Array], jax.Array]


def _normal(mean: jax.Array) -> sf.Distribution:
    return sf.Distribution(
        lambda mean, x: -0.5 * jnp.square(x - mean),
        lambda mean, key: mean + jax.random.normal(key, jnp.shape(mean)),
        mean,
    )


def _bits(params: jax.Array, key: jax.Array) -> jax.Array:
    """The logit of each is moved by the sum of those before."""

    @sf.program
    def model() -> Any:
        total = jnp.zeros(())
        for logit in params:
            total += yield sf.sample(sf.Bernoulli(logit + total), SCORED)
            yield sf.cost(total)

    return model()(key)


def _walk(estimator: sf.Estimator, params: jax.Array, key: jax.Array) -> jax.Array:
    @sf.program
    def model() -> Any:
        x = jnp.zeros(())
        for step in params:
            x = yield sf.sample(_normal(x + step), estimator)
            yield sf.cost(x**2)

    return model()(key)


def _rollout(params: jax.Array, key: jax.Array) -> jax.Array:
    def step(x: jax.Array, mean: jax.Array) -> Any:
        x = yield sf.sample(_normal(x + mean), SCORED)
        return x, x**2

    return jnp.sum(sf.rollout(step, jnp.zeros(()), params)(key)[1])


PROGRAMS: Mapping[str, Loss] = {
    "bits by ScoreFunction": _bits,
    "Gaussian walk by Pathwise": partial(_walk, sf.Pathwise()),
    "Gaussian walk by ScoreFunction": partial(_walk, SCORED),
    "Gaussian walk by ScoreFunction, a rollout": _rollout,
}


def rows(name: str, choices: int, repeats: int) -> dict[str, list[Row]]:
    """Seconds for tracing, lowering and compiling a gradient, medians."""
    times = np.array([_seconds(PROGRAMS[name], choices) for _ in range(repeats)])
    cpu, wall = np.median(times, axis=0) * 1e6
    found = {"time_us": float(cpu), "wall_us": float(wall)}
    return {"rows": [row("compile", name, choices, "", **found)]}


def _seconds(loss: Loss, choices: int) -> tuple[float, float]:
    # What an earlier round has traced and compiled is forgotten.
    jax.clear_caches()
    arguments = jnp.linspace(-0.5, 0.5, choices), jax.random.key(0)
    jax.block_until_ready(arguments)
    cpu, wall = time.process_time(), time.perf_counter()
    jax.jit(jax.grad(loss)).lower(*arguments).compile()
    return time.process_time() - cpu, time.perf_counter() - wall
