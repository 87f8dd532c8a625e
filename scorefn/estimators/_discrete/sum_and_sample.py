"""Estimators that sum over some categories of a factor and draw one of the rest."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, stop
from scorefn._core.checks import check_count
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn._score import attach_score, leave_one_out
from scorefn.distributions._distribution import Distribution
from scorefn.estimators._base import Estimator

from .one_factor import OneFactor, one_factor


@pytree_dataclass
class _OneOfTheRest(Estimator):
    size: int = static_field()

    coupled: ClassVar[bool] = True
    needs: ClassVar[str] = "one categorical factor; any f"

    def __post_init__(self) -> None:
        check_count("size", self.size)

    def factor(self, distribution: Distribution, keys: jax.Array) -> OneFactor:
        """The distribution as one factor of more than `size` categories."""
        factor = one_factor(self, distribution, abstract_key(keys))
        categories = len(factor.log_probs)
        if self.size >= categories:
            raise ValueError(
                f"size must be less than the number of categories with {type(self).__name__}, got "
                f"size={self.size} of {categories} categories: none is left to draw. Enumerate "
                f"sums over all."
            )
        return factor


@pytree_dataclass
class SumAndSample(_OneOfTheRest):
    r"""The exact sum over the most probable categories, and one draw of the others.

    .. code-block:: text

        A           the `size` categories of highest probability;  x ~ p given that it is not in A
        term        sum_{a in A} p(a) f(a) + (1 - p(A)) f(x)
        derivative  sum_{a in A} p(a) (df(a) + (f(a) - b) dlog p(a))
                    + (1 - p(A)) (df(x) + (f(x) - b) dlog p(x))
        b           the term, with f(x) replaced by the mean f of the other samples' x, or of A if
                    there is one sample

    Unbiased at every order; for one categorical factor and any f. A call takes `size` evaluations
    of f, and one for each term; the terms of a call are coupled. Good if few categories hold most
    of the probability, because they contribute no variance. Aux is that of the draws x.

    Attributes:
        size: the number of summed categories, below the number of categories.

    Raises:
        TypeError: the distribution is not one categorical factor.
        ValueError: `size` is below 1, or not below the number of categories.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     die, f = sf.Categorical(logits), lambda x: x**2
        ...     return sf.expectation(f, die, key, sf.SumAndSample(3), num_samples=2)
        >>> gradient = jax.jit(jax.grad(loss))(jnp.arange(6.0), jax.random.key(0))

    References:
        Liu et al., Rao-Blackwellized stochastic gradients for discrete distributions (2019),
        section 3.
    """

    evaluations: ClassVar[str] = "1, and `size` once for all terms"
    when: ClassVar[str] = "nearly all probability on few categories"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        factor = self.factor(distribution, keys)
        log_probs = stop(factor.log_probs)
        summed = jax.lax.top_k(log_probs, self.size)[1]
        tail = log_probs.at[summed].set(-jnp.inf)
        exact, _ = vmap(f)(factor.draws(summed))

        def one(key: jax.Array) -> Any:
            x = jax.random.categorical(key, tail).astype(summed.dtype)
            return x, *f(factor.draws(x))

        x, sampled, aux = vmap(one)(keys)
        n = len(keys)
        indices = jnp.concatenate([jnp.broadcast_to(summed, (n, self.size)), x[:, None]], axis=1)

        def side_by_side(exact: jax.Array, sampled: jax.Array) -> jax.Array:
            return jnp.concatenate(
                [jnp.broadcast_to(exact, (n, *exact.shape)), sampled[:, None]], axis=1
            )

        costs = jax.tree.map(side_by_side, exact, sampled)
        return _added_up(factor, indices, costs), aux


@pytree_dataclass
class StochasticSumAndSample(_OneOfTheRest):
    r"""A `SumAndSample` whose summed categories are drawn without replacement.

    .. code-block:: text

        A           `size` categories without replacement;  x the next one drawn this way
        term        sum_{a in A} p(a) f(a) + (1 - p(A)) f(x)
        derivative  as `SumAndSample`

    Unbiased at every order; for one categorical factor and any f. ``size + 1`` evaluations of f for
    each term. The terms have independent sets, and baselines computed from one another. The value
    of `UnorderedSet` with ``size + 1`` samples is the mean of this one over the orders in which its
    set may have been drawn. Aux is that of the draws x.

    Attributes:
        size: the number of summed categories, below the number of categories.

    Raises:
        TypeError: the distribution is not one categorical factor.
        ValueError: `size` is below 1, or not below the number of categories.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     die, f = sf.Categorical(logits), lambda x: x**2
        ...     return sf.expectation(f, die, key, sf.StochasticSumAndSample(3))
        >>> gradient = jax.jit(jax.grad(loss))(jnp.arange(6.0), jax.random.key(0))

    References:
        Kool, van Hoof and Welling, Estimating gradients for discrete random variables by sampling
        without replacement (2020), section 3; Liang et al., Memory augmented policy optimization
        for program synthesis and semantic parsing (2018).
    """

    evaluations: ClassVar[str] = "`size` + 1"
    when: ClassVar[str] = "most probability on few categories; an independent set for each term"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        factor = self.factor(distribution, keys)

        def one(key: jax.Array) -> Any:
            drawn = factor.without_replacement(key, self.size + 1)
            costs, aux = jax.vmap(f)(factor.draws(drawn))
            return drawn, costs, jax.tree.map(lambda leaf: leaf[-1], aux)

        indices, costs, aux = vmap(one)(keys)
        return _added_up(factor, indices, costs), aux


def _added_up(factor: OneFactor, indices: jax.Array, costs: PyTree) -> PyTree:
    """The terms, from categories and costs [n, size + 1, ...], the last one drawn."""
    n, m = indices.shape
    log_probs = factor.log_probs[indices]
    stopped = stop(factor.log_probs)

    def tail_mass(summed: jax.Array) -> jax.Array:
        return jnp.exp(jax.nn.logsumexp(stopped.at[summed].set(-jnp.inf)))

    summed, last = jnp.exp(stop(log_probs[:, :-1])), jax.vmap(tail_mass)(indices[:, :-1])
    weights = jnp.concatenate([summed, last[:, None]], axis=1)

    def attach(cost: jax.Array) -> jax.Array:
        weight = weights.reshape((n, m) + (1,) * (cost.ndim - 2)).astype(cost.dtype)
        # Impossible categories have no weight, even if f is infinite.
        cost = jnp.where(weight > 0, cost, 0)
        known = jnp.sum((weight * stop(cost))[:, :-1], axis=1)
        drawn = stop(cost[:, -1])
        others = known / jnp.sum(weight[:, :-1], axis=1) if n == 1 else leave_one_out(drawn)
        baseline = known + weight[:, -1] * others
        scored = attach_score(cost, log_probs, jnp.broadcast_to(baseline[:, None], cost.shape))
        return jnp.sum(weight * scored, axis=1)

    return jax.tree.map(attach, costs)
