"""Exact sums along chains of few states, by forward recursion."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import as_float, wide
from scorefn._core.checks import check_count
from scorefn._core.types import PyTree
from scorefn.distributions._distribution import Distribution, as_distribution
from scorefn.estimators._enumerate import Enumerate


def forward_recursion(
    cost: Callable[[Any, jax.Array], jax.Array],
    initial: Any,
    transition: Callable[[Any, jax.Array], Any],
    *,
    length: int,
    log_weight: Callable[[Any, jax.Array], jax.Array] | None = None,
    support: PyTree = None,
) -> tuple[jax.Array, jax.Array]:
    r"""The exact expectation of a sum of costs along a Markov chain of few states.

    .. code-block:: text

        z_0 ~ initial,  z_t ~ transition(z_{t-1}, t),  w = prod_t exp(log_weight(z_t, t))
        log_normalizer  log E[w]
        expected        E[w sum_t cost(z_t, t)] / E[w]

    Without weights `expected` is the plain expectation and `log_normalizer` is 0. With
    ``log_weight = log p(y_t | z_t)`` the chain is a hidden Markov model: the results are the
    log-likelihood, and the expectation given all observations.

    Exact at every order. Costs ``length * S`` evaluations of cost and log_weight and
    ``length * S^2`` of the transition density for S states; a sum over paths would have
    ``S^length`` terms. The model must be a chain: each state depends only on the previous one,
    costs add up, and weights multiply. If a state depends on the two previous ones, use pairs of
    states as states. For other graphs use `Enumerate` for each choice, or another estimator.

    Args:
        cost: ``cost(z, t)``, a real scalar; z is one state and t the step, from 0 to length - 1.
        initial: the distribution of the first state.
        transition: ``transition(z, t)``, the distribution of state t given the previous state z.
        length: the number of steps, a static int.
        log_weight: ``log_weight(z, t)``, a real scalar, in nats; minus infinity if impossible.
        support: all states, each once, [S, ...] or a pytree; None reads it from `initial`, as
            `Enumerate` does. It must be valid for all steps.

    Returns:
        ``(log_normalizer, expected)``, two scalars.

    Raises:
        ValueError: the support cannot be read; a density or cost is not a scalar.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def expected(stay):
        ...     def transition(z, t): return sf.Bernoulli(jnp.where(z == 1, stay, -stay))
        ...     start = sf.Bernoulli(jnp.array(0.0))
        ...     _, ones = sf.forward_recursion(lambda z, t: z, start, transition, length=50)
        ...     return ones
        >>> print(f"{expected(0.7):.3f}")
        25.000

    References:
        Baum et al., A maximization technique occurring in the statistical analysis of
        probabilistic functions of Markov chains (1970); Rabiner, A tutorial on hidden Markov models
        (1989), equations 19 to 21.
    """
    length = check_count("length", length)
    first = as_distribution(initial)
    key = jax.eval_shape(jax.random.key, 0)
    states = jax.tree.map(jnp.asarray, Enumerate(support).values(first, key))

    def weigh(t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The log-weights and costs of all states, [S] each."""
        costs = jax.vmap(lambda z: as_float(_scalar("cost", cost(z, t))))(states)
        if log_weight is None:
            return jnp.zeros_like(costs), costs
        weights = jax.vmap(lambda z: as_float(_scalar("log_weight", log_weight(z, t))))(states)
        return weights, costs

    def densities(distribution: Distribution) -> jax.Array:
        log_probs = jax.vmap(distribution.log_density)(states)
        return log_probs.astype(wide(log_probs.dtype))

    def enter(log_probs: jax.Array, costs: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        weights, new = weigh(t)
        dtype = log_probs.dtype
        return log_probs + weights.astype(dtype), costs + new.astype(dtype)

    def step(carry: Any, t: jax.Array) -> tuple[Any, None]:
        # The log-weight of all paths to each state, and their weighted mean of costs so far.
        log_probs, costs = carry
        moves = jax.vmap(lambda z: densities(as_distribution(transition(z, t))))(states)
        joint = log_probs[:, None] + moves.astype(log_probs.dtype)
        total = _logsumexp(joint)
        share = _exp(joint - jnp.where(jnp.isneginf(total), 0, total)[None])
        return enter(total, jnp.sum(share * costs[:, None], axis=0), t), None

    start = densities(first)
    carry = enter(start, jnp.zeros_like(start), jnp.zeros((), jnp.int32))
    steps = jnp.arange(1, length, dtype=jnp.int32)
    (log_probs, costs), _ = jax.lax.scan(step, carry, steps)
    log_normalizer = _logsumexp(log_probs[:, None])[0]
    share = _exp(log_probs - jnp.where(jnp.isneginf(log_normalizer), 0, log_normalizer))
    return log_normalizer, jnp.sum(share * jnp.where(share > 0, costs, 0))


def _logsumexp(x: jax.Array) -> jax.Array:
    """The logsumexp over the leading axis; -inf without a derivative if all are -inf."""
    possible = jnp.any(~jnp.isneginf(x), axis=0)
    # Masked on both sides: the derivative of the branch that is not taken would be nan.
    safe = jnp.where(possible[None], x, 0)
    return jnp.where(possible, jax.nn.logsumexp(safe, axis=0), -jnp.inf)


def _exp(x: jax.Array) -> jax.Array:
    possible = ~jnp.isneginf(x)
    return jnp.where(possible, jnp.exp(jnp.where(possible, x, 0)), 0)


def _scalar(name: str, value: Any) -> jax.Array:
    value = jnp.asarray(value)
    if value.shape != ():
        raise ValueError(f"{name} must return one number, got shape {value.shape}; sum it.")
    return value
