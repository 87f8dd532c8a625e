"""One categorical factor, for estimators that draw without replacement."""

import math
from dataclasses import dataclass

import jax

from scorefn._core.arrays import stop, wide
from scorefn.distributions._discrete import Categorical, OneHotCategorical
from scorefn.distributions._distribution import Distribution
from scorefn.distributions._interop.factors import read_factors
from scorefn.estimators._base import Estimator


@dataclass(frozen=True)
class OneFactor:
    """One categorical factor.

    Attributes:
        log_probs: [C], in nats.
        factors: the distribution as a record, with the shape and dtype of a draw.
    """

    log_probs: jax.Array
    factors: Categorical | OneHotCategorical

    def draws(self, index: jax.Array) -> jax.Array:
        """Indices of categories, [n], as draws [n, ...]."""
        batch = self.factors.logits.shape[:-1]
        return self.factors.cast(index.reshape(*index.shape, *(1 for _ in batch)))

    def without_replacement(self, key: jax.Array, k: int) -> jax.Array:
        """The indices of k distinct categories, in the order of the draws."""
        # Sorted by Gumbel noise (Vieira 2014); impossible categories come last.
        log_probs = stop(self.log_probs)
        noise = jax.random.gumbel(key, log_probs.shape, log_probs.dtype)
        return jax.lax.top_k(log_probs + noise, k)[1]


def one_factor(estimator: Estimator, distribution: Distribution, key: jax.Array) -> OneFactor:
    """The distribution as one categorical factor.

    Raises:
        TypeError: the distribution is not one categorical factor.
    """
    factors = read_factors(distribution, key)
    kind = f"{type(distribution.params).__name__}"
    if isinstance(factors, Categorical | OneHotCategorical):
        several = math.prod(factors.logits.shape[:-1])
        if several == 1:
            dtype = wide(factors.logits.dtype)
            log_probs = jax.nn.log_softmax(factors.logits.astype(dtype).reshape(-1))
            return OneFactor(log_probs, factors)
        kind = f"{several} independent factors"
    raise TypeError(
        f"{type(estimator).__name__} needs one categorical factor, as scorefn.Categorical(logits) "
        f"with logits of shape [C] or that of a library, got {kind}. CoupledCategorical and "
        f"LocalExpectation fit several independent factors, ScoreFunction fits every distribution."
    )
