"""An estimator for independent categories: a pair of draws, coupled stick by stick."""

from dataclasses import replace
from typing import ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, stop, wide, zero_along
from scorefn._core.derivatives import first_order_only
from scorefn._core.pytree import pytree_dataclass
from scorefn._core.types import Cost, PyTree, Vmap
from scorefn._score import attach_score
from scorefn.distributions._discrete import Categorical, OneHotCategorical
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.factors import require_factors
from scorefn.estimators._base import Estimator


@pytree_dataclass
class CoupledCategorical(Estimator):
    r"""A pair of antithetic draws by stick-breaking, importance-weighted: DisARM-IW.

    .. code-block:: text

        z, z'       each draw takes the first stick that breaks; the sticks, in ascending order of
                    probability, break by antithetic noise, each with the probability of its
                    category given that no earlier one was taken
        term        (f(z) + f(z')) / 2
        derivative  (f(z) - f(z')) / 2 * (score(z) - score(z')) q(z) q(z') / J(z, z')

    with the score and the ratio of each factor by itself: q is its probability, J that of its pair.
    Unbiased, to first order; for independent categories, indices or one-hot, and any f. Two
    evaluations of f for each term. With two categories it is `DisARM`.

    Raises:
        TypeError: the distribution is not one of independent categories; a second derivative is
            taken.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     dice, f = sf.Categorical(logits), lambda x: x.sum() ** 2
        ...     return sf.expectation(f, dice, key, sf.CoupledCategorical())
        >>> gradient = jax.jit(jax.grad(loss))(jnp.zeros((2, 6)), jax.random.key(0))

    References:
        Dong, Mnih and Tucker, Coupled gradient estimators for discrete latent variables (2021),
        section 3.
    """

    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "2"
    when: ClassVar[str] = "2 evaluations; measure it against leave-one-out"
    needs: ClassVar[str] = "independent categories; any f"

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        factors = _categories(self, distribution, abstract_key(keys))
        logits = stop(factors.logits)
        order = jnp.argsort(logits, axis=-1)
        sticks, log_ratios = _break(jnp.take_along_axis(logits, order, axis=-1))

        def one(key: jax.Array) -> tuple[PyTree, PyTree]:
            noise = jax.random.logistic(key, sticks.shape, sticks.dtype)
            places = _first(jnp.stack([noise, -noise]) < sticks[None])
            pair = jnp.take_along_axis(order[None], places[..., None], axis=-1)
            place = jnp.min(places, axis=0)[..., None]
            ratio = jnp.exp(jnp.take_along_axis(log_ratios, place, axis=-1))
            # Where the two agree the scores do: their difference is the two logits' otherwise.
            weight = jnp.where(pair[0] == pair[1], 0, ratio)
            zero = zero_along(
                jnp.take_along_axis(factors.logits[None], pair, axis=-1),
                jnp.stack([weight, -weight]),
            )
            costs, aux = jax.vmap(f)(factors.cast(pair[..., 0]))
            return jax.tree.map(lambda cost: _attach(cost, zero), costs), aux

        return vmap(one)(keys)


def _categories(
    estimator: Estimator, distribution: Distribution, key: jax.Array
) -> Categorical | OneHotCategorical:
    """The distribution as independent categories, right to first order only."""
    name = type(estimator).__name__
    factors: Categorical | OneHotCategorical = require_factors(
        distribution, key, (Categorical, OneHotCategorical), name, "DisARM fits bits."
    )
    dtype = wide(factors.logits.dtype)
    # The dtype of the draws is the distribution's, whatever is computed with.
    logits = first_order_only(factors.logits.astype(dtype), name)
    return replace(factors, logits=logits)


def _break(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of ascending logits [..., C]: those of the sticks [..., C - 1], the log-ratios [..., C].

    Stick k breaks with p_k, its probability among k, k+1 ... . Because they ascend, p_k <= 1/2, and
    at most one of an antithetic pair breaks. Let a pair differ, and its first break be at stick m.
    Every stick k before it broke for neither: (1 - p_k)^2 if independent, 1 - 2 p_k as coupled.
    At m one broke and the other not: p_m (1 - p_m) if independent, p_m as coupled. After m only
    the other one is left. Hence

        q(z) q(z') / J(z, z') = (1 - p_m) prod_{k < m} (1 + p_k^2 / (1 - 2 p_k)).

    The product is finite: p_k is 1/2 at most for the last stick, and below 1/3 for those before.
    """
    # Every rest holds the last and largest, by which it can be shifted; jax.lax.cumlogsumexp takes
    # twenty times as long.
    largest = logits[..., -1:]
    sums = jax.lax.cumsum(jnp.exp(logits - largest), axis=logits.ndim - 1, reverse=True)
    sticks = logits[..., :-1] - (largest + jnp.log(sums[..., 1:]))
    p = jax.nn.sigmoid(sticks)
    before = jnp.log1p(p[..., :-1] ** 2 / (1 - 2 * p[..., :-1]))
    edge = jnp.zeros_like(p[..., :1])
    product = jnp.cumsum(jnp.concatenate([edge, before], axis=-1), axis=-1)
    ratios = product - jax.nn.softplus(sticks)
    # At the last place, where no stick broke for either, the pair agrees.
    return sticks, jnp.concatenate([ratios, jnp.zeros_like(logits[..., :1])], axis=-1)


def _first(broken: jax.Array) -> jax.Array:
    """The place of the first broken stick, or the last place of all if none broke."""
    last = jnp.ones((*broken.shape[:-1], 1), bool)
    return jnp.argmax(jnp.concatenate([broken, last], axis=-1), axis=-1)


def _attach(cost: jax.Array, zero: jax.Array) -> jax.Array:
    """The mean cost of the pair [2, ...]; half their difference weighs the derivative of zero."""
    # Two scores about the mean: close costs do not cancel, and an infinite one keeps the value.
    mean = stop((cost[0] + cost[1]) / 2)
    return (attach_score(cost[0], zero, mean) + attach_score(cost[1], -zero, mean)) / 2
