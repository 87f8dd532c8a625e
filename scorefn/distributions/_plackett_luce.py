"""Rankings of items, drawn one after the other without replacement."""

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


@pytree_dataclass
class PlackettLuce(OfLogits):
    r"""Rankings of the first k of n items, drawn one by one without replacement.

    .. code-block:: text

        p(x) = prod_j exp(logits[x_j]) / sum of exp(logits) over the items not in x_1 .. x_{j-1}

    A draw sorts the logits plus Gumbel noise (the Gumbel top-k trick), whose probabilities are
    right to about 2^-24 (float64: 2^-53). log_prob takes O(n + k). A constant that is added to all
    logits changes nothing.

    Infinite logits are limits: items of plus infinity come first, those of minus infinity last, and
    in any order among themselves. No derivative passes along them.

    Attributes:
        logits: [..., n], in nats; a draw has shape [..., k], and holds indices 0 .. n-1, in int32.
        k: the number of ranked items, a static int from 1 to n; None ranks all n.

    Raises:
        ValueError: the logits are a scalar; k is not in 1 .. n.
        TypeError: k is not a static int.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> podium = PlackettLuce(jnp.zeros(5), k=3)
        >>> draw = podium.sample(jax.random.key(0))
        >>> print(draw.shape, f"{jnp.exp(podium.log_prob(draw)):.4f}")
        (3,) 0.0167

    References:
        Plackett, The analysis of permutations (1975); Yellott, The relationship between Luce's
        choice axiom, Thurstone's theory of comparative judgment, and the double exponential
        distribution (1977).
    """

    logits: jax.Array
    k: int | None = static_field(default=None)

    def __post_init__(self) -> None:
        super().__post_init__()
        shape = jnp.shape(self.logits)
        if not shape:
            raise ValueError(
                "PlackettLuce needs logits of shape [..., n], one for each item; got a scalar."
            )
        if self.k is not None and check_count("k", self.k) > shape[-1]:
            raise ValueError(
                f"k must be at most the number of items, {shape[-1]} (the last axis of the logits, "
                f"of shape {shape}); got {self.k}."
            )

    @property
    def length(self) -> int:
        """The number of ranked items."""
        return jnp.shape(self.logits)[-1] if self.k is None else self.k

    def log_probs(self, x: jax.Array) -> jax.Array:
        """The log-probability of each ranking of a draw, [...]; minus infinity for other arrays."""
        logits, levels = self._levels()
        return jnp.vectorize(_log_prob, signature="(n),(n),(k)->()")(
            logits, levels, jnp.asarray(x, jnp.int32)
        )

    def sample(self, key: jax.Array) -> jax.Array:
        """One draw, [..., k]. The key is consumed."""
        logits, levels = stop(self._levels())
        noisy = logits + jax.random.gumbel(key, logits.shape, logits.dtype)
        index = jnp.broadcast_to(jnp.arange(logits.shape[-1], dtype=jnp.int32), logits.shape)
        return jax.lax.sort((-levels, -noisy, index), num_keys=2)[2][..., : self.length]

    @property
    def num_values(self) -> int:
        """The number of rankings, n! / (n - k)!."""
        return math.perm(jnp.shape(self.logits)[-1], self.length)

    def values(self) -> jax.Array:
        """All rankings of one factor, [num_values, k]."""
        n = jnp.shape(self.logits)[-1]
        return jnp.array(np.array(list(itertools.permutations(range(n), self.length)), np.int32))

    def _levels(self) -> tuple[jax.Array, jax.Array]:
        """The logits below their largest, with 0 for infinite ones, whose signs are the levels."""
        logits = as_float(self.logits)
        logits = logits.astype(wide(logits.dtype))
        infinite = jnp.isinf(logits)
        finite = jnp.where(infinite, 0, logits)
        top = jnp.max(jnp.where(infinite, -jnp.inf, logits), axis=-1, keepdims=True)
        finite = finite - stop(jnp.where(infinite | jnp.isinf(top), 0, top))
        return finite, jnp.where(infinite, jnp.sign(stop(logits)), 0)


def _log_prob(logits: jax.Array, levels: jax.Array, x: jax.Array) -> jax.Array:
    """The log-probability of one ranking [k] of items [n] of three levels."""
    (n,), (k,) = logits.shape, x.shape
    # Negative indices become too large, and are dropped.
    index = x.astype(jnp.uint32)
    counts = jnp.zeros(n, jnp.int32).at[index].add(1, mode="drop")
    valid = (jnp.max(counts) <= 1) & (jnp.sum(counts) == k)
    if k < n:
        rest = counts == 0
        level = jnp.max(levels, where=rest, initial=-jnp.inf)
        total = jax.nn.logsumexp(logits, where=rest & (levels == level))
    else:
        nothing = jnp.full((), -jnp.inf, logits.dtype)
        level, total = as_local((nothing, nothing), (logits, x))

    def before(
        later: tuple[jax.Array, jax.Array], item: tuple[jax.Array, jax.Array]
    ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
        # The level of the later items, the log-sum of those of the highest, and this item's.
        (level, total), (own, logit) = later, item
        total = jnp.where(own == level, total, -jnp.inf)
        log_prob = jnp.where(own < level, -jnp.inf, -jax.nn.softplus(total - logit))
        return (own, jnp.logaddexp(total, logit)), log_prob

    items = (levels.at[index].get(mode="clip"), logits.at[index].get(mode="clip"))
    _, log_probs = jax.lax.scan(before, (level, total), items, reverse=True)
    return jnp.where(valid, jnp.sum(log_probs), -jnp.inf)
