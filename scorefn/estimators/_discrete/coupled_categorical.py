"""An estimator for independent categories from a pair of draws, coupled by stick-breaking."""

from dataclasses import replace
from typing import ClassVar

import jax
import jax.numpy as jnp

from scorefn._core.arrays import abstract_key, stop, wide
from scorefn._core.derivatives import zero_along
from scorefn._core.pytree import pytree_dataclass
from scorefn._core.refusals import first_order_only
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn._score import attach_score
from scorefn.distributions._discrete import Categorical, OneHotCategorical
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.factors import require_factors
from scorefn.estimators._base import Estimator


@pytree_dataclass
class CoupledCategorical(Estimator):
    r"""DisARM-IW: a pair of antithetic draws by stick-breaking, importance-weighted.

    .. code-block:: text

        z, z'       the first stick that breaks, in each draw; the sticks, in ascending order of
                    probability, break by antithetic noise, each with the probability of its
                    category given that no earlier one broke
        term        (f(z) + f(z')) / 2
        derivative  (f(z) - f(z')) / 2 * (score(z) - score(z')) q(z) q(z') / J(z, z')

    with score and ratio separate for each factor; q is the probability of a draw, J that of the
    pair. Unbiased, to first order; for independent categories, as indices or one-hot, and any f.
    Two evaluations of f for each term. With two categories it equals `DisARM`.

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
    when: ClassVar[str] = "2 evaluations; compare it with leave-one-out"
    needs: ClassVar[str] = "independent categories; any f"

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
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
            # Equal draws have equal scores; else the scores differ by the difference of two logits.
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
    # The draws keep the dtype of the distribution.
    logits = first_order_only(factors.logits.astype(dtype), name)
    return replace(factors, logits=logits)


def _break(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The logits of the sticks, [..., C - 1], and the log-ratios of ascending logits.

    Stick k breaks with p_k, its probability among k, k+1 ... . Because they ascend, p_k <= 1/2, and
    at most one stick of an antithetic pair breaks. Suppose the draws differ, with the first break
    at stick m. Before m no stick broke in either draw, with probability (1 - p_k)^2 if independent
    and 1 - 2 p_k if coupled. At m one broke, with probability p_m (1 - p_m) if independent and p_m
    if coupled. After m only one draw remains. Hence

        q(z) q(z') / J(z, z') = (1 - p_m) prod_{k < m} (1 + p_k^2 / (1 - 2 p_k)).

    The product is finite: p_k is at most 1/2 for the last stick, and below 1/3 for earlier ones.
    """
    # Every tail sum contains the last and largest logit, so all can be shifted by it;
    # jax.lax.cumlogsumexp takes 20 times as long.
    largest = logits[..., -1:]
    sums = jax.lax.cumsum(jnp.exp(logits - largest), axis=logits.ndim - 1, reverse=True)
    sticks = logits[..., :-1] - (largest + jnp.log(sums[..., 1:]))
    p = jax.nn.sigmoid(sticks)
    before = jnp.log1p(p[..., :-1] ** 2 / (1 - 2 * p[..., :-1]))
    edge = jnp.zeros_like(p[..., :1])
    product = jnp.cumsum(jnp.concatenate([edge, before], axis=-1), axis=-1)
    ratios = product - jax.nn.softplus(sticks)
    # At the last place no stick broke in either draw, so the draws are equal.
    return sticks, jnp.concatenate([ratios, jnp.zeros_like(logits[..., :1])], axis=-1)


def _first(broken: jax.Array) -> jax.Array:
    """The place of the first broken stick, or the last place if none broke."""
    last = jnp.ones((*broken.shape[:-1], 1), bool)
    return jnp.argmax(jnp.concatenate([broken, last], axis=-1), axis=-1)


def _attach(cost: jax.Array, zero: jax.Array) -> jax.Array:
    """The mean cost of the pair, with half the difference times `zero` as derivative."""
    # Two scores around the mean: close costs lose no digits, and an infinite one keeps the value.
    mean = stop((cost[0] + cost[1]) / 2)
    return (attach_score(cost[0], zero, mean) + attach_score(cost[1], -zero, mean)) / 2
