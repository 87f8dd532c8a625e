"""A particle filter on a chain of two states, over all of its particles and ancestors."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import logsumexp
from support.exact import FAST

import scorefn as sf

EMISSIONS = np.array([[0.8, 0.2], [0.3, 0.7]])
OBSERVED = (0, 1, 1)
THETA = 0.7


def transition(theta: Any) -> jax.Array:
    """A state stays with probability sigmoid(theta)."""
    stay = jax.nn.sigmoid(theta)
    return jnp.array([[stay, 1 - stay], [1 - stay, stay]])


def likelihood(theta: Any) -> jax.Array:
    """The exact Z, by the forward recursion."""
    alpha = jnp.full(2, 0.5) * EMISSIONS[:, OBSERVED[0]]
    for y in OBSERVED[1:]:
        alpha = (alpha @ transition(theta)) * EMISSIONS[:, y]
    return jnp.sum(alpha)


def everything(n: int) -> list[np.ndarray]:
    """All runs of n particles: their particles and ancestors at each step, [runs, n] each."""
    states, parents = (list(itertools.product(range(k), repeat=n)) for k in (2, n))
    rows = itertools.product(states, parents, states, parents, states)
    return [np.array(column, np.int32) for column in zip(*rows, strict=True)]


def log_mean_exp(x: jax.Array) -> jax.Array:
    return logsumexp(x) - jnp.log(x.size)


def filtered(theta: Any, run: Any, *, carried: bool, stopped: bool = False) -> Any:
    """log(Z-hat) of a run and the log-probability of its draws.

    The weights of `resample` are carried on, or start at 0 again after each step. With `stopped`
    they are carried without their derivative, as by filters that ignore the resampling.
    """
    table, emissions = jnp.log(transition(theta)), jnp.log(EMISSIONS)
    x, *later = run
    log_weights, total = emissions[x, OBSERVED[0]], jnp.zeros(())
    log_prob = x.size * jnp.log(0.5)
    for ancestors, state, y in zip(later[::2], later[1::2], OBSERVED[1:], strict=True):
        found = sf.resample(log_weights, ancestors=ancestors)
        move = table[x[ancestors], state]
        log_prob += found.log_prob + jnp.sum(move)
        if carried:
            before = jax.lax.stop_gradient(found.log_weights) if stopped else found.log_weights
            log_weights = before + move - jax.lax.stop_gradient(move)
        else:
            total += log_mean_exp(log_weights)
            log_weights = jnp.zeros(x.size)
        log_weights += emissions[state, y]
        x = state
    return total + log_mean_exp(log_weights), log_prob


def means(n: int, fn: Any, order: int = 1) -> list[jax.Array]:
    """The exact mean of ``fn(theta, run)`` and of its derivatives, over every run."""
    runs = everything(n)

    def both(theta: Any, run: Any) -> Any:
        derivatives = [fn]
        for _ in range(order):
            derivatives.append(jax.jacfwd(derivatives[-1]))
        _, log_prob = filtered(theta, run, carried=False)
        return jnp.exp(log_prob) * jnp.stack([d(theta, run) for d in derivatives])

    def total(theta: Any, runs: Any) -> jax.Array:
        return jnp.sum(jax.vmap(both, (None, 0))(theta, runs), 0)

    return list(jax.jit(total, compiler_options=FAST)(THETA, runs))
