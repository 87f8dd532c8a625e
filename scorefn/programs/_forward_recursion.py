"""Exact sums along chains of few states, by forward recursion."""

from __future__ import annotations

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
    chain = Chain(as_distribution(initial), transition, length, log_weight, support)

    def enter(costs: jax.Array, t: jax.Array) -> jax.Array:
        of = lambda z: as_float(_scalar("cost", cost(z, t)))  # noqa: E731
        return costs + jax.vmap(of)(chain.states).astype(costs.dtype)

    def step(carry: Any, t: jax.Array) -> tuple[Any, None]:
        # The log-weight of all paths to each state, and their weighted mean of costs so far.
        log_probs, costs = carry
        joint, total = chain.step(log_probs, t)
        share = _exp(joint - jnp.where(jnp.isneginf(total), 0, total)[None])
        costs = jnp.sum(share * costs[:, None], axis=0)
        return (chain.weighted(total, t), enter(costs, t)), None

    start = chain.start()
    carry = (start, enter(jnp.zeros_like(start), jnp.zeros((), jnp.int32)))
    (log_probs, costs), _ = jax.lax.scan(step, carry, chain.steps())
    log_normalizer = _logsumexp(log_probs[:, None])[0]
    share = _exp(log_probs - jnp.where(jnp.isneginf(log_normalizer), 0, log_normalizer))
    return log_normalizer, jnp.sum(share * jnp.where(share > 0, costs, 0))


class Chain:
    """The sums over the paths of a chain of S states."""

    def __init__(
        self,
        initial: Distribution,
        transition: Callable[[Any, jax.Array], Any],
        length: int,
        log_weight: Callable[[Any, jax.Array], jax.Array] | None,
        support: PyTree,
    ) -> None:
        self.initial, self.transition, self.length = initial, transition, length
        self.log_weight = log_weight
        key = jax.eval_shape(jax.random.key, 0)
        self.states = jax.tree.map(jnp.asarray, Enumerate(support).values(initial, key))

    def steps(self) -> jax.Array:
        """The steps after the first."""
        return jnp.arange(1, self.length, dtype=jnp.int32)

    def weight(self, z: Any, t: jax.Array) -> jax.Array:
        """The log-weight of one state."""
        assert self.log_weight is not None
        return as_float(_scalar("log_weight", self.log_weight(z, t)))

    def weighted(self, log_probs: jax.Array, t: jax.Array) -> jax.Array:
        """Log-probabilities of the states, [S], with their log-weights."""
        if self.log_weight is None:
            return log_probs
        weights = jax.vmap(self.weight, (0, None))(self.states, t)
        return log_probs + weights.astype(log_probs.dtype)

    def start(self) -> jax.Array:
        """The log-weight of each state at the first step, [S]."""
        return self.weighted(self._densities(self.initial), jnp.zeros((), jnp.int32))

    def step(self, log_probs: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
        """The log-weights of all pairs of states, [S, S], and later ones, [S]."""
        joint = log_probs[:, None] + self._moves(t).astype(log_probs.dtype)
        return joint, _logsumexp(joint)

    def ends(self) -> tuple[jax.Array, jax.Array]:
        """The log-weights of all paths to each last state, and to each pair."""

        def step(log_probs: jax.Array, t: jax.Array) -> tuple[jax.Array, jax.Array]:
            joint, total = self.step(log_probs, t)
            return self.weighted(total, t), joint

        return jax.lax.scan(step, self.start(), self.steps())

    def log_normalizer(self) -> jax.Array:
        """The log of the summed weight of all paths."""
        return _logsumexp(self.ends()[0][:, None])[0]

    def _moves(self, t: jax.Array) -> jax.Array:
        move = lambda z: self._densities(as_distribution(self.transition(z, t)))  # noqa: E731
        return jax.vmap(move)(self.states)

    def _densities(self, distribution: Distribution) -> jax.Array:
        log_probs = jax.vmap(distribution.log_density)(self.states)
        return log_probs.astype(wide(log_probs.dtype))


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
