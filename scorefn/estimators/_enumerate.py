"""The exact expectation over a finite support."""

import itertools
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from scorefn._core.arrays import abstract_key, as_float, stop, wide
from scorefn._core.checks import certified, check_count
from scorefn._core.pytree import pytree_dataclass, static_field
from scorefn._core.types import Cost, PyTree, Terms, Vmap
from scorefn.distributions._discrete import Bernoulli
from scorefn.distributions._distribution import Distribution, is_object
from scorefn.distributions._interop.classes import class_of
from scorefn.distributions._interop.discrete import read_discrete
from scorefn.distributions._interop.factors import read_factors
from scorefn.distributions._interop.supports import enumerated

from ._base import Estimator
from ._factor_axes import check_factor_axes, log_densities


@pytree_dataclass
class Enumerate(Estimator):
    r"""The exact sum over a finite support, without variance.

    .. code-block:: text

        each term  sum_x exp(log_prob(x)) f(x)

    Exact at every order. One evaluation of f for each element of the support, in one batch, for any
    number of samples: all terms are equal, and the keys are not used. Aux is stacked over the
    support, in its order, not over samples.

    Attributes:
        support: all values of a draw, each once: an array [S, ...] or a pytree of such arrays. It
            can be omitted for bits and categories of scorefn, distrax, TFP and numpyro, plain or
            inside Independent, with any batch shape, for `Subset` and `PlackettLuce`, and for those
            with numpyro's ``enumerate_support``; independent factors are enumerated jointly. If the
            probabilities do not add up to 1 (to 0.001), it is an error, and the result is nan under
            jit.
        max_size: the largest support that is read from a distribution: 2^12 by default, 12 bits.
        factor_ndim: the number of leading axes of a draw that index independent factors, each with
            its own cost; 0 by default. f then returns costs with these leading axes, and each cost
            may depend on the factor at its own index only. The caller guarantees this; it is not
            checked. All factors are enumerated in parallel: D bits take 2 evaluations of f, not
            2^D. A given support is that of one factor.

    Raises:
        ValueError: the support cannot be read, or has more than `max_size` elements; its
            probabilities do not add up to 1; costs or log_prob lack the axes of the factors.

    Example:
        >>> import distrax, jax, scorefn as sf
        >>> def loss(logits, key):
        ...     coins = distrax.Bernoulli(logits=logits)
        ...     return sf.expectation(lambda b: b.sum() ** 2, coins, key, sf.Enumerate())
        >>> print(jax.grad(loss)(jax.numpy.zeros(2), jax.random.key(0)))
        [0.5 0.5]
    """

    support: PyTree = None
    max_size: int = static_field(default=4096, kw_only=True)
    factor_ndim: int = static_field(default=0, kw_only=True)

    evaluations: ClassVar[str] = "size of the support, once for all terms"
    when: ClassVar[str] = "a support of up to a few thousand values, f cheap"
    needs: ClassVar[str] = "a finite support, a normalized log_prob (checked); any f"

    def __post_init__(self) -> None:
        check_count("factor_ndim", self.factor_ndim, at_least=0)

    def terms(self, f: Cost, distribution: Distribution, keys: jax.Array, vmap: Vmap) -> Terms:
        support = self.values(distribution, abstract_key(keys))

        discrete = read_discrete(distribution.params) if is_object(distribution) else None
        table: Any = None if discrete is None else discrete.table()

        def weight(x: Any) -> jax.Array:
            if discrete is not None:
                return _looked_up(table, discrete.index(x), self.factor_ndim)
            return log_densities(distribution, x, self.factor_ndim)

        values = jax.tree.map(jnp.asarray, support)
        if discrete is not None and self.support is None:
            costs, aux = vmap(f)(values)
            prob = _joint(table, jnp.shape(discrete.index(values))[1:], self.factor_ndim)
        else:
            prob, costs, aux = vmap(lambda x: (weight(x), *f(x)))(values)
        error = jnp.asarray(1e-3)
        given = as_float(prob if discrete is None else discrete.given)
        rounding = float(jnp.finfo(given.dtype).eps)
        if discrete is None:
            log_prob = prob.astype(wide(prob.dtype))
            # For impossible values exp keeps a finite derivative.
            possible = ~jnp.isneginf(log_prob)
            prob = jnp.where(possible, jnp.exp(jnp.where(possible, log_prob, 0)), 0)
        total = jnp.sum(prob, axis=0)
        if rounding > 1e-4:
            # Of 16 bits: some rounding errors of each log p, or of p.
            error += rounding * (1 + jnp.sum(jax.scipy.special.entr(stop(prob)), axis=0))
        sound = certified(
            jnp.all(jnp.abs(total - 1) < error),
            f"Enumerate needs probabilities that add up to 1. Over its support those of "
            f"{type(distribution.params).__name__} do not: a part of the support is missing, or "
            f"log_prob is not that of the draws (a mask leaves factors out of it).",
        )
        if discrete is None:
            # The density does not say how the probability of an impossible value would move:
            # the others share it, as if it stayed 0.
            stays = jnp.any(prob == 0, axis=0)
            prob = prob * jnp.where(stays, stop(total) / jnp.where(stays, total, 1), 1)

        def expected(cost: jax.Array) -> jax.Array:
            check_factor_axes(cost, prob.shape)
            along = prob.shape + (1,) * (cost.ndim - prob.ndim)
            cost = cost.astype(wide(cost.dtype, prob.dtype))
            weight = prob.reshape(along).astype(cost.dtype)
            # An impossible value of infinite cost does not enter the sum: nor may its probability
            # move, unlike that of a finite cost.
            counts = (weight > 0) | jnp.isfinite(cost)
            mean = jnp.sum(weight * jnp.where(counts, cost, 0), axis=0)
            left_out = jnp.sum(jnp.where(counts, 0, weight), axis=0)
            finite = stop(jnp.where(jnp.isfinite(mean), mean, 0))
            return (mean + left_out * finite) * sound.astype(mean.dtype)

        return jax.tree.map(
            lambda cost: jnp.broadcast_to(
                expected(cost).astype(cost.dtype), (len(keys), *cost.shape[1:])
            ),
            costs,
        ), aux

    def values(self, distribution: Distribution, key: jax.Array) -> PyTree:
        """All values of a draw; with `factor_ndim`, all values of each factor in parallel."""
        if self.support is None:
            return _support(distribution, key, self.max_size, self.factor_ndim)
        if not all(jnp.ndim(leaf) for leaf in jax.tree.leaves(self.support)):
            raise ValueError(
                f"support must hold all values of a draw along a leading axis, got "
                f"{self.support!r}. A bound on their number is max_size=."
            )
        if self.factor_ndim == 0:
            # A sampler of one's own is not needed here, and may be anything.
            if class_of(distribution.params):
                self._check_shapes(jax.eval_shape(distribution.draw, key))
            return self.support

        def spread(values: Any, draw: Any) -> jax.Array:
            lead = draw.shape[: self.factor_ndim]
            values = jnp.asarray(values)
            rows = values.reshape(len(values), *(1 for _ in lead), *values.shape[1:])
            return jnp.broadcast_to(rows, (len(values), *draw.shape))

        return jax.tree.map(spread, self.support, jax.eval_shape(distribution.draw, key))

    def _check_shapes(self, draw: PyTree) -> None:
        # Sorted, since a support may be another container than a draw, as a dict of a tuple.
        given = sorted(jnp.shape(leaf)[1:] for leaf in jax.tree.leaves(self.support))
        wanted = sorted(leaf.shape for leaf in jax.tree.leaves(draw))
        if given != wanted:
            raise ValueError(
                f"support must hold all values of a whole draw, with leaves of shapes {wanted}, "
                f"got {given}. For the values of one factor give factor_ndim."
            )


