"""Subsets of a given size, with probabilities in proportion to products of weights."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from scorefn._core.arrays import as_float, as_local, stop, wide
from scorefn._core.checks import check_count
from scorefn._core.pytree import pytree_dataclass, static_field

from ._discrete import OfLogits
from ._integer_icdf import bits_at, words

# Halvings of an interval of length 130 or so; what is left moves no digit.
_HALVINGS = 24


@pytree_dataclass
class Subset(OfLogits):
    r"""Subsets of k of n items: independent bits, given that k of them are 1.

    .. code-block:: text

        p(b) = exp(b . logits) / e_k,  for b of zeros and k ones;  e_k sums over all such b

    Also called the conditional Bernoulli distribution, or a k-subset (k-hot) distribution. All sums
    are exact, by dynamic programming in O(n k), and differentiable at every order: the derivative
    of log_prob along the logits is b - marginals. A constant that is added to all logits changes
    nothing. Conditional probabilities of draws are right to 2^-32 (float64: 2^-64) and to rounding.

    Infinite logits are limits: plus infinity is a certain item, minus infinity an impossible one.
    If more than k items are certain, k of them are drawn uniformly; if fewer than k are possible,
    the others are drawn uniformly from the impossible ones. No derivative passes along them.

    Attributes:
        logits: [..., n], in nats; a draw has the shape and the dtype of the logits.
        k: the number of ones, a static int from 0 to n.

    Raises:
        ValueError: the logits are a scalar; k is not in 0 .. n.
        TypeError: k is not a static int.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> pairs = Subset(jnp.array([0.0, 0.0, jnp.log(2.0)]), k=2)
        >>> print(pairs.sample(jax.random.key(0)).sum(), pairs.marginals())
        2.0 [0.6 0.6 0.8]

    References:
        Chen, Dempster and Liu, Weighted finite population sampling to maximize entropy (1994).
    """

    logits: jax.Array
    k: int = static_field()

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = jnp.shape(self.logits)
        if not shape:
            raise ValueError(
                "Subset needs logits of shape [..., n], one for each item; got a scalar."
            )
        if check_count("k", self.k, at_least=0) > shape[-1]:
            raise ValueError(
                f"k must be at most the number of items, {shape[-1]} (the last axis of the logits, "
                f"of shape {shape}); got {self.k}."
            )

    def log_prob(self, x: jax.Array) -> jax.Array:
        """The log-probability of one draw: a scalar, summed over the subsets of the batch."""
        return jnp.sum(self.log_probs(x))

    def log_probs(self, x: jax.Array) -> jax.Array:
        """The log-probability of each subset of a draw, [...]; minus infinity for other vectors."""
        logits = self.tilted()
        x = jnp.asarray(x, logits.dtype)
        certain, impossible = jnp.isposinf(logits), jnp.isneginf(logits)
        fits = ((x == 0) & ~certain) | ((x == 1) & ~impossible)
        possible = jnp.all(fits, axis=-1) & (jnp.sum(x, axis=-1) == self.k)
        return jnp.where(possible, _linear_log_probs(logits, x, self.k), -jnp.inf)

    def marginals(self) -> jax.Array:
        """The probability of each item, [..., n]: k in all, in float32 or wider."""
        return _marginals(self.tilted(), self.k)

    def covariance(self) -> jax.Array:
        """The covariance of the items, [n, n], in O(n^2 k); without a batch."""
        logits = self.tilted()
        if logits.ndim > 1:
            raise ValueError(f"covariance takes logits [n], got {logits.shape}; use jax.vmap.")
        return jax.jacfwd(lambda logits: _marginals(logits, self.k))(logits)

    def entropy(self) -> jax.Array:
        """The entropy in nats: a scalar, summed over the subsets of the batch."""
        # The log-probability of k ones is linear in the draw.
        logits = self.tilted()
        return -jnp.sum(_linear_log_probs(logits, _marginals(logits, self.k), self.k))

    def sample(self, key: jax.Array) -> jax.Array:
        """One draw, shaped like the logits. The key is consumed."""
        logits = stop(self.tilted())
        on, off = _items(logits)

        def back(tail: jax.Array, item: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return _with_item(tail, item), tail

        # For each item and number of ones to come, the log-odds that the item is one of them.
        _, tails = jax.lax.scan(back, _no_items(on[0], self.k), (on, off), reverse=True)
        taken, left = on[..., None] * _shifted(tails), off[..., None] * tails
        can = taken > 0
        table = jnp.where(can, jnp.log(jnp.where(can, taken, 1)) - jnp.log(left), -jnp.inf)

        def choose(
            missing: jax.Array, item: tuple[jax.Array, jax.Array]
        ) -> tuple[jax.Array, jax.Array]:
            word, log_odds = item
            bit = bits_at(word, jnp.take_along_axis(log_odds, missing[..., None], axis=-1)[..., 0])
            return missing - bit.astype(jnp.int32), bit

        random = jnp.moveaxis(words(key, logits.shape, logits), -1, 0)
        missing = as_local(jnp.full(logits.shape[:-1], self.k, jnp.int32), (random, table))
        _, bits = jax.lax.scan(choose, missing, (random, table))
        return jnp.moveaxis(bits, 0, -1).astype(as_float(self.logits).dtype)

    @property
    def num_values(self) -> int:
        """The number of subsets, n choose k."""
        return math.comb(jnp.shape(self.logits)[-1], self.k)

    def values(self) -> jax.Array:
        """All subsets of one factor, [num_values, n]."""
        n = jnp.shape(self.logits)[-1]
        rows = np.array(list(itertools.combinations(range(n), self.k)), int)
        hot = np.zeros((len(rows), n))
        np.put_along_axis(hot, rows.reshape(len(rows), self.k), 1, axis=1)
        return jnp.asarray(hot, as_float(self.logits).dtype)

    def tilted(self) -> jax.Array:
        """Logits of independent bits that, given k ones, are this distribution.

        They are infinite for certain and impossible items. k is their most probable number of ones,
        so that no sum over subsets overflows or underflows.
        """
        logits = as_float(self.logits)
        logits = logits.astype(wide(logits.dtype))
        n = logits.shape[-1]
        if self.k in (0, n):
            return jnp.full_like(logits, jnp.inf if self.k else -jnp.inf)
        certain, impossible = jnp.isposinf(logits), jnp.isneginf(logits)
        surplus = jnp.sum(certain, axis=-1, keepdims=True) > self.k
        shortage = jnp.sum(impossible, axis=-1, keepdims=True) > n - self.k
        logits = jnp.where(surplus, jnp.where(certain, 0, -jnp.inf), logits)
        logits = jnp.where(shortage, jnp.where(impossible, 0, jnp.inf), logits)
        return jnp.where(jnp.isinf(logits), logits, logits - _center(stop(logits), self.k))


def _linear_log_probs(logits: jax.Array, x: jax.Array, k: int) -> jax.Array:
    """The log-probability, which is linear in draws x of k ones, for tilted logits."""
    infinite = jnp.isinf(logits)
    finite = jnp.where(infinite, 0, logits)
    each = jnp.where(infinite, 0, x * finite - jax.nn.softplus(finite))
    return jnp.sum(each, axis=-1) - _log_sum(logits, k)


def _marginals(logits: jax.Array, k: int) -> jax.Array:
    log_sum = lambda logits: jnp.sum(_log_sum(logits, k))  # noqa: E731
    return jnp.moveaxis(_items(logits)[0], 0, -1) + jax.grad(log_sum)(logits)


def _log_sum(logits: jax.Array, k: int) -> jax.Array:
    """The log-probability of k ones among independent bits, [...]."""
    items = _items(logits)
    step = lambda head, item: (_with_item(head, item), None)  # noqa: E731
    return jnp.log(jax.lax.scan(step, _no_items(items[0][0], k), items)[0][..., -1])


def _items(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The probabilities of 1 and of 0 of independent bits, [n, ...] each."""
    logits = jnp.moveaxis(logits, -1, 0)
    infinite, one = jnp.isinf(logits), (logits > 0).astype(logits.dtype)
    finite = jnp.where(infinite, 0, logits)
    on = jnp.where(infinite, one, jax.nn.sigmoid(finite))
    return on, jnp.where(infinite, 1 - one, jax.nn.sigmoid(-finite))


