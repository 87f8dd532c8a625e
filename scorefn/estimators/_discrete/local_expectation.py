"""An estimator for bits or categories that sums over one coordinate at a time."""

import math
from functools import partial
from typing import ClassVar

import jax
import jax.numpy as jnp

from scorefn._batching.samples import chunked_vmap
from scorefn._core.arrays import abstract_key, finite_product, stop, wide
from scorefn._core.checks import check_count
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.refusals import first_order_only
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn.distributions._discrete import Bernoulli, Categorical, Factors, OneHotCategorical
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.factors import require_factors
from scorefn.estimators._base import Estimator


@pytree_dataclass
class LocalExpectation(Estimator):
    r"""The sum over the values of each coordinate, with the others as drawn.

    .. code-block:: text

        x ~ p       D independent coordinates of C values each
        term        f(x)
        derivative  sum_{c} dp_i(c) f(x, x_i = c)  along coordinate i

    Unbiased, to first order; for independent bits or categories and any f. D (C - 1) + 1
    evaluations of f for each term: D + 1 for bits. The derivative is exact for one coordinate, and
    for a sum of functions of one coordinate each.

    Attributes:
        chunk_size: the number of the D (C - 1) changed draws evaluated at a time. They are
            evaluated again for the derivative, so memory is proportional to the chunk. None
            evaluates all at once.

    Raises:
        TypeError: the distribution is not one of independent bits or categories; a second
            derivative is taken.

    Example:
        >>> import jax, jax.numpy as jnp, scorefn as sf
        >>> def loss(logits, key):
        ...     bits, f = sf.Bernoulli(logits), lambda b: jnp.sum(4 * b)
        ...     return sf.expectation(f, bits, key, sf.LocalExpectation())
        >>> print(jax.grad(loss)(jnp.zeros(3), jax.random.key(0)))
        [1. 1. 1.]

    References:
        Titsias and Lazaro-Gredilla, Local expectation gradients for black box variational inference
        (2015), section 3.
    """

    chunk_size: int | None = static_field(default=None)

    order: ClassVar[float] = 1
    evaluations: ClassVar[str] = "D (C - 1) + 1 for D coordinates of C values; D + 1 for bits"
    when: ClassVar[str] = "f cheap for many draws at once"
    needs: ClassVar[str] = "independent bits or categories; any f"

    def __post_init__(self) -> None:
        if self.chunk_size is not None:
            check_count("chunk_size", self.chunk_size)

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        factors, log_probs = _factors(self, distribution, abstract_key(keys))
        *batch, size = log_probs.shape
        coordinates = math.prod(batch)
        flat = log_probs.reshape(coordinates, size)
        changes = jnp.arange(coordinates * (size - 1))

        def one(key: jax.Array) -> tuple[PyTree, PyTree]:
            x = jax.random.categorical(key, stop(flat))

            def draw(index: jax.Array) -> jax.Array:
                return factors.cast(index.reshape(batch))

            def changed(change: jax.Array) -> tuple[jax.Array, PyTree]:
                i, step = change // (size - 1), change % (size - 1) + 1
                value = ((x[i] + step) % size).astype(x.dtype)
                return flat[i, value], f(draw(x.at[i].set(value)))[0]

            cost, aux = f(draw(x))
            if not coordinates:
                return cost, aux  # No change to evaluate: JAX indexes no empty array.
            log_prob, others = chunked_vmap(changed, chunk_size=self.chunk_size)(changes)
            return jax.tree.map(partial(_attach, log_prob), cost, others), aux

        return vmap(one)(keys)


def _factors(
    estimator: Estimator, distribution: Distribution, key: jax.Array
) -> tuple[Factors, jax.Array]:
    """The factors, and their log-probabilities [..., C], right to first order only."""
    name = type(estimator).__name__
    factors: Factors = require_factors(
        distribution,
        key,
        (Bernoulli, Categorical, OneHotCategorical),
        name,
        "MeasureValued and GO fit counts.",
    )
    logits = factors.logits.astype(wide(factors.logits.dtype))
    logits = first_order_only(logits, name)
    if isinstance(factors, Bernoulli):
        logits = jnp.stack([jnp.zeros_like(logits), logits], axis=-1)
    return factors, jax.nn.log_softmax(logits)


def _attach(log_prob: jax.Array, cost: jax.Array, others: jax.Array) -> jax.Array:
    """The cost, whose derivative sums (others - cost) dp over the m changed draws."""
    # The dp of a coordinate add up to 0, so the value that was drawn needs no separate term.
    shape = log_prob.shape + (1,) * cost.ndim
    prob = jnp.exp(stop(log_prob))
    possible = prob > 0
    log_prob = jnp.where(possible, log_prob, 0)
    zero = (prob * (log_prob - stop(log_prob))).reshape(shape).astype(cost.dtype)
    difference = jnp.where(possible.reshape(shape), others - cost[None], 0)
    return cost + jnp.sum(finite_product(zero, difference), axis=0)
