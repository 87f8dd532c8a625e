"""Distributions of independent discrete factors: bits and categories."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from scorefn._core.arrays import as_float, wide
from scorefn._core.pytree import pytree_dataclass, static_field

from ._integer_icdf import bits_at, categories_at, words


class OfLogits:
    """Logits of a record, checked."""

    logits: jax.Array

    def log_prob(self, x: jax.Array) -> jax.Array:
        """The log-probability of one draw: a scalar, summed over the factors."""
        return jnp.sum(self.log_probs(x))

    @abstractmethod
    def log_probs(self, x: jax.Array) -> jax.Array:
        """The log-probability of each factor of a draw, [...]."""

    def __new__(cls, *_: Any, **given: Any) -> Any:
        if "probs" in given:
            log_odds = "jax.scipy.special.logit" if cls.__name__ == "Bernoulli" else "jnp.log"
            raise TypeError(
                f"{cls.__name__} takes logits, got probs; write {cls.__name__}({log_odds}(probs))."
            )
        return super().__new__(cls)

    def __post_init__(self) -> None:
        # A list would be several leaves of the pytree.
        if isinstance(self.logits, list | tuple):
            object.__setattr__(self, "logits", jnp.asarray(self.logits))

    def plain(self) -> jax.Array:
        """The logits as an array of floats."""
        return as_float(self.logits)


class _OfCategories(OfLogits):
    def plain(self) -> jax.Array:
        """The logits, [..., C], without plus infinity: it excludes all that is finite."""
        logits = as_float(self.logits)
        if logits.ndim == 0:
            raise ValueError(
                f"{type(self).__name__} needs logits of shape [..., C], one for each category; "
                f"got a scalar. For a bit use Bernoulli(logits)."
            )
        # The next to largest excludes all others as well, and has no nan as a derivative.
        most = jnp.full_like(logits, jnp.finfo(logits.dtype).max)
        return jax.lax.min(logits, most)

    def sample(self, key: jax.Array) -> jax.Array:
        """One draw, with one category for each factor. The key is consumed."""
        logits = self.plain()
        return self.draw_from(words(key, logits.shape[:-1], logits))

    def draw_from(self, words: jax.Array) -> jax.Array:
        """The draw given uniform integers; the category increases with them."""
        return self.cast(categories_at(words, self.plain()))

    @abstractmethod
    def cast(self, index: jax.Array) -> jax.Array:
        """A draw of the given categories, [...]."""


@pytree_dataclass
class Bernoulli(OfLogits):
    """Independent bits, given by their logits.

    A draw uses one uniform integer for each bit. Its probability is right to 2^-32 (float64: 2^-64)
    and to the rounding of its sigmoid.

    Attributes:
        logits: [...], log-odds of 1 in nats; a draw has the shape of the logits.
        dtype: the dtype of the draws; None is the dtype of the logits.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> bits = Bernoulli(jnp.zeros(3))
        >>> print(bits.sample(jax.random.key(0)).shape, bits.log_prob(jnp.ones(3)))
        (3,) -2.0794415
    """

    logits: jax.Array
    dtype: DTypeLike | None = static_field(default=None)

    def log_probs(self, x: jax.Array) -> jax.Array:
        """The log-probability of each bit of a draw, [...]."""
        # Infinite logits are clamped, for finite derivatives. The log-probability of what they
        # exclude then overflows to -infinity: no comparison with x, as moving supports have.
        given = self.plain()
        most = jnp.full_like(given, jnp.finfo(given.dtype).max / 2)
        logits = jnp.clip(given, -most, most)
        # Stopped: these comparisons lose no derivative, and the guards need not follow them.
        fixed = jax.lax.stop_gradient(given)
        overflow = jnp.where(jnp.isinf(fixed), 4, 1).astype(given.dtype)
        # max(l, 0) + log1p(exp(-|l|)), by branches: the derivatives of max and abs at 0 do not add
        # up to 1/2.
        positive = fixed >= 0
        size = jnp.where(positive, logits, -logits)
        log_normalizer = jnp.where(positive, logits, 0) + jnp.log1p(jnp.exp(-size))
        return (jnp.asarray(x, logits.dtype) * logits - log_normalizer) * overflow

    def sample(self, key: jax.Array) -> jax.Array:
        """One draw, shaped like the logits. The key is consumed."""
        return self.draw_from(words(key, jnp.shape(self.logits), self.logits))

    def draw_from(self, words: jax.Array) -> jax.Array:
        """The draw given uniform integers: 1 for low ones; ``~words`` give its mirror image."""
        return self.cast(bits_at(words, self.logits))

    def noise(self, key: jax.Array) -> jax.Array:
        """Standard logistic noise for one draw, symmetric about 0. The key is consumed."""
        dtype = wide(jnp.asarray(self.logits).dtype)
        return jax.random.logistic(key, jnp.shape(self.logits), dtype)

    def draw_at(self, noise: jax.Array) -> jax.Array:
        """The draw at given logistic noise: 1 where the noise is below the logit.

        Noise in float32 does not resolve probabilities below 2^-23.
        """
        # With u = sigmoid(noise) this is u < sigmoid(logit), accurate for logits of any size.
        return self.cast(noise < jnp.asarray(self.logits, noise.dtype))

    def cast(self, bits: jax.Array) -> jax.Array:
        """Bits of any dtype as draws."""
        return bits.astype(jnp.asarray(self.logits).dtype if self.dtype is None else self.dtype)


@pytree_dataclass
class Categorical(_OfCategories):
    """Independent categories, given by their logits.

    A draw is made by the inverse cdf from one uniform integer for each factor. The probability of a
    category has an error of at most 2^-30 + 2^-18 p (float64: 2^-62 + 2^-47 p), for any number of
    categories, and is 0 if p is 0. The Gumbel noise of `jax.random.categorical`, one number for
    each category, is right to about 2^-24 and takes C times the memory.

    Attributes:
        logits: [..., C], normalized or not, in nats; a draw has shape [...] and values 0 .. C-1.
        dtype: the dtype of the draws.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(Categorical(jnp.zeros((3, 4))).sample(jax.random.key(0)).shape)
        (3,)
    """

    logits: jax.Array
    dtype: DTypeLike = static_field(default=jnp.int32)

    def log_probs(self, x: jax.Array) -> jax.Array:
        """The log-probability of each factor of a draw, [...]."""
        # Negative ones become too large, and what is too large has no probability.
        index = jnp.asarray(x, jnp.int32).astype(jnp.uint32)[..., None]
        table = jax.nn.log_softmax(self.plain())
        return jnp.take_along_axis(table, index, -1, mode="fill", fill_value=-jnp.inf)[..., 0]

    def cast(self, index: jax.Array) -> jax.Array:
        """Indices of categories, [...], as draws."""
        return index.astype(self.dtype)


@pytree_dataclass
class OneHotCategorical(_OfCategories):
    """Independent categories with one-hot draws, given by their logits.

    Draws are made as for `Categorical`.

    Attributes:
        logits: [..., C], normalized or not, in nats; a draw has the shape of the logits.
        dtype: the dtype of the draws; None is the dtype of the logits.

    Example:
        >>> import jax, jax.numpy as jnp
        >>> print(OneHotCategorical(jnp.zeros((3, 4))).sample(jax.random.key(0)).sum(-1))
        [1. 1. 1.]
    """

    logits: jax.Array
    dtype: DTypeLike | None = static_field(default=None)

    def log_probs(self, x: jax.Array) -> jax.Array:
        """The log-probability of each factor of a draw, [...]."""
        log_probs = jax.nn.log_softmax(self.plain())
        return jnp.sum(jnp.where(jnp.asarray(x, bool), log_probs, 0), axis=-1)

    def cast(self, index: jax.Array) -> jax.Array:
        """Indices of categories, [...], as draws."""
        dtype = jnp.asarray(self.logits).dtype if self.dtype is None else self.dtype
        return jax.nn.one_hot(index, jnp.shape(self.logits)[-1], dtype=dtype)


Factors = Bernoulli | Categorical | OneHotCategorical
F = TypeVar("F", bound=Factors)


def with_float_draws(factors: F) -> F:
    """The factors with float draws, in their own dtype or that of the logits."""
    logits = jnp.asarray(factors.logits).dtype
    ours = logits if factors.dtype is None else factors.dtype
    floats = [d for d in (ours, logits) if jnp.issubdtype(d, jnp.floating)]
    return replace(factors, dtype=floats[0] if floats else wide(logits))