def _no_items(like: jax.Array, k: int) -> jax.Array:
    """The probabilities of 0 .. k ones among no bits, [..., k + 1]."""
    return as_local(jnp.zeros((*like.shape, k + 1), like.dtype).at[..., 0].set(1), like)


def _with_item(counts: jax.Array, item: tuple[jax.Array, jax.Array]) -> jax.Array:
    """The probabilities of 0 .. k ones with one more bit. All terms are positive."""
    on, off = item
    return off[..., None] * counts + on[..., None] * _shifted(counts)


def _shifted(counts: jax.Array) -> jax.Array:
    return jnp.pad(counts[..., :-1], [(0, 0)] * (counts.ndim - 1) + [(1, 0)])


def _center(logits: jax.Array, k: int) -> jax.Array:
    """A number c so that bits of logits - c have about k ones in expectation, [..., 1]."""
    n, most = logits.shape[-1], jnp.finfo(logits.dtype).max / 4
    logits = jnp.clip(logits, -most, most)
    ordered = jnp.sort(logits, axis=-1)
    last, first_out = ordered[..., n - k, None], ordered[..., n - k - 1, None]
    # c lies between these, and anywhere far from both if they are far apart.
    middle, reach = last / 2 + first_out / 2, 64 + math.log(n)
    low = jnp.maximum(first_out - math.log(k), middle - reach)
    high = jnp.minimum(last + math.log(n - k), middle + reach)

    def halve(_: int, ends: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = ends
        middle = low / 2 + high / 2
        too_many = jnp.sum(jax.nn.sigmoid(logits - middle), axis=-1, keepdims=True) > k
        return jnp.where(too_many, middle, low), jnp.where(too_many, high, middle)

    low, high = jax.lax.fori_loop(0, _HALVINGS, halve, (low, high))
    return low / 2 + high / 2
