"""CPU time to trace and compile a few gradients: ``python tests/support/trace_time.py [checkout]``.

Prints milliseconds, the median of five rounds. To compare two commits, name a checkout of each in
turns.
"""

import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, sys.argv[1] if sys.argv[1:] else str(Path(__file__).parents[2]))

import distrax
import jax
import jax.numpy as jnp

import scorefn as sf


def exponential(rate, key):
    draw = lambda rate, key: jax.random.exponential(key) / rate  # noqa: E731
    p = sf.Distribution(lambda rate, x: jnp.log(rate) - rate * x, draw, rate)
    f = lambda x: jnp.where(x > 1.0, 1.0, 0.0)  # noqa: E731
    return sf.expectation(f, p, key, sf.ScoreFunction(), num_samples=10_000)


def categorical(params, key):
    policy = distrax.Categorical(logits=params["logits"])
    cost = lambda action: params["scale"] * (action - 1.0) ** 2  # noqa: E731
    return sf.expectation(cost, policy, key, sf.ScoreFunction(), num_samples=64)


def path(mean, key):
    normal = distrax.Normal(mean, 1.0)
    return sf.expectation(lambda x: jnp.sum(x**2), normal, key, sf.Pathwise(), num_samples=64)


def bits(logits, key):
    f = lambda b: jnp.sum(b) ** 2  # noqa: E731
    return sf.expectation(f, sf.Bernoulli(logits), key, sf.DisARM(), num_samples=16)


PARAMS = {
    exponential: 2.0,
    categorical: {"logits": jnp.zeros(3), "scale": 1.0},
    path: jnp.zeros(5),
    bits: jnp.zeros(5),
}

if __name__ == "__main__":
    for loss, params in PARAMS.items():
        seconds = []
        for _ in range(6):
            jax.clear_caches()
            start = time.process_time()
            jax.jit(jax.grad(loss)).lower(params, jax.random.key(0)).compile()
            seconds.append(time.process_time() - start)
        # The first round imports what is imported late.
        print(f"{loss.__name__:12s} {1e3 * statistics.median(seconds[1:]):.0f}")