def _support(
    distribution: Distribution, key: jax.Array, max_size: int, factor_ndim: int
) -> jax.Array:
    factors = read_factors(distribution, key)
    if factors is not None:
        *batch, size = (
            (*factors.logits.shape, 2) if isinstance(factors, Bernoulli) else factors.logits.shape
        )
        return factors.cast(_product(size, tuple(batch), max_size, factor_ndim))
    listed = enumerated(distribution.params)
    if listed is not None:
        size, values, batch_shape = listed
        rows = _product(size, batch_shape, max_size, factor_ndim)
        return values()[rows]
    raise ValueError(
        f"Enumerate cannot read the support of {type(distribution.params).__name__}. Give "
        f"all values of a draw, as Enumerate(support=values) with values of shape [S, ...] or a "
        f"pytree of such arrays. Use ScoreFunction if the support is infinite."
    )


def _product(size: int, batch: tuple[int, ...], max_size: int, factor_ndim: int) -> jax.Array:
    """All assignments of 0 .. size-1 to the factors of the batch, [size^factors, *batch].

    Assignments are constant along the first `factor_ndim` axes of the batch.
    """
    lead, block = batch[:factor_ndim], batch[factor_ndim:]
    factors = math.prod(block)
    if size**factors > max_size:
        power = f"{size}^{factors} = " if factors > 1 else ""
        raise ValueError(
            f"Enumerate would sum over {power}{size**factors} values, more than "
            f"max_size={max_size}. Raise max_size; or, if f returns one cost for each factor that "
            f"depends on this factor only, give factor_ndim=1; or use ScoreFunction."
        )
    rows = np.array(list(itertools.product(range(size), repeat=factors)), int)
    rows = rows.reshape(size**factors, *(1 for _ in lead), *block)
    return jnp.asarray(np.broadcast_to(rows, (size**factors, *batch)))


def _joint(table: jax.Array, batch: tuple[int, ...], ndim: int) -> jax.Array:
    """The probabilities of all assignments, [S, *batch[:ndim]], in the order of `_product`."""
    lead = batch[:ndim]
    table = jnp.broadcast_to(table, (*batch, table.shape[-1])).astype(wide(table.dtype))
    table = table.reshape(*lead, -1, table.shape[-1])
    joint = jnp.ones((*lead, 1), table.dtype)
    for i in range(table.shape[-2]):
        # Factor by factor: about two products for each assignment, and exact where some are 0.
        joint = (joint[..., :, None] * table[..., i, None, :]).reshape(*lead, -1)
    return jnp.moveaxis(joint, -1, 0)


def _looked_up(table: jax.Array, index: jax.Array, ndim: int) -> jax.Array:
    """The probability of a draw, from that of each value of each factor, [..., C]."""
    table = jnp.broadcast_to(table, (*index.shape, table.shape[-1])).astype(wide(table.dtype))
    each = jnp.take_along_axis(table, index[..., None], axis=-1)[..., 0]
    return jnp.prod(each, axis=tuple(range(ndim, each.ndim)))
