"""Paths of a Markov chain of few states, drawn backwards after forward recursion."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from scorefn._core.arrays import stop
from scorefn._core.checks import check_count
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import PyTree
from scorefn.distributions._distribution import as_distribution
from scorefn.distributions._integer_icdf import categories_at, words

from ._forward_recursion import Chain


@pytree_dataclass
class MarkovChain:
    r"""Paths of a Markov chain of few states, given weights of its states.

    .. code-block:: text

        p(z) = p(z_0) prod_t p(z_t | z_{t-1}) prod_t exp(log_weight(z_t, t)) / normalizer

    A distribution of whole paths, for estimators such as `ScoreFunction`, with any cost of a path.
    Without weights it is the chain itself; with ``log_weight = log p(y_t | z_t)`` it is the
    posterior of a hidden Markov model. For costs that add up along the path `forward_recursion`
    gives the exact expectation, without draws.

    Exact: the normalizer by forward recursion, a draw by backward sampling from the same sums. They
    take ``length * S^2`` transition densities for S states, once for all draws, and
    ``length * S^2`` numbers of memory. log_prob is differentiable at every order along what
    `initial`, `transition` and `log_weight` depend on, arrays that they close over included.

    Attributes:
        initial: the distribution of the first state.
        transition: ``transition(z, t)``, the distribution of state t given the previous state z.
        length: the number of states, a static int.
        log_weight: ``log_weight(z, t)``, a real scalar, in nats; minus infinity if impossible.
        support: all states, each once, [S, ...] or a pytree; None reads it from `initial`, as
            `Enumerate` does. It must be valid for all steps.

    A draw is the states of a path, [length, ...] for each leaf of a state.

    Raises:
        ValueError: the support cannot be read; a density or weight is not a scalar.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(stay, key):
        ...     def transition(z, t): return sf.Bernoulli(jnp.where(z == 1, stay, -stay))
        ...     chain = sf.MarkovChain(sf.Bernoulli(jnp.array(0.0)), transition, length=10)
        ...     longest = lambda z: jnp.max(jnp.cumsum(z) * z)
        ...     return sf.expectation(longest, chain, key, sf.ScoreFunction(), num_samples=8)
        >>> gradient = jax.jit(jax.grad(loss))(0.7, jax.random.key(0))

    References:
        Carter and Kohn, On Gibbs sampling for state space models (1994);
        Frühwirth-Schnatter, Data augmentation and dynamic linear models (1994).
    """

    initial: Any
    transition: Callable[[Any, jax.Array], Any] = static_field(repr=False)
    length: int = static_field(kw_only=True)
    log_weight: Callable[[Any, jax.Array], jax.Array] | None = static_field(
        default=None, kw_only=True, repr=False
    )
    support: PyTree = None

    def __post_init__(self) -> None:
        check_count("length", self.length)

    def log_prob(self, x: Any) -> jax.Array:
        """The log-probability of one path, a scalar."""
        chain = self._chain()
        before = jax.tree.map(lambda z: z[:-1], x)
        after = jax.tree.map(lambda z: z[1:], x)
        move = lambda z, t, y: as_distribution(self.transition(z, t)).log_density(y)  # noqa: E731
        moves = jax.vmap(move)(before, jnp.arange(1, self.length, dtype=jnp.int32), after)
        first = chain.initial.log_density(jax.tree.map(lambda z: z[0], x))
        total = first + jnp.sum(moves)
        if self.log_weight is None:
            return total
        weights = jax.vmap(chain.weight)(x, jnp.arange(self.length, dtype=jnp.int32))
        normalizer = chain.log_normalizer()
        return (total + jnp.sum(weights)).astype(normalizer.dtype) - normalizer

    def sample(self, key: jax.Array) -> Any:
        """One path. The key is consumed."""
        chain = self._chain()
        ends, pairs = stop(chain.ends())
        random = words(key, (self.length,), ends)
        last = categories_at(random[-1], ends)

        def back(after: jax.Array, step: Any) -> tuple[jax.Array, jax.Array]:
            word, pair = step
            state = categories_at(word, pair[:, after])
            return state, state

        _, path = jax.lax.scan(back, last, (random[:-1], pairs), reverse=True)
        path = jnp.concatenate([path, last[None]])
        return jax.tree.map(lambda states: states[path], chain.states)

    def _chain(self) -> Chain:
        initial = as_distribution(self.initial)
        return Chain(initial, self.transition, self.length, self.log_weight, self.support)
