"""The exact expectation over a finite support."""

import itertools
import math
from dataclasses import field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from .._arguments import example, wide
from .._distribution import Distribution
from .._factors import Bernoulli, read_factors
from .._record import record
from ._estimator import Cost, Estimator, PyTree, Vmap


@record(static=["max_size"])
class Enumerate(Estimator):
    r"""The exact sum over a finite support: no variance, and the oracle for everything else.

    .. code-block:: text

        each term  sum_x exp(log_prob(x)) f(x)

    Exact at every order. Costs one evaluation of f for each element of the support, in one batch,
    whatever the number of samples: every term is the same, the keys are not used. Aux is stacked
    over the support, in its order, not over samples.

    Attributes:
        support: every value a draw can take, once: an array [S, ...] or a pytree of such. May be
            left out for objects named Bernoulli, Categorical or OneHotCategorical, plain or inside
            Independent, with any batch shape, and for those with numpyro's ``enumerate_support``;
            independent factors are enumerated jointly. If the probabilities of a given support do
            not add up to 1 (to 0.001), the result is nan: part of the expectation is missing.
        max_size: the largest support that is read off a distribution: 2^12 by default, 12 bits.

    Raises:
        ValueError: the support cannot be read off, or has more than `max_size` elements.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> def loss(logits, key):
        ...     coins = distrax.Bernoulli(logits=logits)
        ...     return sf.expectation(lambda b: b.sum() ** 2, coins, key, sf.Enumerate())
        >>> print(jax.grad(loss)(jax.numpy.zeros(2), jax.random.key(0)))
        [0.5 0.5]
    """

    support: PyTree = None
    max_size: int = field(default=4096, kw_only=True)

    evaluations: ClassVar[str] = "size of the support, once for all terms"
    when: ClassVar[str] = "a support of up to some thousand values, f cheap"
    needs: ClassVar[str] = "a finite support; any f"

    def terms(
        self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap
    ) -> tuple[PyTree, PyTree]:
        support = self.support
        if support is None:
            support = _support(distribution, example(keys), self.max_size)

        def one(x: Any) -> tuple[jax.Array, PyTree, PyTree]:
            return distribution.log_density(x), *f(x)

        log_prob, costs, aux = vmap(one)(jax.tree.map(jnp.asarray, support))
        log_prob = log_prob.astype(wide(log_prob.dtype))
        # Impossible values: exp keeps a finite derivative, and 0 * inf is left out of the sum.
        possible = ~jnp.isneginf(log_prob)
        prob = jnp.where(possible, jnp.exp(jnp.where(possible, log_prob, 0)), 0)
        # A factor, so that the derivative is nan as well.
        complete = self.support is None or jnp.abs(jnp.sum(prob) - 1) < 1e-3
        alarm = jnp.where(complete, 1, jnp.nan)

        def expected(cost: jax.Array) -> jax.Array:
            weight = prob.reshape(prob.shape + (1,) * (cost.ndim - 1))
            cost = cost.astype(wide(cost.dtype, prob.dtype))
            total = jnp.sum(weight.astype(cost.dtype) * jnp.where(weight > 0, cost, 0), axis=0)
            return total * alarm.astype(total.dtype)

        return jax.tree.map(
            lambda cost: jnp.broadcast_to(
                expected(cost).astype(cost.dtype), (len(keys), *cost.shape[1:])
            ),
            costs,
        ), aux


def _support(distribution: Distribution, key: jax.Array, max_size: int) -> jax.Array:
    factors = read_factors(distribution, key)
    if factors is not None:
        *batch, size = (
            (*factors.logits.shape, 2) if isinstance(factors, Bernoulli) else factors.logits.shape
        )
        return factors.cast(_product(size, tuple(batch), max_size))
    if getattr(distribution.params, "has_enumerate_support", False):
        # numpyro: the values of one factor, [k, 1 ..., *event].
        values = distribution.params.enumerate_support(expand=False)
        batch = distribution.params.batch_shape
        rows = _product(len(values), batch, max_size)
        return values.reshape(len(values), *distribution.params.event_shape)[rows]
    raise ValueError(
        f"Enumerate cannot read the support off {type(distribution.params).__name__}; give "
        f"every value that a draw can take, Enumerate(support=values) with values of shape "
        f"[S, ...] or a pytree of such. Use ScoreFunction where the support is infinite."
    )


def _product(size: int, batch: tuple[int, ...], max_size: int) -> jax.Array:
    """Every assignment of 0 .. size-1 to each factor of the batch, [size^factors, *batch]."""
    factors = math.prod(batch)
    if size**factors > max_size:
        raise ValueError(
            f"Enumerate would sum over {size}^{factors} = {size**factors} values, more than "
            f"max_size={max_size}. Raise max_size, or use ScoreFunction."
        )
    rows = np.array(list(itertools.product(range(size), repeat=factors)), int)
    return jnp.asarray(rows.reshape(size**factors, *batch))
